"""Pre-training histories on the hub or in folders: what is known of each, and its checkpoints in order.

    amuro checkpoints families            the table, from families.yaml
    amuro checkpoints list pythia-410m    the checkpoints that exist, parsed from the repository's refs

A history of your own is one small YAML, given by its path wherever a family's name is taken (`my_llama.yaml@2000`):

    name: my-llama
    repo: me/my-llama-checkpoints           # a hub repository with a revision per checkpoint, or instead
    # folder: checkpoints                   # a folder with a subfolder per checkpoint, relative to the YAML
    pattern: 'step-(?P<step>\\d+)'           # a whole name; groups `step`, `tokens` (4B, 2T; B where no unit), `stage`
    tokens_per_step: 1048576                # only where names tell no tokens

A revision whose name the pattern does not match is not guessed to be anything. All keys: `family_files.Family`.
"""

import functools
import json
import os
import re
from difflib import get_close_matches
from pathlib import Path

import yaml

from amuro.cells import write_atomic
from amuro.registry.family_files import Defect, Family, Revision, Stage, local_family, read_entry, read_family, read_own
from amuro.registry.fetching import asking
from amuro.registry.findings import file_name

KNOWN = Path(__file__).with_name("families.yaml")
BILLIONS = {"M": 0.001, "B": 1.0, "T": 1000.0}


@functools.cache
def families() -> dict[str, Family]:
    """The families of families.yaml by name, one for each size."""
    entries = yaml.safe_load(KNOWN.read_text(encoding="utf-8"))
    return {family.name: family for entry in entries for family in read_entry(entry, KNOWN.name)}


def family(name: str) -> Family:
    """The known family `name`, the one of a YAML file, or of a folder with family.json (`nursery`: $AMURO_NURSERY).

    Raises ValueError where there is none, with the nearest names, or where the file is wrong.
    """
    if name.endswith((".yaml", ".yml")):
        return read_own(Path(os.path.expanduser(name)), families())
    if found := local_family(name):
        return found
    if name in families():
        return families()[name]
    raise ValueError(f"no family {name!r}; known: {known()}, a folder with family.json, or a YAML{nearest(name)}")


def known() -> str:
    """The names to choose from, short."""
    groups = dict.fromkeys(each.group.replace("{size}", "SIZE") for each in families().values())
    return ", ".join([*groups, "nursery"])


def nearest(name: str, end: str = "") -> str:
    """`; did you mean ...?`, with `end` after each name; empty where nothing is near."""
    sizes = [each for each in families() if each.startswith(f"{name}-")]
    close = sizes or get_close_matches(name, [*families(), "nursery"], n=1, cutoff=0.4)
    return f"; did you mean {', '.join(each + end for each in close)}?" if close else ""


def parse_revision(family: Family, name: str) -> tuple[str, int, float | None] | None:
    """(stage, step, tokens_b) that a revision's name tells, None where the family's pattern does not match it whole.

    A name without a step has its billions of tokens as step. A stage's own tokens are added to those before it.
    """
    match = re.fullmatch(family.pattern, name, re.ASCII)
    if not match:
        return None
    found = match.groupdict()
    told = found.get("tokens")
    if not (told or found.get("step")):
        return None
    try:
        tokens_b = float(told.rstrip("MBTmbt")) * BILLIONS.get(told[-1].upper(), 1.0) if told else None
        step = int(found["step"]) if found.get("step") else round(tokens_b)
    except ValueError:
        raise ValueError(
            f"{family.name}: pattern {family.pattern!r} takes a step or tokens from {name!r} that are no number"
        ) from None
    stage = found.get("stage") or (family.stages[0].name if family.stages else "")
    return stage, step, _tokens(family, stage, step, tokens_b)


def _tokens(family: Family, stage: str, step: int, told: float | None) -> float | None:
    part = stage_of(family, stage)
    per_step = part.tokens_per_step or (None if part.branch else family.tokens_per_step)
    if told is None and per_step:
        told = step * per_step / 1e9
    return None if told is None else part.tokens_b_before + told


def stage_of(family: Family, stage: str) -> Stage:
    """The part of the family's table that a stage's name belongs to."""
    return next((part for part in family.stages if stage.startswith(part.name)), Stage(stage))


def on_line(family: Family, found: list[Revision]) -> list[Revision]:
    """Those of the one line from the start of training, without the runs that branch off it."""
    return [each for each in found if not stage_of(family, each.stage).branch]


def revisions(family: Family) -> list[Revision]:
    """Every checkpoint of the family that exists, by stage and step.

    Raises ValueError where the hub cannot be reached, or a local checkpoint is not where it should be.
    """
    if family.folder:
        return read_folder(family)
    if family.repos:
        heads = {each["repo"]: read_refs(each["repo"])["main"] for each in family.repos}
        return [
            Revision(each["step"], each["tokens_b"], "main", heads[each["repo"]], each["repo"]) for each in family.repos
        ]
    refs = read_refs(family.repo)
    found = [
        Revision(step, tokens_b, name, commit, family.repo, stage)
        for name, commit in refs.items()
        for stage, step, tokens_b in [parse_revision(family, name) or (None,) * 3]
        if stage is not None
    ]
    if isinstance(family.main, int) and "main" in refs and family.main not in {each.step for each in found}:
        stage = family.stages[0].name if family.stages else ""
        tokens_b = _tokens(family, stage, family.main, None)
        found.append(Revision(family.main, tokens_b, "main", refs["main"], family.repo, stage))
    return in_order(family, found)


def main_of(family: Family) -> Revision | None:
    """The hub's branch main as a revision without a step, None where it is no model of this history."""
    if not family.repo or family.main == "none":
        return None
    commit = read_refs(family.repo).get("main")
    return Revision(None, None, "main", commit, family.repo) if commit else None


def read_folder(family: Family) -> list[Revision]:
    """The checkpoints of a local family: the entries of family.json, or the subfolders that the pattern matches."""
    folder = Path(family.folder)
    if not family.pattern:
        entries = sorted(read_family(folder)["checkpoints"], key=lambda entry: entry["step"])
        return [Revision(e["step"], float(e["tokens_b"]), str(folder / e["path"]), "", "") for e in entries]
    told = [(path, parse_revision(family, path.name)) for path in folder.iterdir() if path.is_dir()]
    found = [
        Revision(step, tokens_b, str(path), "", "", stage)
        for path, parsed in told
        if parsed
        for stage, step, tokens_b in [parsed]
    ]
    if not found:
        raise ValueError(f"{folder}: no subfolder's name matches the pattern {family.pattern!r} of {family.name}")
    return in_order(family, found)


def in_order(family: Family, found: list[Revision]) -> list[Revision]:
    """By the table's order of stages, then stage, step and name."""
    rank = {part: number for number, part in enumerate(family.stages)}
    return sorted(found, key=lambda r: (rank.get(stage_of(family, r.stage), len(rank)), r.stage, r.step, r.name))


def read_refs(repo: str) -> dict[str, str]:
    """{branch or tag: commit} of a hub repository; with HF_HUB_OFFLINE=1 those that `keep_refs` wrote down."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE and (kept := _kept(repo)).is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    with asking(repo, repo):
        refs = HfApi().list_repo_refs(repo)
    return {ref.name: ref.target_commit for ref in [*refs.tags, *refs.branches]}


def keep_refs(repo: str) -> None:
    """Write a repository's refs down beside the hub's cache, for a machine that is offline later."""
    write_atomic(_kept(repo), json.dumps(read_refs(repo), indent=1).encode())


def _kept(repo: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HOME).expanduser() / "amuro-refs" / f"{file_name(repo)}.json"


def shown(family: Family, revision: Revision) -> str:
    """A checkpoint's own name: its revision, with the repository where each has one, or its path in a local family."""
    if family.folder:
        return os.path.relpath(revision.name, family.folder)
    return revision.name if revision.repo == family.repo else f"{revision.repo}@{revision.name}"


def matching(family: Family, found: list[Revision], point: str) -> list[Revision]:
    """Those that a step or a checkpoint's exact name means: several where steps begin again in each stage."""
    step = int(point) if re.fullmatch(r"\d{1,18}", point, re.ASCII) else None
    return [each for each in found if shown(family, each) == point] or [each for each in found if each.step == step]


def short(family: Family, found: list[Revision], revision: Revision) -> str:
    """What stands after `family@` for a checkpoint: its step, or its name where another has the same step."""
    alone = sum(each.step == revision.step for each in found) == 1
    return str(revision.step) if alone else shown(family, revision)


def defects_of(family: Family, step: int | None) -> list[Defect]:
    """The published defects of the checkpoint at `step`."""
    return [defect for defect in family.defects if step in defect.steps]


def published_defects(checkpoint) -> list[str]:
    """A line with its source for each published defect of a Checkpoint or Cell, also of one named by its repository."""
    names = {checkpoint.family, checkpoint.base.partition("@")[0]}
    mine = [each for each in families().values() if names & {each.name, each.repo}]
    return [f"{each.what} ({each.source})" for family in mine for each in defects_of(family, checkpoint.step)]


def refuse_remote_code(family: Family) -> None:
    """ValueError where a family's weights only load with code from its repository."""
    if family.needs_remote_code:
        raise ValueError(
            f"{family.name}: its weights need code of {family.repo}, and Amuro runs none (trust_remote_code stays off, "
            "there is no flag for it); if you trust that code, convert the checkpoint yourself, with transformers' "
            "trust_remote_code=True, to a model that transformers knows, and give the folder with a family.json: "
            f"PATH@step{f' ({family.note})' if family.note else ''}"
        )
