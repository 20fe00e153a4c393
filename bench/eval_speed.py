"""How much sooner the engine answers than the stock harness, on the same requests, machine, batch size and thread.

    OMP_NUM_THREADS=1 python bench/eval_speed.py --data_dir mirror                       every part
    OMP_NUM_THREADS=1 python bench/eval_speed.py --data_dir mirror --parts labels,bare  some parts
    python bench/eval_speed.py --data_dir mirror --device cuda --dtype bfloat16 --shape olmo-1b

The model is an OLMo with random weights and a BPE tokenizer trained on the mirror's own text. Stock is the harness's
`HFLM` on the same loaded model; in the part `suite` it is the `lm_eval` command, start-up included, against
`python -m eval.run`. Printed are seconds and their ratio, and how many answers agree. Tables: bench/README.md.
"""

import argparse
import contextlib
import io
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import DynamicCache, OlmoConfig, OlmoForCausalLM, PreTrainedTokenizerFast

from amuro.cells import Unit
from amuro.engine import Engine
from amuro.evaluation import Request, load_task
from amuro.programs import ROOT
from amuro.rows import make_rows, prefix_groups

SHAPES = {  # hidden, intermediate, layers, heads, vocabulary
    "40m": (512, 2048, 8, 8, 8192),
    "olmo-1b": (2048, 8192, 16, 16, 50304),
    "tiny": (64, 128, 2, 4, 8192),  # to try the scripts out
}
PARTS = ("labels", "methods", "xsum", "benchmark", "bare", "suite")


def main() -> None:
    """Run the parts asked for and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, help="mirror folder of the datasets")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"comma list of {', '.join(PARTS)}")
    parser.add_argument("--shape", default="40m", choices=SHAPES)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--batch_size", type=int, default=16, help="of both; sequences per forward pass")
    parser.add_argument("--limit", type=int, default=64, help="examples per task (a quarter of it where text is made)")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = make_checkpoint(Path(folder) / "family", given)
        model = OlmoForCausalLM.from_pretrained(checkpoint, dtype=getattr(torch, given.dtype)).to(given.device).eval()
        parameters = sum(weight.numel() for weight in model.parameters())
        device = torch.cuda.get_device_name() if given.device == "cuda" else "CPU"
        threads = "" if given.device == "cuda" else f", {torch.get_num_threads()} thread"
        print(f"{parameters / 1e6:.1f} M parameters, {given.dtype}, {device}{threads}, batch {given.batch_size}")
        print(f"{'part':<44}{'stock s':>9}{'engine s':>9}{'ratio':>7}  agreement")
        for part in given.parts.split(","):
            PART[part](model, checkpoint, given)
        if given.device == "cuda":
            print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


def make_checkpoint(family: Path, given: argparse.Namespace) -> Path:
    """A family folder with one checkpoint of random weights."""
    hidden, inner, layers, heads, vocabulary = SHAPES[given.shape]
    texts = [path.read_text(encoding="utf-8")[:300_000] for path in sorted(given.data_dir.glob("*/*.jsonl"))]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special, alphabet = ["<|endoftext|>", "<|padding|>"], pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=min(vocabulary, 8192), special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=special[0], pad_token=special[1])
    torch.manual_seed(0)
    config = OlmoConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=2048,
        pad_token_id=1,
        eos_token_id=0,
        bos_token_id=None,
    )
    folder = family / "step-1"
    OlmoForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    (family / "family.json").write_text(
        json.dumps({"name": "random", "checkpoints": [{"step": 1, "tokens_b": 0.0, "path": "step-1"}]})
    )
    return folder


def load(checkpoint: Path, given, task: str, methods: list[str], limit: int):
    """A task with four shots, its requests built; and the seconds that building took."""
    asked = Request((), str(given.data_dir), limit, given.batch_size)
    units = [Unit(task, "default", 4, 42, method, given.dtype) for method in methods]
    loaded = load_task(checkpoint, asked, units)
    started = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):
        loaded.build_all_requests(limit=limit)
    return loaded, time.perf_counter() - started


def stock_answers(lm: HFLM, requests: list) -> list:
    """The stock harness's answers to requests of one or several kinds, in order."""
    answers = [None] * len(requests)
    for kind in dict.fromkeys(request.request_type for request in requests):
        numbers = [number for number, each in enumerate(requests) if each.request_type == kind]
        for number, answer in zip(numbers, getattr(lm, kind)([requests[n] for n in numbers], True), strict=True):
            answers[number] = answer
    return answers


def timed(function, *arguments):
    """(result, seconds), the device's queue drained at both ends."""
    sync = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    sync()
    started = time.perf_counter()
    result = function(*arguments)
    sync()
    return result, time.perf_counter() - started


def compare(
    name: str, model, checkpoint: Path, given, asks: list[tuple[str, list[str]]], limit: int, runs=None
) -> None:
    """Time both on the tasks; `runs` are the method lists that stock needs a run each for (default: one run)."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint)
    stock = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=given.batch_size)
    slow = fast = same = total = 0
    for task, methods in asks:
        loaded, building = load(checkpoint, given, task, methods, limit)
        engine = Engine(model, tokenizer, given.batch_size)
        answers, seconds = timed(engine.answer, loaded.instances, loaded.encoded)
        fast += building + seconds
        expected = {}
        for one in runs or [methods]:
            each, building = load(checkpoint, given, task, one, limit)
            found, seconds = timed(stock_answers, stock, each.instances)
            slow += building + seconds
            expected |= read(each, found)
        own = read(loaded, answers)
        same += sum(own[key] == expected[key] for key in expected)
        total += len(expected)
    report(name, slow, fast, f"{same} of {total}")


def read(task, answers: list) -> dict:
    """(example, method) -> prediction."""
    by_doc = {}
    for instance, answer in zip(task.instances, answers, strict=True):
        by_doc.setdefault(instance.doc["example_id"], (instance.doc, []))[1].append(answer)
    return {
        (task.config.task, key, method): answer.prediction
        for key, (doc, responses) in by_doc.items()
        for method, answer in task.answers(doc, responses).items()
    }


def report(name: str, slow: float, fast: float, agreement: str) -> None:
    """Print one line of the table."""
    print(f"{name:<44}{slow:>9.2f}{fast:>9.2f}{slow / fast:>6.2f}x  {agreement}", flush=True)


def labels(model, checkpoint, given) -> None:
    """Four-shot labels by next-token probability."""
    asks = [("mnli_matched", ["token_prob"]), ("paws", ["token_prob"])]
    compare("mnli + paws, token_prob", model, checkpoint, given, asks, given.limit)


def methods(model, checkpoint, given) -> None:
    """Three ways of reading a label: one pass of the engine, three runs of stock."""
    three = ["token_prob", "free", "constrained"]
    asks = [("mnli_matched", three), ("paws", three)]
    runs = [[method] for method in three]
    compare("mnli + paws, 3 methods (stock: 3 runs)", model, checkpoint, given, asks, given.limit, runs)


def xsum(model, checkpoint, given) -> None:
    """Greedy text after prompts of up to 2,000 tokens."""
    compare("xsum, generate 60", model, checkpoint, given, [("xsum", ["generate"])], max(1, given.limit // 4))


def benchmark(model, checkpoint, given) -> None:
    """Multiple choice: several continuations of several tokens each."""
    asks = [(task, ["loglikelihood"]) for task in ("arc_easy", "hellaswag", "sciq")]
    compare("arc_easy + hellaswag + sciq", model, checkpoint, given, asks, given.limit // 2)


def bare(model, checkpoint, given) -> None:
    """The engine against the tokens that must be computed at all, through the bare model in the same batches."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint)
    engine = Engine(model, tokenizer, given.batch_size)
    alone = own = 0.0
    for task in ("mnli_matched", "paws"):
        loaded, building = load(checkpoint, given, task, ["token_prob"], given.limit)
        batches = []
        for n, group in prefix_groups(make_rows(engine, loaded.instances, dict(loaded.encoded))):
            rows = sorted(group, key=lambda row: len(row.ids), reverse=True)
            size = given.batch_size
            batches.append((n, [rows[start : start + size] for start in range(0, len(rows), size)]))
        alone += timed(run_bare, model, batches)[1]
        own += building + timed(engine.answer, loaded.instances, loaded.encoded)[1]
    print(f"{'bare model on the tokens needed':<44}{alone:>9.2f}{own:>9.2f}{own / alone:>6.2f}x  engine / bare")


@torch.no_grad()
def run_bare(model, batches) -> None:
    """The prefix of each group once, then its rows' own tokens, the last position's logits only."""
    for n, groups in batches:
        prefix = DynamicCache(config=model.config)
        if n:
            first = torch.tensor([groups[0][0].ids[:n]], device=model.device)
            model(first, past_key_values=prefix, use_cache=True, logits_to_keep=1)
        for rows in groups:
            cache = DynamicCache(config=model.config)
            for number, layer in enumerate(prefix.layers if n else ()):
                cache.update(*(kept.expand(len(rows), -1, -1, -1) for kept in (layer.keys, layer.values)), number)
            width = max(len(row.ids) for row in rows) - n
            ids = torch.ones(len(rows), width, dtype=torch.long, device=model.device)
            model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits.argmax(-1).tolist()


def suite(model, checkpoint, given) -> None:
    """13 tasks x 3 formats, 4 shots, 12 examples each, start-up included: the stock command once for all tasks."""
    tasks = [path.stem for path in sorted((ROOT / "eval" / "tasks").glob("*.yaml"))]
    own = [name for name in tasks if not name.startswith(("arc_", "openbookqa", "hellaswag", "boolq"))]
    own = [name for name in own if name != "sciq"]
    assert len(own) == 39
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "AMURO_DATA_DIR": str(given.data_dir), "WANDB_MODE": "offline"}
    with tempfile.TemporaryDirectory() as out:
        stock = [str(Path(sys.executable).parent / "lm_eval"), "--model", "hf", "--device", given.device]
        stock += ["--model_args", f"pretrained={checkpoint},dtype={given.dtype}"]
        stock += ["--include_path", str(ROOT / "eval" / "tasks"), "--tasks", ",".join(f"amuro_{name}" for name in own)]
        stock += ["--num_fewshot", "4", "--limit", "12", "--batch_size", str(given.batch_size), "--output_path", out]
        ours = [sys.executable, "-m", "eval.run", "--checkpoint", f"{checkpoint.parent}@1", "--tasks", "id,ood"]
        ours += ["--prompt_format", "default,instruct,io", "--limit", "12", "--eval_batch_size", str(given.batch_size)]
        ours += ["--dtype", given.dtype, "--data_dir", str(given.data_dir), "--runs", f"{out}/runs"]
        run = lambda command: subprocess.run(  # noqa: E731
            command, cwd=ROOT, env=environment, check=True, capture_output=True
        )
        fast = timed(run, ours)[1]
        slow = timed(run, stock)[1]
        results = json.loads(next(Path(out).rglob("results_*.json")).read_text())["results"]
        same, total = agreement(Path(out) / "runs", results)
    report("suite: 13 tasks x 3 formats, start-up included", slow, fast, f"{same} of {total} metrics within 1e-9")


def agreement(runs: Path, results: dict) -> tuple[int, int]:
    """How many of our rows' values equal the stock command's."""
    from amuro.evaluation import harness_name
    from amuro.results import load as load_table

    same = total = 0
    for row in load_table(runs).itertuples():
        stock = results[harness_name(row)][f"{row.metric},none"]
        same, total = same + (abs(stock - row.value) < 1e-9), total + 1
    return same, total


PART = {name: globals()[name] for name in PARTS}

if __name__ == "__main__":
    random.seed(0)
    main()
