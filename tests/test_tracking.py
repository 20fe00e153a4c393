"""One cell's W&B run, with the real SDK against a loopback server: what it holds, and what may go wrong with it."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import wandb
import yaml
from test_report import add_unit, make_cell
from wandb_server import ENTITY, KEY

from amuro import lineage, results, tracking
from amuro.cells import Cell, Unit, read_record, write_record
from amuro.resume import Preempted
from amuro.run_config import check_sweep, normal
from amuro.settings import EvaluationArguments
from amuro.units import read_unit
from analysis import source
from analysis.contents import build

DIGEST = "ab" * 32


def complete(runs: Path, cell: Cell, tasks=("mnli_matched", "rte")) -> Path:
    """A complete cell's folder, made up."""
    folder = cell.folder(runs)
    for task in tasks:
        add_unit(runs, cell, task, 0.5, "default")
    training = {"rows": 8, "rows_origin": "data/glue_mnli/train.jsonl"}
    write_record(folder, cell, weights=f"sha256:{cell.cell_id}", training=training, settings={})
    return folder


def tuned() -> Cell:
    return replace(make_cell(100, "mnli", seed=10), dataset_digest=DIGEST)


def references_of(artifact) -> list[dict]:
    return [entry for entry in artifact.entries().values() if "ref" in entry]


def the_run(server, project="amuro"):
    (run,) = server.project(project).runs.values()
    return run


def values(runs) -> dict:
    table = results.load(runs)
    return {lineage.key_of(row): row["value"] for row in table.to_dict("records")}


def test_the_chain_from_checkpoint_to_results_can_be_walked(server, client, tmp_path):
    """Tuned and BASE cells: what a run has used and logged, by digest, as wandb.Api() tells it."""
    cells = [tuned(), make_cell(100)]
    for cell in cells:
        with tracking.run(cell, complete(tmp_path, cell), enabled=True):
            pass
    with tracking.run(cells[0], cells[0].folder(tmp_path), enabled=True, job_type="eval"):
        pass
    api = wandb.Api()
    base = api.artifact(f"{ENTITY}/amuro/nursery-100-{lineage.short('sha256:100')}:latest", type="checkpoint")
    found = {run.job_type: run for run in base.used_by()}
    assert set(found) == {"base", "sft"} and base.metadata["step"] == 100
    run = api.run(f"{ENTITY}/amuro/{found['sft'].id}")
    model, outcome = sorted(run.logged_artifacts(), key=lambda artifact: artifact.type)
    assert (model.type, outcome.type) == ("model", "results") and outcome.logged_by().id == run.id
    assert model.metadata["weights"] == outcome.metadata["weights"] == f"sha256:{cells[0].cell_id}"
    assert {artifact.type for artifact in run.used_artifacts()} == {"checkpoint", "dataset"}
    (evaluation,) = model.used_by()
    assert evaluation.job_type == "eval" and [each.name for each in evaluation.logged_artifacts()] == [outcome.name]
    references = {each.type: entry["ref"] for each in server.artifacts.values() for entry in references_of(each)}
    digests = {"checkpoint": "sha256:100", "dataset": "sha256:" + DIGEST, "model": f"sha256:{cells[0].cell_id}"}
    assert references == digests


@pytest.mark.parametrize(("log_model", "files"), [("none", None), ("upload", ["config.json", "model.safetensors"])])
def test_the_tuned_model_is_left_out_or_uploaded(server, client, tmp_path, log_model, files):
    folder = complete(tmp_path, tuned())
    (folder / "weights").mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / "weights" / name).write_text(name)
    with tracking.run(tuned(), folder, enabled=True, log_model=log_model):
        pass
    models = [each for each in the_run(server).logged if each.type == "model"]
    assert [sorted(each.entries()) for each in models] == ([files] if files else [])
    assert not list(tmp_path.glob("wandb/*/amuro/parcel.json"))


def test_analysis_reads_the_same_rows_and_examples_from_a_project(server, client, tmp_path):
    for step in (20, 100):
        for cell in (make_cell(step), make_cell(step, "mnli", seed=10)):
            with tracking.run(cell, complete(tmp_path / "runs", cell), enabled=True):
                pass
    fetched = source.download(f"{ENTITY}/amuro", tmp_path / "out")
    assert sorted(path.name for path in fetched.iterdir() if path.name[0] != ".") == [
        "00000",
        "00001",
        "00002",
        "00003",
    ]
    assert results.load(fetched).equals(results.load(tmp_path / "runs")) and len(results.load(fetched)) == 8
    ours, theirs = results.load_examples(tmp_path / "runs"), results.load_examples(fetched)
    order = [*results.KEY, "example_id"]
    assert theirs.sort_values(order, ignore_index=True).equals(ours.sort_values(order, ignore_index=True))
    assert build(fetched).gains.equals(build(tmp_path / "runs").gains)
    for wrong in ("wandb:amuro", f"wandb:{ENTITY}/nothing", "results.csv"):
        with pytest.raises(ValueError, match="^--source "), source.runs_of(wrong):
            pass
    with pytest.raises(ValueError, match="not empty"):
        source.download(f"{ENTITY}/amuro", tmp_path / "runs")


@pytest.mark.parametrize(
    ("env", "fault", "told"),
    [
        ({"WANDB_API_KEY": None, "WANDB_MODE": None}, 0, "no key is configured"),
        ({"WANDB_API_KEY": "short"}, 0, "API key must have 40"),
        ({"WANDB_API_KEY": KEY.replace("f", "a")}, 0, "invalid API key"),
        ({}, 429, "Failed to authenticate"),
    ],
)
def test_a_server_that_does_not_take_us_costs_one_line(server, client, tmp_path, capfd, env, fault, told):
    """The cell is tracked offline, whatever it is; its parcel waits."""
    client(**env)
    tracking._said.clear()
    server.fault = fault
    folder = complete(tmp_path, tuned())
    with tracking.run(tuned(), folder, enabled=True) as run:
        assert run.offline
    said = capfd.readouterr()
    lines = [line for line in (said.out + said.err).splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("W&B: ") and told in lines[0]
    (parcel,) = tmp_path.glob("wandb/offline-run-*/amuro/parcel.json")
    assert lineage.vanished(lineage.load(parcel.parent.parent)) == [] and not server.projects


def test_preempted_the_run_goes_on_under_its_id_and_step(server, client, tmp_path):
    cell = tuned()
    with pytest.raises(SystemExit) as ended, tracking.run(cell, cell.folder(tmp_path), enabled=True) as run:
        first = run.id
        run.log({"train/loss": 2.0})
        raise Preempted(step=1)
    assert ended.value.code == 75 and (the_run(server).state, the_run(server).exitcode) == ("preempted", 75)
    with tracking.run(cell, complete(tmp_path, cell), enabled=True) as run:
        assert (run.id, run.starting_step) == (first, 1)
        run.log({"train/loss": 1.0})
    assert the_run(server).state == "finished" and len(the_run(server).used) == 2
    assert [row.get("train/loss") for row in the_run(server).rows()] == [2.0, 1.0, None]
    with tracking.run(cell, cell.folder(tmp_path), enabled=True) as run:
        assert run.id != first  # finished is finished


def test_a_run_that_was_cut_off_is_completed_by_the_complete_cell(server, client, tmp_path):
    """Killed after the last unit and before the run's end; without that, and outside of a sweep, nothing is done."""
    cell = tuned()
    with pytest.raises(SystemExit), tracking.run(cell, complete(tmp_path, cell), enabled=True) as run:
        raise SystemExit(75)
    tracking.repeat(cell, cell.folder(tmp_path), enabled=True)
    assert (the_run(server).name, the_run(server).state, len(the_run(server).logged)) == (run.id, "finished", 2)
    tracking.repeat(cell, cell.folder(tmp_path), enabled=True)
    assert (the_run(server).restarts, len(server.project("amuro").runs)) == (1, 1)


def test_the_key_is_written_nowhere(server, client, tmp_path):
    cell = tuned()
    with tracking.run(cell, complete(tmp_path, cell), enabled=True):
        pass
    wandb.teardown()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 8 and not [path for path in files if KEY.encode() in path.read_bytes()]
    assert len(server.received) > 8 and not [body for body in server.received if KEY.encode() in body]


def test_a_failed_cell_is_a_failed_run(server, client, tmp_path):
    cell = tuned()
    with pytest.raises(RuntimeError), tracking.run(cell, cell.folder(tmp_path), enabled=True):
        raise RuntimeError("loss is nan")
    assert (the_run(server).state, the_run(server).exitcode, the_run(server).logged) == ("failed", 1, [])


def test_values_have_their_keys_and_units_log_once(server, client, tmp_path):
    cell = tuned()
    folder = complete(tmp_path, cell)
    with tracking.run(cell, folder, enabled=True, num_train_rows=8) as run:
        unit = Unit("rte", "default", 0, 42, "token_prob", "float32")
        tracking.log_unit(run, read_unit(unit.path(folder))["rows"])
    kept = the_run(server)
    assert values(tmp_path).items() <= kept.summary.items()
    assert all(sum(key in row for row in kept.rows()) == 1 for key in values(tmp_path))
    config = kept.values()
    assert (config["learning_rate"], config["seed"], config["num_train_rows"]) == (2e-5, 10, 8)
    assert config["cell_id"] == cell.cell_id == read_record(folder)["cell_id"]


def swept(tmp_path, monkeypatch, **flags) -> None:
    """As `wandb agent` starts a script."""
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"wandb_version": 1} | {key: {"value": value} for key, value in flags.items()}))
    for name, value in {"SWEEP_ID": "s1", "RUN_ID": "r1", "SWEEP_PARAM_PATH": str(path), "DIR": os.getcwd()}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)


def test_a_sweep_that_says_something_else_than_the_script_did_is_refused(tmp_path, monkeypatch):
    arguments = EvaluationArguments(checkpoint="nursery@20", num_shots="0", limit=8)
    swept(tmp_path, monkeypatch, checkpoint="nursery@20", num_shots=0, limit="8.0")
    assert check_sweep((arguments,)) == {"checkpoint": "nursery@20", "num_shots": 0, "limit": "8.0"}
    swept(tmp_path, monkeypatch, checkpoint="nursery@20", limit=16)
    with (
        pytest.raises(ValueError, match="^--limit: the sweep has set 16, but 8 was used"),
        tracking.run(make_cell(20), tmp_path / "cell", enabled=True, parts=(arguments,)),
    ):
        pass


def test_a_sweeps_runs_lie_under_runs_too(server, client, tmp_path, monkeypatch):
    cell = make_cell(20)
    swept(tmp_path, monkeypatch, checkpoint="nursery@20")
    client()
    with tracking.run(cell, complete(tmp_path / "runs", cell), enabled=True) as run:
        assert run.id == "r1" and Path(run.dir).is_relative_to(tmp_path / "runs" / "wandb")
    assert (the_run(server).sweep, the_run(server).state) == ("s1", "finished")


def test_values_are_compared_as_they_are_meant():
    same = [("1e-5", 1e-05), ("true", True), ("True", True), (["all-linear"], "all-linear"), (0, "0"), ("None", None)]
    same += [("0,2", "0,2"), (42, 42.0), ("a/b@4", "a/b@4")]
    assert all(normal(a) == normal(b) for a, b in same)
    assert normal("1e-5") != normal("2e-5") and normal("mnli") != normal("paws")
