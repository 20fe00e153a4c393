"""How far things are under a runs folder: done, at work, stale, failed with the cause, missing.

    status = look(Path("runs"), ["sweeps/olmo_ckpts.yaml"])     of these commands; without files, of the cells there
    print(text(status))                                         dataclasses.asdict(status) is its JSON

Commands are looked up in the ledger (ledger.py), cells in their folders, and who is at a cell by its claim.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from amuro.registry.doubts import of_runs
from amuro.running import claims, grids, ledger
from amuro.running.board import duration
from amuro.running.grids import Command

MOST = 20  # lines of a kind in the text; JSON has all


@dataclass(frozen=True)
class Failed:
    """A command that failed: the error's first line, how often it was tried, and its log where it has one."""

    command: str
    cause: str
    attempts: int
    log: str
    host: str


@dataclass(frozen=True)
class Claim:
    """A cell's folder that a process has claimed; `idle` seconds since its last sign of life."""

    cell: str
    host: str
    pid: int
    idle: float


@dataclass(frozen=True)
class Status:
    """`done` and `missing` are commands where files were given, else complete cells with their number of units, and the
    units that the grid they span lacks. A `stale` claim is one of a process that is gone."""

    runs: str
    done: list[dict] = field(default_factory=list)
    running: list[Claim] = field(default_factory=list)
    stale: list[Claim] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    units: tuple[int, int] = (0, 0)  # of the cells: there, expected
    warnings: list[str] = field(default_factory=list)


def look(runs: Path, files: Sequence[str | Path] = (), only: Sequence[str] = ()) -> Status:
    """The status of the commands of `files`, without any of all cells under `runs`. ValueError where there is none."""
    if only and not files:
        raise ValueError("--only: takes a part of the commands of files; give the sweep files too, or leave it out")
    if not files and not (runs.is_dir() and any(runs.iterdir())):
        raise ValueError(
            f"--runs {runs}: no complete cell there; a cell is made by train_sft.py, eval/run.py, `amuro run`"
        )
    entries = ledger.read(runs)
    holders = claimed(runs)
    running = [_claimed(name, holder) for name, holder in holders.items() if holder.alive]
    stale = [_claimed(name, holder) for name, holder in holders.items() if not holder.alive]
    found, warnings = partial(Status, str(runs), running=running, stale=stale), of_runs(runs)
    if not files:
        done, missing, units = _cells(runs)
        failed = [_failed(entry) for entry in entries.values() if entry.state == "failed"]
        return found(done=done, failed=failed, missing=missing, units=units, warnings=warnings)
    commands = grids.read(files, only)
    states = {command.key: ledger.state_of(command, entries, runs) for command in commands}
    of = lambda state: [command for command in commands if states[command.key] == state]  # noqa: E731
    if before := sum(command.key in entries for command in of("to do")):
        warnings.append(
            f"{before} of the missing commands ended well before; since then what they made went, or a file of theirs "
            "changed (rows, recipe, checkpoint), or the prompts: `amuro run` looks at each again"
        )
    return found(
        done=[{"command": str(command), "cells": list(entries[command.key].folders)} for command in of("complete")],
        failed=[_failed(entries[command.key]) for command in of("failed")],
        missing=[str(command) for command in of("to do")],
        warnings=warnings,
    )


def claimed(runs: Path) -> dict[str, claims.Holder]:
    """{cell's folder name: who has claimed it} under `runs`."""
    found = {path.parent.name: claims.holder(path.parent) for path in sorted(runs.glob(f"*/{claims.FILE}"))}
    return {name: holder for name, holder in found.items() if holder}


def _claimed(name: str, holder: claims.Holder) -> Claim:
    return Claim(name, holder.host, holder.pid, round(time.time() - holder.seen, 1))


def _failed(entry: ledger.Entry) -> Failed:
    command = Command(entry.program, tuple(entry.flags.items()))
    return Failed(str(command), entry.cause, entry.attempts, entry.log, entry.host)


def _cells(runs: Path) -> tuple[list[dict], list[str], tuple[int, int]]:
    """(complete cells with their number of units, what is missing, (units there, expected))."""
    from amuro.results import KEY, coverage, load

    if not any(runs.glob("*/run.json")):
        return [], [], (0, 0)
    table = load(runs)
    units = table.drop_duplicates([name for name in KEY if name != "metric"])
    names = ["cell_id", "family", "step", "stage", "dataset", "seed"]
    counts = units.groupby(["family", "step", "stage", "dataset", "seed", "cell_id"], dropna=False).size()
    rows = counts.rename("units").reset_index()[[*names, "units"]]
    there, expected, missing = coverage(table)
    cells = rows.astype(object).where(rows.notna(), None).to_dict("records")
    return cells, missing, (there, expected)


# ---- text


def text(status: Status) -> str:
    """The status for people."""
    lines = [
        f"{each['cell_id']}  {_cell(each):<42} {each['units']:>4} units" for each in status.done if "cell_id" in each
    ]
    lines += _some([f"at work: {_who(each)}" for each in status.running])
    lines += _some([f"stale: {_who(each)}; its command goes on from there" for each in status.stale])
    for each in status.failed:
        tried = f", tried {each.attempts} times" if each.attempts > 1 else ""
        lines.append(f"failed: {each.command}\n  {each.cause or 'no cause is known'}{tried}")
        lines.append(f"  log: {each.log}" if each.log else f"  no log: it was started by hand on {each.host}")
    lines += [f"warning: {each}" for each in status.warnings]
    counts = f"{len(status.failed)} failed, {len(status.running)} at work, {len(status.stale)} stale"
    if status.units == (0, 0):
        lines += _some([f"missing: {each}" for each in status.missing])
        lines.append(f"{len(status.done)} complete, {counts}, {len(status.missing)} missing")
    else:
        there, expected = status.units
        lines.append(f"{len(status.done)} cells, {there} of {expected} units, {counts}")
        lines += _some([f"  missing: {each}" for each in status.missing])
    return "\n".join(lines)


def _cell(row: dict) -> str:
    step = "?" if row["step"] is None else row["step"]
    tuned = f"{row['stage']} {row['dataset']} seed {row['seed']}" if row["dataset"] else "base"
    return f"{row['family'] + '@' + str(step):<20} {tuned}"


def _who(each: Claim) -> str:
    return f"{each.cell} (process {each.pid} on {each.host}, last sign of life {duration(each.idle)} ago)"


def _some(lines: list[str]) -> list[str]:
    return lines if len(lines) <= MOST else [*lines[:MOST], f"  ... and {len(lines) - MOST} more; --json has all"]
