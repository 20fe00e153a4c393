"""Families of pre-trained models and the checkpoints of their history.

    olmo-1b@342000                a named family: its hub revisions, found by step in the repository's refs
    olmo-1b@main                  the end of that history
    olmo3-7b@stage2-step1000      a revision by its name, where steps begin again in each stage
    my_llama.yaml@2000            a history of your own (amuro/registry/families.py shows the file)
    path/to/family@200            a folder with a family.json; `nursery@200` is the folder in $AMURO_NURSERY
    EleutherAI/pythia-70m@step64  any hub repository at any revision

`resolve` says what a checkpoint is (and costs no download), `fetch` (amuro/registry/fetching.py) gives the local folder
with its weights, config and tokenizer, the only place they are read from, and `load` loads them.
"""

import copy
import hashlib
import os
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from amuro.cells import file_sha256
from amuro.encoding import load_tokenizer
from amuro.registry.families import (
    Family,
    Revision,
    families,
    family,
    known,
    matching,
    nearest,
    on_line,
    read_refs,
    refuse_remote_code,
    revisions,
    short,
    shown,
)
from amuro.registry.family_files import family_folder
from amuro.registry.fetching import asking
from amuro.registry.intact import BUFFER, some

PATTERNS = ["*.safetensors", "*.safetensors.index.json", "*.json", "tokenizer*", "*.model", "*.txt"]
_base: dict[tuple, object] | None = None  # the last base model, where this process keeps it; None where it does not

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
    """What `family@step`, `family@revision`, `family@main`, `PATH@step` or `repo@revision` means. Nothing is fetched.

    Raises ValueError with what is nearest where it means nothing, and with the names where it means several.
    """
    name, at, point = reference.rpartition("@")
    if not at or not name or not point:
        raise ValueError(f"--checkpoint {reference!r}: write family@step, family@main, PATH@step or repo@revision")
    if name.endswith((".yaml", ".yml")) or family_folder(name) or name in families():
        return _in_family(family(name), point, reference)
    if re.fullmatch(r"\w[\w.-]*/[\w.-]+", name, re.ASCII):
        return _in_repository(name, point)
    raise ValueError(
        f"--checkpoint {reference!r}: no family or folder {name!r}{nearest(name, f'@{point}')}; known: {known()}, "
        "a YAML, a folder with family.json, or a hub repository"
    )


def keep_base() -> None:
    """From now on this process keeps the last base model in memory, for the next cell of the same checkpoint."""
    global _base
    _base = {}


def load(
    folder: Path, dtype: str = "float32", device: str | None = None, attention: str | None = None, base: bool = False
):
    """(model, tokenizer) from a local checkpoint folder, weights in `dtype`; no remote code, safetensors only.

    The device is this process's GPU where there is one. `attention` is one of transformers' implementations, by default
    what the model takes itself; `base` says that it is a base model. ValueError where the tokenizer is missing or has
    no EOS.
    """
    import torch
    from accelerate import PartialState

    tokenizer = load_tokenizer(folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # only fills rows: the labels are masked by position
    model = _kept(folder, dtype, attention) if base and _base is not None else _read(folder, dtype, attention)
    rows, largest = model.get_input_embeddings().weight.shape[0], max(tokenizer.get_vocab().values())
    if largest >= rows:
        raise ValueError(
            f"{folder}: the tokenizer has ids up to {largest}, the model {rows} rows: not of one checkpoint"
        )
    gpu = f"cuda:{PartialState().local_process_index}" if torch.cuda.is_available() else None
    return model.to(device or gpu or "cpu"), tokenizer


def _read(folder: Path, dtype: str, attention: str | None):
    """The model, every weight of it from the files and a number: the library fills what is missing with random ones."""
    import torch
    from transformers import AutoModelForCausalLM

    how = {"dtype": getattr(torch, dtype), "attn_implementation": attention, "use_safetensors": True}
    how |= {"trust_remote_code": False, "output_loading_info": True, "ignore_mismatched_sizes": True}  # told below
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, **how)
    except Exception as error:  # the library has no kind of its own for files that it cannot use
        raise ValueError(f"{folder}: the model cannot be loaded ({' '.join(str(error).split())})") from error
    model, told = loaded
    if lost := sorted(told["missing_keys"]):
        raise ValueError(f"{folder}: {some(lost)} of the model that config.json describes are not in the weights")
    if other := [f"{name} {list(has)} for {list(wants)}" for name, has, wants in sorted(told["mismatched_keys"])]:
        raise ValueError(f"{folder}: not the shapes that config.json describes: {some(other)}")
    spare = sorted(name for name in told["unexpected_keys"] if not BUFFER.fullmatch(name))
    if layers := [name for name in spare if re.search(r"\.\d+\.", name)]:
        raise ValueError(f"{folder}: the model that config.json describes has no place for {some(layers)}")
    if spare:
        print(f"note: {folder}: the model that config.json describes has no place for {some(spare)}")
    if wrong := sorted(name for name, weight in model.named_parameters() if not weight.isfinite().all()):
        raise ValueError(f"{folder}: {some(wrong)} hold values that are not numbers; take another checkpoint")
    return model


def _kept(folder: Path, dtype: str, attention: str | None):
    """A copy of the base model that is kept, which is read where it is another one or its files have changed."""
    changed = max(path.stat().st_mtime_ns for path in Path(folder).iterdir())
    key = (str(Path(folder).resolve()), changed, dtype, attention)
    if key not in _base:
        _base.clear()
        _base[key] = _read(folder, dtype, attention)
    return copy.deepcopy(_base[key])


def history(name: str) -> list[tuple[int, float | None, str]]:
    """(step, tokens_b, revision or folder) of every checkpoint of a family, in order."""
    return [(each.step, each.tokens_b, each.name) for each in revisions(family(name))]


def digest(folder: Path) -> str:
    """`sha256:` over the names and contents of a checkpoint folder's weights, config and tokenizer files."""
    files = sorted({path for pattern in PATTERNS for path in folder.glob(pattern)})
    if not any(path.suffix == ".safetensors" for path in files):
        raise ValueError(f"{folder}: no safetensors weights there")
    total = hashlib.sha256()
    for path in files:
        if not path.is_file():
            raise ValueError(f"{path}: no file, or a link to none; put it there, or remove it")
        total.update(f"{path.name}\0{file_sha256(path)}\0".encode())
    return f"sha256:{total.hexdigest()}"


def _in_family(family: Family, point: str, reference: str) -> Checkpoint:
    refuse_remote_code(family)
    if point == "main" and not family.folder and not family.repos:
        return _main(family)
    found = revisions(family)
    meant = found[-1:] if point == "main" else matching(family, found, point)
    if not meant:
        raise ValueError(f"--checkpoint {reference!r}: {_not_there(point, [each.step for each in found])}")
    if len(meant) > 1:
        names = ", ".join(f"{family.name}@{shown(family, each)}" for each in meant)
        raise ValueError(f"--checkpoint {reference!r}: step {point} is there more than once; write one of {names}")
    return checkpoint_of(family, meant[0], short(family, found, meant[0]))


def checkpoint_of(family: Family, revision: Revision, point: str) -> Checkpoint:
    """The checkpoint `family@point` that a revision is. ValueError where a local one has no model in its folder."""
    step, tokens_b, repo, commit = revision.step, revision.tokens_b, revision.repo, revision.commit
    name = f"{family.name}@{point}"
    if repo:
        return Checkpoint(family.name, name, step, tokens_b, f"{repo}@{commit}", repo=repo, commit=commit)
    path = Path(os.path.realpath(revision.name))  # pathlib's own stops at a loop of links with a traceback
    if not (path / "config.json").is_file():
        raise ValueError(f"{family.folder}: step {step} is {path}, which has no config.json")
    return Checkpoint(family.name, name, step, tokens_b, digest(path), path=str(path))


def _main(family: Family) -> Checkpoint:
    """The branch main: of some histories the last checkpoint, of others a model that was trained on, or no model."""
    if family.main == "none":
        raise ValueError(f"{family.name}@main: main is no checkpoint of this history; {family.note or 'write a step'}")
    commit = read_refs(family.repo).get("main")
    if commit is None:
        raise ValueError(f"{family.name}@main: {family.repo} has no branch main; write a step")
    step, tokens_b = None, family.tokens_b
    if family.main != "apart" and (line := on_line(family, revisions(family))):
        step, tokens_b = line[-1].step, line[-1].tokens_b
    name, base = f"{family.name}@main", f"{family.repo}@{commit}"
    return Checkpoint(family.name, name, step, tokens_b, base, repo=family.repo, commit=commit)


def _in_repository(repo: str, revision: str) -> Checkpoint:
    step, tokens, _, commit = _revision_of(repo, revision)
    return Checkpoint(repo, f"{repo}@{revision}", step, tokens, f"{repo}@{commit}", repo=repo, commit=commit)


def _not_there(point: str, steps: list[int]) -> str:
    if not re.fullmatch(r"\d{1,18}", point, re.ASCII):
        return f"{point!r} is neither a step nor main, nor the name of a revision"
    near = sorted(sorted(set(steps), key=lambda step: abs(step - int(point)))[:4])
    return f"no step {point}; nearest: {', '.join(map(str, near)) or 'none'}"


def _revision_of(repo: str, revision: str) -> tuple[int | None, float | None, str, str]:
    """(step, tokens_b, revision, commit) of any revision; ValueError where the repository or revision is unknown."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    with asking(repo, f"{repo}@{revision}"):
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
    match = re.fullmatch(ANY_STEP, revision, re.ASCII)
    step, tokens = match.groups() if match else (None, None)
    return int(step) if step else None, float(tokens) if tokens else None, revision, commit
