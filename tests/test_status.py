"""What `amuro status` says of commands and cells: done, at work, stale, failed, missing."""

import json
import os
import subprocess
import sys

import pytest
from conftest import run
from test_plan import end, sweep
from test_results import put

from amuro import cells
from amuro.running import ledger
from amuro.running.claims import FILE, claim
from amuro.running.grids import read
from amuro.running.status import claimed, look, text


def failed(runs, command, cause: str, log: str = "", attempts: int = 1) -> None:
    entry = ledger.Entry(command.key, command.program, dict(command.flags), "failed", cause=cause, attempts=attempts)
    content = json.dumps({**entry.__dict__, "log": log, "host": "node1"})
    cells.write_atomic(runs / "commands" / f"{command.key}.json", content.encode())


def test_commands_of_files_are_complete_failed_or_missing(tmp_path):
    path = sweep(tmp_path, "checkpoint: {value: toy@1}\ndataset: {values: [mnli, paws, xsum]}")
    done, broken, missing = read([path])
    end(tmp_path, done)
    failed(
        tmp_path, broken, "RuntimeError: loss is nan at step 3: lower --learning_rate", "runs/logs/x.log", attempts=3
    )
    status = look(tmp_path, [path])
    assert [each["command"] for each in status.done] == [str(done)] and status.done[0]["cells"]
    assert status.missing == [str(missing)] == ["train_sft.py --checkpoint=toy@1 --dataset=xsum"]
    (each,) = status.failed
    assert (each.command, each.attempts, each.log) == (str(broken), 3, "runs/logs/x.log")
    shown = text(status)
    assert "failed: train_sft.py --checkpoint=toy@1 --dataset=paws\n  RuntimeError: loss is nan at step 3" in shown
    assert "tried 3 times\n  log: runs/logs/x.log" in shown
    assert shown.splitlines()[-1] == "1 complete, 1 failed, 0 at work, 0 stale, 1 missing"
    assert look(tmp_path, [path], ["dataset=mnli"]).missing == []


def test_a_command_is_complete_only_while_its_cell_is_there(tmp_path):
    path = sweep(tmp_path, "checkpoint: {value: toy@1}\ndataset: {value: mnli}")
    (command,) = read([path])
    end(tmp_path, command)
    (record,) = tmp_path.glob("*/run.json")
    whole = look(tmp_path, [path])
    assert not whole.missing and not whole.warnings
    record.unlink()
    status = look(tmp_path, [path])
    assert status.missing == [str(command)] and "warning: 1 of the missing commands ended well before" in text(status)


def test_who_is_at_work_and_whose_claims_are_stale(tmp_path):
    put(tmp_path, 1, "", None, ["paws"])
    with claim(tmp_path / "cell-a"):
        code = "import os\nfrom pathlib import Path\nfrom amuro.running.claims import claim\n"
        code += f"with claim(Path({str(tmp_path / 'cell-b')!r})): os._exit(9)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
        assert set(claimed(tmp_path)) == {"cell-a", "cell-b"} and (tmp_path / "cell-b" / FILE).exists()
        status = look(tmp_path)
        assert [(each.cell, each.pid) for each in status.running] == [("cell-a", os.getpid())]
        assert [each.cell for each in status.stale] == ["cell-b"]
        shown = text(status)
        assert f"at work: cell-a (process {os.getpid()} on " in shown and "last sign of life" in shown
        assert "stale: cell-b" in shown and "its command goes on from there" in shown
        assert "1 at work, 1 stale" in shown
    assert not look(tmp_path).running


def test_without_files_cells_are_listed_with_what_their_grid_lacks(tmp_path):
    put(tmp_path, 1, "", None, ["paws"])
    put(tmp_path, 2, "", None, ["paws", "qqp"])
    path = sweep(tmp_path, "checkpoint: {value: toy@1}\ndataset: {value: mnli}")
    failed(tmp_path, read([path])[0], "no space")
    status = look(tmp_path)
    assert [(each["step"], each["units"]) for each in status.done] == [(1, 1), (2, 2)]
    assert status.units == (3, 4) and len(status.missing) == 1
    shown = text(status)
    assert "no log: it was started by hand on node1" in shown
    assert "2 cells, 3 of 4 units, 1 failed, 0 at work, 0 stale\n  missing: toy@1 base qqp" in shown


def test_a_folder_with_failures_alone_is_told_of_and_an_empty_one_refused(tmp_path):
    path = sweep(tmp_path, "checkpoint: {value: toy@1}\ndataset: {value: mnli}")
    failed(tmp_path / "runs", read([path])[0], "")
    assert "no cause is known" in text(look(tmp_path / "runs"))
    with pytest.raises(ValueError, match="no complete cell there"):
        look(tmp_path / "nowhere")
    assert len(look(tmp_path / "nowhere", [path]).missing) == 1


def test_a_part_needs_files(tmp_path):
    with pytest.raises(ValueError, match="--only: takes a part of the commands of files"):
        look(tmp_path, [], ["dataset=mnli"])


def test_long_lists_are_cut_in_the_text_alone(tmp_path):
    seeds = ", ".join(map(str, range(50)))
    path = sweep(tmp_path, f"checkpoint: {{value: toy@1}}\ndataset: {{value: mnli}}\nseed: {{values: [{seeds}]}}")
    shown = run("-m", "amuro.cli", "status", path, "--runs", tmp_path / "runs").stdout
    assert shown.count("missing: train_sft.py") == 20 and "... and 30 more; --json has all" in shown
    found = json.loads(run("-m", "amuro.cli", "status", path, "--runs", tmp_path / "runs", "--json").stdout)
    assert len(found["missing"]) == 50 and found["done"] == found["failed"] == found["running"] == found["stale"] == []


def test_json_of_cells_can_be_read(tmp_path):
    put(tmp_path, 1, "", None, ["paws"])
    put(tmp_path, 1, "mnli", 10, ["paws"])
    done = run("-m", "amuro.cli", "status", "--runs", tmp_path, "--json")
    found = json.loads(done.stdout)
    assert [(each["dataset"], each["seed"], each["units"]) for each in found["done"]] == [
        ("", None, 1),
        ("mnli", 10, 1),
    ]
    assert found["units"] == [2, 2] and found["warnings"] == []
