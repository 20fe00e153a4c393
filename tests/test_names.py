"""Names that others choose (files of a repository, revisions, commits, families) never write outside of the cache or of
RUNS/audit: everything around these is compared before and after."""

import json
from pathlib import Path

import pytest
from conftest import run
from hub import Hub, commit_of

from amuro.registry.findings import audited, file_name, save

BAD = [
    "../escape.json",
    "../../escape.json",
    "../" * 12 + "tmp/escape.json",
    "a/../../escape.json",
    "..",
    "../",
    ".",
    "./escape.json",
    "..\\escape.json",
    "..\\..\\escape.json",
    "a\\..\\..\\escape.json",
    "%2e%2e/escape.json",
    "..%2fescape.json",
    "..%252fescape.json",
    "{root}/escape.json",
    "/escape.json",
    "//escape.json",
    "//server/share/escape.json",
    "\\\\server\\share\\escape.json",
    "\\\\?\\C:\\escape.json",
    "C:\\escape.json",
    "C:escape.json",
    "file:///escape.json",
    "~/escape.json",
    "$HOME/escape.json",
    "escape\0.json",
    "\0",
    "escape.json\0/../../x",
    "con",
    "CON.json",
    "nul.json",
    "aux.safetensors",
    "com1.json",
    "LPT9.txt",
    "/dev/null",
    "/dev/stdout",
    "x" * 300 + ".json",
    "x/" * 150 + "escape.json",
    "ü" * 300,
    "․․/escape.json",  # one dot leaders
    "．．/escape.json",  # full width dots
    "..∕escape.json",  # a division slash
    "..／escape.json",  # a full width slash
    "соnfig.json",  # Cyrillic с and о
    "model\u200b.safetensors",
    "\u202egnp.nosj",
    "config.json\n",
    "config.json ",
    " ",
    "",
    "-rf.json",
    ".hidden.json",
    "escape.json:stream",
    "*.json",
    "[a-z]*.json",
    "|touch escape.json",
    "refs/../../escape",
    ".locks/../../escape.json",
]
GOOD = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": b"weights"}
SCRIPT = """
import json, sys
from amuro.checkpoints import Checkpoint, resolve
from amuro.registry.families import Revision
from amuro.registry.fetching import fetch
from amuro.registry.snapshots import snapshots
out = []
for kind, repo, name in json.load(open(sys.argv[1])):
    try:
        if kind == "file":
            out.append(sorted(path.name for path in fetch(Checkpoint("", "", 1, None, repo, repo, name)).iterdir()))
            snapshots([Revision(1, None, "x", name, repo)])
        elif kind == "commit":
            fetch(Checkpoint("", "", 1, None, f"{repo}@{name}", repo, name))
            out.append("fetched")
        else:
            fetch(resolve(f"{repo}@{name}"))
            out.append("fetched")
    except (ValueError, OSError) as error:  # a name that is longer than the file system's can be an OSError
        out.append(f"refused: {error}")
print(json.dumps(out))
"""


def everything(root: Path, but: Path) -> set[tuple]:
    """Every path under `root` with its size and time, without those under `but`."""
    inside = lambda path: path == but or but in path.parents  # noqa: E731
    stats = [(path, path.lstat()) for path in root.rglob("*") if not inside(path)]
    return {
        (str(path), stat.st_size if path.is_file() else 0, path.is_dir() or stat.st_mtime_ns) for path, stat in stats
    }


def tried(tmp_path, hub: Hub, cases: list) -> list:
    """What each case came to, in one process; asserts that nothing but the cache was written."""
    cache, work = tmp_path / "around" / "deep" / "hf", tmp_path / "cases.json"
    cache.mkdir(parents=True)
    (tmp_path / "around" / "escape.json").write_text("as it was")
    work.write_text(json.dumps(cases))
    before = everything(tmp_path, cache)
    home = {"HF_ENDPOINT": hub.url, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "0", "HOME": str(tmp_path / "around")}
    done = run("-c", SCRIPT, work, TMPDIR=str(cache), **home)
    hub.close()
    assert done.returncode == 0, done.stderr[-3000:]
    assert everything(tmp_path, cache) == before
    assert not any(Path(place).exists() for place in ("/escape.json", "/tmp/escape.json", "/gnp.nosj"))
    return json.loads(done.stdout)


def test_file_names_of_a_repository_stay_in_the_cache(tmp_path):
    assert len(BAD) >= 40
    root = str(tmp_path / "around")
    names = [name.replace("{root}", root) for name in BAD]
    names += [f"{name}.safetensors" for name in names if not name.endswith((".json", ".txt", ".safetensors"))]
    files = {n: {name: b"x" for name in names[n : n + 8]} for n in range(0, len(names), 8)}
    repos = {("models", f"lab/m{n}"): {"step1": GOOD | bad} for n, bad in files.items()}
    found = tried(tmp_path, Hub(repos), [("file", repo, commit_of("step1")) for _, repo in repos])
    assert len(found) == len(files)
    plain = {"CON.json", "nul.json", "com1.json", "LPT9.txt"}  # files like others, where they are no devices
    assert all(isinstance(each, list) and set(each) <= set(GOOD) | plain for each in found), found


def test_a_commit_that_is_none_is_refused(tmp_path):
    repos = {("models", "lab/model"): {"step1": GOOD}}
    found = tried(tmp_path, Hub(repos), [("commit", "lab/model", name) for name in [*BAD, "A" * 40, "main", "0" * 39]])
    assert len(found) == len(BAD) + 3 and all("is not a commit" in each for each in found)


def test_revisions_and_repositories_stay_in_the_cache(tmp_path):
    repos = {("models", "lab/model"): {name: GOOD for name in [*BAD, "main"]}}
    cases = [("name", "lab/model", name) for name in BAD] + [("name", f"lab/{name}", "main") for name in BAD]
    found = tried(tmp_path, Hub(repos), cases + [("name", name, "1") for name in BAD])
    assert len(found) == 3 * len(BAD) and all(each == "fetched" or each.startswith("refused") for each in found)


@pytest.mark.parametrize("name", BAD)
def test_findings_of_any_family_are_a_file_of_their_folder(tmp_path, name):
    runs = tmp_path / "around" / "runs"
    runs.mkdir(parents=True)
    name = name.replace("{root}", str(tmp_path))
    before = everything(tmp_path, runs)
    path = save(name, ["base"], [], runs)
    assert path.parent == runs / "audit" and path.suffix == ".json" and len(path.name) < 80 and path.name.isascii()
    assert [each.name for each in path.parent.iterdir()] == [path.name] and everything(tmp_path, runs) == before
    assert audited(runs) == {"base": []} and file_name(name) == path.stem
