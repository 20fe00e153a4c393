"""A training that is killed, anywhere, and called again ends with the weights of one that was not."""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, forked, make_checkpoint
from safetensors.torch import load_file
from test_settings import train_sft
from transformers import Trainer

from amuro import checkpoints, resume, training, weights
from amuro.cells import read_record
from amuro.programs import AGAIN
from amuro.running import disk

STEPS = 12  # 24 rows, batches of 8, 4 epochs


SAVING = ("--save_strategy", "steps", "--save_steps", "3")


def arguments(family, mirror, runs, *more, saving=SAVING) -> list[str]:
    return [
        *("--checkpoint", f"{family}@10", "--dataset", "mnli", "--data_dir", str(mirror), "--runs", str(runs)),
        *("--learning_rate", "1e-3", "--num_train_epochs", "4", *saving),
        *("--tasks", "none", "--keep_weights", "all", "--report_to", "none", *more),
    ]


@pytest.fixture(scope="module")
def undisturbed(family, mirror, tmp_path_factory) -> Path:
    return train_sft.main(arguments(family, mirror, tmp_path_factory.mktemp("undisturbed")))


SLOW = """
import time
import train_sft
from amuro import training

def on_step_end(*_, **__):
    print("at a step", flush=True)
    time.sleep(0.5)

training.Guard.on_step_end = on_step_end
train_sft.settings.script(train_sft.main)
"""


def die(*_, **__) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(where: str, at: int, argv: list[str]) -> None:
    """Run a cell in a process that kills itself after a step, in the middle of a save, or before it is marked."""

    def at_this_step(call):
        def wrapped(self, *args, **kwargs):
            step = self.state.global_step if isinstance(self, Trainer) else args[1].global_step
            return die() if step == at else call(self, *args, **kwargs)

        return wrapped

    def child() -> None:
        if where == "step":
            training.Guard.on_step_end = at_this_step(training.Guard.on_step_end)
        elif where == "save":  # the weights are written, the optimizer is not
            Trainer._save_optimizer_and_scheduler = at_this_step(Trainer._save_optimizer_and_scheduler)
        elif where == "mark":
            resume.Keeper.on_save = at_this_step(resume.Keeper.on_save)
        elif where == "weights":  # trained to the end, and the folder of weights begun
            weights._store = die
        elif where == "record":  # the weights are written, the record is not
            training.write_record = die
        train_sft.main(argv)

    process = forked(child)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def same_weights(one: Path, two: Path) -> bool:
    a, b = (load_file(folder / "weights" / "model.safetensors") for folder in (one, two))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("where", "at", "resumed_from"),
    [("step", 2, 0), ("step", 4, 3), ("save", 6, 3), ("mark", 9, 6), ("step", 11, 9), ("weights", 0, 12)],
)
def test_a_killed_training_goes_on_and_ends_with_the_same_bits(
    where, at, resumed_from, undisturbed, family, mirror, tmp_path, capsys
):
    argv = arguments(family, mirror, tmp_path)
    killed(where, at, argv)
    folder = tmp_path / undisturbed.name
    assert read_record(folder) is None and not (folder / "weights").exists()
    train_sft.main(argv)
    record = read_record(folder)["training"]
    assert record["resumed_from"] == resumed_from and record["steps"] == STEPS
    assert (record["train_loss"] is None) == (resumed_from > 0)  # the library's is a mean over this call's steps
    assert same_weights(folder, undisturbed)
    assert [entry["step"] for entry in record["log"]] == [
        entry["step"] for entry in read_record(undisturbed)["training"]["log"]
    ]
    assert ("was not saved to its end, removed" in capsys.readouterr().out) == (where in ("save", "mark"))
    assert not list(folder.glob("*checkpoint*")) and not list(folder.glob("*.partial"))


def test_killed_again_and_again_it_ends_with_the_same_bits(undisturbed, family, mirror, tmp_path):
    argv = arguments(family, mirror, tmp_path)
    for where, at in (("step", 4), ("save", 6), ("mark", 6), ("step", 8), ("save", 12)):
        killed(where, at, argv)
    assert read_record(train_sft.main(argv))["training"]["resumed_from"] == 9
    assert same_weights(tmp_path / undisturbed.name, undisturbed)


def test_a_damaged_checkpoint_is_set_aside_by_name(undisturbed, family, mirror, tmp_path, capsys):
    argv = [*arguments(family, mirror, tmp_path), "--save_total_limit", "2"]
    killed("step", 8, argv)
    folder = tmp_path / undisturbed.name
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-6"]
    file = folder / "checkpoint-6" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1  # one bit
    file.write_bytes(content)
    train_sft.main(argv)
    told = capsys.readouterr().out
    assert "checkpoint-6: damaged (model.safetensors), set aside as damaged-checkpoint-6" in told
    assert read_record(folder)["training"]["resumed_from"] == 3 and same_weights(folder, undisturbed)
    assert (folder / "damaged-checkpoint-6").is_dir()


def test_a_missing_file_and_a_broken_marker_are_damage_too(tmp_path, capsys):
    for step, name in ((1, "optimizer.pt"), (2, resume.MARKER)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "optimizer.pt").write_text("state")
        digests = resume._digests(folder)
        (folder / resume.MARKER).write_text(
            json.dumps({"cell_id": "abc", "step": step, "sha256": digests, "seconds": 1.0})
        )
        (folder / name).write_text("{") if name == resume.MARKER else (folder / name).unlink()
    assert resume.Keeper(tmp_path, "abc").newest() is None
    told = capsys.readouterr().out
    assert "checkpoint-1: damaged (optimizer.pt)" in told and "checkpoint-2: damaged (complete.json)" in told


def test_a_checkpoint_of_another_cell_is_refused(undisturbed, family, mirror, tmp_path):
    argv = arguments(family, mirror, tmp_path)
    killed("step", 4, argv)
    other = train_sft.main([*arguments(family, mirror, tmp_path / "other"), "--seed", "1"])
    shutil.rmtree(other)
    shutil.copytree(tmp_path / undisturbed.name, other)
    with pytest.raises(
        ValueError, match=f"a checkpoint of the cell {undisturbed.name[-12:]}, not of {other.name[-12:]}"
    ):
        train_sft.main([*arguments(family, mirror, tmp_path / "other"), "--seed", "1"])


def test_a_training_that_is_repeated_goes_on_where_it_was_killed(family, mirror, tmp_path):
    folder = train_sft.main(arguments(family, mirror, tmp_path))
    shutil.rmtree(folder / "weights")
    killed("step", 7, arguments(family, mirror, tmp_path))
    train_sft.main(arguments(family, mirror, tmp_path))
    assert read_record(folder)["training"]["resumed_from"] == 6 and (folder / "weights").is_dir()
    assert not list(folder.glob("checkpoint-*"))


def test_weights_of_a_repeated_training_that_has_no_record_are_not_trusted(family, mirror, tmp_path):
    folder = train_sft.main(arguments(family, mirror, tmp_path))
    shutil.rmtree(folder / "weights")
    killed("record", 0, arguments(family, mirror, tmp_path))
    file = folder / "weights" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1  # on a GPU the same training again has other bits
    file.write_bytes(content)
    train_sft.main(arguments(family, mirror, tmp_path))
    record = read_record(folder)
    assert record["training"]["resumed_from"] == STEPS and record["weights"] == checkpoints.digest(folder / "weights")


def test_the_seconds_of_all_parts_count(undisturbed, family, mirror, tmp_path):
    argv = arguments(family, mirror, tmp_path)
    killed("step", 11, argv)
    place = tmp_path / undisturbed.name / "checkpoint-9" / resume.MARKER
    marker = json.loads(place.read_text())
    assert 0 < marker["seconds"] < 100
    place.write_text(json.dumps(marker | {"seconds": 1000.0}))
    assert 1000 < read_record(train_sft.main(argv))["training"]["seconds"] < 1100


def test_sigterm_in_the_last_step_ends_before_the_evaluation(undisturbed, family, mirror, tmp_path, monkeypatch):
    def terminate(self, args, state, *_, **__):
        if state.global_step == STEPS:
            os.kill(os.getpid(), signal.SIGTERM)

    argv = [*arguments(family, mirror, tmp_path), "--tasks", "mnli_matched", "--num_shots", "0"]
    with monkeypatch.context() as patch:
        patch.setattr(training.Guard, "on_step_end", terminate)
        with pytest.raises(resume.Preempted):
            train_sft.main(argv)
    folder = tmp_path / undisturbed.name
    assert read_record(folder)["training"]["steps"] == STEPS and not (folder / "units").exists()
    train_sft.main(argv)
    assert len(list((folder / "units").iterdir())) == 1


def test_the_disk_budget_is_looked_at_before_anything_is_loaded(family, mirror, tmp_path, monkeypatch):
    (tmp_path / "other" / "weights").mkdir(parents=True)
    (tmp_path / "other" / "weights" / "model.safetensors").write_bytes(b"0" * 2000)
    monkeypatch.setenv(disk.VARIABLE, "1e-6")
    monkeypatch.setattr(train_sft, "fetch", lambda *_: pytest.fail("the base was fetched"))
    with pytest.raises(disk.NoRoom):
        train_sft.main(arguments(family, mirror, tmp_path))


def test_preemption_saves_and_ends_with_a_code_that_means_again(undisturbed, family, mirror, tmp_path):
    """SIGTERM to the real command, which never saves by itself: it saves, exits 75, and goes on when called again."""
    before = signal.getsignal(signal.SIGTERM)
    argv = arguments(family, mirror, tmp_path, saving=())
    process = subprocess.Popen([sys.executable, "-c", SLOW, *argv], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    deadline = time.time() + 120
    while "at a step" not in process.stdout.readline():
        assert time.time() < deadline and process.poll() is None
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == AGAIN == 75 and "SIGTERM: saved at step" in out
    folder = tmp_path / undisturbed.name
    assert read_record(folder) is None
    train_sft.main(argv)
    assert 0 < read_record(folder)["training"]["resumed_from"] < STEPS and same_weights(folder, undisturbed)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_full_disk_leaves_no_half_written_weights(family, mirror, tmp_path):
    """Files may not grow beyond a limit, as on a full disk: the error is one line, and nothing looks like weights."""

    def child(queue) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))  # the weights have 350 kB
        try:
            train_sft.main(arguments(family, mirror, tmp_path, saving=()))
        except ValueError as error:
            queue.put(str(error))

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    told = queue.get(timeout=60)
    process.join()
    assert "weights: cannot be written" in told and "nothing of it is kept" in told
    (folder,) = tmp_path.glob("toy-10-*")
    assert not list(folder.glob("weights*")) and read_record(folder) is None


def test_places_that_cannot_take_the_weights_are_refused_before_training(family, mirror, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is there, and no folder; give another one"):
        train_sft.main(arguments(family, mirror, tmp_path / "file"))
    free = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(weights.shutil, "disk_usage", lambda _: free)
    with pytest.raises(ValueError, match="GiB are needed for weights and checkpoints, 0.0 GiB are free; make room"):
        train_sft.main(arguments(family, mirror, tmp_path))


def test_a_vanished_base_is_named(mirror, tmp_path):
    family = tmp_path / "family"
    make_checkpoint(family / "step-10")
    (family / "family.json").write_text(
        json.dumps({"name": "toy", "checkpoints": [{"step": 10, "tokens_b": 1e-5, "path": "step-10"}]})
    )
    killed("step", 4, arguments(family, mirror, tmp_path / "runs"))
    (family / "step-10").rename(family / "gone")
    with pytest.raises(ValueError, match="step 10 is .*step-10, which has no config.json"):
        train_sft.main(arguments(family, mirror, tmp_path / "runs"))
