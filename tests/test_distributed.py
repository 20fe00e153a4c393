"""Two processes on CPUs (gloo) give one process's weights: data parallel and FSDP2, killed and gone on from."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from conftest import ROOT
from safetensors.torch import load_file
from test_resume import arguments
from test_settings import train_sft

from amuro import results, training
from amuro.cells import read_record
from amuro.running.worker import Worker

pytestmark = pytest.mark.slow

CONFIGS = ROOT / "sweeps" / "accelerate"
SCORED = ("--tasks", "mnli_matched,xsum", "--num_shots", "0")


SLOW = """
import os, signal, sys, time
sys.path.insert(0, os.getcwd())
import train_sft
from amuro import training

def on_step_end(self, args, state, control, **kwargs):
    if args.process_index == 1 and state.global_step == int(os.environ.get("KILL_AT", -1)):
        os.kill(os.getpid(), signal.SIGKILL)
    if "SLOW" in os.environ:
        print("at a step", flush=True)
        time.sleep(0.5)

training.Guard.on_step_end = on_step_end
train_sft.settings.script(train_sft.main)
"""


def command(config: str, tmp_path: Path, script: str | Path, argv: list[str]) -> list[str]:
    """`accelerate launch` with a configuration of ours, its GPUs replaced by CPU processes."""
    settings = yaml.safe_load((CONFIGS / config).read_text())
    assert settings["num_processes"] == 2
    sharded = settings["distributed_type"] == "FSDP"
    path = tmp_path / config
    path.write_text(yaml.safe_dump({**settings, "mixed_precision": "no", "use_cpu": sharded}))
    launcher = ["-m", "accelerate.commands.launch", "--config_file", str(path), "--main_process_port", "0"]
    return [sys.executable, *launcher, str(script), *argv]


def launch(command: list[str], **env) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHONUNBUFFERED": "1", **env}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def alone(family, mirror, tmp_path_factory) -> Path:
    """The cell, trained by one process."""
    return train_sft.main(arguments(family, mirror, tmp_path_factory.mktemp("alone"), *SCORED))


def difference(one: Path, two: Path) -> float:
    a, b = (load_file(folder / "weights" / "model.safetensors") for folder in (one, two))
    assert a.keys() == b.keys()
    return max((a[name] - b[name]).abs().max().item() for name in a)


@pytest.mark.parametrize("config", ["ddp.yaml", "fsdp2_2x80gb.yaml"])
def test_two_processes_give_the_weights_of_one_also_when_one_was_killed(config, alone, family, mirror, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    runs = tmp_path / "runs"
    argv = arguments(family, mirror, runs, *SCORED)
    killed = launch(command(config, tmp_path, tmp_path / "slow.py", argv), KILL_AT="7")
    folder = runs / alone.name
    assert killed.returncode != 0 and read_record(folder) is None
    done = launch(command(config, tmp_path, "train_sft.py", argv))
    assert done.returncode == 0, done.stderr[-3000:]
    record = read_record(folder)["training"]
    assert record["processes"] == 2 and record["steps"] == read_record(alone)["training"]["steps"]
    assert record["resumed_from"] == 6 and difference(folder, alone) <= 1e-6
    assert done.stdout.count("done: ") == 1  # one of the two speaks
    both = [results.load(each).set_index("task")["value"] for each in (runs, alone.parent)]
    assert both[0].to_dict() == pytest.approx(both[1].to_dict()) and len(both[0]) == 2


def test_two_processes_stop_at_the_same_step_on_sigterm(alone, family, mirror, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    argv = arguments(family, mirror, tmp_path / "runs", saving=())
    slow = command("ddp.yaml", tmp_path, tmp_path / "slow.py", argv)
    env = {**os.environ, "PYTHONUNBUFFERED": "1", "SLOW": "1"}
    process = subprocess.Popen(slow, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while "at a step" not in (line := process.stdout.readline()):
        assert line or process.poll() is None
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=120)
    folder = tmp_path / "runs" / alone.name
    assert process.returncode != 0 and "SIGTERM: saved at step" in out and read_record(folder) is None
    train_sft.main(argv)  # one process goes on from two's checkpoint
    assert read_record(folder)["training"]["resumed_from"] > 0 and difference(folder, alone) <= 1e-6


def test_an_epoch_that_two_processes_cannot_share_is_refused():
    two = SimpleNamespace(world_size=2, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    with pytest.raises(ValueError, match="20 rows do not make whole batches of 8 for 2 processes: give .*rows 16"):
        training.trainer(None, None, two, [{"labels": [1]}] * 20)


ENDS = """
import sys
from amuro.running import ledger
from amuro.running.claims import Claimed

def main(argv):
    if argv[0] == "claimed":
        raise Claimed("a folder")
    sys.exit(3)

ledger.run("train_sft.py", main)
"""


def test_a_worker_of_several_gpus_knows_why_its_processes_ended(tmp_path):
    """The launcher makes 1 of every exit code: a cell that another command has is not a failed one."""
    (tmp_path / "ends.py").write_text(ENDS)
    worker, ended = Worker(str(ROOT), 2), []
    for end in ("claimed", "broken"):
        done = worker.work(str(tmp_path / "ends.py"), [end], str(tmp_path / "log"))
        ended.append((done.state, done.cause))
    assert ended == [("claimed", ""), ("failed", "exit code 1")], (tmp_path / "log").read_text()
