"""The ledger says how commands ended, in words that people and light commands can read."""

import json
import os
import time

import pytest
from conftest import run
from test_resume import arguments, train_sft
from test_settings import eval_run

from amuro import cells, recipes
from amuro.cells import Unit
from amuro.running import ledger
from amuro.running.claims import Claimed
from amuro.running.grids import of_argv

CELL = cells.Cell("toy", "toy@1", 1, None, "sha256:x")
UNIT = Unit("paws", "default", 0, 42, "token_prob", "float32")


def finished(runs, keep_weights: bool = False):
    """A program that makes one cell with one unit."""

    def main(argv):
        folder = CELL.folder(runs)
        ledger.about(folder, [UNIT])
        cells.write_record(folder, CELL)
        cells.write_atomic(UNIT.path(folder), b"unit")
        if keep_weights:
            (folder / "weights").mkdir(exist_ok=True)
        return folder

    return main


def raising(error):
    def main(argv):
        raise error

    return main


def test_a_command_that_is_done_is_noted_with_its_cells_and_units(tmp_path):
    argv = ["--checkpoint", "toy@1", "--learning_rate=1e-5", "--runs", str(tmp_path), "--if_claimed", "leave"]
    (folder,) = ledger.run("train_sft.py", finished(tmp_path), argv, log="a.log")
    ((key, entry),) = ledger.read(tmp_path).items()
    assert key == of_argv("train_sft.py", ["--learning_rate", "0.00001", "--checkpoint", "toy@1"]).key == entry.key
    assert (entry.state, entry.cause, entry.attempts, entry.log) == ("done", "", 1, "a.log")
    assert entry.flags == {"checkpoint": "toy@1", "learning_rate": "1e-5"} and time.time() - entry.written < 60
    assert entry.folders == {folder.name: [UNIT.path(folder).name]}
    assert ledger.is_done(tmp_path, entry) and ledger.entry(tmp_path, key) == entry


def test_done_is_only_what_is_still_there(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("")
    os.utime(recipe, (0, 0))
    argv = ["--checkpoint", "toy@1", "--recipe", str(recipe), "--runs", str(tmp_path / "runs")]
    (tmp_path / "runs").mkdir()
    (folder,) = ledger.run("train_sft.py", finished(tmp_path / "runs"), argv)

    def done() -> bool:
        ledger._newest.cache_clear()
        (entry,) = ledger.read(tmp_path / "runs").values()
        return ledger.is_done(tmp_path / "runs", entry)

    assert done() and not ledger.is_done(tmp_path, None)
    for path in (UNIT.path(folder), folder / "run.json"):
        content = path.read_bytes()
        path.unlink()
        assert not done()
        path.write_bytes(content)
        os.utime(path, (0, 0))
        assert done()
    os.utime(UNIT.path(folder), (time.time() + 60,) * 2)  # replaced by a command with another --limit, say
    assert not done()
    os.utime(UNIT.path(folder), (0, 0))
    (folder / "weights").mkdir()  # evaluated and not wanted: the script removes them
    assert not done()
    (folder / "weights").rmdir()
    os.utime(recipe, (time.time() + 60,) * 2)
    assert not done()


def test_a_mirror_named_by_the_environment_counts_as_one_named_by_a_flag(tmp_path, monkeypatch):
    mirror = tmp_path / "mirror" / "paws" / "test.jsonl"
    mirror.parent.mkdir(parents=True)
    monkeypatch.setenv("AMURO_DATA_DIR", str(tmp_path / "mirror"))
    for written, done in ((0, True), (time.time() + 60, False)):
        mirror.write_text("{}")
        os.utime(mirror, (written, written))
        (tmp_path / "runs").mkdir(exist_ok=True)
        ledger._newest.cache_clear()
        argv = ["--checkpoint", "toy@1", "--runs", str(tmp_path / "runs")]
        ledger.run("train_sft.py", finished(tmp_path / "runs"), argv)
        (entry,) = ledger.read(tmp_path / "runs").values()
        assert ledger.is_done(tmp_path / "runs", entry) is done


def test_a_command_without_any_flag_has_none():
    assert ledger.flag([], "runs") is None and ledger.flag(["--runs"], "runs") == ""


def test_a_token_is_never_written_down(tmp_path):
    argv = ["--checkpoint", "toy@1", "--hub_token", "hf_secret", "--runs", str(tmp_path)]
    with pytest.raises(ValueError, match="no"):
        ledger.run("train_sft.py", raising(ValueError("no")), argv)
    (path,) = (tmp_path / "commands").glob("*.json")
    assert "secret" not in path.read_text() and "failed" in path.read_text()


def test_a_launched_program_leaves_word_of_what_ended_it(tmp_path, monkeypatch):
    """A launcher of several processes makes 1 of every exit code."""
    monkeypatch.setenv(ledger.LOG, str(tmp_path / "a.log"))
    with pytest.raises(Claimed):
        ledger.run("train_sft.py", raising(Claimed("x")), ["--checkpoint", "toy@1", "--runs", str(tmp_path)])
    assert (tmp_path / "a.log.ended").read_text() == "Claimed"
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit):
        ledger.run("train_sft.py", raising(SystemExit(75)), ["--checkpoint", "toy@1", "--runs", str(tmp_path)])
    assert (tmp_path / "a.log.ended").read_text() == "Claimed"


def test_kept_weights_must_be_there(tmp_path):
    argv = ["--checkpoint", "toy@1", "--keep_weights", "all", "--runs", str(tmp_path)]
    (folder,) = ledger.run("train_sft.py", finished(tmp_path, keep_weights=True), argv)
    (entry,) = ledger.read(tmp_path).values()
    assert ledger.is_done(tmp_path, entry)
    (folder / "weights").rmdir()
    assert not ledger.is_done(tmp_path, entry)


def test_weights_that_a_recipe_keeps_must_be_there_too(tmp_path):
    argv = ["--checkpoint", "toy@1", "--recipe", "keeping", "--runs", str(tmp_path)]
    (folder,) = ledger.run("train_sft.py", finished(tmp_path, keep_weights=True), argv)
    (entry,) = ledger.read(tmp_path).values()
    assert entry.kept == [folder.name] and ledger.is_done(tmp_path, entry)
    (folder / "weights").rmdir()
    assert not ledger.is_done(tmp_path, entry)


def test_an_edited_recipe_is_found_by_its_name_and_a_new_nursery_by_its(tmp_path, monkeypatch):
    (tmp_path / "nursery").mkdir()
    files = [tmp_path / "mine.yaml", tmp_path / "nursery" / "family.json"]
    monkeypatch.setattr(recipes, "RECIPES", tmp_path)
    monkeypatch.setenv("AMURO_NURSERY", str(tmp_path / "nursery"))
    for file in files:
        file.write_text("{}")
        os.utime(file, (0, 0))
    argv = ["--checkpoint", "nursery@1", "--recipe", "mine", "--runs", str(tmp_path / "runs")]
    (tmp_path / "runs").mkdir()
    ledger.run("train_sft.py", finished(tmp_path / "runs"), argv)
    (entry,) = ledger.read(tmp_path / "runs").values()
    ledger._newest.cache_clear()
    assert ledger.is_done(tmp_path / "runs", entry)
    for file in files:
        os.utime(file, (time.time() + 60,) * 2)
        ledger._newest.cache_clear()
        assert not ledger.is_done(tmp_path / "runs", entry)
        os.utime(file, (0, 0))


def test_a_program_that_another_process_started_knows_its_log(tmp_path, monkeypatch):
    monkeypatch.setenv(ledger.LOG, "runs/logs/x.log")
    ledger.run("train_sft.py", finished(tmp_path), ["--checkpoint", "toy@1", "--runs", str(tmp_path)])
    (entry,) = ledger.read(tmp_path).values()
    assert entry.log == "runs/logs/x.log"


def test_a_failure_is_noted_with_its_cause_and_counted(tmp_path):
    argv = ["--checkpoint", "toy@1", "--runs", str(tmp_path)]
    for attempt in (1, 2):
        with pytest.raises(RuntimeError):
            ledger.run("train_sft.py", raising(RuntimeError("loss is nan\nmore")), argv)
        (entry,) = ledger.read(tmp_path).values()
        assert (entry.state, entry.cause, entry.attempts) == ("failed", "RuntimeError: loss is nan", attempt)
        assert not ledger.is_done(tmp_path, entry)
    ledger.run("train_sft.py", finished(tmp_path), argv)
    (entry,) = ledger.read(tmp_path).values()
    assert (entry.state, entry.attempts) == ("done", 3)


@pytest.mark.parametrize("end", [SystemExit(0), SystemExit(75), KeyboardInterrupt(), Claimed("x")])
def test_what_ends_without_a_verdict_leaves_no_entry(end, tmp_path):
    with pytest.raises(type(end)):
        ledger.run("train_sft.py", raising(end), ["--checkpoint", "toy@1", "--runs", str(tmp_path)])
    assert ledger.read(tmp_path) == {}


def test_a_mistake_makes_no_runs_folder_and_a_full_disk_hides_no_error(tmp_path, monkeypatch, capsys):
    with pytest.raises(ValueError, match="mistake"):
        ledger.run("train_sft.py", raising(ValueError("mistake")), ["--a", "1", "--runs", str(tmp_path / "none")])
    assert not (tmp_path / "none").exists()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ledger, "write_atomic", full)
    with pytest.raises(ValueError, match="mistake"):
        ledger.run("train_sft.py", raising(ValueError("mistake")), ["--a", "1", "--runs", str(tmp_path)])
    assert "could not be noted ([Errno 28] No space left" in capsys.readouterr().err


def test_a_file_that_is_no_entry_is_named(tmp_path):
    (tmp_path / "commands").mkdir()
    (tmp_path / "commands" / "0.json").write_text(json.dumps({"key": 1}))
    with pytest.raises(ValueError, match="0.json: not an entry of the ledger"):
        ledger.read(tmp_path)


@pytest.mark.slow
def test_the_real_scripts_write_their_entries(family, mirror, tmp_path):
    argv = arguments(family, mirror, tmp_path, saving=())
    done = run("train_sft.py", *argv)
    assert done.returncode == 0, done.stderr[-2000:]
    tasks = ("--tasks", "paws", "--num_shots", "0", "--limit", "4", "--report_to", "none")
    places = ("--data_dir", str(mirror), "--runs", str(tmp_path))
    asked = ["--checkpoint", f"{family}@10,{family}@20", *tasks, *places]
    ledger.run("eval/run.py", eval_run.main, asked)
    with pytest.raises(ValueError, match="--learning_rate 0"):
        ledger.run("train_sft.py", train_sft.main, [*argv, "--learning_rate", "0"])
    entries = {(entry.program, entry.state): entry for entry in ledger.read(tmp_path).values()}
    assert sorted(entries) == [("eval/run.py", "done"), ("train_sft.py", "done"), ("train_sft.py", "failed")]
    assert entries["train_sft.py", "failed"].cause == "--learning_rate 0.0: must be above 0"
    assert [len(units) for units in entries["eval/run.py", "done"].folders.values()] == [1, 1]
    assert ledger.is_done(tmp_path, entries["eval/run.py", "done"])
    before = read_all(tmp_path)
    assert train_sft.main(argv).name in entries["train_sft.py", "done"].folders and read_all(tmp_path) == before


def read_all(folder) -> dict:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
