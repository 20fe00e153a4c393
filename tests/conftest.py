"""What the tests share: a tiny random model with its own tokenizer, a small mirror of all datasets, a nursery."""

import json
import multiprocessing
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tqdm import tqdm

os.environ.update(WANDB_MODE="offline", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")
for name in ("AMURO_DATA_DIR", "AMURO_NURSERY", "WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR"):
    os.environ.pop(name, None)

# A bar's own lock is shared with forked processes: one that is killed while it draws would stop all others for ever.
tqdm.set_lock(threading.RLock())

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real-data mirror is not at {SHARED}")

# The files that take longest, first: of two processes neither then waits for the other's last file for long.
LONG = "runner faults wandb distributed engine page report airgap train evaluation sync resume demo".split()


def pytest_collection_modifyitems(items):
    order = {f"test_{name}": number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))


WORDS = "the a red old small dog cat bird house river man woman sees finds wants takes hill town rain sun".split()


def run(*command, **env) -> subprocess.CompletedProcess:
    """A command as a user types it, from the repository's root."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )


def forked(target, *arguments) -> multiprocessing.Process:
    """A started process that calls `target`: what is imported here needs no seconds there."""
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    process.start()
    return process


def sentence(rng: random.Random, n: int = 8) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(n)).capitalize() + "."


def mirror_rows(rng: random.Random, n: int) -> dict[str, list[dict]]:
    """`n` rows for every file of a mirror, under the hub's field names."""

    def text() -> str:
        return sentence(rng, rng.randint(4, 12))

    def summary(source: str, target: str) -> list[dict]:
        return [{source: " ".join(text() for _ in range(3)), target: text()} for _ in range(n)]

    def pairs(first: str, second: str, labels) -> list[dict]:
        return [{first: text(), second: text(), "label": labels[i % len(labels)]} for i in range(n)]

    answers = [{"context": text(), "question": text(), "answer": text()} for _ in range(n)]
    lettered = [
        {"context": text(), "question": text(), "answerA": text(), "answerB": text(), "answerC": text(), "label": "2"}
        for _ in range(n)
    ]
    files = {
        "xsum/train": summary("document", "summary"),
        "xsum/test": summary("document", "summary"),
        "xlsum/test": summary("text", "summary"),
        "cnn_dailymail/test": summary("article", "highlights"),
        "social_i_qa/train": answers,
        "social_i_qa/validation": lettered,
        "sciq/test": [{"support": text(), "correct_answer": text(), "question": text()} for _ in range(n)],
        "tweet_qa/validation": [{"Tweet": text(), "Answer": [text()], "Question": text()} for _ in range(n)],
        "glue_mnli/train": pairs("premise", "hypothesis", (0, 1, 2)),
        "glue_mnli/validation_matched": pairs("premise", "hypothesis", (0, 1, 2)),
        "glue_mnli/validation_mismatched": pairs("premise", "hypothesis", (0, 1, 2)),
        "glue_rte/validation": pairs("sentence1", "sentence2", (0, 1)),
        "gpt3_nli/train": pairs("text_a", "text_b", (0, 1, 2)),
        "paws/train": pairs("sentence1", "sentence2", (0, 1)),
        "paws/test": pairs("sentence1", "sentence2", (0, 1)),
        "glue_qqp/validation": pairs("question1", "question2", (0, 1)),
        "glue_stsb/validation": pairs("sentence1", "sentence2", (0.5, 4.5)),
    }

    def lettered(field: str, letters: str, end: str = "") -> list[dict]:
        both = lambda: {"text": [text() for _ in letters], "label": list(letters)}  # noqa: E731
        return [{field: text() + end, "choices": both(), "answerKey": letters[i % len(letters)]} for i in range(n)]

    def endings() -> list[dict]:  # with what the harness cleans, and an empty second part in every third row
        parts = lambda i: {"ctx_a": f"[header] {text()} [title] {text()}", "ctx_b": text().lower() * (i % 3 > 0)}  # noqa: E731
        some = lambda: [f"{text()}  [substeps] {text()}", *(text() for _ in range(3))]  # noqa: E731
        return [{"activity_label": " Rain", **parts(i), "endings": some(), "label": str(i % 4)} for i in range(n)]

    def distractors() -> list[dict]:  # some without support, some with space at its start
        names = ("question", "distractor1", "distractor2", "distractor3", "correct_answer")
        return [{**{name: text() for name in names}, "support": ("", " " + text(), text())[i % 3]} for i in range(n)]

    def passages() -> list[dict]:
        return [{"passage": text(), "question": text()[:-1].lower(), "answer": i % 2 == 0} for i in range(n)]

    def conversations() -> list[dict]:  # of one to three exchanges, every fourth with a system turn
        turns = lambda i: [{"role": ("user", "assistant")[k % 2], "content": text()} for k in range(2 + 2 * (i % 3))]  # noqa: E731
        system = [{"role": "system", "content": text()}]
        return [{"dataset": "toy", "id": f"toy_{i}", "messages": system * (i % 4 == 0) + turns(i)} for i in range(n)]

    return files | {
        "ai2_arc_easy/train": lettered("question", "ABCD"),
        "ai2_arc_easy/validation": lettered("question", "1234"),
        "ai2_arc_challenge/validation": lettered("question", "ABC"),
        "openbookqa/train": lettered("question_stem", "ABCD"),
        "openbookqa/validation": lettered("question_stem", "ABCD", end=" "),
        "hellaswag/validation": endings(),
        "boolq/train": passages(),
        "boolq/validation": passages(),
        "sciq/validation": distractors(),
        "instruction_mix/train": conversations(),
    }


def write_jsonl(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="session")
def mirror(tmp_path_factory) -> Path:
    """A mirror folder of all nineteen tasks and of conversations, 24 rows a file."""
    folder = tmp_path_factory.mktemp("mirror")
    for name, rows in mirror_rows(random.Random(0), 24).items():
        write_jsonl(folder / f"{name}.jsonl", rows)
    return folder


def make_tokenizer(kind: str = "bytes", vocab_size: int = 700):
    """A tokenizer of the test words and all prompt text: byte-level BPE, or SentencePiece-like ("metaspace")."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from amuro.prompts import TEMPLATES

    rng = random.Random(1)
    labels = "entailment neutral contradiction yes no"
    texts = [sentence(rng) for _ in range(200)] + [t for family in TEMPLATES.values() for t in family.values()] * 20
    texts += [f"the {labels} the {labels.title()}"] * 50
    tokenizer = Tokenizer(models.BPE(byte_fallback=kind != "bytes"))
    if kind == "bytes":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder, alphabet = decoders.ByteLevel(), pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder, alphabet = decoders.Metaspace(), []
    special = ["<|endoftext|>", "<|padding|>"]
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    if kind != "bytes":  # a byte that is in no word is a token of its own, as in SentencePiece: no text is lost
        made = json.loads(tokenizer.to_str())
        made["model"]["vocab"] |= {f"<0x{byte:02X}>": tokenizer.get_vocab_size() + byte for byte in range(256)}
        made["decoder"] = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, made["decoder"]]}
        tokenizer = Tokenizer.from_str(json.dumps(made))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=special[0], pad_token=special[1])


def make_checkpoint(folder: Path, seed: int = 0, context: int = 2048, kind: str = "bytes") -> Path:
    """A random OLMo of some 100 k parameters as a plain checkpoint folder."""
    import torch
    from transformers import OlmoConfig, OlmoForCausalLM

    tokenizer = make_tokenizer(kind)
    torch.manual_seed(seed)
    config = OlmoConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=context,
        pad_token_id=1,
        eos_token_id=0,
        bos_token_id=None,
    )
    OlmoForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def family(tmp_path_factory) -> Path:
    """A family folder of two random checkpoints."""
    folder = tmp_path_factory.mktemp("family")
    for step in (10, 20):
        make_checkpoint(folder / f"step-{step}", seed=step)
    checkpoints = [{"step": step, "tokens_b": step / 1e6, "path": f"step-{step}"} for step in (10, 20)]
    (folder / "family.json").write_text(json.dumps({"name": "toy", "checkpoints": checkpoints}))
    return folder


@pytest.fixture
def server():
    """A loopback W&B server."""
    from wandb_server import WandbServer

    with WandbServer() as running:
        yield running
    assert not running.unknown, "the server was asked for what it does not model"


@pytest.fixture
def client(server, monkeypatch, tmp_path):
    """W&B's client in this process, online at the server; called, it begins anew with other environment variables."""
    import wandb

    from amuro import tracking

    def use(**env: str | None) -> None:
        wandb.teardown()
        places = {"WANDB_CONFIG_DIR": str(tmp_path / "config"), "NETRC": str(tmp_path / "netrc")}
        places["WANDB_HTTP_TIMEOUT"] = "3"  # seconds until a server that does not answer is given up
        for name, value in {**server.env(), "WANDB_SILENT": "true", **places, **env}.items():
            monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)

    for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR"):
        monkeypatch.setenv(name, "")  # so that it is afterwards as it was
        monkeypatch.delenv(name)
    tracking._ours.clear()
    use()
    yield use
    wandb.teardown()
    tracking._ours.clear()
