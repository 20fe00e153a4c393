"""What a small study does to the machine it runs on: it asks no network, unpickles nothing, runs no code of a
checkpoint, and writes nothing but under its own folders. Watched from within by Python's audit events, in every
process, and from outside by comparing the folders before and after.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

pytestmark = pytest.mark.slow

# In every Python process of the commands: connections to other machines fail, and what is of interest is written down.
WATCH = """
import json, os, socket, sys

LOG = os.open(os.environ["WATCH"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
try:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing
        OWN = probe.getsockname()[0]  # this machine: Ray's processes call each other by it
except OSError:
    OWN = "127."
LOCAL = ("127.", "::1", "localhost", "0.0.0.0", "::", OWN)
CHANGES = {"os.mkdir": 0, "os.rename": 1, "os.link": 1, "os.symlink": 1, "os.truncate": 0, "shutil.move": 1}

def note(*what):
    os.write(LOG, (json.dumps([os.getpid(), *map(str, what)]) + "\\n").encode())

def watch(event, args):
    if event in ("socket.connect", "socket.sendto"):
        host = args[1][0] if isinstance(args[1], tuple) else ""
        if isinstance(args[1], tuple) and not str(host).startswith(LOCAL):
            note("network", event, args[1])
            raise OSError(f"the network is cut: {args[1]}")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        if args[0] and not str(args[0]).startswith(LOCAL) and args[0] != os.uname().nodename:
            note("network", event, args[0])
            raise OSError(f"the network is cut: {args[0]}")
    elif event == "pickle.find_class":
        note("pickle", *args)
    elif event == "import" and args[0].startswith("transformers_modules"):
        note("code", args[0])
    elif event == "open" and isinstance(args[0], (str, bytes)) and isinstance(args[2], int):
        if args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            note("write", os.path.abspath(os.fsdecode(args[0])))
    elif event in CHANGES and isinstance(args[CHANGES[event]], (str, bytes)):
        note("write", os.path.abspath(os.fsdecode(args[CHANGES[event]])))

sys.addaudithook(watch)
note("watched", " ".join(sys.orig_argv[:4]))
"""
# The demo's commands, but for `amuro run`, in one process: what it imports is imported once.
STUDY = """
import sys
from pathlib import Path
from amuro.nursery import raise_nursery
from amuro.programs import load_program

out = Path(sys.argv[1])
family = raise_nursery(out / "nursery", preset="tiny")
common = ["--data_dir", f"{out}/nursery/data", "--runs", f"{out}/runs", "--limit", "4", "--num_shots", "0"]
for step in (2, 8):
    load_program("eval/run.py").main(["--checkpoint", f"{family}@{step}", "--tasks", "id,sciq", *common])
    tuned = ["--checkpoint", f"{family}@{step}", "--num_train_rows", "16", "--num_train_epochs", "1", *common]
    load_program("train_sft.py").main([*tuned, "--dataset", "mnli", "--recipe", "nursery-sft", "--keep_weights=all"])
tuned = ["--checkpoint", f"{family}@8", "--recipe", "nursery-instruct", "--max_steps", "2"]
load_program("train_instruct.py").main([*tuned, "--tasks", "sciq", *common])
"""


PROBE = """
import pickle, socket
try:
    socket.create_connection(("192.0.2.7", 80), 1)
except OSError:
    pass
pickle.loads(b"cos\\ngetpid\\n.")
"""


def listed(folder: Path) -> set[str]:
    """Everything in a folder, by name."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """(folder, events): a study on a tiny nursery, a grid on it, and the report, all with the network cut."""
    folder = tmp_path_factory.mktemp("watched")
    for name in ("site", "home", "tmp", "cwd", "hf"):
        (folder / name).mkdir()
    (folder / "site" / "sitecustomize.py").write_text(WATCH)
    (folder / "study.py").write_text(STUDY)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "HF_", "XDG_"))}
    env |= {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "HF_HOME": str(folder / "hf")}
    env |= {"PYTHONPATH": f"{folder / 'site'}{os.pathsep}{ROOT}", "WATCH": str(folder / "log")}
    env["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "tmp" / "inductor")  # else /tmp, whatever TMPDIR says
    env |= {"PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
    grid = {"checkpoint": f"{folder}/out/nursery/family@4", "dataset": "paws", "recipe": "nursery-sft", "limit": 4}
    grid |= {"data_dir": f"{folder}/out/nursery/data", "num_train_rows": 16, "num_train_epochs": 1, "tasks": "id"}
    grid |= {"num_shots": "0", "runs": f"{folder}/out/runs"}
    parameters = {name: {"value": value} for name, value in grid.items()}
    sweep = {"program": "train_sft.py", "method": "grid", "parameters": parameters}
    (folder / "grid.yaml").write_text(yaml.safe_dump(sweep))
    commands = [
        [folder / "study.py", folder / "out"],
        ["-m", "amuro.cli", "run", folder / "grid.yaml", "--processes", "1", "--gpus_per_cell", "0"],
        ["-m", "analysis.report", "--runs", folder / "out" / "runs", "--out", folder / "out" / "report"],
    ]
    subprocess.run([sys.executable, "-c", PROBE], env=env, check=False, capture_output=True)
    seen = {json.loads(line)[1] for line in (folder / "log").read_text().splitlines()}
    assert {"network", "pickle"} <= seen, "the watch sees nothing"
    (folder / "log").unlink()
    before, events = listed(ROOT / "amuro") | listed(ROOT / "analysis"), []
    for number, command in enumerate(commands):
        whole = [sys.executable, *map(str, command)]
        done = subprocess.run(whole, cwd=folder / "cwd", env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        lines = (folder / "log").read_text().splitlines()
        events += [(number, *json.loads(line)[1:]) for line in lines]
        (folder / "log").unlink()
    assert listed(ROOT / "amuro") | listed(ROOT / "analysis") == before
    return folder, events


def of(events: list, kind: str) -> list[tuple]:
    return [event for event in events if event[1] == kind]


def test_the_study_was_made_and_watched(watched):
    folder, events = watched
    records = [json.loads(path.read_text())["cell"] for path in (folder / "out" / "runs").glob("*/run.json")]
    assert sorted((each["stage"], each["dataset"]) for each in records) == [
        *[("base", "")] * 2,
        ("instruct", "tulu"),
        *[("sft", "mnli")] * 2,
        ("sft", "paws"),
    ]
    assert list((folder / "out" / "report").glob("*.html"))
    assert {event[0] for event in of(events, "watched")} == {0, 1, 2} and len(of(events, "write")) > 100


def test_no_network_is_asked(watched):
    """Ray (command 1) asks by itself in which cloud it runs; that is cut too, and nothing is missed."""
    asked = [event for event in of(watched[1], "network") if event[0] != 1]
    assert asked == []


def test_nothing_is_unpickled_and_no_code_of_a_checkpoint_is_run(watched):
    """Ray's own messages to its workers (command 1) are pickled: they come from this machine's own processes."""
    _, events = watched
    assert [event for event in of(events, "pickle") if event[0] != 1] == [] and of(events, "code") == []


def test_nothing_is_written_outside(watched):
    """--runs and the report's folder, the hub's cache, temporary files; and nothing at home or where it was called."""
    folder, events = watched
    allowed = [str(folder / name) for name in ("out", "hf", "tmp")] + ["/dev/", "/proc/"]
    allowed += ["/tmp/amuro-"]  # Ray's session, which needs a short path (amuro/running/cluster.py), and is removed
    assert {event[2] for event in of(events, "write") if not event[2].startswith(tuple(allowed))} == set()
    assert listed(folder / "cwd") == set() and listed(folder / "home") == set()
