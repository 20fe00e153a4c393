"""What faults do to a grid: SIGKILLs at random moments, races for the same cells, disks that fail, keys that leak.

    python bench/faults.py --out /tmp/faults
    python bench/faults.py --out /tmp/faults --kills 5 --ray_kills 0 --rounds 1 --stubs 40 --disk_faults 3 --cells 4

Everything is compared with an undisturbed run of the same grid: no cell may be lost, no row be there twice, no result
be half written, and all values be the same. Prints a table of what was found.
"""

import argparse
import builtins
import collections
import contextlib
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

CANARY = "canary00" * 6  # looks like a W&B key
os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1", WANDB_MODE="offline")

import pyarrow.parquet as pq  # noqa: E402
import torch  # noqa: E402
import tqdm.auto  # noqa: E402
from transformers import Trainer  # noqa: E402

from amuro import (  # noqa: E402
    cells,
    evaluation,
    harness,  # noqa: E402, F401  heavy: forked children have it
    results,
    resume,
    tracking,
    training,
    units,
    weights,
)
from amuro.checkpoints import history  # noqa: E402
from amuro.nursery import raise_nursery  # noqa: E402
from amuro.programs import load_program  # noqa: E402
from amuro.running import claims, runner  # noqa: E402
from amuro.running.grids import Command  # noqa: E402

FORK = multiprocessing.get_context("fork")
PHASES = {  # phase -> (where it is, the function that it begins with)
    "training step": (training.Guard, "on_log"),
    "checkpoint save": (Trainer, "_save_optimizer_and_scheduler"),
    "checkpoint mark": (resume.Keeper, "on_save"),
    "weights": (weights, "_store"),
    "record": (cells, "write_record"),
    "evaluation": (evaluation, "score_units"),
    "result write": (evaluation, "write_unit"),
    "upload": (tracking, "log_unit"),
    "weights removed": (weights, "remove"),
}
SOON = 0.03  # seconds after the phase began, at most, that the signal comes


# ---- as a program of a grid: a real one that is killed where a token says so


def read(argv: list[str] | None = None):
    """The program's arguments, as its own `read` gives them."""
    return load_program(_program(argv)).read(argv)


def main(argv: list[str] | None = None):
    """The program that the flags are for; $AMURO_FAULTS is a folder of files named PHASE-NUMBER, a kill each."""
    set_traps(Path(os.environ["AMURO_FAULTS"]))
    return load_program(_program(argv)).main(argv)


def _program(argv: list[str]) -> str:
    return "train_sft.py" if any(word.startswith("--dataset") for word in argv) else "eval/run.py"


def set_traps(tokens: Path) -> None:
    """Let every phase begin with a SIGKILL of this process within moments, while there are tokens for it."""
    for phase, (place, name) in PHASES.items():
        real = getattr(place, name)
        if not hasattr(real, "trap"):
            setattr(place, name, _trapped(real, phase, tokens))


def _trapped(real: Callable, phase: str, tokens: Path) -> Callable:
    def trapped(*args, **kwargs):
        token = next(iter(sorted(tokens.glob(f"{phase}-*"))), None)
        if token and random.random() < 0.6:
            with contextlib.suppress(FileNotFoundError):  # another process was quicker
                token.rename(tokens.parent / "killed" / token.name)
                threading.Timer(random.uniform(0, SOON), os.kill, (os.getpid(), signal.SIGKILL)).start()
        return real(*args, **kwargs)

    trapped.trap = True
    return trapped


# ---- kills


def grid(out: Path) -> list[Command]:
    """39 cells of seconds each: three checkpoints BASE, and tuned on four datasets with three seeds."""
    family = raise_nursery(out / "nursery", preset="tiny")
    points = [f"{family}@{step}" for step, *_ in history(str(family))]
    common = {"data_dir": str(out / "nursery" / "data"), "num_shots": "0", "limit": "4"}
    train = {"tasks": "id", "num_train_rows": "32", "num_train_epochs": "2", "learning_rate": "1e-3"}
    train |= {"save_strategy": "steps", "save_steps": "2", "logging_steps": "1"}
    base = [{"checkpoint": point, "tasks": "id", "report_to": "none"} for point in points]
    tuned = [
        {"checkpoint": point, "dataset": dataset, "seed": seed, "report_to": "wandb" if seed == "10" else "none"}
        | train
        for seed in ("10", "20", "30")
        for dataset in ("xsum", "socialiqa", "mnli", "paws")
        for point in points
    ]
    return [Command("bench/faults.py", tuple((each | common).items())) for each in base + tuned]


def attack(commands: list[Command], out: Path, kills: int, workers: int, on_ray: bool) -> dict:
    """Run the grid while it is killed. Returns counts: kills, seconds, failed."""
    for name in ("tokens", "killed"):
        (out / name).mkdir(parents=True)
    for number in range(kills):
        (out / "tokens" / f"{list(PHASES)[number % len(PHASES)]}-{number:03d}").touch()
    os.environ["AMURO_FAULTS"], started = str(out / "tokens"), time.monotonic()
    if on_ray:
        summary = runner.run(commands, out / "runs", gpus_per_cell=0, retries=kills + 1, processes=workers)
        failed = [str(each) for each in summary.failed]
    else:
        failed = scripts(commands, out, workers)
    dead = collections.Counter(path.name.rpartition("-")[0] for path in (out / "killed").iterdir())
    return {"kills": dead, "failed": failed, "seconds": time.monotonic() - started}


def scripts(commands: list[Command], out: Path, workers: int) -> list[str]:
    """The same grid by several processes that each go through all commands, as jobs on a cluster do; a killed one is
    started again. Returns what went wrong otherwise."""
    (out / "logs").mkdir(exist_ok=True)
    running, problems, started = [], [], 0
    todo = workers
    while todo or running:
        for process in [each for each in running if not each.is_alive()]:
            running.remove(process)
            todo += process.exitcode == -signal.SIGKILL
            if process.exitcode not in (0, -signal.SIGKILL):
                problems.append(f"exit code {process.exitcode}: {out / 'logs' / process.name}")
        while todo:
            todo, started = todo - 1, started + 1
            name = f"{started:04d}.log"
            process = FORK.Process(target=_script, args=(commands, out, name, started), name=name)
            process.start()
            running.append(process)
        time.sleep(0.05)
    return problems


def _script(commands: list[Command], out: Path, log: str, seed: int) -> None:
    with open(out / "logs" / log, "w") as file:
        os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
    for bar in (tqdm.std.tqdm, tqdm.auto.tqdm):  # the lock they have is shared, and stays with a process that is killed
        bar.set_lock(threading.RLock())
    random.seed(seed)
    left = list(commands)
    while left:
        random.shuffle(left)
        for command in list(left):
            with contextlib.suppress(claims.Claimed):
                main([*command.argv, f"--runs={out / 'runs'}", "--if_claimed=leave"])
                left.remove(command)
        time.sleep(0.1)


def compare(runs: Path, good: Path) -> dict[str, int]:
    """Cells lost, rows twice, files half written, values and weights that differ from the undisturbed run's."""
    records = {path.parent.name: json.loads(path.read_text()) for path in good.glob("*/run.json")}
    found = {path.parent.name: json.loads(path.read_text()) for path in runs.glob("*/run.json")}
    units = {path.relative_to(good) for path in good.glob("*/units/*.parquet")}
    there = {path.relative_to(runs) for path in runs.glob("*/units/*.parquet")}
    half = [path for path in there if not _readable(runs / path)]
    differ = [path for path in units & there if (good / path).read_bytes() != (runs / path).read_bytes()]
    differ += [name for name in records if name in found and records[name].get("weights") != found[name].get("weights")]
    twice = len(there - units) if half else int(results.load(runs).duplicated(results.KEY).sum()) + len(there - units)
    left = [path for path in runs.glob("*/.*")] + [path for path in runs.glob("*/weights*")]
    return {
        "cells lost": len(records.keys() - found.keys()) + len(units - there),
        "rows twice": twice,
        "half written": len(half),
        "differ": len(differ) if half else len(differ) + (not results.load(runs).equals(results.load(good))),
        "left over": len(left),
    }


def _readable(path: Path) -> bool:
    try:
        units.read_unit(path)
        return pq.read_table(path).num_rows > 0
    except Exception:  # whatever is wrong with it, it is not whole
        return False


# ---- races


def race(folder: Path, stubs: int, processes: int, seed: int) -> dict[str, int]:
    """Processes racing for stub cells, with leases of dead processes of this and of another host lying about, and three
    of the processes killed in the middle of a cell."""
    rng = random.Random(seed)
    stale = rng.sample(range(stubs), max(2, stubs // 10))
    leaver = FORK.Process(target=_leave, args=(folder, stale))
    leaver.start()
    leaver.join()
    for number in stale[::4]:
        marker = folder / f"{number}" / claims.FILE
        marker.write_text(marker.read_text().replace("host=", "host=far-"))
    racers = [FORK.Process(target=_race, args=(folder, stubs, seed * 100 + number)) for number in range(processes)]
    for racer in racers:
        racer.start()
    for number in rng.sample(range(processes), min(3, processes - 1)):
        time.sleep(rng.uniform(0.05, 0.3))
        racers[number].kill()
    for racer in racers:
        racer.join()
    lines = [line.split() for line in (folder / "log").read_text().splitlines()]
    made = collections.Counter(cell for what, cell in lines if what == "made")
    lost = collections.Counter(cell for what, cell in lines if what == "second")
    return {
        "cells": stubs,
        "lost": sum(not (folder / f"{number}" / "run.json").is_file() for number in range(stubs)),
        "recorded twice": sum(count > 1 for count in made.values()),
        "worked on twice": len(lost),
        "stale leases": len(stale),
        "leases left": len(list(folder.glob(f"*/{claims.FILE}"))),
    }


def _leave(folder: Path, stale: list[int]) -> None:
    """Take the leases of some cells and die."""
    leases = [claims.Lease(folder / f"{number}", 1.0) for number in stale]
    assert all([lease.take() for lease in leases])
    os.kill(os.getpid(), signal.SIGKILL)


def _race(folder: Path, stubs: int, seed: int) -> None:
    rng, left = random.Random(seed), list(range(stubs))
    log = os.open(folder / "log", os.O_APPEND | os.O_WRONLY | os.O_CREAT)
    _quiet()
    while left:
        rng.shuffle(left)
        for number in list(left):
            cell = folder / f"{number}"
            if (cell / "run.json").is_file():
                left.remove(number)
                continue
            with contextlib.suppress(claims.Claimed), claims.claim(cell, "leave", seconds=1.0):
                if not (cell / "run.json").is_file():  # look again under the claim
                    time.sleep(rng.uniform(0, 0.002))
                    first = cells.write_once(cell / "run.json", b"{}")
                    os.write(log, f"{'made' if first else 'second'} {number}\n".encode())
        time.sleep(0.05)


# ---- disks


def disk_faults(command: Command, good: Path, out: Path, faults: int, seed: int) -> dict[str, collections.Counter]:
    """A cell whose disk fails at a random moment, and once more with a whole disk: what is there must always be whole,
    and in the end the same as undisturbed."""
    rng = random.Random(seed)
    counts = {kind: collections.Counter() for kind in ("full disk", "read-only folder", "failing rename")}
    calls = FORK.Queue()
    _in_child(lambda: _count(command, out / "count", calls))
    most = calls.get()
    for number in range(faults):
        kind = list(counts)[number % len(counts)]
        runs = out / f"{number:03d}"
        at = rng.randrange(200_000) if kind == "full disk" else rng.randrange(1, most[kind] + 1)
        code = _in_child(lambda kind=kind, at=at, runs=runs: _run_with(kind, at, command, runs))
        counts[kind]["faults"] += 1
        counts[kind]["ended in an error"] += code != 0
        counts[kind]["half written"] += any(not _readable(path) for path in runs.glob("*/units/*.parquet"))
        records = list(runs.glob("*/run.json"))
        counts[kind]["half written"] += any(not _whole(path) for path in records)
        _in_child(lambda runs=runs: _run_with("", 0, command, runs))
        (folder,) = [path.parent for path in runs.glob("*/run.json")] or [runs]
        same = [path.read_bytes() == (good / path.relative_to(runs)).read_bytes() for path in folder.glob("units/*")]
        counts[kind]["same in the end"] += bool(same) and all(same)
    return counts


def _whole(path: Path) -> bool:
    return "weights" in json.loads(path.read_text())


def _in_child(work: Callable[[], None]) -> int:
    """Run something in a forked process and return its exit code."""
    process = FORK.Process(target=work)
    process.start()
    process.join()
    return process.exitcode


def _run_with(kind: str, at: int, command: Command, runs: Path) -> None:
    _quiet()
    if kind == "full disk":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit is then an error, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (at, at))
    elif kind:
        fail(kind, runs, at)
    program = load_program("train_sft.py")
    program.main([*command.argv, f"--runs={runs}", "--report_to=none"])


def _count(command: Command, runs: Path, calls) -> None:
    """How many calls of each kind an undisturbed cell makes."""
    _quiet()
    made = {kind: fail(kind, runs, at=10**9) for kind in ("read-only folder", "failing rename")}
    load_program("train_sft.py").main([*command.argv, f"--runs={runs}", "--report_to=none"])
    calls.put({kind: len(each) for kind, each in made.items()})


def fail(kind: str, runs: Path, at: int) -> list[str]:
    """Let calls that change files under `runs` fail: renames and links at the `at`-th one, with a read-only folder all
    from there on. Returns the list of calls, which grows."""
    calls: list[str] = []
    renames = [(os, "replace"), (os, "rename"), (os, "link")]
    more = [(os, "mkdir"), (os, "unlink"), (os, "rmdir"), (builtins, "open")]

    def wrap(real: Callable) -> Callable:
        def call(path, *args, **kwargs):
            writes = real is not opened or any(letter in (args or (kwargs.get("mode", "r"),))[0] for letter in "wax")
            if writes and isinstance(path, str | os.PathLike) and str(runs) in os.fspath(path):
                calls.append(os.fspath(path))
                if len(calls) == at or (kind == "read-only folder" and len(calls) > at):
                    raise OSError(30 if kind == "read-only folder" else 5, "made to fail", os.fspath(path))
            return real(path, *args, **kwargs)

        return call

    opened = builtins.open
    for module, name in renames if kind == "failing rename" else renames + more:
        setattr(module, name, wrap(getattr(module, name)))
    return calls


def _quiet() -> None:
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1), os.dup2(nowhere.fileno(), 2)


# ---- all of it


def leaks(out: Path) -> tuple[int, int]:
    """(files scanned, files that hold the key)."""
    files = [path for path in out.rglob("*") if path.is_file()]
    return len(files), sum(CANARY.encode() in path.read_bytes() for path in files)


def bench(argv: list[str] | None = None) -> int:
    """Everything; the exit code says whether a bar was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--kills", type=int, default=200, help="SIGKILLs of scripts that go through the grid")
    parser.add_argument("--ray_kills", type=int, default=10, help="SIGKILLs of the runner's workers; 0 leaves Ray out")
    parser.add_argument("--rounds", type=int, default=20, help="races")
    parser.add_argument("--stubs", type=int, default=500, help="cells of a race")
    parser.add_argument("--disk_faults", type=int, default=60, help="full disks, read-only folders, failing renames")
    parser.add_argument("--cells", type=int, default=37, help="cells of the grid, at most 37")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="scripts at a time")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    os.environ.update(WANDB_API_KEY=CANARY, HF_TOKEN=CANARY)
    out, rows, bad = given.out.resolve(), [], 0
    torch.set_num_threads(1)
    commands = grid(out)
    commands = commands[:1] + commands[3 : 2 + given.cells]
    attack(commands, out / "undisturbed", 0, given.workers, on_ray=False)
    good = out / "undisturbed" / "runs"
    forms = [("scripts", given.kills, False)] + [("amuro run", given.ray_kills, True)] * (given.ray_kills > 0)
    for name, kills, on_ray in forms:
        told = attack(commands, out / name.replace(" ", "-"), kills, given.workers, on_ray)
        found = compare(out / name.replace(" ", "-") / "runs", good)
        bad += sum(found.values()) + len(told["failed"])
        shown = ", ".join(f"{phase} {count}" for phase, count in told["kills"].items())
        rows.append((f"{sum(told['kills'].values())} SIGKILLs, {name}, {len(commands)} cells", shown, found))
        print(*told["failed"], sep="\n")
    races = [race(_new(out / f"race-{turn}"), given.stubs, 8, given.seed + turn) for turn in range(given.rounds)]
    total = {name: sum(each[name] for each in races) for name in races[0]} if races else {}
    bad += sum(total.get(name, 0) for name in ("lost", "recorded twice", "worked on twice"))
    rows.append((f"8 processes racing, {given.rounds} rounds of {given.stubs} cells", "3 killed in each", total))
    for kind, counts in disk_faults(commands[1], good, out / "disk", given.disk_faults, given.seed).items():
        bad += counts["half written"] + counts["faults"] - counts["same in the end"]
        rows.append((kind, "at a random moment of a cell, then run again", dict(counts)))
    scanned, leaked = leaks(out)
    bad += leaked
    rows.append(("a key in the environment", f"{scanned} files scanned", {"files that hold it": leaked}))
    print("\n| fault | where | found |\n|---|---|---|")
    for what, where, found in rows:
        print(f"| {what} | {where} | {', '.join(f'{count} {name}' for name, count in found.items())} |")
    return int(bad > 0)


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    sys.exit(bench())
