"""The whole study on the nursery: every checkpoint BASE, fine-tuned on four datasets with two seeds (one for
the control), and instruction-tuned with one.

    make demo        or        python -m amuro.demo --out demo        after        amuro nursery --out demo/nursery

Cells run in one process per core; each writes its log under OUT/runs/logs. Stopped anywhere and called again it goes
on: complete cells and units are not run again.
"""

import argparse
import contextlib
import multiprocessing
import os
import sys
import threading
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

from amuro.checkpoints import history
from amuro.programs import load_program
from amuro.registry.family_files import family_folder
from amuro.settings import script
from amuro.tasks import DATASETS, SFT

SEEDS = (10, 20)  # apart: the trainer orders an epoch by seed + epoch, so that neighbours share orders
CONTROL = "paws"  # the dataset that is not learned
FORGOTTEN = "xsum,socialiqa,mnli_matched"  # tasks of other datasets; of the control there is nothing to forget


def commands(out: Path) -> list[tuple[str, list[str]]]:
    """(program, arguments) of every cell: BASE first, then one seed after the other, conversations, other prompts."""
    nursery, runs = out / "nursery", out / "runs"
    family = family_folder(str(nursery))
    places = ["--data_dir", str(nursery / "data"), "--runs", str(runs)]
    points = [f"{family}@{step}" for step, *_ in history(str(family))]
    cells = [("eval/run.py", ["--checkpoint", point, "--tasks", "all", "--num_shots", "0"]) for point in points]
    for seed, dataset in ((seed, dataset) for seed in SEEDS for dataset in SFT):
        if seed == SEEDS[0]:  # what tuning makes a model forget is measured on one seed
            asked = ["--tasks", f"id,ood,{FORGOTTEN}", "--prompt_format", "default,instruct"]
        else:
            asked = ["--tasks", "id,ood"]
        if dataset == CONTROL:  # not learned with any prompt, and its 3,200 rows take longest
            asked = asked[:2]
        tuned = ["--dataset", dataset, "--recipe", "nursery-sft", "--seed", str(seed), *asked]
        cells += [("train_sft.py", ["--checkpoint", point, *tuned]) for point in points]
    instruct = ["--recipe", "nursery-instruct", "--seed", str(SEEDS[0])]
    cells += [("train_instruct.py", ["--checkpoint", point, *instruct]) for point in points]
    learned = [task for name in SFT if name != CONTROL for task in (*DATASETS[name].id, *DATASETS[name].ood)]
    prompts = ["--tasks", ",".join(learned), "--num_shots", "0", "--prompt_format", "instruct"]
    cells += [("eval/run.py", ["--checkpoint", point, *prompts]) for point in points]
    return [(program, [*arguments, *places]) for program, arguments in cells]


def run_cell(number: int, program: str, arguments: list[str], logs: str) -> str:
    """Run one cell in this process, its output in a log file. Returns the log's end where it failed, else ""."""
    log = Path(logs) / f"{number:03d}.log"
    with open(log, "w", encoding="utf-8") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        print(program, *arguments, flush=True)
        try:
            load_program(program).main(arguments)
        except Exception:  # reported by the caller, with the log's name; the other cells go on
            traceback.print_exc()
            return f"{program} {' '.join(arguments)}\n  {traceback.format_exc(limit=0).strip()}\n  log: {log}"
    return ""


def _start_worker() -> None:
    """One thread per worker, no network, and an end when the parent is gone (killed, it cannot tell its workers)."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_all(todo: list[tuple[str, list[str]]], logs: Path, processes: int) -> list[str]:
    """Run every (program, arguments), `processes` at a time, with a progress bar. Returns what failed, with its log."""
    logs.mkdir(parents=True, exist_ok=True)
    os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    os.environ.setdefault("WANDB_MODE", "offline")
    # glibc gives large blocks back to the system at every free; keeping them saves a tenth of the time.
    os.environ.update(MALLOC_MMAP_THRESHOLD_=str(2**30), MALLOC_TRIM_THRESHOLD_=str(2**31 - 1))
    context, failed = multiprocessing.get_context("spawn"), []
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_start_worker) as pool:
        cells = [pool.submit(run_cell, number, *command, str(logs)) for number, command in enumerate(todo)]
        for done in tqdm(as_completed(cells), total=len(cells), desc="cells", unit="cell", smoothing=0.05):
            if problem := done.result():
                failed.append(problem)
                tqdm.write(f"failed: {problem}")
    return failed


def main() -> None:
    """Run the demo's grid; exit code 1 where a cell failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder with nursery/; runs/ is written there")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="cells at a time; default one per core")
    given = parser.parse_args()
    todo = commands(given.out)
    if failed := run_all(todo, given.out / "runs" / "logs", given.processes):
        sys.exit(f"{len(failed)} of {len(todo)} cells failed; `make demo` runs them again")


if __name__ == "__main__":
    script(main)
