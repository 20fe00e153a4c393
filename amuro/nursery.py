"""Raise a pre-training history small enough for a laptop: five checkpoints of a tiny OLMo in about two minutes.

    from amuro.nursery import raise_nursery
    family = raise_nursery(Path("nursery"))                             # the world of world.py: the positive control
    family = raise_nursery(Path("nursery-text"), text=Path("folder"))   # real text: every *.txt under a folder

writes OUT/family/family.json, OUT/family/step-N/ (plain Hugging Face folders, fp32) and, for the world, OUT/data/ with
every dataset of the suite by the file and field names of the real data. family.json is written last: a folder that has
one is whole. The same call again does nothing, or goes on where it was cut off; another recipe for the same folder is
refused. The same seed on the same machine with the same number of threads gives the same bytes.
"""

import hashlib
import json
import random
import shutil
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import OlmoConfig, OlmoForCausalLM, PreTrainedTokenizerFast

from amuro.cells import write_atomic
from amuro.encoding import IGNORED
from amuro.names import first_line
from amuro.prompts import PAPER
from amuro.strict import read_json
from amuro.world import GUILD, LABELS, WORLD_VERSION, documents, make_world
from amuro.world_data import write_datasets

MOST_THREADS = 256  # torch crashes on tens of thousands
EOS, PAD = "<|endoftext|>", "<|padding|>"  # ids 0 and 1


@dataclass(frozen=True)
class Recipe:
    """How a history is made; `rows` of `row_tokens` tokens make one step."""

    checkpoints: tuple[int, ...]  # steps; the last is the end of training
    vocab: int = 1400
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    mlp: int = 256
    rows: int = 32
    row_tokens: int = 64
    context: int = 2048  # tokens that the model says it takes
    adamw_rate: float = 3e-3  # embeddings
    muon_rate: float = 0.02  # matrices
    warmup: int = 30  # steps, after which both rates fall linearly to a tenth
    init_std: float = 0.06


WORLD = {
    "default": Recipe((25, 50, 100, 200, 500)),
    "tiny": Recipe((2, 4, 8), vocab=600, hidden=32, layers=2, heads=2, mlp=64, rows=4, warmup=2),
}
TEXT = {
    "default": Recipe((20, 40, 80, 160, 320), vocab=4096, mlp=512, rows=16, row_tokens=256),
    "study": Recipe(  # for 16 MB of text: 24 minutes on two cores; shots fit into a row
        (25, 50, 100, 250, 500, 1000),
        vocab=4096,
        hidden=192,
        mlp=512,
        rows=4,
        row_tokens=1024,
        context=1024,
    ),
    "tiny": Recipe((2, 4, 8), vocab=600, hidden=32, layers=2, heads=2, mlp=64, rows=4, warmup=2),
}


KEEP = 100  # steps after which a raising that is cut off can go on
STATE = "raising.safetensors"


class Muon(torch.optim.Optimizer):
    """Momentum whose update of each matrix is made orthogonal (Jordan et al. 2024), in fp32."""

    @torch.no_grad()
    def step(self, closure=None):
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                momentum = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                momentum.lerp_(weight.grad, 0.05)
                update = weight.grad.lerp(momentum, 0.95)
                x = update.T if update.shape[0] > update.shape[1] else update
                x = x / (x.norm() + 1e-7)
                for _ in range(5):  # Newton-Schulz
                    gram = x @ x.T
                    x = 3.4445 * x + (2.0315 * gram @ gram - 4.775 * gram) @ x
                x = x.T if update.shape[0] > update.shape[1] else x
                weight.add_(x, alpha=-group["lr"] * max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5)


def raise_nursery(
    out: Path, preset: str = "default", seed: int = 0, text: Path | None = None, threads: int | None = None
) -> Path:
    """Pre-train one history under `out` and return its family folder (`default` takes minutes, `tiny` seconds).

    One thread unless told otherwise: a model so small gains little from more, and loses much where cores are shared.
    """
    if clash := [place for place in (Path(out), *Path(out).parents) if place.exists() and not place.is_dir()]:
        raise ValueError(f"--out {out}: {clash[0]} is a file; choose another --out")
    presets = WORLD if text is None else TEXT
    if threads is not None and threads > MOST_THREADS:
        raise ValueError(f"--threads {threads}: {MOST_THREADS} at most, and no more than there are cores")
    if preset not in presets:
        raise ValueError(f"no preset {preset!r}; there are {', '.join(presets)}")
    files = [] if text is None else _text_files(text)
    source = {"source": "text", "text_sha256": _digest(files)} if files else {"source": f"world {WORLD_VERSION}"}
    asked = json.loads(json.dumps({"preset": preset, "seed": seed, **source, **asdict(presets[preset])}))
    family, data = Path(out) / "family", Path(out) / "data"
    if (family / "family.json").exists():
        _check_same(family, asked)
        print(f"{family} is already raised", file=sys.stderr)
        return family
    if not files and data.exists() and not family.exists():
        raise ValueError(f"{data} is there already and is no nursery's: choose another --out")
    if not _begun(family, asked):
        for left_over in family.glob("step-*"):  # by another raising that was cut off
            shutil.rmtree(left_over)
        (family / STATE).unlink(missing_ok=True)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or 1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            record = _raise(family, asked, presets[preset], seed, files)
    finally:
        torch.set_num_threads(before)
    if not files:
        write_datasets(make_world(seed), data)
    write_atomic(family / "family.json", (json.dumps(record, indent=2) + "\n").encode())
    (family / STATE).unlink()
    return family


def _check_same(family: Path, asked: dict) -> None:
    record = read_json(family / "family.json")
    found = record.get("recipe", {}) if isinstance(record, dict) else {}
    differs = [
        f"{key} is {found.get(key)!r}, asked {value!r}" for key, value in asked.items() if found.get(key) != value
    ]
    if differs:
        raise ValueError(f"{family} holds another history ({'; '.join(differs)}): choose another --out")


def _raise(family: Path, asked: dict, recipe: Recipe, seed: int, files: list[Path]) -> dict:
    """Train, saving each checkpoint; returns what family.json says."""
    training, held_out, corpus = _text_corpus(files) if files else _world_corpus(recipe, seed)
    tokenizer = _make_tokenizer(training, recipe.vocab, recipe.context)
    lay_out = _cut if files else _pack
    rows = lay_out(training, tokenizer, recipe.row_tokens)
    if not rows:
        raise ValueError(f"the text is shorter than one row of {recipe.row_tokens} tokens: give more of it")
    others = lay_out(held_out, tokenizer, recipe.row_tokens)
    for part in (rows, others) if files else ():  # the documents of the world come in no order
        random.Random(f"{seed}-order").shuffle(part)
    need = recipe.checkpoints[-1] * recipe.rows  # a short text is read again and again
    data = torch.tensor([rows[i % len(rows)] for i in range(need)]).view(-1, recipe.rows, recipe.row_tokens)
    unseen = torch.tensor(others[:64])
    model = _make_model(recipe, len(tokenizer))
    losses = {}

    def keep(step: int) -> None:
        _save(model, tokenizer, family / f"step-{step}")
        losses[f"{step}"] = round(_held_out_loss(model, unseen), 4) if len(unseen) else None

    _train(model, data, recipe, family / STATE, {"asked": asked, "losses": losses}, keep)
    tokens = (data != tokenizer.pad_token_id).sum(dim=(1, 2)).cumsum(0).tolist()  # seen after each step
    return {
        "name": "nursery-text" if files else "nursery",
        "checkpoints": [{"step": s, "tokens_b": tokens[s - 1] / 1e9, "path": f"step-{s}"} for s in recipe.checkpoints],
        "recipe": asked
        | {
            "corpus_sha256": corpus,
            "parameters": sum(p.numel() for p in model.parameters()),
            "vocab_used": len(tokenizer),
            "optimiser": "Muon on matrices, AdamW on embeddings (betas .9 .98, no decay), gradients clipped to norm 1",
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        },
        "held_out_loss": losses,
    }


# ---- text


def _world_corpus(recipe: Recipe, seed: int) -> tuple[list[str], list[str], str]:
    """(documents, held-out documents, sha256): a few more documents than there are rows to fill."""
    world = make_world(seed)
    stream, unseen = (documents(world, random.Random(f"{seed}-{name}")) for name in ("corpus", "held-out"))
    training = [next(stream) for _ in range(recipe.checkpoints[-1] * recipe.rows * 5 // 4)]
    held_out = [next(unseen) for _ in range(100)]
    return training, held_out, hashlib.sha256("\0".join(training).encode()).hexdigest()


def _text_files(folder: Path) -> list[Path]:
    files = sorted(f for f in Path(folder).glob("**/*.txt") if f.stat().st_size)
    if not files:
        raise ValueError(f"no text: {folder} has no *.txt file with something in it")
    return files


def _digest(files: list[Path]) -> str:
    return hashlib.sha256(b"\0".join(f.read_bytes() for f in files)).hexdigest()


def _text_corpus(files: list[Path]) -> tuple[list[str], list[str], str]:
    """(pages, held-out pages, sha256): the last fiftieth of each file is held out."""
    training, held_out = [], []
    for f in files:
        page = f.read_text(encoding="utf-8", errors="replace")
        split = len(page) * 49 // 50
        training.append(page[:split])
        held_out.append(page[split:])
    return training, held_out, _digest(files)


def _make_tokenizer(texts: list[str], vocab: int, context: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE of the corpus, the prompt templates and the label words (each of which becomes one token)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    templates = [template for formats in PAPER.values() for template in formats.values()]
    labels = [f" {word}" for label in (*LABELS, "yes", "no") for word in (label, label.title())]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts[:20_000] + 200 * [*labels, *templates, GUILD], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS, pad_token=PAD, model_max_length=context)


def _pack(texts: list[str], tokenizer: PreTrainedTokenizerFast, row_tokens: int) -> list[list[int]]:
    """Rows of whole documents, each document ended by EOS and each row filled up with PAD."""
    rows, row = [], []
    for ids in tokenizer(texts).input_ids:
        ids = ids[: row_tokens - 1] + [tokenizer.eos_token_id]
        if len(row) + len(ids) > row_tokens:
            rows.append(row + [tokenizer.pad_token_id] * (row_tokens - len(row)))
            row = []
        row += ids
    return rows


def _cut(texts: list[str], tokenizer: PreTrainedTokenizerFast, row_tokens: int) -> list[list[int]]:
    """Every full row of the texts laid end to end, EOS between them."""
    ids = [i for text in texts for i in [*tokenizer(text).input_ids, tokenizer.eos_token_id]]
    return [ids[i : i + row_tokens] for i in range(0, len(ids) - row_tokens + 1, row_tokens)]


# ---- model


def _make_model(recipe: Recipe, vocab: int) -> OlmoForCausalLM:
    config = OlmoConfig(
        vocab_size=vocab,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.mlp,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        max_position_embeddings=recipe.context,
        tie_word_embeddings=True,
        initializer_range=recipe.init_std,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=1,
    )
    return OlmoForCausalLM(config)


def _loss(model: OlmoForCausalLM, rows: torch.Tensor) -> torch.Tensor:
    return model(input_ids=rows, labels=rows.masked_fill(rows == model.config.pad_token_id, IGNORED)).loss


@torch.no_grad()
def _held_out_loss(model: OlmoForCausalLM, rows: torch.Tensor) -> float:
    model.eval()
    loss = sum(_loss(model, part).item() * len(part) for part in rows.split(16)) / len(rows)
    model.train()
    return loss


def _train(model: OlmoForCausalLM, data: torch.Tensor, recipe: Recipe, state: Path, about: dict, keep) -> None:
    """One pass over data, (steps, rows, row_tokens); calls keep(step) at each checkpoint. What is needed to go on is
    kept in the file `state`, together with what it is `about`."""
    steps = len(data)
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimisers = [
        Muon(matrices, {"lr": recipe.muon_rate}),
        torch.optim.AdamW(others, lr=recipe.adamw_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    peaks = (recipe.muon_rate, recipe.adamw_rate)
    first = _restore(state, model, optimisers, about) if state.exists() else 0
    bar = tqdm(range(first, steps), initial=first, total=steps, desc="raising", unit="step", mininterval=2)
    for step in bar:
        loss = _loss(model, data[step])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser, peak in zip(optimisers, peaks, strict=True):
            rate = peak * (min((step + 1) / recipe.warmup, 1) * (1 - 0.9 * step / steps))
            optimiser.param_groups[0]["lr"] = rate
            optimiser.step()
        model.zero_grad()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        if step + 1 in recipe.checkpoints:
            keep(step + 1)
        if (step + 1) % KEEP == 0 or step + 1 == steps:
            _store(state, step + 1, model, optimisers, about)


def _begun(family: Path, asked: dict) -> bool:
    """Whether this raising was cut off, and can go on."""
    if not (family / STATE).exists():
        return False
    try:
        with safe_open(family / STATE, framework="pt") as file:
            return json.loads(file.metadata()["about"])["asked"] == asked
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{family / STATE}: damaged ({first_line(error)}); remove it to begin again") from None


def _store(state: Path, step: int, model: OlmoForCausalLM, optimisers: list, about: dict) -> None:
    """Weights and the optimisers' tensors in one file, which is whole or absent."""
    tensors = {f"weight {name}": weight.detach() for name, weight in model.named_parameters()}
    for number, optimiser in enumerate(optimisers):
        for index, kept in optimiser.state_dict()["state"].items():
            tensors |= {f"{number} {index} {name}": value for name, value in kept.items()}
    write_atomic(state, save(tensors, {"step": f"{step}", "about": json.dumps(about)}))


def _restore(state: Path, model: OlmoForCausalLM, optimisers: list, about: dict) -> int:
    """The step to go on from; weights, optimisers and losses are as `_store` found them."""
    with safe_open(state, framework="pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(tensors.pop(f"weight {name}"))
    kept = [defaultdict(dict) for _ in optimisers]
    for name, value in tensors.items():
        number, index, what = name.split()
        kept[int(number)][int(index)][what] = value
    for optimiser, found in zip(optimisers, kept, strict=True):
        optimiser.load_state_dict({"state": found, "param_groups": optimiser.state_dict()["param_groups"]})
    about["losses"].update(json.loads(metadata["about"])["losses"])
    return int(metadata["step"])


def _save(model: OlmoForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in folder.iterdir():  # the weights come with mode 0600
        path.chmod(0o644)
