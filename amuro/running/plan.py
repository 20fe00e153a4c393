"""What grids come to before anything of them runs: cells, hours, downloads, disk.

    plan = make(["sweeps/olmo_ckpts.yaml"], Path("runs"))
    print(text(plan))
    refuse(plan)                       ValueError where the disk cannot hold it

Whether a command is complete is read from the ledger (ledger.py): one that was never run here counts as to do. If
another command has made the same cell, its script finds out by itself.
"""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from amuro.checks import check_dataset
from amuro.data import has_split, resolve_data_dir
from amuro.programs import EVALUATE
from amuro.recipes import for_dataset, path_of
from amuro.registry.doubts import doubts
from amuro.running import costs, grids, ledger, needs
from amuro.running.board import duration
from amuro.running.disk import GB, SAVING
from amuro.running.grids import Command
from amuro.running.status import claimed
from amuro.strict import read_yaml
from amuro.tasks import DATASETS, TASKS, Dataset, Task, select_tasks

COUNTED = ("cells", "complete", "failed", "to do", "duplicates")


@dataclass(frozen=True)
class Time:
    """Seconds of the commands of which they are known, by source; the others are `unknown`."""

    known: dict[str, list[float]]
    unknown: int

    @property
    def seconds(self) -> float:
        return sum(map(sum, self.known.values()))


@dataclass(frozen=True)
class Disk:
    """Bytes. `download`: of the checkpoints on the hub that are not here; the size of `unsized` ones is unknown.
    `work`: at most, of the cells at work at a time; `kept`: of the weights that stay."""

    checkpoints: int
    cached: int
    unsized: int
    download: int
    work: int
    kept: int
    free_cache: int
    free_runs: int
    one: bool  # whether the hub's cache and the runs are on the same disk


@dataclass(frozen=True)
class Plan:
    """`counts` are those of each file (COUNTED; duplicates are cells that stand before already)."""

    runs: Path
    counts: dict[str, Counter]
    todo: list[Command]
    running: int
    processes: int
    time: Time
    disk: Disk
    notes: list[str]
    warnings: list[str]


def make(
    files: Sequence[str | Path], runs: Path, only: Sequence[str] = (), data_dir: str | None = None, processes: int = 1
) -> Plan:
    """The plan of the commands of several files, `processes` at a time. ValueError on a file, checkpoint, task or
    dataset that is not there."""
    counts, todo = _counted(grids.expand(files, only), runs)
    points = needs.named(todo)
    check_data(todo, data_dir)
    points, notes = needs.located(points)
    sizes = needs.sizes(points, notes)
    measured, known, unknown = costs.measured(runs), {}, 0
    for command in todo:
        seconds, source = costs.estimate(command, measured)
        if seconds is None:
            unknown += 1
        else:
            known.setdefault(source, []).append(seconds)
    return Plan(
        runs=runs,
        counts=counts,
        todo=todo,
        running=sum(holder.alive for holder in claimed(runs).values()),
        processes=processes,
        time=Time(known, unknown),
        disk=_disk(todo, points, sizes, runs, processes),
        notes=[f"the size of {name} is unknown: {note}" for name, note in notes.items()],
        warnings=doubts(needs.as_audited(points.values(), runs), runs),
    )


def _counted(points: list[Command], runs: Path) -> tuple[dict[str, Counter], list[Command]]:
    """(counts per file, the commands that are to be run)."""
    entries, counts, seen, todo = ledger.read(runs), {}, set(), []
    for command in points:
        count = counts.setdefault(command.file, Counter())
        count["cells"] += 1
        if command.key in seen:
            count["duplicates"] += 1
            continue
        seen.add(command.key)
        state = ledger.state_of(command, entries, runs)
        count[state] += 1
        if state == "to do":
            todo.append(command)
    return counts, todo


def check_data(commands: list[Command], data_dir: str | None = None) -> None:
    """ValueError with all files that the mirrors lack; what is on the hub is not looked at."""
    asked = set()
    for command in commands:
        own = command.get("data_dir") if "data_dir" in dict(command.flags) else data_dir
        asked.add((resolve_data_dir(own), command.program, command.get("dataset"), command.get("tasks")))
    lacking = {}
    for mirror, program, dataset, tasks in asked:
        stage = costs.STAGES[program]
        dataset = dataset or ("tulu" if stage == "instruct" else None)
        if stage != "base":
            check_dataset(dataset, stage)
        trained = DATASETS.get(dataset or "")
        asked_tasks = select_tasks(tasks or costs.DEFAULT_TASKS[stage], trained.name if trained else "")
        scored = [TASKS[name] for name in asked_tasks]
        used: list[Task | Dataset] = [*([trained] if trained else []), *scored]
        for each in used:
            if not has_split(each.source, each.split, mirror):
                lacking[f"{mirror}/{each.source.folder}/{each.split}.jsonl"] = None
    for command in commands:
        stage = costs.STAGES[command.program]
        if not (setting(command, "checkpoint") or (stage == "base" and command.get("cell"))):
            raise ValueError(f"{command}: no checkpoint; give it under `parameters`, or in the recipe")
        if stage == "sft" and not setting(command, "dataset"):
            raise ValueError(f"{command}: no dataset to train on; give it under `parameters`, or in the recipe")
    if lacking:
        raise ValueError(f"data_dir: {len(lacking)} file(s) are not there: {', '.join(sorted(lacking))}")


# ---- disk


def _disk(todo: list[Command], points: dict, sizes: dict[str, needs.Size], runs: Path, processes: int) -> Disk:
    from huggingface_hub import constants

    hub = {point.base if point.commit else name: sizes.get(name) for name, point in points.items() if not point.path}
    known = [size.download for size in hub.values() if size]
    work, kept = [], 0
    for command in todo:
        if command.program != EVALUATE and (size := sizes.get(command.get("checkpoint"))):
            work.append(size.weights * (SAVING if setting(command, "save_strategy") in ("steps", "epoch") else 1))
            kept += size.weights * (setting(command, "keep_weights") == "all")
    places = _existing(Path(constants.HF_HUB_CACHE).expanduser()), _existing(runs)
    return Disk(
        checkpoints=len(hub),
        cached=known.count(0),
        unsized=len(hub) - len(known),
        download=sum(known),
        work=sum(sorted(work)[-processes:]),
        kept=kept,
        free_cache=shutil.disk_usage(places[0]).free,
        free_runs=shutil.disk_usage(places[1]).free,
        one=places[0].stat().st_dev == places[1].stat().st_dev,
    )


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    return next(each for each in (folder, *folder.parents) if each.is_dir())


def setting(command: Command, name: str) -> str | None:
    """What a command sets, by a flag or its recipe; None where neither says anything."""
    recipe = command.get("recipe")
    return command.get(name) or (for_dataset(_recipe(recipe), command.get("dataset")).get(name) if recipe else None)


@cache
def _recipe(name: str) -> dict:
    found = read_yaml(path_of(name))
    if not isinstance(found, dict):
        raise ValueError(f"--recipe {name}: must be a mapping of flags to values")
    return found


def refuse(plan: Plan) -> None:
    """ValueError where a disk cannot hold what is known to be needed."""
    disk = plan.disk
    cells = disk.work + disk.kept
    if disk.one:
        wanted = [(disk.download + cells, disk.free_runs, "downloads and the cells' weights")]
    else:
        wanted = [(disk.download, disk.free_cache, "downloads to the hub's cache")]
        wanted += [(cells, disk.free_runs, f"the cells' weights under {plan.runs}")]
    for needed, free, what in wanted:
        if needed > free:
            raise ValueError(
                f"the disk cannot hold it: {_gb(needed)} are needed for {what}, {_gb(free)} are free; make room, take "
                "a part of it (--only), fewer --processes, or another disk (--runs, HF_HOME)"
            )


# ---- text


def text(plan: Plan) -> str:
    """The plan for people."""
    width = max(map(len, plan.counts), default=4)
    lines = [f"{'file':<{width}}" + "".join(f"{name:>11}" for name in COUNTED)]
    total = sum(plan.counts.values(), Counter())
    for name, count in [*plan.counts.items(), *([("all", total)] if len(plan.counts) > 1 else [])]:
        lines.append(f"{name:<{width}}" + "".join(f"{count[each]:>11}" for each in COUNTED))
    if total["failed"]:
        lines.append(f"failed ones are run with --retry_failed only; why: amuro status --runs {plan.runs}")
    if plan.running:
        lines.append(f"at work now under {plan.runs}: {plan.running}")
    lines += [*_time_lines(plan), *_disk_lines(plan)]
    lines += [f"note: {note}" for note in plan.notes] + [f"warning: {each}" for each in plan.warnings]
    return "\n".join(lines)


def _time_lines(plan: Plan) -> list[str]:
    time, lines = plan.time, []
    for source, each in time.known.items():
        unit = "CPU" if " cpu" in source else "GPU"
        lines.append(f"time: {_hours(sum(each))} of one {unit} for {len(each)} cells, {source}")
    if time.unknown:
        lines.append(f"time: unknown for {time.unknown} cells, until one of their kind is complete under {plan.runs}")
    if time.known and plan.processes > 1:
        lines.append(f"      {plan.processes} at a time: {_hours(time.seconds / plan.processes)}")
    return lines


def _hours(seconds: float) -> str:
    return duration(seconds) if seconds < 36_000 else f"{seconds / 3600:.0f} h"


def _disk_lines(plan: Plan) -> list[str]:
    disk, lines = plan.disk, []
    if disk.checkpoints:
        new = disk.checkpoints - disk.cached - disk.unsized
        parts = [f"{_gb(disk.download)} for {new} checkpoints"] * (new > 0)
        parts += [f"{disk.cached} checkpoints are here"] * (disk.cached > 0)
        parts += [f"of {disk.unsized} checkpoints the size is unknown"] * (disk.unsized > 0)
        lines.append(f"download: {', '.join(parts)} ({_gb(disk.free_cache)} are free)")
    if disk.work or disk.kept:
        at_work = f"{_gb(disk.work)} for {plan.processes} cell{'s' * (plan.processes > 1)} at a time"
        kept = f", {_gb(disk.kept)} for weights that are kept" * (disk.kept > 0)
        but = ", not counting those of unknown size" * (disk.unsized > 0)
        lines.append(f"disk: {at_work}{kept}{but} ({_gb(disk.free_runs)} are free)")
    return lines


def _gb(size: int) -> str:
    return f"{size / GB:.1f} GB" if size >= GB / 10 else f"{size / 1e6:.1f} MB"
