"""How long the report of many cells takes, and how much memory: 100, 1,000, 10,000 cells of 20 rows.

    python bench/analysis_scale.py --out /tmp/scale
    python bench/analysis_scale.py --out /tmp/scale --cells 1000 --stages build --profile     where the time goes

The cells are made up, once, as real folders: run.json and 14 units of 100 examples each (8 label and text tasks; 6
benchmarks with two metrics), in families of 40 checkpoints, each BASE and tuned on 4 datasets x 2 rates x 3 seeds.
Every stage is a process of its own: `first` reads every unit's file and leaves one (amuro/compaction.py), `load` reads
that; `scores` are those of all examples; `build` is load, scores and all statistics, `page` that and the page's text,
`report` the whole command with its CSV and figure files. Imports count. In brackets: seconds of computing, which hardly
feel a busy machine. Bars, for 10,000 cells: `page` below 60 s and 4 GiB, and about ten times that of 1,000 cells.
"""

import argparse
import contextlib
import cProfile
import json
import os
import pstats
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from importlib import import_module
from itertools import count as count_from
from itertools import islice, product
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from amuro import results
from amuro.cells import Cell, Unit, environment, write_atomic
from amuro.programs import ROOT
from amuro.tasks import TASKS, relation_of
from amuro.units import write_unit

CHECKPOINTS, EXAMPLES = 40, 100
DATASETS, RATES, SEEDS = ("xsum", "socialiqa", "mnli", "paws"), (2e-5, 2e-6), (10, 20, 30)
OWN = ("xsum", "xlsum", "sciq_qg", "tweetqa", "mnli_matched", "rte", "paws", "qqp")
BENCHMARKS = ("arc_easy", "arc_challenge", "openbookqa", "hellaswag", "boolq", "sciq")
STAGES = ("first", "load", "scores", "build", "page", "report")
VARIANTS = 3  # of the examples of one task and level: drawn once, for drawing takes longer than all else


def main() -> None:
    """Make the cells that are not there, run the stages and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the cells and reports; 1.5 GB for 10,000")
    parser.add_argument("--cells", default="100,1000,10000", help="comma list (default: %(default)s)")
    parser.add_argument("--stages", default=",".join(STAGES), help=f"comma list of {', '.join(STAGES)}")
    parser.add_argument("--profile", action="store_true", help="print where each stage's time goes")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:  # one stage of one number of cells, in this process
        print(json.dumps(measure(given.stages, given.out / given.cells, given.profile)))
        return
    print(f"{'cells':>6} {'rows':>7}  " + "".join(f"{stage:>28}" for stage in given.stages.split(",")), flush=True)
    for count in map(int, given.cells.split(",")):
        make(given.out / str(count), count)
        found = [stage_of(given, count, stage) for stage in given.stages.split(",")]
        shown = "".join(f"{each['seconds']:>9.1f} s ({each['cpu']:>5.1f}) {each['gib']:>4.2f} GiB" for each in found)
        print(f"{count:>6} {found[0]['rows']:>7}  {shown}", flush=True)


def stage_of(given: argparse.Namespace, count: int, stage: str) -> dict:
    """A stage in a process of its own."""
    command = [sys.executable, "-m", "bench.analysis_scale", "--here", "--out", str(given.out.resolve())]
    command += ["--cells", str(count), "--stages", stage, *["--profile"] * given.profile]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    *profile, line = done.stdout.splitlines()
    print(*profile, sep="\n", end="\n" * bool(profile))
    return json.loads(line)


def measure(stage: str, runs: Path, profile: bool) -> dict:
    """Seconds and peak memory of a stage in this process, and the number of rows."""
    if stage == "first":
        shutil.rmtree(runs / results.KEPT.parent, ignore_errors=True)
    table = results.load(runs) if stage == "scores" else None  # what it starts from
    run = {
        "first": lambda: results.load(runs),
        "load": lambda: results.load(runs),
        "scores": lambda: results.load_scores(runs, table),
        "build": lambda: import_module("analysis.contents").build(runs),
        "page": lambda: page(runs),
        "report": lambda: import_module("analysis.report").main(["--runs", str(runs), "--out", f"{runs}-report"]),
    }[stage]
    watch, started = (
        cProfile.Profile() if profile else contextlib.nullcontext(),
        (time.perf_counter(), time.process_time()),
    )
    with watch, contextlib.redirect_stdout(sys.stderr):
        made = run()
    seconds, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    if profile:
        pstats.Stats(watch, stream=sys.stdout).sort_stats("cumulative").print_stats(45)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rows = len(made if stage in ("first", "load") else results.load(runs))
    return {"seconds": seconds, "cpu": cpu, "gib": peak, "rows": rows}


def page(runs: Path) -> str:
    """The page's text, as `python -m analysis.report` makes it."""
    from analysis import contents, figures, findings
    from analysis.page import page

    report = contents.build(runs)
    frames, axis = figures.figure_frames(report), figures.axis_of(report.points, report.checkpoints)
    return page(report, findings.findings(report), frames, axis)


# ---- making the cells


def make(runs: Path, count: int) -> None:
    """Write the cells, unless they are there."""
    if len(list(runs.glob("*/run.json"))) == count:
        return
    os.fsync = lambda _: None  # they need not outlive a power cut
    runs.mkdir(parents=True, exist_ok=True)
    rng, about, drawn = np.random.default_rng(0), environment(), {}
    for cell, level in tqdm(islice(cells(), count), total=count, desc="making cells", unit="cell"):
        for task in (*OWN, *BENCHMARKS):
            unit = Unit(task, "default", 0, 42, TASKS[task].methods[0], "float32")
            kind = (task, round(level, 2), int(rng.integers(VARIANTS)))
            if kind not in drawn:
                drawn[kind] = examples(task, level, rng)
            write_unit(unit.path(cell.folder(runs)), rows_of(cell, unit, drawn[kind]), drawn[kind], {})
        record(cell, cell.folder(runs), about)


def record(cell: Cell, folder: Path, about: dict) -> None:
    """What a cell records beside its units: as long as those that the scripts write."""
    content = {"cell_id": cell.cell_id, "cell": asdict(cell), "environment": about, "weights": cell.cell_id}
    if cell.dataset:
        content["settings"] = {f"setting_{at}": {"origin": "library", "value": None} for at in range(200)}
        step = dict.fromkeys(
            ("entropy", "epoch", "grad_norm", "learning_rate", "loss", "num_tokens", "step"), 0.123456789
        )
        content["training"] = {"seconds": 600.0, "device": "cpu", "processes": 1, "log": [step] * 50}
    units = [path.stem for path in (folder / "units").iterdir()]
    passes = [{"units": [name], "examples": EXAMPLES, "seconds": 1.0, "device": "cpu"} for name in units]
    (folder / "evaluations.jsonl").write_text("".join(json.dumps(each) + "\n" for each in passes))
    write_atomic(folder / "run.json", json.dumps(content, indent=1, sort_keys=True).encode())


def cells() -> Iterator[tuple[Cell, float]]:
    """The cells of the study, each with how good its model is (0 to 1)."""
    for number, step in (divmod(at, CHECKPOINTS) for at in count_from(0)):
        first = {"family": f"made-up-{number}", "step": 1000 * (step + 1), "tokens_b": 4.0 * (step + 1)}
        first |= {"checkpoint": f"made-up-{number}@{first['step']}", "base": f"sha256:{number}-{step}"}
        level = 0.3 + 0.4 * step / CHECKPOINTS
        yield Cell(**first), level
        for dataset, rate, seed in product(DATASETS, RATES, SEEDS):
            about = {"dataset_digest": "0", "prompts_version": 1, "hyperparameters": {"learning_rate": rate}}
            yield Cell(**first, stage="sft", dataset=dataset, seed=seed, **about), level + 0.1


def examples(task: str, level: float, rng: np.random.Generator) -> pd.DataFrame:
    """The examples of a unit, answered by a model that is as good as `level`: the first ones are the easiest."""
    spec = TASKS[task]
    targets = [spec.labels[at % len(spec.labels)] if spec.labels else f"the answer to {at}" for at in range(EXAMPLES)]
    frame = pd.DataFrame({"example_id": [f"{task}-{at:04d}" for at in range(EXAMPLES)], "target": targets})
    frame = frame.assign(prediction=targets, truncated=False, unparsable=False)
    for metric in spec.metrics:
        right = np.clip(level + np.linspace(0.3, -0.3, EXAMPLES) + rng.normal(0, 0.1, EXAMPLES), 0, 1)
        frame[metric] = right if metric == "rouge_l" else (rng.random(EXAMPLES) < right).astype(float)
    return frame.assign(chance=0.25) if spec.reading.choices else frame


def rows_of(cell: Cell, unit: Unit, frame: pd.DataFrame) -> list[dict]:
    """The unit's rows as `amuro.evaluation.rows_of` makes them, with normal intervals, which take less long."""
    common = {name: getattr(cell, name) for name in ("family", "step", "tokens_b", "checkpoint", "stage", "dataset")}
    common |= {**asdict(unit), "n": EXAMPLES, "n_truncated": 0, "n_unparsable": 0, "seed": cell.seed}
    common |= {"learning_rate": cell.hyperparameters.get("learning_rate"), "cell_id": cell.cell_id, "task_version": 1}
    common["relation"] = relation_of(unit.task, cell.dataset) if cell.dataset else ""
    rows = []
    for metric in TASKS[unit.task].metrics:
        mean, error = float(frame[metric].mean()), float(frame[metric].std() / EXAMPLES**0.5)
        ends = {"ci_low": max(0, mean - 2 * error), "ci_high": min(1, mean + 2 * error)}
        rows.append({**common, "metric": metric, "value": mean, "stderr": error, **ends})
    return rows


if __name__ == "__main__":
    main()
