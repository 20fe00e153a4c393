"""What was spent is added up from the cells' own records: by hand here, and of cells that the scripts wrote."""

import json

import pandas as pd
import pytest
from test_report import add_unit, make_cell
from test_settings import eval_run, train_sft

from amuro.cells import write_record
from amuro.evaluation import TIMES
from analysis.costs import COLUMNS, costs
from analysis.provenance import records

HOUR = 3600.0


def spend(runs, cell, train: tuple | None, passes: list[tuple]) -> None:
    """A cell with what it took: (seconds, processes, device) of training, (tasks, seconds, device) of evaluations."""
    names = {}
    for task in ("rte", "paws", "mnli_matched", "arc_easy"):
        add_unit(runs, cell, task, 0.5, "default")
        (path,) = (cell.folder(runs) / "units").glob(f"{task}-*")
        names[task] = path.stem
    lines = [{"units": [names[task] for task in tasks], "seconds": each, "device": on} for tasks, each, on in passes]
    (cell.folder(runs) / TIMES).write_text("".join(json.dumps(line) + "\n" for line in lines))
    training = dict(zip(("seconds", "processes", "device"), train, strict=True)) if train else {}
    write_record(cell.folder(runs), cell, training=training, settings={}, weights="sha256:0")


def test_hours_are_added_up_by_phase_relation_and_device(tmp_path):
    spend(tmp_path, make_cell(20), None, [(["rte"], HOUR, "cpu"), (["paws", "arc_easy"], HOUR, "cpu")])
    for seed in (1, 2):
        cell = make_cell(20, "mnli", seed, family="olmo-1b")
        passes = [
            (["rte"], HOUR / 2, "cuda:0"),
            (["paws", "mnli_matched"], HOUR, "cuda:0"),
            (["arc_easy"], 36.0, "cpu"),
        ]
        spend(tmp_path, cell, (HOUR, 4, "NVIDIA A100"), passes)
    found = costs(records(tmp_path))
    assert list(found.columns) == COLUMNS
    hours = {
        tuple(row[:4]): (row.cells, row.gpu_hours, row.cpu_hours, row.paper_gpu_hours)
        for row in found.itertuples(index=False)
    }
    none = pytest.approx(float("nan"), nan_ok=True)
    assert hours == {
        ("nursery", "", "evaluate", ""): (1, none, pytest.approx(2), none),
        ("olmo-1b", "mnli", "train", ""): (2, pytest.approx(8), none, 4.6),
        ("olmo-1b", "mnli", "evaluate", "ood"): (2, pytest.approx(1), none, 11.0),
        ("olmo-1b", "mnli", "evaluate", "id"): (2, pytest.approx(1), none, 3.0),
        ("olmo-1b", "mnli", "evaluate", "cross_task"): (2, pytest.approx(1), none, 7.7),
        ("olmo-1b", "mnli", "evaluate", "benchmark"): (2, none, pytest.approx(0.02), none),
    }


def test_what_is_not_recorded_costs_nothing(tmp_path):
    cell = make_cell(20)
    write_record(cell.folder(tmp_path), cell)
    found = costs(records(tmp_path))
    assert found.empty and list(found.columns) == COLUMNS
    (cell.folder(tmp_path) / TIMES).write_text('{"units": ["gone"], "seconds": 3600, "device": "cpu"}\n')
    assert costs(records(tmp_path))[["relation", "cpu_hours"]].values.tolist() == [["", 1.0]]


@pytest.mark.slow
def test_cells_of_the_scripts_have_all_phases(family, mirror, tmp_path):
    places = [f"--data_dir={mirror}", f"--runs={tmp_path}", "--report_to=none", "--num_shots=0", "--eval_batch_size=32"]
    eval_run.main([f"--checkpoint={family}@10", "--tasks=rte", *places])
    train_sft.main([f"--checkpoint={family}@10", "--dataset=mnli", "--tasks=id,ood", "--learning_rate=1e-3", *places])
    found = costs(records(tmp_path))
    assert found[["dataset", "phase", "relation"]].values.tolist() == [
        ["", "evaluate", ""],
        ["mnli", "evaluate", "id"],
        ["mnli", "evaluate", "ood"],
        ["mnli", "train", ""],
    ]
    spent = found["cpu_hours"].fillna(0) + found["gpu_hours"].fillna(0)
    assert (spent > 0).all() and pd.isna(found["paper_gpu_hours"]).all()
