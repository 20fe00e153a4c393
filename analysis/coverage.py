"""What of a study is missing, and the commands that fill it.

    coverage(results.load("runs"), "runs")      a row per command: which cell, how many of its units, what, why
    notes(table)                                what can not be compared with the table as it is, in words

Missing is what other cells of the same kind have, what a command was asked for and did not leave, and what has failed
(the ledger, amuro/running/ledger.py). The command is the one that asked it of such another cell, with this one's
checkpoint; without a ledger it is made of that cell's recorded flags and the missing units.
"""

import ast
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from amuro import results
from amuro.cells import Unit, read_record
from amuro.data import SHOT_SEED
from amuro.results import CELL, UNIT, unit_named
from amuro.running import ledger
from amuro.running.grids import PLACES, Command
from amuro.tasks import TASKS
from amuro.units import read_unit

COLUMNS = ["family", "checkpoint", "stage", "dataset", "learning_rate", "seed"]
COLUMNS += ["units_missing", "units_expected", "missing", "why", "command"]
PROGRAMS = {"base": "eval/run.py", "sft": "train_sft.py", "instruct": "train_instruct.py"}
STAGES = {program: stage for stage, program in PROGRAMS.items()}
ASKED = ("tasks", "prompt_format", "num_shots", "methods", "shot_seed", "apply_chat_template", "dtype")
FEW = 4  # so many missing units are named; more are counted


@dataclass(frozen=True)
class _Known:
    """What there is to make commands of: the study's `units` and `cells` (CELL, checkpoint, cell_id, folder), the
    ledger's `entries`, and who `asked` for a unit: (CELL, file name) -> {checkpoint: entry}."""

    runs: Path | None
    place: list[str]  # the flag that says where the runs are
    cells: pd.DataFrame
    units: pd.DataFrame
    entries: dict[str, ledger.Entry]
    asked: dict[tuple, dict[str, ledger.Entry]]
    files: set[tuple[str, str]]  # (folder, file name) of the units that are there


def coverage(table: pd.DataFrame, runs: str | Path | None = None, named: bool = True) -> pd.DataFrame:
    """A row per command that fills what is missing of the `table` of `runs`, with `missing` and `why` in words. Without
    runs (published tables) commands are what the table can tell. `named`: whether they name the runs folder, which
    nobody can fill who has a copy of it. Empty where nothing is missing."""
    grid = results.expected(table)
    whole = grid.groupby([*CELL, "checkpoint"], dropna=False)["there"].transform("size")
    lacking = grid.assign(units_expected=whole)[~grid["there"]]
    entries = {} if runs is None else ledger.read(runs)
    if lacking.empty and not entries:
        return pd.DataFrame(columns=COLUMNS)
    known = _known(table, runs, entries, named)
    rows = []
    for _, units in lacking.groupby([*CELL, "checkpoint"], dropna=False, sort=False):
        rows += [_row(command, some, known) for command, some in _commands(units, known)]
    listed = {row["command"] for row in rows}
    rows += [row for row in _unanswered(known) if row["command"] not in listed]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"seed": "Int64"})


def _known(table: pd.DataFrame, runs: str | Path | None, entries: dict[str, ledger.Entry], named: bool) -> _Known:
    if runs is None:
        return _Known(None, [], table[[*CELL, "checkpoint", "cell_id"]].drop_duplicates(), table, {}, {}, set())
    units = results.units(runs)
    cells = units[[*CELL, "checkpoint", "cell_id", "folder"]].drop_duplicates()
    kinds = {cell.folder: (_kind(cell), cell.checkpoint) for cell in cells.itertuples()}
    asked: dict[tuple, dict[str, ledger.Entry]] = {}
    for entry in entries.values():
        for folder, names in entry.folders.items():
            kind, checkpoint = kinds.get(folder, (None, ""))
            for name in names:
                asked.setdefault((kind, name), {})[checkpoint] = entry
    place = [f"--runs={runs}"] if named and Path(runs) != Path("runs") else []
    files = set(zip(units["folder"], units["file"], strict=True))
    return _Known(Path(runs), place, cells, units, entries, asked, files)


def _kind(row) -> tuple:
    """CELL of a row, so that two rows of one kind are equal also where they have no rate or seed."""
    return tuple(None if pd.isna(value := getattr(row, name)) else value for name in CELL)


def _commands(units: pd.DataFrame, known: _Known) -> Iterator[tuple[Command, pd.DataFrame]]:
    """The commands that fill the missing units of one cell, each with its units."""
    left = {}
    for at, unit in units.iterrows():
        name = _unit(unit).path(Path()).name
        askers = known.asked.get((_kind(unit), name), {})
        entry = askers.get(unit["checkpoint"]) or next(iter(askers.values()), None)
        command = entry and _asked_of(entry, unit, known)
        left.setdefault(command, []).append(at)
    rest = units.loc[left.pop(None, [])]
    for command, rows in left.items():
        yield command, units.loc[rows]
    if len(rest):
        yield from _made(rest, known)


def _unit(row: pd.Series) -> Unit:
    return Unit(**{name: row[name] for name in UNIT})


def _asked_of(entry: ledger.Entry, unit: pd.Series, known: _Known) -> Command | None:
    """The command of an entry for the unit's checkpoint; None where it is about tuned cells that are not there."""
    flags = dict(entry.flags)
    if entry.program != PROGRAMS["base"] or unit["stage"] == "base":  # one command may score BASE and tuned cells
        flags.pop("cell", None)
        flags["checkpoint"] = _at(flags["checkpoint"], unit["checkpoint"])
        return Command(entry.program, tuple(flags.items()))
    found = known.cells[[_kind(cell) == _kind(unit) for cell in known.cells.itertuples()]]
    found = found[found["checkpoint"] == unit["checkpoint"]]
    if found.empty:
        return None
    flags.pop("checkpoint", None)
    return Command(entry.program, tuple({**flags, "cell": found["cell_id"].iloc[0]}.items()))


def _at(reference: str, checkpoint: str) -> str:
    """How another checkpoint of the family is given that was given as `reference`: `PATH@200`, `olmo-1b@main`."""
    return f"{reference.split(',')[0].rpartition('@')[0]}@{checkpoint.rpartition('@')[2]}"


def _made(units: pd.DataFrame, known: _Known) -> Iterator[tuple[Command, pd.DataFrame]]:
    """Commands of recorded flags for the missing units of one cell: as few as ask for these units alone."""
    first = units.iloc[0]
    flags = _recorded(first, known)
    found = units[UNIT].astype({name: str for name in UNIT if name != "apply_chat_template"})
    found = found.rename(columns={"task": "tasks", "method": "methods"}).assign(at=[(at,) for at in units.index])
    found = _joined(found, "methods")
    labels = found["tasks"].map(lambda task: task not in TASKS or bool(TASKS[task].labels))
    place = [found[name] for name in ("prompt_format", "num_shots", "shot_seed", "apply_chat_template", "dtype")]
    method = found["methods"].where(labels).groupby(place).transform("first")  # the others have one way alone
    found["methods"] = found["methods"].where(labels, method).fillna("")
    for name in ("tasks", "num_shots", "prompt_format"):
        found = _joined(found, name)
    for part in found.to_dict("records"):
        asked = {name: part[name] for name in ("tasks", "prompt_format", "num_shots", "methods") if part[name]}
        asked |= {"shot_seed": part["shot_seed"]} if part["shot_seed"] != str(SHOT_SEED) else {}
        asked |= {"apply_chat_template": "true"} if part["apply_chat_template"] else {}
        asked |= {"dtype": part["dtype"]} if first["stage"] == "base" and part["dtype"] != "float32" else {}
        yield Command(PROGRAMS[first["stage"]], tuple({**flags, **asked}.items())), units.loc[list(part["at"])]


def _joined(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows that differ in this column (and `at`) alone as one, with all its values in a comma list."""
    others = [each for each in frame if each not in (name, "at")]
    joined = {name: lambda values: ",".join(dict.fromkeys(values)), "at": lambda lists: sum(lists, ())}
    return frame.groupby(others, sort=False).agg(joined).reset_index()


def _recorded(unit: pd.Series, known: _Known) -> dict[str, str]:
    """The flags that another cell of the unit's kind was made with, for its checkpoint."""
    flags = {"checkpoint": unit["checkpoint"]}
    flags |= {name: str(unit[name]) for name in ("dataset", "learning_rate", "seed") if not pd.isna(unit[name])}
    flags = {name: value for name, value in flags.items() if value}
    if known.runs is None:
        return flags
    kind = known.cells[[_kind(cell) == _kind(unit) for cell in known.cells.itertuples()]]
    of_task = known.units[(known.units["task"] == unit["task"]) & known.units["folder"].isin(kind["folder"])].iloc[0]
    folder = known.runs / of_task["folder"]
    settings = read_record(folder).get("settings", {})
    given = {name: _given(each["value"]) for name, each in settings.items() if each["origin"] == "flag"}
    if not settings:  # a BASE cell records no flags
        limit = read_unit(folder / "units" / of_task["file"])["about"].get("scored", {}).get("limit")
        return flags | ({"limit": str(limit)} if limit else {})
    given = {name: value for name, value in given.items() if name not in (*ASKED, *PLACES)}
    return given | {"checkpoint": _at(given["checkpoint"], unit["checkpoint"])}


def _given(value) -> str:
    """A recorded value as it is typed; lists are recorded as Python writes them."""
    text = str(value)
    return " ".join(ast.literal_eval(text)) or "none" if text.startswith("[") else text


def _row(command: Command, units: pd.DataFrame, known: _Known) -> dict:
    first, entry = units.iloc[0], known.entries.get(command.key)
    some = "; ".join(unit_named(unit) for _, unit in units.iterrows()) if len(units) <= FEW else f"{len(units)} units"
    everything = len(units) == first["units_expected"]
    why = _why(entry) if entry else "other cells of its kind have it"
    row = {name: first[name] for name in COLUMNS[:6]} | {"units_expected": first["units_expected"]}
    row |= {"units_missing": len(units), "missing": f"all {len(units)} units" if everything else some}
    return row | {"why": why, "command": _text(command, known)}


def _unanswered(known: _Known) -> Iterator[dict]:
    """A row for every command in the ledger that failed, or whose units are gone."""
    for entry in known.entries.values():
        asked = [(folder, name) for folder, names in entry.folders.items() for name in names]
        gone = [each for each in asked if each not in known.files]
        if entry.state == "failed" or gone:
            command, flags = Command(entry.program, tuple(entry.flags.items())), entry.flags
            row = {"family": flags.get("checkpoint", "").partition("@")[0], "checkpoint": flags.get("checkpoint", "")}
            row |= {"stage": STAGES.get(entry.program, ""), "dataset": flags.get("dataset", "")}
            row |= {
                name: kind(flags[name]) if name in flags else None
                for name, kind in (("learning_rate", float), ("seed", int))
            }
            row |= {"units_missing": len(gone), "units_expected": len(asked), "why": _why(entry)}
            missing = f"{len(gone)} of {len(asked)} units" if asked else "all that it makes"
            yield row | {"missing": missing, "command": _text(command, known)}


def _why(entry: ledger.Entry) -> str:
    return f"failed: {entry.cause or 'no cause is known'}" if entry.state == "failed" else "was there, and is gone"


def _text(command: Command, known: _Known) -> str:
    """The command as it is typed in the repository."""
    program = ["-m", "eval.run"] if command.program == "eval/run.py" else [command.program]
    return shlex.join(["python", *program, *command.argv, *known.place])


def notes(table: pd.DataFrame) -> list[str]:
    """What the table as it is cannot tell, a line each: one cell, BASE or tuned alone, one checkpoint, two dtypes."""
    lines = []
    if table["cell_id"].nunique() == 1:
        lines.append("one cell alone: nothing can be compared; every verdict needs BASE at two checkpoints")
    for family, rows in table.groupby("family"):
        stages, names = set(rows["stage"]), sorted(rows["checkpoint"].unique())
        if stages == {"base"}:
            lines.append(
                f"{family}: BASE without any tuned model, so nothing is said of tuning (train_sft.py makes one)"
            )
        if "base" not in stages:
            lines.append(
                f"{family}: tuned models without BASE, so no gain and no verdict (python -m eval.run makes it)"
            )
        if len(names) == 1:
            lines.append(f"{family}: one checkpoint alone ({names[0]}), so no curve and no verdict")
        if rows["dtype"].nunique() > 1:
            mixed = " and ".join(sorted(rows["dtype"].unique()))
            lines.append(f"{family}: scored in {mixed}; rows of two dtypes are never compared")
    return lines
