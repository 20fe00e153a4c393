"""What a checkpoint's revision tells of itself without its weights: its files with their sizes and sha256, the headers
of its safetensors files, its config and its index of shards.

    snapshots(revisions)     one request for each revision's tree, and one for each distinct file that is looked into

A local folder tells the same of itself; there the files are hashed.
"""

import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from amuro.cells import file_sha256

if TYPE_CHECKING:
    from amuro.registry.families import Revision

# What a checkpoint consists of: plain names at the root of a repository, with an ending that holds no code.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}\.(safetensors|json|model|txt|jinja|tiktoken)")
SHARDS = {
    "safetensors": re.compile(r"model(-\d+-of-\d+)?\.safetensors"),
    "bin": re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin"),
}
INDEX = "model.safetensors.index.json"
FIRST = 100_000  # bytes that hold most headers, so that one request does: the size huggingface_hub asks for too
LONGEST = 100_000_000  # of a header, as the safetensors library has it


@dataclass(frozen=True)
class File:
    """`content` names the bytes: the sha256 of an LFS or local file, the git blob of another."""

    size: int
    content: str


@dataclass(frozen=True)
class Header:
    """Of a safetensors file: `start` is where its data begin, `tensors` is {name: (dtype, shape, (first, end))} with
    offsets from there. `problem` says why it could not be read."""

    start: int = 0
    tensors: dict = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A revision. `base` is the identity of its weights (`repo@commit`, or the digest of a folder), `headers` are those
    of its safetensors files, `texts` its config and index, parsed, None where that is not JSON."""

    step: int | None
    revision: str
    base: str
    files: dict[str, File]
    headers: dict[str, Header] = field(default_factory=dict)
    texts: dict[str, dict | None] = field(default_factory=dict)
    stage: str = ""


def weight_files(names, kind: str = "safetensors") -> list[str]:
    """The files that transformers loads weights from: the single one where it is there, else the shards."""
    found = sorted(name for name in names if SHARDS[kind].fullmatch(name))
    single = [name for name in found if "-of-" not in name]
    return single or found


def snapshots(revisions: list["Revision"], workers: int = 8) -> list[Snapshot]:
    """What each revision tells of itself, in order; progress on stderr. A revision that the hub no longer has is empty.

    Each distinct content is read once, however many revisions have it. Raises ValueError where the hub cannot be had.
    """
    from tqdm.contrib.concurrent import thread_map

    def each(function, items, what: str) -> list:
        return thread_map(function, items, max_workers=workers, desc=what, disable=None)

    trees = each(_tree, revisions, "revisions")
    wanted = {}
    for revision, (_, files) in zip(revisions, trees, strict=True):
        for name in _looked_into(files):
            wanted.setdefault((name.endswith(".safetensors"), files[name].content), (revision, name, files[name].size))
    found = dict(zip(wanted, each(_content, list(wanted.values()), "headers"), strict=True))
    return [
        Snapshot(
            revision.step,
            revision.name,
            base,
            files,
            {name: found[True, files[name].content] for name in _looked_into(files) if name.endswith(".safetensors")},
            {name: found[False, files[name].content] for name in _looked_into(files) if name.endswith(".json")},
            revision.stage,
        )
        for revision, (base, files) in zip(revisions, trees, strict=True)
    ]


def snapshot(revision: "Revision") -> Snapshot:
    """What one revision tells of itself."""
    return snapshots([revision], workers=1)[0]


def light(folder: Path) -> Snapshot:
    """What a local folder tells of itself without hashing its files."""
    from amuro.registry.families import Revision

    here, files = Revision(None, None, str(folder), "", ""), {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and (NAME.fullmatch(path.name) or SHARDS["bin"].fullmatch(path.name)):
            files[path.name] = File(path.stat().st_size, path.name)
    found = {name: _content((here, name, files[name].size)) for name in _looked_into(files)}
    headers = {name: each for name, each in found.items() if isinstance(each, Header)}
    texts = {name: each for name, each in found.items() if not isinstance(each, Header)}
    return Snapshot(None, here.name, "", files, headers, texts)


def read_header(start: bytes, size: int, rest=None) -> Header:
    """The header of a safetensors file of `size` bytes from its first bytes; `rest(n)` gives the first n where those
    are too few. A file that is none has a `problem`."""
    length = int.from_bytes(start[:8], "little")
    if size < 8 or length > LONGEST:
        return Header(problem=f"{size} bytes that do not begin as a safetensors file does")
    if 8 + length > size:
        return Header(problem=f"its header has {length} bytes, the file {size}")
    if 8 + length > len(start):
        start = rest(8 + length)
    return parse_header(start[8 : 8 + length])


@cache  # most checkpoints of a history have the same header, and a long one has thousands
def parse_header(content: bytes) -> Header:
    """A header's JSON."""
    try:
        tensors = {}
        for name, each in json.loads(content).items():
            if name != "__metadata__":
                first, end = map(int, each["data_offsets"])
                tensors[name] = (str(each["dtype"]), tuple(map(int, each["shape"])), (first, end))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return Header(problem=f"its header is not one ({type(error).__name__}: {error})")
    return Header(8 + len(content), tensors)


def _looked_into(files: dict[str, File]) -> list[str]:
    return [*weight_files(files), *(name for name in ("config.json", INDEX) if name in files)]


def _tree(revision: "Revision") -> tuple[str, dict[str, File]]:
    """(base, {path: File}) of a revision; no files where it is gone."""
    if not revision.repo:
        return _folder(Path(revision.name))
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionNotFoundError
    from huggingface_hub.hf_api import RepoFile

    from amuro.registry.fetching import asking

    base = f"{revision.repo}@{revision.commit}"
    with asking(revision.repo, base):
        try:
            entries = list(HfApi().list_repo_tree(revision.repo, revision=revision.commit, recursive=True))
        except RevisionNotFoundError:
            return base, {}
    files = [each for each in entries if isinstance(each, RepoFile)]
    return base, {each.path: File(each.size, each.lfs.sha256 if each.lfs else each.blob_id) for each in files}


def _folder(folder: Path) -> tuple[str, dict[str, File]]:
    from amuro.checkpoints import digest

    files = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.is_file() and (NAME.fullmatch(path.name) or SHARDS["bin"].fullmatch(path.name)):
            files[path.name] = File(path.stat().st_size, file_sha256(path))
    return digest(folder) if weight_files(files) else str(folder), files


def _content(wanted: tuple["Revision", str, int]) -> Header | dict | None:
    """A safetensors file's header, or a JSON file's content."""
    revision, name, size = wanted
    if name.endswith(".safetensors"):
        return read_header(_first(revision, name, min(FIRST, size)), size, lambda n: _first(revision, name, n))
    try:
        content = json.loads(_first(revision, name, size))
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _first(revision: "Revision", name: str, n: int) -> bytes:
    """The first n bytes of a file. The hub's answers 429 and 5xx are waited out by the client, as Retry-After says."""
    if n == 0:
        return b""
    if not revision.repo:
        with open(Path(revision.name) / name, "rb") as file:
            return file.read(n)
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff

    from amuro.registry.fetching import asking

    # huggingface_hub's parse_safetensors_file_metadata does not retry, and does not tell where the data begin.
    headers = {**build_hf_headers(), "Range": f"bytes=0-{n - 1}", "Accept-Encoding": "identity"}
    with asking(revision.repo, f"{revision.repo}@{revision.commit}"):
        response = http_backoff("GET", hf_hub_url(revision.repo, name, revision=revision.commit), headers=headers)
        hf_raise_for_status(response)
    return response.content
