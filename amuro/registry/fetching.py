"""A checkpoint's files from the hub: only what is loaded, with room checked before and every sha256 after.

    fetch(resolve("pythia-70m@1000"))     the local folder; what is there already is not downloaded again

The download is huggingface_hub's own. It waits as long as a 429 tells it to, and after a broken connection goes on
where that broke off. Cut off as a whole, it keeps the files that are complete; the one it was at begins anew.
"""

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from amuro.cells import file_sha256
from amuro.hub import wanted
from amuro.registry.snapshots import INDEX, NAME, light, weight_files

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

    from amuro.checkpoints import Checkpoint

INSTEAD = "for a local copy write PATH@step with a family.json in PATH"
COMMIT, SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")


def fetch(checkpoint: "Checkpoint") -> Path:
    """The local folder with the checkpoint's config, tokenizer and safetensors weights; downloads what is missing.

    Raises ValueError where the hub refuses or cannot be reached, the disk has no room, the revision has no safetensors
    weights, or a file is not the one that the hub has the hash of.
    """
    if checkpoint.path:
        check_folder(Path(checkpoint.path))
        return Path(checkpoint.path)
    from huggingface_hub import snapshot_download

    base, repo, commit = checkpoint.base, checkpoint.repo, checkpoint.commit
    if not COMMIT.fullmatch(commit):  # it becomes a folder's name
        raise ValueError(f"{base}: {commit!r} is not a commit (40 hexadecimal digits)")
    with asking(repo, base):
        files = _listed(repo, commit)
        needed = _needed(list(files), base)
        _check_space(repo, commit, {name: files[name].size for name in needed})
        folder = Path(snapshot_download(repo, revision=commit, allow_patterns=needed))
    _verify(base, {folder / name: _sha256(files[name], folder / name) for name in needed})
    _check_shards(folder, base)
    return folder


def check_folder(folder: Path) -> None:
    """ValueError where a local checkpoint cannot be whole: what sizes, headers, config and index tell without its
    weights."""
    from amuro.registry.intact import faults

    if wrong := [what for _, severity, what in faults(light(folder)) if severity == "error"]:
        raise ValueError(f"{folder}: {'; '.join(wrong)}; copy or convert the checkpoint again")


@contextmanager
def asking(repo: str, base: str) -> Iterator[None]:
    """Turns the hub's errors into a ValueError of one line; 401 and 403 say how to be let in."""
    from huggingface_hub.errors import HTTPError

    with wanted(base, INSTEAD):
        try:
            yield
        except (HTTPError, OSError) as error:
            if status := _refusal(error):
                raise ValueError(
                    f"{repo}: the hub refuses it ({status}): it is gated or private, or not there. Accept its licence "
                    f"on https://huggingface.co/{repo}, then `hf auth login` or set HF_TOKEN, with a token of that "
                    f"account that may read gated repositories; {INSTEAD}"
                ) from error
            raise


def _refusal(error: BaseException | None) -> int | None:
    """401 or 403 where the hub said so, in the error or in one that it came from."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            return status
        error = error.__cause__
    return None


def _listed(repo: str, commit: str) -> dict[str, "RepoFile"]:
    """{path: RepoFile} of a commit, from the cache where it was fetched before."""
    from huggingface_hub import HfApi, get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError
    from huggingface_hub.hf_api import RepoFile, RepoFolder

    entries: Iterable[RepoFile | RepoFolder]
    try:
        entries = get_cached_repo_tree(repo, revision=commit)
    except CachedRepoTreeNotFoundError:
        entries = HfApi().list_repo_tree(repo, revision=commit, recursive=True)
    return {each.path: each for each in entries if isinstance(each, RepoFile)}


def _needed(names: list[str], base: str) -> list[str]:
    """Config, tokenizer and the weights that are loaded: no pickled ones, no second copy, nothing in a subfolder."""
    plain = [name for name in names if NAME.fullmatch(name)]
    weights = weight_files(plain)
    if not weights:
        pickled = weight_files(names, "bin")
        there = f"only pickled ones ({pickled[0]}), and unpickling can run any code" if pickled else "none at all"
        raise ValueError(
            f"{base}: the revision has no safetensors weights, {there}; take another checkpoint, or convert this one "
            "apart from here and give the folder, PATH@step"
        )
    return weights + [name for name in plain if not name.endswith(".safetensors")]


def _check_space(repo: str, commit: str, sizes: dict[str, int]) -> None:
    """ValueError where the disk of the hub's cache has no room for what is not in it yet; `sizes` in bytes."""
    from huggingface_hub import constants, try_to_load_from_cache

    cached = {name for name in sizes if isinstance(try_to_load_from_cache(repo, name, revision=commit), str)}
    need = sum(size for name, size in sizes.items() if name not in cached)
    cache = Path(constants.HF_HUB_CACHE).expanduser().absolute()
    free = shutil.disk_usage(next(each for each in (cache, *cache.parents) if each.is_dir())).free
    if need > free:
        raise ValueError(
            f"{repo}@{commit}: {need / 2**30:.1f} GiB are to be downloaded, {free / 2**30:.1f} GiB are free in "
            f"{cache}; make room, or set HF_HOME to a folder on another disk"
        )


def _sha256(listed: "RepoFile", path: Path) -> str:
    """What the hub says of a file in LFS, empty for another."""
    if listed.lfs:
        return listed.lfs.sha256
    # A list from the cache does not tell it, but there the file is a link to one that has the sha256 as its name.
    name = path.readlink().name if path.is_symlink() else ""
    return name if SHA256.fullmatch(name) else ""


def _verify(base: str, hashes: dict[Path, str]) -> None:
    """ValueError where a file's sha256 is not the hub's; it is then removed, so that it is fetched anew."""
    for path, sha256 in hashes.items():
        if not sha256:
            continue
        found = file_sha256(path)
        if found != sha256:
            path.resolve().unlink()
            path.unlink(missing_ok=True)
            raise ValueError(
                f"{base}: {path.name} has sha256 {found[:12]}..., the hub says {sha256[:12]}...: damaged on its way or "
                "on disk; it has been removed from the cache, so run the same again to fetch it anew"
            )


def _check_shards(folder: Path, base: str) -> None:
    """ValueError where the index names shards that the revision does not have."""
    if (folder / INDEX).is_file() and not (folder / "model.safetensors").is_file():
        try:
            named = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(f"{base}: its {INDEX} has no weight_map; take another checkpoint") from None
        if missing := sorted(name for name in named if not NAME.fullmatch(name) or not (folder / name).is_file()):
            raise ValueError(f"{base}: the revision lacks {', '.join(missing)}, which its index names; take another")
