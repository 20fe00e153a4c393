"""Families of pre-trained models and the checkpoints of their history.

    olmo-1b@342000                a named family: its hub revisions, found by step in the repository's refs
    olmo-1b@main                  the end of that history
    path/to/family@200            a folder with a family.json; `nursery@200` is the folder in $AMURO_NURSERY
    EleutherAI/pythia-70m@step64  any hub repository at any revision

`resolve` says what a checkpoint is (and costs no download); `fetch` gives the local folder with its weights, config and
tokenizer, the only place they are read from; `load` loads them.
"""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from amuro.encoding import load_tokenizer
from amuro.hub import wanted

INSTEAD = "for a local copy write PATH@step with a family.json in PATH"
PATTERNS = ["*.safetensors", "*.safetensors.index.json", "*.json", "tokenizer*", "*.model", "*.txt"]


@dataclass(frozen=True)
class Family:
    """A hub repository with a pre-training history. `pattern` has groups `step` and, where names tell, `tokens`."""

    name: str
    repo: str
    pattern: str
    tokens_b: float | None = None  # of `main`, where no revision tells
    licence: str = ""


FAMILIES = {
    family.name: family
    for family in (
        Family("olmo-1b", "allenai/OLMo-1B-hf", r"step(?P<step>\d+)-tokens(?P<tokens>\d+)B", licence="Apache-2.0"),
        Family("llama3-8b", "meta-llama/Meta-Llama-3-8B", r"(?!)", 15000.0, licence="Llama 3 community licence"),
    )
}
ANY_STEP = r"(?:.*?step[-_]?(?P<step>\d+))(?:.*?tokens(?P<tokens>\d+)B)?.*"  # for repositories we do not know


@dataclass(frozen=True)
class Checkpoint:
    """One point of a pre-training history. `base` is the identity of its weights: `repo@commit`, or `sha256:...` of a
    local folder's files. `step` and `tokens_b` (billions of tokens) are None where nothing tells them."""

    family: str
    name: str
    step: int | None
    tokens_b: float | None
    base: str
    repo: str = ""
    commit: str = ""
    path: str = ""

    def __str__(self) -> str:
        return self.name


def resolve(reference: str) -> Checkpoint:
    """What `family@step`, `family@main`, `PATH@step` or `repo@revision` means. ValueError names the nearest."""
    name, at, point = reference.rpartition("@")
    if not at or not name or not point:
        raise ValueError(f"--checkpoint {reference!r}: write family@step, family@main, PATH@step or repo@revision")
    if folder := family_folder(name):
        return _in_folder(folder, point, reference)
    if name in FAMILIES:
        return _in_family(FAMILIES[name], point, reference)
    if "/" in name and not name.startswith((".", "/", "~")):
        return _in_repository(name, point)
    nearest = get_close_matches(name, [*FAMILIES, "nursery"], n=1, cutoff=0.4)
    hint = f"did you mean {nearest[0]}@{point}? " if nearest else ""
    raise ValueError(
        f"--checkpoint {reference!r}: no family or folder {name!r}; {hint}known: {', '.join([*FAMILIES, 'nursery'])}, "
        "a folder with family.json, or a hub repository"
    )


def fetch(checkpoint: Checkpoint) -> Path:
    """The local folder with the checkpoint's config, tokenizer and safetensors weights; downloads what is missing."""
    if checkpoint.path:
        return Path(checkpoint.path)
    from huggingface_hub import snapshot_download

    with wanted(checkpoint.base, INSTEAD):
        folder = Path(snapshot_download(checkpoint.repo, revision=checkpoint.commit, allow_patterns=PATTERNS))
    if not list(folder.glob("*.safetensors")):
        raise ValueError(f"{checkpoint.base}: the revision has no safetensors weights, and pickled ones are not loaded")
    return folder


def load(folder: Path, dtype: str = "float32", device: str | None = None, attention: str | None = None):
    """(model, tokenizer) from a local checkpoint folder, weights in `dtype`; no remote code, safetensors only.

    The device is this process's GPU where there is one. `attention` is one of transformers' implementations, by default
    what the model takes itself. ValueError where the tokenizer is missing or has no EOS.
    """
    import torch
    from accelerate import PartialState
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(folder)
    if tokenizer.eos_token_id is None:
        raise ValueError(f"{folder}: the tokenizer has no EOS token, which ends every completion")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # only fills rows: the labels are masked by position
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), use_safetensors=True, attn_implementation=attention
    )
    gpu = f"cuda:{PartialState().local_process_index}" if torch.cuda.is_available() else None
    return model.to(device or gpu or "cpu"), tokenizer


def history(family: str) -> list[tuple[int | None, float | None, str]]:
    """(step, tokens_b, revision or folder) of every checkpoint of a family, in order of steps."""
    if folder := family_folder(family):
        entries = read_family(folder)["checkpoints"]
        return sorted((entry["step"], entry["tokens_b"], entry["path"]) for entry in entries)
    if family not in FAMILIES:
        nearest = get_close_matches(family, [*FAMILIES, "nursery"], n=1, cutoff=0.4)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise ValueError(f"no family {family!r}; known: {', '.join([*FAMILIES, 'nursery'])}, or a folder{hint}")
    return [(step, tokens, name) for step, tokens, name, _ in _revisions(FAMILIES[family])]


def family_folder(name: str) -> Path | None:
    """The folder with family.json that `name` means, None where it means none. `nursery` is $AMURO_NURSERY."""
    folder = Path(os.environ.get("AMURO_NURSERY", "nursery")) if name == "nursery" else Path(name).expanduser()
    found = next((each for each in (folder, folder / "family") if (each / "family.json").is_file()), None)
    if name == "nursery" and not found:
        raise ValueError(f"no nursery in {folder}; raise one with: amuro nursery --out {folder}")
    if folder.is_dir() and not found:
        raise ValueError(f"{folder}: a folder without family.json; see `amuro nursery --help` for its layout")
    return found


def read_family(folder: Path) -> dict:
    """The content of a family.json, checked. Raises ValueError with the field that is wrong."""
    path = folder / "family.json"
    try:
        family = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    kinds = {"step": int, "tokens_b": int | float, "path": str}
    checkpoints = family.get("checkpoints") if isinstance(family, dict) else None
    if not isinstance(checkpoints, list) or not checkpoints or not isinstance(family.get("name"), str):
        raise ValueError(f"{path}: needs `name` and a list `checkpoints` of {{step, tokens_b, path}}")
    for number, entry in enumerate(checkpoints):
        for name, kind in kinds.items():
            if not isinstance(entry, dict) or not isinstance(entry.get(name), kind):
                raise ValueError(f"{path}: checkpoints[{number}] needs {name!r} ({kind})")
    return family


def digest(folder: Path) -> str:
    """`sha256:` over the names and contents of a checkpoint folder's weights, config and tokenizer files."""
    files = sorted({path for pattern in PATTERNS for path in folder.glob(pattern)})
    if not any(path.suffix == ".safetensors" for path in files):
        raise ValueError(f"{folder}: no safetensors weights there")
    total = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            total.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\0".encode())
    return f"sha256:{total.hexdigest()}"


def _in_folder(folder: Path, point: str, reference: str) -> Checkpoint:
    family = read_family(folder)
    entries = {entry["step"]: entry for entry in family["checkpoints"]}
    if point == "main":
        point = str(max(entries))
    entry = entries[_nearest(point, list(entries), reference)]
    path = (folder / entry["path"]).resolve()
    if not (path / "config.json").is_file():
        raise ValueError(f"{folder / 'family.json'}: step {entry['step']} names {path}, which has no config.json")
    name = f"{family['name']}@{entry['step']}"
    return Checkpoint(family["name"], name, entry["step"], float(entry["tokens_b"]), digest(path), path=str(path))


def _in_family(family: Family, point: str, reference: str) -> Checkpoint:
    revisions = _revisions(family)
    if point == "main":
        _, _, _, commit = _revision_of(family.repo, "main")
        step, tokens = (revisions[-1][0], revisions[-1][1]) if revisions else (None, family.tokens_b)
    else:
        step = _nearest(point, [each[0] for each in revisions], reference)
        _, tokens, _, commit = next(each for each in revisions if each[0] == step)
    name = f"{family.name}@{point}"
    base = f"{family.repo}@{commit}"
    return Checkpoint(family.name, name, step, tokens, base, repo=family.repo, commit=commit)


def _in_repository(repo: str, revision: str) -> Checkpoint:
    step, tokens, _, commit = _revision_of(repo, revision)
    return Checkpoint(repo, f"{repo}@{revision}", step, tokens, f"{repo}@{commit}", repo=repo, commit=commit)


def _nearest(point: str, steps: list[int], reference: str) -> int:
    """`point` as one of `steps`; ValueError with the nearest ones where it is none."""
    if not point.isdigit():
        raise ValueError(f"--checkpoint {reference!r}: {point!r} is neither a step nor main")
    if int(point) not in steps:
        nearest = sorted(sorted(steps, key=lambda step: abs(step - int(point)))[:4])
        raise ValueError(
            f"--checkpoint {reference!r}: no step {point}; nearest: {', '.join(map(str, nearest)) or 'none'}"
        )
    return int(point)


def _revisions(family: Family) -> list[tuple[int, float | None, str, str]]:
    """(step, tokens_b, branch, commit) of a family's branches, by step. The names are parsed, never built: public
    histories round their token counts in three ways."""
    from huggingface_hub import HfApi

    found = []
    with wanted(family.repo, INSTEAD):
        branches = HfApi().list_repo_refs(family.repo).branches
    for branch in branches:
        if match := re.fullmatch(family.pattern, branch.name):
            step, tokens = _numbers(match)
            found.append((step, tokens, branch.name, branch.target_commit))
    return sorted(found)


def _revision_of(repo: str, revision: str) -> tuple[int | None, float | None, str, str]:
    """(step, tokens_b, revision, commit) of any revision; ValueError where the repository or revision is unknown."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    with wanted(f"{repo}@{revision}", INSTEAD):
        try:
            commit = HfApi().model_info(repo, revision=revision).sha
        except RepositoryNotFoundError:
            raise ValueError(
                f"--checkpoint: the hub has no repository {repo!r} (or it is gated and needs a token)"
            ) from None
        except RevisionNotFoundError:
            branches = [branch.name for branch in HfApi().list_repo_refs(repo).branches]
            nearest = get_close_matches(revision, branches, n=3, cutoff=0.3)
            raise ValueError(
                f"--checkpoint: {repo} has no revision {revision!r}; nearest: {', '.join(nearest or branches[:3])}"
            ) from None
    match = re.fullmatch(ANY_STEP, revision)
    return (*(_numbers(match) if match else (None, None)), revision, commit)


def _numbers(match: re.Match) -> tuple[int, float | None]:
    tokens = match.groupdict().get("tokens")
    return int(match["step"]), float(tokens) if tokens else None
