"""W&B sweeps with the real `wandb` command and SDK against a loopback server (wandb_server.py).

Asserted is what the server knows afterwards, never an agent's exit code: an agent that has given up exits with 0.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml
from conftest import ROOT
from test_settings import eval_run, train_sft
from test_tracking import swept as as_an_agent_does
from wandb_server import ENTITY, WandbServer

from amuro import results
from amuro.cells import read_record
from amuro.nursery import raise_nursery
from amuro.run_config import normal
from analysis import report

pytestmark = pytest.mark.slow
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
FAST = {"learning_rate": 1e-3, "num_train_rows": 64, "num_train_epochs": 1, "num_shots": 0, "limit": 8}


@pytest.fixture(scope="module")
def server():
    """One server for all tests here, a project per sweep."""
    with WandbServer() as running:
        yield running
    assert not running.unknown, "the server was asked for what it does not model"


@pytest.fixture(scope="module")
def nursery(tmp_path_factory) -> Path:
    """A tiny nursery: family/ of three checkpoints, data/ of every dataset."""
    out = tmp_path_factory.mktemp("nursery")
    raise_nursery(out, preset="tiny")
    return out


def flags(nursery: Path, runs: Path, **more) -> dict:
    """The flags of a cell of seconds."""
    return {
        "checkpoint": f"{nursery / 'family'}@4",
        "data_dir": str(nursery / "data"),
        "runs": str(runs),
        "eval_batch_size": 32,
        **more,
    }


def arguments(**flags) -> list[str]:
    return [f"--{name}={value}" for name, value in flags.items()]


QUICK = """
from wandb import wandb_agent
from wandb.cli.cli import cli

wandb_agent.Agent.POLL_INTERVAL = 0.2  # seconds; else five, between any two looks at a script that has ended
cli()
"""


def wandb(server: WandbServer, *command, project: str = "amuro", wait: bool = True, cwd: Path = ROOT):
    """The `wandb` command as a user types it in the repository; its process where it is not waited for."""
    env = {**os.environ, **server.env(project), "PATH": PATH, "WANDB_SILENT": "false"}
    whole = [sys.executable, "-c", QUICK, *map(str, command)]
    process = subprocess.Popen(whole, cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if not wait:
        return process
    return process.communicate(timeout=150)[0]


def make_sweep(server: WandbServer, folder: Path, project: str, program: str, parameters: dict) -> str:
    """`wandb sweep` on a YAML of a flat grid; returns what `wandb agent` takes."""
    path = folder / "sweep.yaml"
    spec = {
        key: {"values": value} if isinstance(value, list) else {"value": value} for key, value in parameters.items()
    }
    path.write_text(yaml.safe_dump({"program": program, "method": "grid", "parameters": spec}))
    said = wandb(server, "sweep", path, project=project)
    return re.search(r"wandb agent ([\w/-]+)", re.sub(r"\x1b\[[0-9;]*m", "", said))[1]


@pytest.fixture(scope="module")
def swept(server, nursery, tmp_path_factory):
    """(runs folder, project) of a sweep of four cells that two agents have run at once."""
    folder = tmp_path_factory.mktemp("swept")
    grid = {"checkpoint": [f"{nursery / 'family'}@{step}" for step in (4, 8)], "seed": [10, 20]}
    parameters = flags(nursery, folder / "runs", dataset="mnli", **FAST) | grid | {"tasks": "mnli_matched,rte"}
    parameters["learning_rate"] = "1e-3"  # as PyYAML reads 1e-3: a text
    sweep = make_sweep(server, folder, "amuro", "train_sft.py", parameters)
    agents = [wandb(server, "agent", sweep, wait=False, cwd=ROOT) for _ in range(2)]
    said = [agent.communicate(timeout=200)[0] for agent in agents]
    return folder / "runs", server.project("amuro"), parameters, said


def test_two_agents_run_every_cell_once(swept):
    runs, project, _, said = swept
    (sweep,) = project.sweeps.values()
    assert sweep.state == "FINISHED" and len(sweep.issued) == 4 == len(project.runs), said
    assert {run.state for run in project.runs.values()} == {"finished"}, said
    assert len({run.values()["cell_id"] for run in project.runs.values()}) == 4 == len(list(runs.glob("*/run.json")))
    assert all(text.count("Agent received command: run") >= 1 for text in said)


def test_a_runs_config_is_what_the_script_used(swept):
    runs, project, parameters, _ = swept
    used = {read["cell_id"]: read for read in map(read_record, runs.glob("*-*"))}
    assert len(used) == len(project.runs) == 4
    for each_run in project.runs.values():
        config, record = each_run.values(), used[each_run.values()["cell_id"]]
        for key, value in project.sweeps[each_run.sweep].issued[each_run.name].items():
            assert config[key] == value  # what the sweep has set ...
            assert normal(record["settings"][key]["value"]) == normal(value)  # ... was used
        hyperparameters = record["cell"]["hyperparameters"]
        assert all(normal(config[key]) == value for key, value in hyperparameters.items())


def test_runs_are_called_as_a_person_would(swept):
    project = swept[1]
    named = {run.display_name: run for run in project.runs.values()}
    assert sorted(named) == [f"nursery@{step} sft mnli lr 0.001 seed {seed}" for step in (4, 8) for seed in (10, 20)]
    each_run = named["nursery@4 sft mnli lr 0.001 seed 10"]
    assert (each_run.group, each_run.job_type) == ("nursery sft mnli lr 0.001", "sft")
    assert each_run.tags == ["nursery", "nursery@4", "sft", "mnli"]


def test_values_are_those_of_the_local_rows_and_are_drawn_over_tokens(swept):
    runs, project, *_ = swept
    table = results.load(runs)
    assert len(project.runs) == 4
    for each_run in project.runs.values():
        rows = table[table["cell_id"] == each_run.values()["cell_id"]]
        assert len(rows) == 2
        for row in rows.itertuples():
            key = f"eval/{row.task}/default/0shot/token_prob/accuracy"
            assert each_run.summary[key] == row.value
            (point,) = [line for line in each_run.rows() if key in line]
            assert point["tokens_b"] == row.tokens_b
        metrics = each_run.config["_wandb"]["value"]["m"]  # as the client writes them: 1 is the name, 5 the axis' place
        (metric,) = [each for each in metrics if each.get("1") == key]
        assert metrics[metric["5"] - 1]["1"] == "tokens_b"


def test_a_fresh_sweep_gives_complete_cells_their_stored_rows(swept, client, server, tmp_path, monkeypatch):
    """The script as an agent starts it, in this process."""
    runs, project, parameters, _ = swept
    before = {path: path.stat().st_mtime_ns for path in runs.glob("*/units/*")}
    one = parameters | {"checkpoint": parameters["checkpoint"][0], "seed": 10}
    as_an_agent_does(tmp_path, monkeypatch, **one)
    client(WANDB_PROJECT="again")
    folder = train_sft.main(arguments(**one))
    (again,) = server.project("again").runs.values()
    (first,) = [each for each in project.runs.values() if each.values()["cell_id"] == again.values()["cell_id"]]
    values = {key: value for key, value in first.summary.items() if key.startswith("eval/")}
    assert again.state == "finished" and len(values) == 2 and values.items() <= again.summary.items()
    assert {path: path.stat().st_mtime_ns for path in runs.glob("*/units/*")} == before
    assert {each.type for each in again.logged} == {"model", "results"} and not (folder / "wandb.json").exists()


def test_a_base_checkpoint_is_swept_too(client, server, nursery, tmp_path, monkeypatch):
    parameters = flags(nursery, tmp_path / "runs", tasks="rte", num_shots=0, limit=8)
    as_an_agent_does(tmp_path, monkeypatch, **parameters)
    client(WANDB_PROJECT="base")
    eval_run.main(arguments(**parameters))
    (base,) = server.project("base").runs.values()
    assert (base.state, base.display_name, base.group) == ("finished", "nursery@4 base", "nursery base")
    assert [each.type for each in base.used] == ["checkpoint"] and [each.type for each in base.logged] == ["results"]
    assert base.values()["checkpoint"] == parameters["checkpoint"] and base.values()["num_shots"] == 0
    two = parameters | {"checkpoint": f"{nursery / 'family'}@4,{nursery / 'family'}@8"}
    with pytest.raises(ValueError, match="is about one model"):
        eval_run.main(arguments(**two))


def test_the_report_is_the_same_from_a_project(swept, client, tmp_path):
    (tmp_path / "a" / "wandb" / "offline-run-1").mkdir(parents=True)  # of a runs folder that is written to
    assert report.main(["--source", f"wandb:{ENTITY}/amuro", "--out", str(tmp_path / "a")]) == 0
    assert (tmp_path / "a" / "wandb" / "offline-run-1").is_dir()
    assert report.main(["--runs", str(swept[0]), "--out", str(tmp_path / "b")]) == 0
    for name in ("results", "tables/gains"):
        assert (tmp_path / "a" / f"{name}.csv").read_text() == (tmp_path / "b" / f"{name}.csv").read_text()


def test_a_preempted_cell_goes_on_under_its_id_and_step(server, nursery, tmp_path):
    """SIGTERM to the script, as a cluster sends it; the agent is told to resume the run."""
    parameters = flags(nursery, tmp_path / "runs", dataset="mnli", tasks="rte", **FAST)
    parameters |= {"num_train_epochs": 25, "logging_steps": 1}  # 200 steps
    sweep = make_sweep(server, tmp_path, "preempted", "train_sft.py", parameters)
    agent = wandb(server, "agent", sweep, project="preempted", wait=False)
    said = ""
    while "'loss'" not in said and agent.poll() is None:
        said += agent.stdout.readline()
    (script,) = [each for each in psutil.Process(agent.pid).children() if "train_sft.py" in each.cmdline()]
    script.send_signal(signal.SIGTERM)
    said += agent.communicate(timeout=150)[0]
    (preempted,) = server.project("preempted").runs.values()
    assert "SIGTERM: saved at step" in said and "Agent received command: resume" in said
    assert preempted.state == "finished" and preempted.restarts == 1, said
    steps = [row["train/global_step"] for row in preempted.rows() if "train/loss" in row]
    assert steps == list(range(1, 201))
    assert [row["_step"] for row in preempted.rows()] == list(range(len(preempted.rows())))
