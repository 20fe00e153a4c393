"""How commands ended: one small file per command under RUNS/commands, for people and for light commands.

    ledger.run("train_sft.py", main, argv)     runs it and notes how it ended
    ledger.read("runs")                        {key: Entry}
    ledger.is_done("runs", entry)              whether all that the command made is still there

A command is a program with its flags; `grids.Command` gives it a key. The ledger decides nothing about a cell: the
scripts look into the cell's folder themselves. A preempted command and one whose cell another has leave no entry.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

from amuro.cells import Unit, write_atomic, write_once
from amuro.conversations import TEMPLATE_VERSION
from amuro.programs import AGAIN
from amuro.prompts import PROMPTS_VERSION
from amuro.recipes import path_of
from amuro.registry.family_files import family_folder
from amuro.running.grids import PLACES, Command, of_argv
from amuro.strict import read_json
from amuro.tasks import TASK_VERSION

FOLDER = "commands"
VERSIONS = f"prompts {PROMPTS_VERSION}, template {TEMPLATE_VERSION}, tasks {TASK_VERSION}"
LOG = "AMURO_LOG"  # where the output of a program goes that another process has started
ENDED = ".ended"  # beside that log: why such a program is to be run again; its launcher makes 1 of every exit code
FILES = ("checkpoint", "dataset", "data_dir", "recipe")  # flags that may name files

_made: dict[str, list[str]] = {}  # of the command under way: the folders of its cells -> their units


@dataclass(frozen=True)
class Entry:
    """How a command ended. `folders` are its cells' folder names under RUNS with the file names of the units asked of
    each, `kept` those of them whose weights stay, `cause` is the first line of the error, `written` seconds since 1970.
    """

    key: str
    program: str
    flags: dict[str, str]
    state: str  # done or failed
    folders: dict[str, list[str]] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    seconds: float = 0.0
    cause: str = ""
    attempts: int = 1
    log: str = ""
    host: str = ""
    written: float = 0.0
    versions: str = VERSIONS


def about(folder: Path, units: Sequence[Unit]) -> None:
    """Note, from within a command, a cell that it is about and the units asked of it."""
    _made[Path(folder).name] = [unit.path(Path(folder)).name for unit in units]


def run(program: str, main: Callable, argv: Sequence[str] | None = None, log: str | None = None) -> list[Path]:
    """Run `main(argv)`, write the command's entry, and return its cells' folders. What main raises is raised again;
    of what ends a command without a verdict (preempted, claimed, --help, Ctrl-C) nothing is written."""
    argv = list(sys.argv[1:] if argv is None else argv)
    log = os.environ.get(LOG, "") if log is None else log
    runs, started = Path(flag(argv, "runs") or "runs"), time.monotonic()
    _made.clear()
    try:
        made = main(argv)
    except SystemExit as end:
        if end.code == AGAIN and LOG in os.environ:  # of several processes the first: the launcher stops the others
            write_once(Path(f"{log}{ENDED}"), type(end).__name__.encode())
        raise
    except Exception as error:
        _note(runs, program, argv, state="failed", cause=cause(error), seconds=time.monotonic() - started, log=log)
        raise
    _note(runs, program, argv, state="done", seconds=time.monotonic() - started, log=log)
    return made if isinstance(made, list) else [made]


def cause(error: BaseException) -> str:
    """The first line of an error; its kind too, where it is not a user's mistake."""
    text = " ".join(str(error).split("\n")[0].split())
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"


def flag(argv: Sequence[str], name: str) -> str | None:
    """The value of a flag, given as `--k=v` or `--k v`; None where it is not given."""
    for word, following in zip(argv, [*argv[1:], ""], strict=False):
        if word == f"--{name}":
            return following
        if word.startswith(f"--{name}="):
            return word.partition("=")[2]
    return None


def entry(runs: str | Path, key: str) -> Entry | None:
    """A command's entry, None where it has none."""
    place = Path(runs) / FOLDER / f"{key}.json"
    return _load(place) if place.is_file() else None


def read(runs: str | Path) -> dict[str, Entry]:
    """All entries under a runs folder by their command's key."""
    return {found.stem: _load(found) for found in sorted((Path(runs) / FOLDER).glob("*.json"))}


def write_failed(runs: str | Path, command: Command, cause: str, attempts: int, log: str) -> None:
    """The entry of a command whose process died at its last attempt: whoever started the process writes it."""
    with _noting():
        _write(runs, _entry_of(command, state="failed", cause=cause, attempts=attempts, log=log))


@contextmanager
def _noting() -> Iterator[None]:
    """Where an entry cannot be written, the command's own outcome still stands."""
    try:
        yield
    except (OSError, ValueError) as error:
        print(f"note: how this command ended could not be noted ({error})", file=sys.stderr)


def _entry_of(command: Command, **ended) -> Entry:
    flags = {name: value for name, value in command.flags if name not in (*PLACES, "hub_token")}
    return Entry(command.key, command.program, flags, **ended)


def _write(runs: str | Path, new: Entry) -> None:
    """Write an entry over the one before; a command that failed before counts one attempt more."""
    before = entry(runs, new.key)
    attempts = max(new.attempts, before.attempts + 1 if before and before.state == "failed" else 1)
    told = {"host": socket.gethostname(), "written": time.time(), "seconds": round(new.seconds, 3)}
    content = json.dumps({**asdict(new), **told, "attempts": attempts}, indent=1)
    write_atomic(Path(runs) / FOLDER / f"{new.key}.json", content.encode())


def _load(place: Path) -> Entry:
    try:
        found = Entry(**read_json(place))
        lists = isinstance(found.folders, dict) and all(isinstance(units, list) for units in found.folders.values())
        if not lists or not isinstance(found.flags, dict) or found.state not in ("done", "failed"):
            raise ValueError(f"state {found.state!r}, flags {found.flags!r}, folders {found.folders!r}")
        if not all(isinstance(each, int | float) for each in (found.seconds, found.attempts, found.written)):
            raise ValueError("seconds, attempts and written must be numbers")
        if not all(isinstance(each, str) for each in (*found.flags.values(), *sum(found.folders.values(), found.kept))):
            raise ValueError("flags, units and kept must be texts")
        return found
    except (ValueError, TypeError) as error:
        raise ValueError(f"{place}: not an entry of the ledger ({error}); remove it") from None


def _note(runs: Path, program: str, argv: list[str], **ended) -> None:
    """Write the entry of a command that has ended, in one of several processes. A mistake in the flags makes no runs
    folder."""
    if os.environ.get("RANK", "0") != "0" or not runs.is_dir():
        return
    with _noting():
        kept = [name for name in _made if (runs / name / "weights").is_dir()]
        _write(runs, _entry_of(of_argv(program, argv), folders=dict(_made), kept=kept, **ended))


def is_done(runs: str | Path, entry: Entry | None) -> bool:
    """Whether a command's entry says "done" and what it made is there: every record and unit, the weights where they
    are kept and only there, and no prompt or file that a flag names has changed since. Where this is False the script
    itself decides."""
    if entry is None or entry.state != "done" or not entry.folders or entry.versions != VERSIONS:
        return False
    for name, units in entry.folders.items():
        folder = Path(runs) / name
        weights = "cell" in entry.flags or (folder / "weights").is_dir() == (name in entry.kept)
        there = (folder / "run.json").is_file() and all(_as_left(folder / "units" / unit, entry) for unit in units)
        if not (weights and there):
            return False
    named = [(name, value) for name in FILES if name in entry.flags for value in entry.flags[name].split(",")]
    if "data_dir" not in entry.flags and os.environ.get("AMURO_DATA_DIR"):
        named.append(("data_dir", os.environ["AMURO_DATA_DIR"]))
    return all(_newest(name, value) <= entry.written for name, value in named)


def _as_left(unit: Path, entry: Entry) -> bool:
    """Whether a unit's file is there, and no later command has replaced it: one with another --limit, say."""
    return unit.is_file() and unit.stat().st_mtime <= entry.written


def state_of(command: Command, entries: dict[str, Entry], runs: str | Path) -> str:
    """complete, failed or to do."""
    entry = entries.get(command.key)
    if is_done(runs, entry):
        return "complete"
    return "failed" if entry and entry.state == "failed" else "to do"


@lru_cache(maxsize=4096)
def _newest(name: str, value: str) -> float:
    """When the file or folder that a flag's value names (maybe as `PATH@step`) was last changed; 0 without one."""
    place = Path(value.rpartition("@")[0] or value)
    if name == "recipe":
        place = path_of(value)
    elif name == "checkpoint" and str(place) == "nursery":
        place = family_folder("nursery") or place
    if place.is_dir():
        return max((each.stat().st_mtime for each in place.rglob("*") if each.is_file()), default=0.0)
    return place.stat().st_mtime if place.is_file() else 0.0
