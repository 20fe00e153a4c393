"""`amuro sync`: runs recorded offline arrive whole and once, and what cannot arrive is said."""

import shutil

import pytest
import wandb
from test_report import add_unit, make_cell
from test_tracking import complete, the_run, tuned, values

from amuro import results, tracking
from amuro.sync import sync


@pytest.fixture
def offline(client, tmp_path):
    """A function that tracks a cell offline, and goes online again."""

    def track(cell, folder=None, **settings):
        client(WANDB_MODE="offline")
        with tracking.run(cell, folder or complete(tmp_path, cell), enabled=True, **settings) as run:
            run.log({"train/loss": 1.0})
        client()
        return run

    return track


def told(server) -> dict:
    """All that the server knows of the runs."""
    runs = server.project("amuro").runs
    return {
        name: (run.state, run.rows(), run.summary, [each.name for each in run.logged]) for name, run in runs.items()
    }


def test_offline_runs_arrive_with_their_lineage_and_twice_is_once(server, client, offline, tmp_path):
    cells = [tuned(), make_cell(100)]
    for cell in cells:
        offline(cell)
    assert not server.projects
    first = sync(tmp_path)
    assert len(first.uploaded) == 2 and first.exit_code == 0, str(first)
    runs = server.project("amuro").runs
    known = told(server)
    assert len(runs) == 2 and {run.state for run in runs.values()} == {"finished"}
    by_job = {run.job_type: run for run in runs.values()}
    assert {artifact.type for artifact in by_job["sft"].used} == {"checkpoint", "dataset"}
    assert {artifact.type for artifact in by_job["sft"].logged} == {"model", "results"}
    assert [artifact.type for artifact in by_job["base"].used] == ["checkpoint"]
    assert by_job["sft"].used[0] is by_job["base"].used[0]
    kept = {key: value for run in runs.values() for key, value in run.summary.items() if key.startswith("eval/")}
    assert kept == values(tmp_path)
    assert [row["train/loss"] for row in by_job["sft"].rows() if "train/loss" in row] == [1.0]
    assert all(sum(key in row for row in run.rows()) == 1 for run in runs.values() for key in kept)
    again = sync(tmp_path)
    assert again.uploaded == () and again.before == 2 and again.exit_code == 0
    assert known == told(server)
    assert not list(tmp_path.glob("wandb/*/amuro/parcel.json"))


def test_the_parcel_is_the_cell_as_it_was_even_where_the_cell_is_gone(server, client, offline, tmp_path):
    """Uploaded weights outlive their removal, and the runs folder may have been moved to another machine."""
    folder = complete(tmp_path / "here", tuned())
    (folder / "weights").mkdir()
    (folder / "weights" / "model.safetensors").write_text("weights")
    offline(tuned(), folder, log_model="upload")
    expected = values(tmp_path / "here")
    shutil.rmtree(folder)
    (tmp_path / "there").mkdir()
    shutil.move(tmp_path / "here" / "wandb", tmp_path / "there" / "wandb")
    report = sync(tmp_path / "there")
    assert report.exit_code == 0, str(report)
    stored = {artifact.type: artifact for artifact in the_run(server).logged}
    assert list(stored["model"].entries()) == ["model.safetensors"]
    assert expected.items() <= the_run(server).summary.items()


def test_staged_files_that_are_gone_are_a_problem(server, client, offline, tmp_path):
    """Ours, and those of an artifact that something else has put into the run."""
    first = offline(tuned())
    next(tmp_path.glob("wandb/*/amuro/units/rte*")).unlink()
    client(WANDB_MODE="offline", WANDB_DIR=str(tmp_path), WANDB_DATA_DIR=str(tmp_path / "data"))
    with wandb.init(project="amuro") as other:
        artifact = wandb.Artifact("notes", "notes")
        with artifact.new_file("a.txt") as file:
            file.write("hello")
        other.log_artifact(artifact)
    shutil.rmtree(tmp_path / "data" / "artifacts" / "staging")
    client()
    report = sync(tmp_path)
    assert report.exit_code == 1 and report.uploaded == () and not server.projects
    said = dict(line.split(": ", 1) for line in report.problems)
    assert "units/rte-default" in next(text for name, text in said.items() if name.endswith(first.id))
    assert "notes/a.txt" in next(text for name, text in said.items() if name.endswith(other.id))


@pytest.mark.slow
def test_what_a_server_that_went_down_has_missed_is_handed_over(server, client, tmp_path, capfd):
    """It costs a line, and the cell is as it was."""
    client(WANDB_FINISH_TIMEOUT="3")
    with tracking.run(tuned(), complete(tmp_path, tuned()), enabled=True) as run:
        run.log({"train/loss": 1.0})
        server.stop()
    said = capfd.readouterr()
    lines = [line for line in (said.out + said.err).splitlines() if line.strip()]
    assert len(lines) == 1 and "has arrived" in lines[0] and "amuro sync --runs" in lines[0], said
    assert len(list(tmp_path.glob("wandb/run-*/amuro/units/*"))) == 2
    server.start()
    client()
    report = sync(tmp_path)
    assert len(report.uploaded) == 1 and report.exit_code == 0, str(report)
    assert the_run(server).state == "finished" and values(tmp_path).items() <= the_run(server).summary.items()
    assert len(the_run(server).used) == 2 and len(server.project("amuro").runs) == 1


def test_a_server_that_takes_no_upload_is_one_line(server, client, offline, tmp_path):
    offline(tuned())
    for env, told in (({"WANDB_API_KEY": None}, "no key"), ({"WANDB_API_KEY": "local-" + "a" * 40}, "invalid API key")):
        client(**env)
        with pytest.raises(ValueError, match=f"^W&B: .*{told}"):
            sync(tmp_path)
    client()
    assert sync(tmp_path).exit_code == 0


def test_a_run_that_goes_on_offline_is_one_run(server, client, offline, tmp_path):
    """Killed and run again: both parts arrive, in order; one that is still written is left."""
    cell = tuned()
    client(WANDB_MODE="offline")
    with pytest.raises(SystemExit), tracking.run(cell, cell.folder(tmp_path), enabled=True) as run:
        run.log({"train/loss": 2.0})
        raise SystemExit(75)
    assert offline(cell).id == run.id
    assert sync(tmp_path).exit_code == 0
    assert [row["train/loss"] for row in the_run(server).rows() if "train/loss" in row] == [2.0, 1.0]
    assert the_run(server).state == "finished"


def test_a_run_that_is_still_written_is_left(server, client, tmp_path):
    from amuro.running.claims import claim

    client(WANDB_MODE="offline")
    folder = complete(tmp_path, tuned())
    with claim(folder), tracking.run(tuned(), folder, enabled=True):
        report = sync(tmp_path)
        assert len(report.running) == 1 and report.uploaded == () and not server.projects
    client()
    assert len(sync(tmp_path).uploaded) == 1


def test_later_units_of_a_cell_come_with_a_run_of_their_own(server, client, offline, tmp_path):
    cell = tuned()
    offline(cell)
    add_unit(tmp_path, cell, "xsum", 0.5, "default")
    offline(cell, cell.folder(tmp_path), job_type="eval")
    assert sync(tmp_path).exit_code == 0
    training, evaluation = sorted(server.project("amuro").runs.values(), key=lambda run: run.job_type, reverse=True)
    assert (training.job_type, evaluation.job_type) == ("sft", "eval")
    assert [len(artifact.entries()) for run in (training, evaluation) for artifact in run.logged[-1:]] == [3, 4]
    assert [artifact.type for artifact in evaluation.used] == ["model"] and len(results.load(tmp_path)) == 3
