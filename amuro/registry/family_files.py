"""Reading and checking what describes a family: entries of families.yaml, a user's YAML, a folder with family.json.

    read_own(Path("my_llama.yaml"), families())     the form is in amuro/registry/families.py
    local_family("nursery")                         the folder in $AMURO_NURSERY

Every mistake in such a file is a ValueError that names the file and the key.
"""

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from amuro.names import did_you_mean
from amuro.strict import read_json, read_yaml

NUMBER = int | float
KINDS = {
    **dict.fromkeys(("name", "repo", "folder", "pattern", "counts", "licence", "files", "note"), str),
    **dict.fromkeys(("tokens_b", "tokens_per_step"), NUMBER),
    **dict.fromkeys(("sizes", "examples", "unconfirmed", "repos", "stages", "defects"), list),
    "sources": dict,
    "count": int,
    "main": str | int,
    "needs_remote_code": bool,
}
PARTS: dict[str, dict] = {
    "stages": {"name": str, "branch": bool, "tokens_b_before": NUMBER, "tokens_per_step": NUMBER},
    "repos": {"repo": str, "step": int, "tokens_b": NUMBER},
    "defects": {"what": str, "source": str, "steps": list, "sizes": list},
}
NEEDED = {"stages": ("name",), "repos": ("repo", "step", "tokens_b"), "defects": ("what", "source")}
POINT: dict = {"step": int, "tokens_b": NUMBER, "path": str}  # of a family.json
MAIN = ("last", "apart", "none")
MOST = 10**15  # of any number


@dataclass(frozen=True)
class Defect:
    """Something wrong with a published history: with `steps`, or without any with the history as a whole."""

    what: str
    source: str
    steps: tuple[int, ...] = ()
    sizes: tuple[str, ...] = ()  # of the family, empty where all have it


@dataclass(frozen=True)
class Stage:
    """A part of a history whose names begin with `name`. A `branch` is a run of its own beside the line."""

    name: str
    branch: bool = False
    tokens_b_before: float = 0.0
    tokens_per_step: float | None = None


@dataclass(frozen=True)
class Family:
    """One history: a hub repository, a repository per checkpoint (`repos`), or a local `folder`.

    `main` says what the branch main is: the last checkpoint (last), that of a step (a number), a model that was trained
    on from there (apart), or none. `counts` is the unit of `step`. `unconfirmed` names the facts that are inferred.
    """

    name: str
    repo: str = ""
    folder: str = ""
    pattern: str = ""
    repos: tuple[dict, ...] = ()  # {repo, step, tokens_b}
    examples: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()
    main: str | int = "last"
    tokens_b: float | None = None
    tokens_per_step: float | None = None
    count: int | None = None
    counts: str = "steps"
    licence: str = ""
    files: str = ""
    needs_remote_code: bool = False
    sizes: tuple[str, ...] = ()
    size: str = ""
    group: str = ""  # the entry's name in the table, `pythia-{size}`
    note: str = ""
    defects: tuple[Defect, ...] = ()
    sources: dict[str, str] = field(default_factory=dict)
    unconfirmed: tuple[str, ...] = ()

    @property
    def confirmed(self) -> bool:
        """Whether every fact of the entry is."""
        return not self.unconfirmed

    @property
    def computed(self) -> bool:
        """Whether tokens are computed from steps, since no name tells them."""
        per_step = self.tokens_per_step or any(stage.tokens_per_step for stage in self.stages)
        return bool(per_step) and not self.repos and "?P<tokens>" not in self.pattern


@dataclass(frozen=True)
class Revision:
    """A checkpoint that exists: `name` at `commit` of the hub's `repo`, or the folder `name` where `repo` is empty.
    `tokens_b` counts billions of tokens since the start. None where nothing tells them."""

    step: int | None
    tokens_b: float | None
    name: str
    commit: str
    repo: str
    stage: str = ""


def read_entry(entry: dict, where: str) -> list[Family]:
    """The families of one entry, one for each size. Raises ValueError with `where` and the key that is wrong."""
    _check(entry, KINDS, where)
    for name, kinds in PARTS.items():
        for number, part in enumerate(entry.get(name, [])):
            _check(part, kinds, f"{where}: {name}[{number}]")
            if lacking := [key for key in NEEDED[name] if key not in part]:
                raise ValueError(f"{where}: {name}[{number}] needs {', '.join(lacking)}")
    sizes = entry.get("sizes", [""])
    if not sizes or not all(isinstance(each, str) for each in sizes):
        raise ValueError(f"{where}: sizes: {sizes!r}; a list of texts is needed, or leave it out")
    _check_sense(entry, where)
    made = {
        **_frozen(entry),
        "stages": tuple(Stage(**part) for part in entry.get("stages", [])),
        "group": entry["name"],
    }
    families = []
    for size in sizes:
        mine = [each for each in entry.get("defects", []) if size in each.get("sizes", [size])]
        made["defects"] = tuple(Defect(**_frozen(each)) for each in mine)
        made |= {name: entry.get(name, "").replace("{size}", size) for name in ("name", "repo")}
        families.append(Family(**made, size=size))
    return families


def _frozen(part: dict) -> dict:
    """Its lists as tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in part.items()}


def read_own(path: Path, known: dict[str, Family]) -> Family:
    """The family of a user's YAML. Raises ValueError with what is wrong in it and what is allowed."""
    if not path.is_file():
        raise ValueError(f"{path}: cannot be read (No such file); `amuro checkpoints families --help` shows an example")
    entry = read_yaml(path)
    if not isinstance(entry, dict):
        raise ValueError(f"{path}: needs the keys name, repo (or folder) and pattern")
    family = read_entry(entry, str(path))[0]
    _check_name(family.name, path)
    if family.name in known or family.name == "nursery":
        raise ValueError(f"{path}: name {family.name!r} is that of a known family; take another")
    if not family.folder:
        return family
    folder = os.path.realpath(path.parent / os.path.expanduser(family.folder)) if family.folder.isprintable() else ""
    if not os.path.isdir(folder):
        raise ValueError(f"{path}: folder {family.folder!r}: no such folder ({folder or 'it does not print'})")
    return replace(family, folder=folder)


def _check(entry, kinds: dict, where: str) -> None:
    """Every key known and of its kind."""
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: needs keys and values, not {entry!r}; allowed: {', '.join(kinds)}")
    for name, value in entry.items():
        if name not in kinds:
            raise ValueError(f"{where}: unknown key {name!r}{did_you_mean([name], kinds)} allowed: {', '.join(kinds)}")
        if not isinstance(value, kinds[name]) or (isinstance(value, bool) and kinds[name] is not bool):
            kind = getattr(kinds[name], "__name__", str(kinds[name]).replace(" |", " or"))
            raise ValueError(f"{where}: {name}: {value!r} is not of type {kind}")
        if isinstance(value, NUMBER) and not 0 <= value <= MOST:
            raise ValueError(f"{where}: {name}: {value!r} is not a number from 0 to {MOST:g}")


def _check_sense(entry: dict, where: str) -> None:
    """What an entry needs to be of use: a name, one place, and a pattern that tells steps."""
    if not entry.get("name"):
        raise ValueError(f"{where}: needs a name")
    places = [name for name in ("repo", "folder", "repos") if entry.get(name)]
    if len(places) != 1:
        raise ValueError(f"{where}: needs one of repo (OWNER/NAME on the hub), folder or repos, not {places or 'none'}")
    if places == ["repo"] and not re.fullmatch(r"[\w.-]+/[\w.{}-]+", entry["repo"], re.ASCII):
        raise ValueError(f"{where}: repo {entry['repo']!r}: write OWNER/NAME")
    if not isinstance(entry.get("main", 0), int) and entry["main"] not in MAIN:
        raise ValueError(f"{where}: main: {entry['main']!r}; allowed: {', '.join(MAIN)}, or a step")
    pattern = entry.get("pattern", "")
    try:
        groups = set(re.compile(pattern, re.ASCII).groupindex)
    except re.error as error:
        raise ValueError(f"{where}: pattern {pattern!r} is no regular expression ({error})") from None
    if unknown := groups - {"step", "tokens", "stage"}:
        raise ValueError(f"{where}: pattern: group {min(unknown)!r}; allowed: step, tokens, stage")
    if not groups & {"step", "tokens"} and (pattern or places == ["folder"]):
        raise ValueError(f"{where}: pattern {pattern!r} needs a group, such as step-(?P<step>\\d+)")


def family_folder(name: str) -> Path | None:
    """The folder with family.json that `name` means, None where it means none. `nursery` is $AMURO_NURSERY."""
    # os.path's way leaves `~nobody` as it is, where pathlib's raises
    place = os.environ.get("AMURO_NURSERY", "nursery") if name == "nursery" else os.path.expanduser(name)
    folder = Path(place)
    if len(place) > 4000 or any(len(part.encode(errors="replace")) > 255 for part in folder.parts):
        raise ValueError(f"{name[:40]!r}...: longer than a name can be")
    if not place.isprintable():
        raise ValueError(f"{name!r}: no name of a family, folder or repository")
    found = next((each for each in (folder, folder / "family") if (each / "family.json").is_file()), None)
    if name == "nursery" and not found:
        raise ValueError(f"no nursery in {folder}; raise one with: amuro nursery --out {folder}")
    if folder.is_dir() and not found:
        raise ValueError(f"{folder}: a folder without family.json; see `amuro nursery --help` for its layout")
    return found


def local_family(name: str) -> Family | None:
    """The family of the folder with family.json that `name` means, None where it means none."""
    folder = family_folder(name)
    return Family(read_family(folder)["name"], folder=str(folder)) if folder else None


def read_family(folder: Path) -> dict:
    """The content of a family.json, checked. Raises ValueError with the field that is wrong."""
    path = folder / "family.json"
    family = read_json(path)
    checkpoints = family.get("checkpoints") if isinstance(family, dict) else None
    if not isinstance(checkpoints, list) or not checkpoints or not isinstance(family.get("name"), str):
        raise ValueError(f"{path}: needs `name` and a list `checkpoints` of {{step, tokens_b, path}}")
    _check_name(family["name"], path)
    for number, entry in enumerate(checkpoints):
        where = f"{path}: checkpoints[{number}]"
        for name, kind in POINT.items():
            value = entry.get(name) if isinstance(entry, dict) else None
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ValueError(f"{where} needs {name!r} ({str(kind).strip('<>')}), not {value!r}")
            if isinstance(value, NUMBER) and not 0 <= value <= MOST:
                raise ValueError(f"{where}: {name}: {value!r} is not a number from 0 to {MOST:g}")
        if not entry["path"] or not entry["path"].isprintable():
            raise ValueError(f"{where}: path: {entry['path']!r} is no folder's name")
    return family


def _check_name(name: str, where: Path) -> None:
    """A family's name stands in those of cells, folders and W&B's runs."""
    if not re.fullmatch(r"\w[\w.-]{0,63}", name, re.ASCII):
        raise ValueError(f"{where}: name {name!r}: letters, digits, '.', '_' and '-' only, 64 at most")
