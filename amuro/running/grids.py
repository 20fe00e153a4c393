"""Grids: the commands that W&B sweep YAMLs mean, expanded without any server.

    read([Path("sweeps/olmo_ckpts.yaml")], only=["dataset=mnli"])      a Command per point of the grid
    of_argv("train_sft.py", ["--checkpoint", "olmo-1b@1000", ...])     the Command that was typed

A grid is flat: each key under `parameters` is a flag of the program with one `value` or a list of `values`, and each
point takes one of each. Values stay as they are written; W&B reads them by YAML 1.1, so what YAML 1.1 takes for
something else than what is written (no, 010, 1:30, a date) is refused. Two spellings of one number are one value.
"""

import hashlib
import itertools
import json
import math
import re
import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from pathlib import Path

import yaml

from amuro.names import unknown_of

PROGRAMS = ("train_sft.py", "train_instruct.py", "eval/run.py")
KEYS = ("program", "method", "parameters", "command", "name", "description", "project")
COMMAND = ["${env}", "${interpreter}", "${program}", "${args}"]  # what W&B agents run by default
PLACES = ("runs", "if_claimed")  # flags that say where and when, not what: no part of a command's key
MOST, LONGEST = 100_000, 4000  # points of a grid, characters of a value
INTEGER = re.compile(r"[-+]?(0|[1-9]\d*)")
DECIMAL = re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?")


@dataclass(frozen=True)
class Command:
    """A program with its flags as (name, value) in their order, values as they are written; `file` is where from."""

    program: str
    flags: tuple[tuple[str, str], ...]
    file: str = field(default="", compare=False)

    @property
    def argv(self) -> list[str]:
        return [f"--{name}={value}" for name, value in self.flags]

    @cached_property
    def key(self) -> str:
        """16 hex digits over the program and its flags, whatever their order and the spelling of numbers."""
        flags = {name: plain(value) for name, value in self.flags if name not in PLACES}
        return hashlib.sha256(json.dumps([self.program, flags], sort_keys=True).encode()).hexdigest()[:16]

    def get(self, name: str) -> str | None:
        """The value of a flag, None where it is not given."""
        return next((value for flag, value in self.flags if flag == name), None)

    def __str__(self) -> str:
        return " ".join([self.program, *self.argv])


def read(files: Sequence[str | Path], only: Sequence[str] = ()) -> list[Command]:
    """The commands of several files, each once: of those with the same key the first."""
    return list({command.key: command for command in reversed(expand(files, only))}.values())[::-1]


def expand(files: Sequence[str | Path], only: Sequence[str] = ()) -> list[Command]:
    """Every point of every file, the last parameter varying fastest, also those that are there more than once; with
    `only` (`["dataset=mnli", "dataset=paws"]`) those that have one of the values given for each name.

    Raises ValueError with all that is wrong in all files.
    """
    commands, problems = [], []
    for file in files:
        try:
            commands += _points(Path(file))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("; ".join(problems))
    return _only(commands, only)


def of_argv(program: str, argv: Sequence[str]) -> Command:
    """The command that a program was called as: `--k=v` and `--k v` are one, a bare `--k` is true."""
    flags: dict[str, list[str]] = {}
    for word in argv:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            name = name.replace("-", "_")
            flags[name] = [value] if equals else []  # the last one counts
        elif flags:
            flags[name].append(word)
        else:
            raise ValueError(f"{program} {word}: a flag is expected, like --checkpoint=olmo-1b@1000")
    return Command(program, tuple((name, " ".join(words) if words else "true") for name, words in flags.items()))


def plain(value: str) -> str:
    """One spelling for all of a number ("1e-5", "1.0e-5", 1e-05) or a truth ("True", "true")."""
    if value.lower() in ("true", "false"):
        return value.lower()
    if len(value) > LONGEST:
        return value
    if INTEGER.fullmatch(value):
        return str(int(value))
    if not DECIMAL.fullmatch(value) or not isfinite(number := float(value)):
        return value
    return str(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)


def runs_of(commands: Iterable[Command], given: Path | None = None) -> Path:
    """Where the commands write: `given`, else their own --runs, else `runs`. ValueError where they differ."""
    own = {command.get("runs") or "runs" for command in commands}
    if given is None and len(own) > 1:
        raise ValueError(f"runs: the files write to {', '.join(sorted(own))}; give --runs, or the files one by one")
    runs = given or Path(own.pop() if own else "runs")
    if runs.exists() and not runs.is_dir():
        raise ValueError(f"--runs {runs}: is there, and no folder; give another one")
    return runs


# ---- reading a file


class _Loader(yaml.SafeLoader):
    """YAML as W&B reads it, with every plain value as the text that is written; `problems` are the values of which
    YAML 1.1 makes something else."""

    def __init__(self, stream):
        super().__init__(stream)
        self.problems: list[str] = []

    def problem(self, node, text: str) -> None:
        self.problems.append(f"line {node.start_mark.line + 1}: {text}")

    def plain_mapping(self, node) -> dict:
        names = [key.value for key, _ in node.value]
        for name in {name for name in names if names.count(name) > 1}:
            self.problem(node, f"{name} is there more than once")
        return self.construct_mapping(node, deep=True)


def _as_written(allowed: str, read_as: str):
    """A constructor that takes values of this form, as text, and refuses the others of the same YAML type."""
    form = re.compile(allowed)

    def construct(loader: _Loader, node) -> str:
        if not form.fullmatch(node.value):
            loader.problem(node, f'YAML 1.1 reads {node.value} as {read_as}; write it out or quote it: "{node.value}"')
        return node.value

    return construct


_Loader.add_constructor("tag:yaml.org,2002:bool", _as_written("[Tt]rue|[Ff]alse|TRUE|FALSE", "true or false"))
_Loader.add_constructor("tag:yaml.org,2002:int", _as_written(INTEGER.pattern, "another number"))
_Loader.add_constructor("tag:yaml.org,2002:float", _as_written(DECIMAL.pattern, "another number"))
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _as_written("(?!)", "a date"))
_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.plain_mapping)


def _points(file: Path) -> list[Command]:
    """The points of one file's grid. ValueError with everything that is wrong with it."""
    sweep, problems = _load(file)
    for name in sweep:
        if name not in KEYS:
            problems.append(f"{name}: {unknown_of(name, KEYS)}")
    program, method, parameters = (sweep.get(name) for name in ("program", "method", "parameters"))
    if program not in PROGRAMS:
        problems.append(f"program {program!r}: {unknown_of(program, PROGRAMS)}")
    if method != "grid":
        problems.append(f"method {method!r}: only grid has cells that can be counted and run once; write method: grid")
    if sweep.get("command", COMMAND) != COMMAND:
        problems.append(f"command: leave it out; every way to run it needs W&B's default, {json.dumps(COMMAND)}")
    if not isinstance(parameters, dict) or not parameters:
        problems.append("parameters: a mapping of flags is needed, like {dataset: {values: [mnli, paws]}}")
        parameters = {}
    axes = {name: _values(str(name), given, problems) for name, given in parameters.items()}
    if problems:
        raise ValueError(f"{file}: {'; '.join(problems)}")
    if (count := math.prod(map(len, axes.values()))) > MOST:
        raise ValueError(f"{file}: {count} points; a grid has at most {MOST}: take fewer values, or several files")
    points = itertools.product(*axes.values())
    return [Command(program, tuple(zip(axes, point, strict=True)), str(file)) for point in points]


def _load(file: Path) -> tuple[dict, list[str]]:
    """The file's mapping, and the values of which YAML makes something else."""
    if not file.is_file():
        there = ", ".join(sorted(each.name for each in file.parent.glob("*.yaml"))) or "no YAML"
        raise ValueError(f"{file}: no such file; in {file.parent} there is {there}")
    try:
        loader = _Loader(file.read_text(encoding="utf-8"))
        sweep = loader.get_single_data()
    except RecursionError:
        raise ValueError(f"{file}: not YAML that can be read (it is nested too deeply)") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(sweep, dict):
        raise ValueError(f"{file}: a W&B sweep is a mapping with {', '.join(KEYS[:3])}")
    return sweep, loader.problems


def _values(name: str, given, problems: list[str]) -> list[str]:
    """The values of one parameter; what is wrong with it goes to `problems`."""
    if not re.fullmatch(r"[A-Za-z]\w*", name):
        problems.append(f"parameters: {name}: flags are written in snake_case, like learning_rate")
    if not isinstance(given, dict) or len(given) != 1 or not {"value", "values"} & set(given):
        had = ", ".join(map(str, given)) if isinstance(given, dict) else f"{given!r}"
        problems.append(f"parameters: {name}: has {had}; in a flat grid it has either value: ... or values: [...]")
        return []
    values = given["values"] if "values" in given else [given["value"]]
    if not isinstance(values, list) or not values:
        problems.append(f"parameters: {name}: values must be a list that is not empty")
        return []
    for value in values:
        if value is None:
            problems.append(f"parameters: {name}: is empty or null, which no flag takes; leave the key out")
        elif not isinstance(value, str):
            told = reprlib.repr(value)
            problems.append(f"parameters: {name}: {told} is nested; a grid is flat, each value a word or a number")
        elif not value.isprintable() or len(value) > LONGEST:
            told = reprlib.repr(value)
            problems.append(
                f"parameters: {name}: {told} is no value: a text of at most {LONGEST} printed characters is"
            )
    return values


def _only(commands: list[Command], only: Sequence[str]) -> list[Command]:
    """Those that have one of the values given for each name. ValueError on what no command has."""
    wanted: dict[str, set[str]] = {}
    for item in only:
        name, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"--only {item!r}: write NAME=VALUE, like dataset=mnli")
        there = {plain(command.get(name)): None for command in commands if command.get(name) is not None}
        if plain(value) not in there:
            names = sorted({flag for command in commands for flag, _ in command.flags})
            known = f"of {name} there are {', '.join(list(there)[:20])}" if there else unknown_of(name, names)
            raise ValueError(f"--only {item}: nothing has it; {known}")
        wanted.setdefault(name, set()).add(plain(value))
    return [each for each in commands if all(plain(each.get(n) or "") in values for n, values in wanted.items())]
