"""The demo's runner: a grid that is killed leaves no process behind and goes on, what is complete is not run again."""

import signal
import subprocess
import time

import psutil
import pytest
from conftest import ROOT
from test_runner import driver, each_once, grid

from amuro.demo import SEEDS, commands
from amuro.nursery import raise_nursery
from amuro.running import ledger


@pytest.mark.slow
def test_a_killed_grid_leaves_no_process_and_goes_on(family, mirror, tmp_path):
    runs, todo = tmp_path / "runs", grid(family, mirror)
    command = driver(todo, runs, tmp_path, processes=2)
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 120
    while not list(runs.glob("*/units/*.parquet")) and time.time() < deadline:
        time.sleep(0.05)
    # Ray's two idle helpers take a minute to notice.
    others = [each for each in psutil.Process(process.pid).children(recursive=True) if "Agent" not in each.name()]
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in runs.glob("*/units/*.parquet")}
    assert before and others
    assert not psutil.wait_procs(others, timeout=30)[1]  # they notice that the driver is gone
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "0 failed, 0 left" in done.stdout, done.stderr[-2000:]
    each_once(runs, len(todo))
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_the_demos_grid_covers_every_checkpoint_dataset_and_seed(tmp_path):
    raise_nursery(tmp_path / "nursery", preset="tiny")
    grid = commands(tmp_path)
    assert len(grid) == len({command.key for command in grid}) == 3 * (1 + 4 * len(SEEDS) + 1 + 1)
    assert sum(command.program == "eval/run.py" for command in grid) == 6
    assert not any(command.get("runs") for command in grid) and ledger.read(tmp_path) == {}
