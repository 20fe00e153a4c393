"""How fast a grid runs: Amuro's own share of a cell, warm workers against a process per cell, two workers against one.

    python bench/run_speed.py --out /tmp/speed                  about ten minutes on two cores
    python bench/run_speed.py --out /tmp/speed --parts workers --repeats 5
    python bench/run_speed.py --out /tmp/speed --parts warm --whole --repeats 1    the whole grid: twenty minutes

Every comparison alternates its two sides within one run and gives the median of the ratios with their range. The cells
are those of `make demo`, so that they are of about equal size; each side makes them anew.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1", WANDB_MODE="offline")

from amuro.demo import commands  # noqa: E402
from amuro.nursery import raise_nursery  # noqa: E402
from amuro.programs import ROOT  # noqa: E402
from amuro.running import ledger, runner  # noqa: E402
from amuro.running.grids import Command  # noqa: E402

PARTS = ("overhead", "warm", "workers")


def cells(out: Path, count: int, *datasets: str) -> list[Command]:
    """Some of the demo's fine-tuning cells, of the first seed."""
    found = [each for each in commands(out) if each.get("dataset") in datasets and each.get("seed") == "10"]
    return found[:count]


def on_workers(todo: Sequence[Command], runs: Path, processes: int) -> tuple[float, float]:
    """(seconds in all, seconds from the first cell's start to the last one's end) with workers of `amuro run`."""
    shutil.rmtree(runs, ignore_errors=True)
    done = runner.run(todo, runs, gpus_per_cell=0, processes=processes)
    assert done.code == 0, str(done)
    entries = ledger.read(runs).values()
    return done.seconds, max(e.written for e in entries) - min(e.written - e.seconds for e in entries)


def by_processes(todo: Sequence[Command], runs: Path, processes: int) -> float:
    """Seconds with a new process for each cell, so many at a time."""
    shutil.rmtree(runs, ignore_errors=True)

    def start(command: Command) -> None:
        argv = [sys.executable, str(ROOT / command.program), *command.argv, f"--runs={runs}"]
        subprocess.run(argv, check=True, capture_output=True)

    started = time.monotonic()
    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(start, todo))
    return time.monotonic() - started


def overhead(out: Path) -> None:
    """Seconds of a complete cell that is asked for again, by the runner alone and by its script in a warm worker."""
    todo, runs = cells(out, 5, "mnli"), out / "runs-overhead"
    on_workers(todo, runs, 1)
    started = time.monotonic()
    runner.run(todo, runs)
    skipped = (time.monotonic() - started) / len(todo)
    shutil.rmtree(runs / ledger.FOLDER)  # so that the scripts look for themselves: data, lease, record, entry
    runner.run(todo, runs, gpus_per_cell=0, processes=1)
    seconds = sorted(entry.seconds for entry in ledger.read(runs).values())[:-1]  # without the first, which imports
    spread = f"{seconds[0]:.2f} to {seconds[-1]:.2f}"
    print(f"overhead: {skipped:.3f} s for a cell that is skipped; {spread} s for one whose script finds nothing to do")


def compared(name: str, pairs: list[tuple[float, float]]) -> None:
    """Print the ratios of (slow side, fast side) seconds."""
    ratios = sorted(slow / fast for slow, fast in pairs)
    shown = ", ".join(f"{slow:.1f} / {fast:.1f} s" for slow, fast in pairs)
    print(f"{name}: {statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}] ({shown})", flush=True)


def warm(out: Path, repeats: int, whole: bool) -> None:
    """A process per cell against warm workers, two at a time each, everything included."""
    todo, pairs = commands(out) if whole else cells(out, 10, "mnli", "socialiqa"), []
    for _ in range(repeats):
        cold = by_processes(todo, out / "runs-cold", 2)
        pairs.append((cold, on_workers(todo, out / "runs-warm", 2)[0]))
    compared(f"warm workers, {len(todo)} cells, two at a time: a process per cell / workers", pairs)


def workers(out: Path, repeats: int) -> None:
    """One worker against two, each with one thread, from the first cell's start to the last one's end."""
    first = cells(out, 1, "mnli")[0]
    todo = [
        Command(first.program, tuple((dict(first.flags) | {"seed": str(seed)}).items())) for seed in range(10, 90, 10)
    ]
    pairs = []
    for _ in range(repeats):
        one = on_workers(todo, out / "runs-one", 1)[1]
        pairs.append((one, on_workers(todo, out / "runs-two", 2)[1]))
    compared(f"workers, {len(todo)} equal cells: one / two", pairs)


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to work in; its nursery/ is raised if missing")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--whole", action="store_true", help="warm: all of the demo's grid instead of ten cells")
    given = parser.parse_args()
    out = given.out.resolve()
    if not (out / "nursery" / "family").is_dir():
        raise_nursery(out / "nursery", threads=2)
    if "overhead" in given.parts:
        overhead(out)
    if "warm" in given.parts:
        warm(out, given.repeats, given.whole)
    if "workers" in given.parts:
        workers(out, given.repeats)


if __name__ == "__main__":
    main()
