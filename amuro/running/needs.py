"""What the checkpoints of commands need before anything runs: that they exist, downloads, disk.

    points = named(commands)             {reference: Checkpoint}; names are checked by their form, nothing is asked
    points, notes = located(points)      with the commits that the hub tells; a note where it tells nothing
    sizes(points, notes)                 {reference: Size}

Nothing is downloaded but the lists of files and the headers of one checkpoint of each repository.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from amuro.checkpoints import Checkpoint, checkpoint_of, resolve
from amuro.checks import items
from amuro.registry.families import (
    Family,
    Revision,
    families,
    family,
    parse_revision,
    refuse_remote_code,
    revisions,
    short,
    shown,
)
from amuro.registry.family_files import family_folder
from amuro.registry.fetching import INSTEAD
from amuro.registry.findings import audited
from amuro.registry.snapshots import NAME, snapshot, weight_files
from amuro.running.grids import Command


@dataclass(frozen=True)
class Size:
    """Bytes of a checkpoint: what is to be downloaded (0 where it is here), and its weights in float32."""

    download: int
    weights: int


def named(commands: Iterable[Command]) -> dict[str, Checkpoint]:
    """Every checkpoint that the commands begin from, as far as its name tells: `base` is without a commit, of a local
    one it is the folder.

    Raises ValueError with all names that can mean nothing.
    """
    references = dict.fromkeys(
        reference for command in commands for reference in items(command.get("checkpoint") or "") if reference
    )
    points, problems = {}, []
    for reference in references:
        try:
            points[reference] = _named(reference)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("; ".join(problems[:20]) + ("; ..." if len(problems) > 20 else ""))
    return points


def _named(reference: str) -> Checkpoint:
    name, at, point = reference.rpartition("@")
    if not (at and name and point):
        return resolve(reference)  # says what is wrong
    history = _history(name)
    if history is None:
        return Checkpoint(name, reference, None, None, f"{name}@", repo=name)
    refuse_remote_code(history)
    step = int(point) if re.fullmatch(r"\d{1,18}", point, re.ASCII) else None
    if history.folder:
        found = _revisions(name)
        meant = found[-1:] if point == "main" else _points(name).get(point, [])
        if len(meant) != 1:
            near = ", ".join(short(history, found, each) for each in found[:12])
            raise ValueError(f"checkpoint {reference!r}: no such checkpoint; {history.folder} has {near}")
        return Checkpoint(history.name, reference, meant[0].step, None, meant[0].name, path=meant[0].name)
    if step is None and point != "main" and not parse_revision(history, point) and not history.repos:
        raise ValueError(f"checkpoint {reference!r}: {point!r} is neither a step nor main, nor like a revision's name")
    if point == "main" and history.main == "none":
        raise ValueError(f"checkpoint {reference!r}: main is no checkpoint of this history; write a step")
    repo = history.repo or next((each["repo"] for each in history.repos if each["step"] == step), history.name)
    return Checkpoint(history.name, reference, step, None, f"{repo}@", repo=repo)


@cache
def _history(name: str) -> Family | None:
    """The family of that name, None for a repository that belongs to none."""
    if name.endswith((".yaml", ".yml")) or family_folder(name) or name in families():
        return family(name)
    return None if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and name[0] not in "./~" else family(name)


@cache
def _revisions(name: str) -> list[Revision]:
    return revisions(family(name))


@cache
def _points(name: str) -> dict[str, list[Revision]]:
    """{what is written after `family@`: the checkpoints that it means}: a step, or a checkpoint's exact name."""
    steps = {}
    for each in _revisions(name):
        steps.setdefault(str(each.step), []).append(each)
    return steps | {shown(_history(name), each): [each] for each in _revisions(name)}


def located(points: dict[str, Checkpoint]) -> tuple[dict[str, Checkpoint], dict[str, str]]:
    """(the checkpoints with their commits, {family or repository: why the hub tells nothing of it}). ValueError where
    the hub says that a checkpoint does not exist."""
    found, notes = {}, {}
    for reference, point in points.items():
        name = reference.rpartition("@")[0]
        found[reference] = point
        if point.path or name in notes:
            continue
        try:
            found[reference] = _located(reference, name)
        except ValueError as error:
            if error.__cause__ is None:  # not the hub's or the network's fault
                raise
            notes[name] = str(error).partition(f"; {INSTEAD}")[0]
    return found, notes


def _located(reference: str, name: str) -> Checkpoint:
    history, point = _history(name), reference.rpartition("@")[2]
    meant = _points(name).get(point, []) if history and point != "main" else []
    if len(meant) != 1:
        return resolve(reference)
    return checkpoint_of(history, meant[0], short(history, _revisions(name), meant[0]))


def sizes(points: dict[str, Checkpoint], notes: dict[str, str]) -> dict[str, Size]:
    """The sizes of those that can be known: of a repository one checkpoint is looked at, for they are alike."""
    looked, found = {}, {}
    for reference, point in points.items():
        name = reference.rpartition("@")[0]
        if point.path:
            found[reference] = Size(0, 4 * _parameters(Path(point.path)))
        elif point.commit and name not in notes:
            try:
                files, weights = looked.get(point.repo) or looked.setdefault(point.repo, _looked(point))
            except ValueError as error:
                if error.__cause__ is None:
                    raise
                notes[name] = str(error).partition(f"; {INSTEAD}")[0]
                continue
            found[reference] = Size(0 if _cached(point, files) else sum(files.values()), weights)
    return found


def _looked(point: Checkpoint) -> tuple[dict[str, int], int]:
    """({name: bytes} of what is fetched, bytes of the weights in float32) of one checkpoint on the hub."""
    seen = snapshot(Revision(point.step, None, point.name, point.commit, point.repo))
    plain = {name: each.size for name, each in seen.files.items() if NAME.fullmatch(name)}
    kept = weight_files(plain)
    if not kept:
        raise ValueError(f"{point}: {point.repo} has no safetensors weights there; take another checkpoint")
    files = {name: size for name, size in plain.items() if name in kept or not name.endswith(".safetensors")}
    shapes = (shape for name in kept for _, shape, _ in seen.headers[name].tensors.values())
    return files, 4 * sum(math.prod(shape) for shape in shapes)


def _cached(point: Checkpoint, files: dict[str, int]) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return all(isinstance(try_to_load_from_cache(point.repo, name, revision=point.commit), str) for name in files)


@cache
def _parameters(folder: Path) -> int:
    """The number of a local checkpoint's parameters."""
    from safetensors import safe_open

    total = 0
    for name in weight_files(path.name for path in folder.glob("*.safetensors")):
        with safe_open(folder / name, framework="np") as file:
            total += sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118 no dict
    return total


def as_audited(points: Iterable[Checkpoint], runs: str | Path) -> list[Checkpoint]:
    """The checkpoints with the `base` that an audit under `runs` knows them by, where the hub was not asked."""
    known = audited(Path(runs))
    local = any(base.startswith("sha256:") for base in known)
    faulty = {(base.partition("@")[0], each.step): base for base, found in known.items() for each in found}
    made = []
    for point in points:
        if point.path and local:  # only then the digest of its weights is worth the time
            point = resolve(point.name)
        elif point.repo and not point.commit:
            point = replace(point, base=faulty.get((point.repo, point.step), point.base))
        made.append(point)
    return made
