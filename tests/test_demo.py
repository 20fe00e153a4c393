"""The demo's runner: a grid that is killed goes on, complete cells are not run again, a failed one is named."""

import json
import os
import signal
import subprocess
import sys
import time

from conftest import ROOT

from amuro import results
from amuro.demo import commands, run_all
from amuro.nursery import raise_nursery

GRID = """
import json, sys
from pathlib import Path
from amuro.demo import run_all
if __name__ == "__main__":
    print(run_all(json.loads(sys.argv[1]), Path(sys.argv[2]), 2))
"""


def test_a_killed_grid_goes_on(family, mirror, tmp_path):
    runs = tmp_path / "runs"
    places = ["--data_dir", str(mirror), "--runs", str(runs), "--num_shots", "0", "--limit", "4", "--report_to", "none"]
    todo = [("eval/run.py", ["--checkpoint", f"{family}@{step}", "--tasks", "paws", *places]) for step in (10, 20)]
    todo += [
        ("train_sft.py", ["--checkpoint", f"{family}@10", "--dataset", dataset, "--tasks", "id", *places])
        for dataset in ("mnli", "paws")
    ]
    script = tmp_path / "grid.py"
    script.write_text(GRID)
    command = [sys.executable, str(script), json.dumps(todo), str(tmp_path / "logs")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 120
    while not list(runs.glob("*/units/*.parquet")) and time.time() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in runs.glob("*/units/*.parquet")}
    assert before
    time.sleep(3)  # the workers notice that their parent is gone
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.strip() == "[]", done.stderr[-2000:]
    table = results.load(runs)
    assert len(table) == 2 + 2 + 1 and results.coverage(table.query("stage == 'base'"))[2] == []
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_failed_cell_is_named_with_its_log(family, mirror, tmp_path):
    wrong = ("eval/run.py", ["--checkpoint", f"{family}@15", "--data_dir", str(mirror)])
    (problem,) = run_all([wrong], tmp_path / "logs", 1)
    assert "no step 15; nearest: 10, 20" in problem and str(tmp_path / "logs" / "000.log") in problem
    assert "Traceback" in (tmp_path / "logs" / "000.log").read_text()


def test_the_demos_grid_covers_every_checkpoint_dataset_and_seed(tmp_path):
    raise_nursery(tmp_path / "nursery", preset="tiny")
    grid = commands(tmp_path)
    assert len(grid) == 3 * (1 + 4 + 4 + 1 + 1) and len({json_of(each) for each in grid}) == len(grid)
    assert sum(program == "eval/run.py" for program, _ in grid) == 6 and os.environ["WANDB_MODE"] == "offline"


def json_of(command) -> str:
    return " ".join([command[0], *command[1]])
