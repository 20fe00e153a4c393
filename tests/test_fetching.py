"""Fetching with the real client against a stand-in: only what is loaded, checked, resumed, explained."""

import json
import os
import shutil
import time
from collections import namedtuple
from pathlib import Path

import pytest
from conftest import run
from hub import Hub, commit_of, git_blob

from amuro.registry import fetching
from amuro.registry.snapshots import INDEX

REPO = "lab/model"
COMMIT = commit_of("step1000")
SCRIPT = """
import json, sys
from amuro.checkpoints import Checkpoint
from amuro.registry.fetching import fetch
commit, *repos = sys.argv[1:]
for repo in repos:
    try:
        folder = fetch(Checkpoint("model", "model@1000", 1000, None, f"{repo}@{commit}", repo, commit))
        print(json.dumps({"folder": str(folder), "files": sorted(each.name for each in folder.iterdir())}))
    except ValueError as error:
        print(json.dumps({"error": str(error)}))
"""
CONFIG = {"config.json": b"{}", "tokenizer.json": b"{}", "tokenizer.model": b"pieces", "merges.txt": b"a b"}
GOOD = CONFIG | {"model.safetensors": os.urandom(300_000)}
NOT_LOADED = {
    "pytorch_model.bin": b"pickle",
    "consolidated.safetensors": b"again",
    "onnx/model.safetensors": b"deep",
    "modeling_own.py": b"code",
    "training_args.bin": b"pickle",
    "flax_model.msgpack": b"other",
}
SHARDS = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
SHARDED = CONFIG | {name: os.urandom(50_000) for name in SHARDS}
SHARDED |= {INDEX: json.dumps({"weight_map": dict(zip("ab", SHARDS, strict=True))}).encode()}


def fetched(tmp_path, hub: Hub) -> tuple[list[dict], str]:
    """(what the fetch of each repository came to, stderr) of one process."""
    home = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
    done = run("-c", SCRIPT, COMMIT, *(repo for _, repo in hub.repos), **home)
    assert done.returncode == 0, done.stderr
    out = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(out) == len(hub.repos) and not any("\n" in each.get("error", "") for each in out)
    return out, done.stderr


@pytest.fixture
def serve():
    """A hub with these repositories' files at one commit, REPO where there is one."""
    hubs = []

    def make(*repos: dict, **how) -> Hub:
        names = [REPO] if len(repos) == 1 else [f"lab/m{number}" for number in range(len(repos))]
        hubs.append(
            Hub({("models", name): {"step1000": files} for name, files in zip(names, repos, strict=True)}, **how)
        )
        return hubs[-1]

    yield make
    for hub in hubs:
        hub.close()


def resolve(name: str) -> str:
    return f"{REPO}/resolve/{COMMIT}/{name}"


def test_only_what_is_loaded_is_fetched_and_once(tmp_path, serve):
    hub = serve(GOOD | NOT_LOADED)
    out, _ = fetched(tmp_path, hub)
    assert out[0]["files"] == sorted(GOOD)
    assert (Path(out[0]["folder"]) / "model.safetensors").read_bytes() == GOOD["model.safetensors"]
    assert not any(name in path for path in hub.requests for name in NOT_LOADED)
    hub.requests.clear()
    assert fetched(tmp_path, hub)[0] == out and not [each for each in hub.requests if REPO in each]


def test_shards_need_their_index_and_it_them(tmp_path, serve):
    lacking = {name: each for name, each in SHARDED.items() if name != SHARDS[1]}
    bad = [SHARDED | {INDEX: index} for index in (b"", b"[]", b'{"weight_map": 1}', b"{}")]
    out, _ = fetched(tmp_path, serve(SHARDED | NOT_LOADED, lacking, *bad))
    assert out[0]["files"] == sorted(SHARDED)
    assert f"m1@{COMMIT}: the revision lacks {SHARDS[1]}, which its index names" in out[1]["error"]
    assert len(out) == 6 and all(f"its {INDEX} has no weight_map" in each["error"] for each in out[2:])


def test_without_safetensors_it_is_refused_with_the_reason_and_nothing_is_downloaded(tmp_path, serve):
    without = {
        "only pickled ones (pytorch_model.bin), and unpickling can run": {"pytorch_model.bin": b"pickle"},
        "only pickled ones (pytorch_model-00001-of-00002.bin)": {"pytorch_model-00001-of-00002.bin": b"pickle"},
        "no safetensors weights, none at all": {},
        "weights, none at all": {"onnx/model.safetensors": b"deep"},
    }
    hub = serve(*(CONFIG | files for files in without.values()))
    out, _ = fetched(tmp_path, hub)
    assert all(told in each["error"] for told, each in zip(without, out, strict=True))
    assert not [each for each in hub.requests if "/resolve/" in each]


def test_a_cut_connection_is_resumed_where_it_broke_off(tmp_path, serve):
    """To 10 MiB: the client writes parts of that size."""
    name, part = "model.safetensors", 10 * 2**20
    files = CONFIG | {name: os.urandom(int(3.5 * part))}
    hub = serve(files, cut={resolve(name): [int(2.2 * part), int(1.1 * part)]})
    out, _ = fetched(tmp_path, hub)
    assert (Path(out[0]["folder"]) / name).read_bytes() == files[name]
    assert [asked for path, asked in hub.ranges if path == resolve(name)] == [f"bytes={n * part}-" for n in (2, 3)]


def test_a_fetch_that_failed_at_one_file_keeps_those_that_are_complete(tmp_path, serve):
    hub = serve(SHARDED, refused={resolve(SHARDS[1]): (403, "")})
    assert "the hub refuses it (403)" in fetched(tmp_path, hub)[0][0]["error"]
    hub.refused = {}
    hub.requests.clear()
    assert fetched(tmp_path, hub)[0][0]["files"] == sorted(SHARDED)
    assert f"GET {resolve(SHARDS[1])}" in hub.requests and f"GET {resolve(SHARDS[0])}" not in hub.requests


def test_a_busy_hub_is_waited_for(tmp_path, serve):
    """Retry-After: 1 for the tree, for a file's metadata and for the file."""
    busy = {f"api/models/{REPO}/tree/{COMMIT}": 1, resolve("model.safetensors"): 2, resolve("config.json"): 1}
    start, hub = time.monotonic(), serve(GOOD, busy=busy)
    out, stderr = fetched(tmp_path, hub)
    assert out[0]["files"] == sorted(GOOD) and set(hub.busy.values()) == {0}
    assert time.monotonic() - start > 3 and "Rate limited. Waiting" in stderr


def test_a_gate_is_explained_in_one_line(tmp_path, serve):
    answers = [(status, code) for status in (401, 403) for code in ("GatedRepo", "")]
    refused = {f"lab/m{n}/resolve": answer for n, answer in enumerate(answers)}
    refused |= {f"api/models/lab/m{n}/": answer for n, answer in enumerate(answers, start=4)}
    out, _ = fetched(tmp_path, serve(*[GOOD] * 8, refused=refused))
    assert len(out) == 8
    for number, each in enumerate(out):
        assert each["error"].startswith(f"lab/m{number}: the hub refuses it ({answers[number % 4][0]})")
        assert f"https://huggingface.co/lab/m{number}" in each["error"] and "HF_TOKEN" in each["error"]
        assert "licence" in each["error"] and "PATH@step" in each["error"]


def test_a_file_with_another_sha256_is_removed_and_fetched_anew(tmp_path, serve):
    name = "model.safetensors"
    bad = GOOD[name][:-1] + bytes([GOOD[name][-1] ^ 1])
    hub = serve(GOOD, wrong={resolve(name): bad})
    error = fetched(tmp_path, hub)[0][0]["error"]
    assert f"{name} has sha256" in error and "removed from the cache" in error
    hub.wrong = {}
    out, _ = fetched(tmp_path, hub)
    path = Path(out[0]["folder"]) / name
    assert path.read_bytes() == GOOD[name]
    path.resolve().write_bytes(bad)  # and damage on the disk later on
    assert f"{name} has sha256" in fetched(tmp_path, hub)[0][0]["error"]
    assert fetched(tmp_path, hub)[0] == out and path.read_bytes() == GOOD[name]


def test_room_is_checked_before_the_download_without_what_is_there(monkeypatch, tmp_path):
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "not" / "yet"))
    disk = namedtuple("disk", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: disk(0, 0, 5 * 2**30) if Path(place).is_dir() else 1 / 0)
    cached = set()
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda repo, name, revision: name if name in cached else object()
    )
    sizes = {"model-1": 4 * 2**30, "model-2": 4 * 2**30}
    with pytest.raises(
        ValueError, match=r"8.0 GiB are to be downloaded, 5.0 GiB are free in .*yet; make room, or set HF_"
    ):
        fetching._check_space(REPO, COMMIT, sizes)
    cached.add("model-1")
    fetching._check_space(REPO, COMMIT, sizes)


def test_a_local_checkpoint_is_its_folder(family):
    from amuro.checkpoints import resolve as checkpoint

    assert fetching.fetch(checkpoint(f"{family}@10")) == family / "step-10"


def test_the_stand_in_names_git_blobs_as_git_does():
    assert git_blob(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"
