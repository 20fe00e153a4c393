"""How close a training step is to a bare torch loop, how soon the rows are ready, and what a second cell costs.

    OMP_NUM_THREADS=1 python bench/train_speed.py --data_dir mirror                   steps, prepare, cells on the CPU
    OMP_NUM_THREADS=1 python bench/train_speed.py --data_dir mirror --parts prepare   some parts
    python bench/train_speed.py --data_dir mirror --parts variants --device cuda --dtype bfloat16 --shape olmo-1b

The model is an OLMo with random weights; the trainer is the one that train_sft.py uses, with its own settings; without
--data_dir the rows are made-up words of the datasets' lengths. Parts:
steps     blocks of steps of the trainer and of the bare loop by turns, in one process, on the same batches; all that
          the trainer does between steps counts. The bare loop projects the positions that have a label, and once all.
prepare   6,000 rows from text to trainer: ours against TRL's own way, which maps over rows of text.
cells     seconds of the imports, of a first cell and of a second one in the same process.
variants  TRL's defaults, ours, ours compiled, and batches without padding: tokens/s, share of the device's peak,
          memory, seconds per cell, and how far their losses are from ours.
"""

import argparse
import contextlib
import io
import itertools
import json
import logging
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import trl.trainer.utils
from datasets import Dataset
from eval_speed import SHAPES, make_checkpoint
from transformers import TrainerCallback
from transformers.utils.logging import disable_progress_bar
from trl import SFTTrainer
from trl.kernels import chunked_logprob

from amuro import checkpoints, data, settings, training
from amuro.encoding import IGNORED, encode_rows
from amuro.programs import ROOT, load_program
from amuro.prompts import completion, prompt
from amuro.tasks import DATASETS

NAMES = ("mnli", "socialiqa", "xsum")
PARTS = ("steps", "prepare", "cells", "variants")
VARIANTS = ("ours", "trl", "compile", "padding_free")  # the losses of all are held against the first one's
ROWS, EPOCHS, BATCH = 6000, 3, 8  # of a published cell
PEAK_TFLOPS = {"H100": 989, "H200": 989, "A100": 312}  # dense bfloat16
PAPER = "the paper's XSum cell: 90 minutes of one A100 (12 GPU hours for 8 cells)"


def main() -> None:
    """Run the parts asked for and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, help="mirror folder of the datasets; default: made-up rows")
    parser.add_argument("--parts", default="steps,prepare,cells", help=f"comma list of {', '.join(PARTS)}")
    parser.add_argument("--datasets", default=",".join(NAMES), help=f"comma list of {', '.join(NAMES)}")
    parser.add_argument("--shape", default="40m", choices=SHAPES)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of the computation")
    parser.add_argument("--blocks", type=int, default=10, help="of steps that are timed; one more goes before")
    parser.add_argument("--block_steps", type=int, default=1, help="steps per block")
    parser.add_argument("--head", default="trained", help="comma list: trained (positions, as here), all (as TRL's)")
    parser.add_argument("--repeats", type=int, default=3, help="of preparing the rows")
    parser.add_argument("--variants", default=",".join(VARIANTS), help=f"comma list of {', '.join(VARIANTS)}")
    parser.add_argument("--padding_free_attention", default="sdpa", help="e.g. flash_attention_2, where installed")
    parser.add_argument("--peak_tflops", type=float, help=f"of the device; known: {PEAK_TFLOPS}")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning)
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        given.work = Path(folder)
        given.data_dir = given.data_dir or make_mirror(given.work / "mirror")
        given.checkpoint = make_checkpoint(given.work / "family", given)
        model = checkpoints.load(given.checkpoint, device="cpu")[0]
        device = torch.cuda.get_device_name() if given.device == "cuda" else f"CPU, {torch.get_num_threads()} thread"
        print(f"{sum(each.numel() for each in model.parameters()) / 1e6:.1f} M parameters, {given.dtype}, {device}")
        for part in given.parts.split(","):
            PART[part](given)


def make_mirror(folder: Path) -> Path:
    """A mirror of made-up words, each field about as long as in the real sets."""
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlucmfw", k=rng.randint(2, 8))) for _ in range(5000)]
    text = lambda n: " ".join(rng.choices(words, k=max(2, round(n * rng.lognormvariate(0, 0.45)))))  # noqa: E731
    rows = {
        "glue_mnli": lambda: {"premise": text(19), "hypothesis": text(10), "label": rng.randrange(3)},
        "social_i_qa": lambda: {"context": text(14), "answer": text(3.5), "question": text(6)},
        "xsum": lambda: {"document": text(340), "summary": text(21)},
    }
    for name, row in rows.items():
        (folder / name).mkdir(parents=True)
        lines = (json.dumps(row()) + "\n" for _ in range(ROWS))
        (folder / name / "train.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def configuration(given, *flags: str):
    """The trainer's settings as train_sft.py takes them from a command line."""
    command = ["--checkpoint", "olmo-1b@1000", "--dataset", "mnli", "--report_to", "none", *flags]
    command += ["--bf16", str(given.dtype == "bfloat16").lower(), "--use_cpu", str(given.device == "cpu").lower()]
    arguments, sft, _, origins = settings.parse(load_program("train_sft.py").make_parser(), command, stage="sft")
    training.share_batch(sft, arguments.batch_size, given=origins["per_device_train_batch_size"] != "library")
    sft.output_dir = str(given.work / "out")
    return sft


def read_rows(name: str, given, n: int = ROWS) -> list[dict]:
    """`n` training rows; repeated where the mirror has fewer."""
    rows = data.training_rows(name, str(given.data_dir), n).rows
    return list(itertools.islice(itertools.cycle(rows), n))


def order(n: int, seed: int, steps: int) -> list[list[int]]:
    """The row numbers of the first steps, as the trainer draws them: a permutation per epoch."""
    batches = []
    for epoch in itertools.count():
        numbers = torch.randperm(n, generator=torch.Generator().manual_seed(seed + epoch)).tolist()
        batches += [numbers[first : first + BATCH] for first in range(0, n, BATCH)]
        if len(batches) >= steps:
            return batches[:steps]


@contextlib.contextmanager
def trls_head():
    """TRL's own choice of positions to project: on the CPU all of them."""
    own = mock.patch.object(trl.trainer.utils, "_use_triton", chunked_logprob._use_triton)
    with own, mock.patch.object(training, "_project_trained_positions", lambda: None):
        yield


@contextlib.contextmanager
def quiet():
    """Nothing is printed inside."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


class Bare:
    """A plain loop: pad, forward, loss, backward, AdamW, the rate by the formula."""

    def __init__(self, given, sft, all_positions: bool):
        self.model = checkpoints.load(given.checkpoint, device=given.device)[0].train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), weight_decay=0.0, fused=True)
        self.all_positions, self.losses, self.sft = all_positions, [], sft
        self.autocast = lambda: torch.autocast(given.device, torch.bfloat16, enabled=given.dtype == "bfloat16")

    def step(self, batch: list[dict]) -> None:
        step, steps, warm = len(self.losses), self.sft.max_steps, self.sft.get_warmup_steps(self.sft.max_steps)
        share = step / warm if step < warm else (steps - step) / (steps - warm)
        self.optimizer.param_groups[0]["lr"] = self.sft.learning_rate * share
        width = max(len(row["input_ids"]) for row in batch)
        fill = lambda key, value: torch.tensor(  # noqa: E731
            [row[key] + [value] * (width - len(row[key])) for row in batch], device=self.model.device
        )
        ids, labels = fill("input_ids", 1), fill("labels", IGNORED)[:, 1:]
        with self.autocast():
            hidden = self.model.base_model(ids, attention_mask=(ids != 1).long(), use_cache=False).last_hidden_state
            hidden, head = hidden[:, :-1], self.model.get_output_embeddings()
            if self.all_positions:
                logits, labels = head(hidden).flatten(0, 1), labels.flatten()
            else:
                logits, labels = head(hidden[labels != IGNORED]), labels[labels != IGNORED]
            loss = torch.nn.functional.cross_entropy(logits.float(), labels, ignore_index=IGNORED)
        self.losses.append(loss.item())
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def clocks() -> np.ndarray:
    """Seconds on the wall, and of this process's computing: the latter hardly feels what else the machine does."""
    return np.array([time.perf_counter(), time.process_time()])


class Turns(TrainerCallback):
    """Before every block of the trainer's steps, the bare loops' block on the same batches; the (wall, processor)
    seconds of each."""

    def __init__(self, bare: dict[str, Bare], batches: list[list[dict]], block: int):
        self.bare, self.batches, self.block, self.started = bare, batches, block, None
        self.seconds = {name: [] for name in ("trainer", *bare)}

    def on_step_begin(self, args, state, control, **kwargs):
        now, step = clocks(), state.global_step
        if step % self.block:
            return
        if self.started is not None:
            self.seconds["trainer"].append(now - self.started)
        turn = step // self.block % len(self.bare)
        names = [*self.bare][turn:] + [*self.bare][:turn]  # each is the first of them in turn
        for name in names if step < state.max_steps - 1 else ():
            started = clocks()
            for batch in self.batches[step : step + self.block]:
                self.bare[name].step(batch)
            self.seconds[name].append(clocks() - started)
        self.started = clocks()


def steps(given) -> None:
    """Trainer against bare loop, block by block."""
    columns = f"{'trainer':>9}{'bare':>9}{'ratio':>7}  {'quartiles':<11}{'of all':>8}{'of CPU':>8}  losses"
    print(f"\n{f'steps (s, medians of {given.blocks} blocks)':<40}{columns}")
    for name, head in itertools.product(given.datasets.split(","), given.head.split(",")):
        total = (given.blocks + 1) * given.block_steps + 1  # one block to warm up, one step to end the last block
        model, tokenizer = checkpoints.load(given.checkpoint, device="cpu")
        examples, _ = encode_rows(read_rows(name, given, BATCH * total), DATASETS[name].reading.family, tokenizer, 2048)
        sft = configuration(given, "--max_steps", str(total))
        batches = [[examples[number] for number in batch] for batch in order(len(examples), sft.seed, total)]
        bare = {"bare": Bare(given, sft, all_positions=False), "bare, all logits": Bare(given, sft, all_positions=True)}
        turns = Turns(bare, batches, given.block_steps)
        with quiet(), trls_head() if head == "all" else contextlib.nullcontext():
            told = training.fit(training.trainer(model, tokenizer, sft, examples, callbacks=[turns]))
        for other, loop in bare.items():
            logged = [(entry["loss"], entry["step"]) for entry in told["log"] if entry["step"] <= len(loop.losses)]
            every = sft.logging_steps
            away = [abs(loss - statistics.mean(loop.losses[step - every : step])) for loss, step in logged]
            ours, theirs = (np.array(turns.seconds[each][1:]) for each in ("trainer", other))  # (blocks, 2)
            (low, middle, high), busy = np.quantile(ours / theirs, (0.25, 0.5, 0.75), axis=0).T
            one, two = np.median(ours[:, 0]) / given.block_steps, np.median(theirs[:, 0]) / given.block_steps
            print(
                f"{f'{name}, head {head}, {other}':<40}{one:>9.3f}{two:>9.3f}{middle:>7.3f}  {low:.3f}-{high:.3f}"
                f"{ours[:, 0].sum() / theirs[:, 0].sum():>8.3f}{busy[1]:>8.3f}  {max(away, default=math.nan):.1e}",
                flush=True,
            )


def prepare(given) -> None:
    """6,000 rows from text to a trainer that is ready."""
    print(
        f"\n{'prepare 6,000 rows (seconds, medians)':<40}{'ours':>9}{'TRL':>9}{'share':>7}  spread of the shares; rows"
    )
    model, tokenizer = checkpoints.load(given.checkpoint, device="cpu")

    def ours(rows: list[dict], family: str):
        examples, _ = encode_rows(rows, family, tokenizer, 2048)
        return training.trainer(model, tokenizer, configuration(given), examples).train_dataset

    def theirs(rows: list[dict], family: str):
        texts = [{"prompt": prompt(family, "default", row), "completion": completion(row["target"])} for row in rows]
        sft, dataset = configuration(given), Dataset.from_list(texts)
        return SFTTrainer(model, args=sft, train_dataset=dataset, processing_class=tokenizer).train_dataset

    for name, parallel in itertools.product(given.datasets.split(","), ("false", "true")):
        rows, family, seconds = read_rows(name, given), DATASETS[name].reading.family, {ours: [], theirs: []}
        os.environ["TOKENIZERS_PARALLELISM"] = parallel  # read at every call
        for _ in range(given.repeats):
            found = []
            for way in (ours, theirs):
                with quiet():
                    started = time.perf_counter()
                    found.append(way(rows, family))
                    seconds[way].append(time.perf_counter() - started)
        same = sum(all(one[key] == two[key] for key in one) for one, two in zip(*found, strict=True))
        shares = [one / two for one, two in zip(*seconds.values(), strict=True)]
        threads = f"tokenizer on {os.cpu_count() if parallel == 'true' else 1} cores"
        medians = [statistics.median(each) for each in seconds.values()]
        print(
            f"{f'{name}, {threads}':<40}{medians[0]:>9.2f}{medians[1]:>9.2f}{statistics.median(shares):>7.2f}"
            f"  {min(shares):.2f}-{max(shares):.2f}; {same} of {len(rows)} equal",
            flush=True,
        )


CELLS = """
import sys, time
seconds = [time.perf_counter()]
import train_sft
seconds.append(time.perf_counter())
for seed in "12":
    train_sft.main([*sys.argv[1:], "--seed", seed])
    seconds.append(time.perf_counter())
print(*(after - before for before, after in zip(seconds, seconds[1:])), file=sys.stderr)
"""


def cells(given) -> None:
    """Two cells of few rows in a fresh process."""
    command = [sys.executable, "-c", CELLS, "--checkpoint", f"{given.checkpoint.parent}@1", "--dataset", "mnli"]
    command += ["--data_dir", str(given.data_dir), "--runs", str(given.work / "runs"), "--report_to", "none"]
    command += ["--tasks", "none", "--num_train_rows", "16", "--num_train_epochs", "1"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    imports, first, second = map(float, done.stderr.splitlines()[-1].split())
    print(f"\ncells of 2 steps, one process: imports {imports:.1f} s, first {first:.1f} s, second {second:.1f} s")


class Clock(TrainerCallback):
    """The seconds of every block of steps after the first block, the device's queue drained at both ends."""

    def __init__(self, block: int):
        self.block, self.times = block, []

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step % self.block == 0:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.times.append(time.perf_counter())

    @property
    def seconds(self) -> list[float]:
        return [after - before for before, after in itertools.pairwise(self.times[1:])]


def variants(given) -> None:
    """The same training in several ways."""
    peak = given.peak_tflops
    if not peak and given.device == "cuda":
        peak = next((value for key, value in PEAK_TFLOPS.items() if key in torch.cuda.get_device_name()), None)
    columns = f"{'quartiles':>16}{'tokens/s':>10}{'MFU':>7}{'GiB':>7}{'s once':>8}{'s/cell':>8}  losses"
    print(f"\n{'variant':<24}{'s/step':>8}{columns}")
    for name in given.datasets.split(","):
        expected = None
        for variant in given.variants.split(","):
            clock, told, needed = run_variant(variant, name, given)
            logged = [entry["loss"] for entry in told["log"]]
            expected = expected or logged
            away = max(abs(one - two) for one, two in zip(logged, expected, strict=True))
            low, middle, high = (each / given.block_steps for each in statistics.quantiles(clock.seconds, n=4))
            once = clock.times[-1] - clock.times[0] - middle * given.block_steps * (len(clock.times) - 1)
            speeds = zip(clock.seconds, *needed, strict=True)
            tokens, flops = map(statistics.median, zip(*((n / s, f / s) for s, n, f in speeds), strict=True))
            share = f"{flops / peak / 1e12:.1%}" if peak else "-"
            cell = once + middle * EPOCHS * ROWS / BATCH
            memory = f"{torch.cuda.max_memory_allocated() / 2**30:.1f}" if given.device == "cuda" else "-"
            print(
                f"{f'{name}, {variant}':<24}{middle:>8.4f}{f'{low:.4f}-{high:.4f}':>16}{tokens:>10.0f}{share:>7}"
                f"{memory:>7}{once:>8.1f}{cell:>8.0f}  {away:.1e}, last {logged[-1]:.4f}",
                flush=True,
            )
    print(
        f"s once: what the first steps and compiling take; s/cell: {EPOCHS} epochs of {ROWS} rows, steps alone; {PAPER}"
    )


def run_variant(variant: str, name: str, given) -> tuple[Clock, dict, tuple[list[int], list[float]]]:
    """(times, what the training tells, the tokens and operations that each timed block needs, padding left out)."""
    total = (given.blocks + 1) * given.block_steps + 1
    more = {"trl": ["--gradient_checkpointing", "true", "--logging_nan_inf_filter", "true"]}
    more["compile"] = ["--torch_compile", "true"]
    sft = configuration(given, "--max_steps", str(total), *more.get(variant, []))
    attention = None
    if variant == "padding_free":  # the rows are fitted already, so that nothing must be cut
        sft.padding_free, sft.max_length, attention = True, None, given.padding_free_attention
    model, tokenizer = checkpoints.load(given.checkpoint, device=given.device, attention=attention)
    examples, _ = encode_rows(read_rows(name, given, BATCH * total), DATASETS[name].reading.family, tokenizer, 2048)
    clock = Clock(given.block_steps)
    if given.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with quiet(), trls_head() if variant == "trl" else contextlib.nullcontext():
        told = training.fit(training.trainer(model, tokenizer, sft, examples, callbacks=[clock]))
    batches = order(len(examples), sft.seed, total)
    starts = range(given.block_steps, total - 1, given.block_steps)
    blocks = [[examples[n] for batch in batches[at : at + given.block_steps] for n in batch] for at in starts]
    tokens = [sum(len(each["input_ids"]) for each in block) for block in blocks]
    return clock, told, (tokens, [sum(operations(model, each) for each in block) for block in blocks])


def operations(model, example: dict) -> float:
    """Floating-point operations of one example, forward and backward, causal attention, head where there is a label."""
    config, n = model.config, len(example["input_ids"])
    head = config.vocab_size * config.hidden_size
    body = sum(each.numel() for each in model.parameters()) - (1 if config.tie_word_embeddings else 2) * head
    trained = sum(label != IGNORED for label in example["labels"])
    return 6 * body * n + 6 * config.num_hidden_layers * config.hidden_size * n * n + 6 * head * trained


PART = {name: globals()[name] for name in PARTS}

if __name__ == "__main__":
    main()
