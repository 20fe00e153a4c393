"""Many units in one file: equal to reading them, read once, mended when units change or the file is damaged."""

import os
import shutil

import numpy as np
import pandas as pd
import pytest
from test_results import put

from amuro import results, units
from amuro.compaction import FEW
from amuro.tasks import TASKS

SOME = [task for task in TASKS if TASKS[task].methods == TASKS["xsum"].methods or TASKS[task].labels]
SOME = [task for task in SOME if TASKS[task].metric == "accuracy"]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A runs folder with more units than are read each time."""
    folder = tmp_path_factory.mktemp("many")
    steps = FEW // len(SOME) + 2
    for step in range(steps):
        put(folder, step, "", None, SOME, 0.05 * (step % 20))
    return folder


@pytest.fixture
def runs(many, tmp_path):
    """A copy of it that was loaded once."""
    shutil.copytree(many, tmp_path / "runs")
    results.load(tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def opened(monkeypatch):
    """The unit files that are read for their scores."""
    paths = []
    real = units.read_scores
    monkeypatch.setattr(results, "read_scores", lambda path: paths.append(path) or real(path))
    return paths


def test_few_units_are_read_each_time(tmp_path, opened):
    put(tmp_path, 1, "", None, ["paws"])
    assert results.load(tmp_path).equals(results.load(tmp_path))
    assert len(opened) == 2 and not (tmp_path / results.KEPT).exists()


def test_many_are_read_once(many, runs, opened):
    table = results.load(runs)
    assert len(table) > FEW and not opened and (runs / results.KEPT).is_file()
    shutil.rmtree(runs / results.KEPT.parent)
    assert results.load(runs).equals(table) and len(opened) == len(table)


def test_what_changes_is_read_again_and_what_goes_is_gone(runs, opened):
    put(runs, 3, "", None, ["paws"], 0.8)
    table = results.load(runs)
    changed = table[(table["checkpoint"] == "toy@3") & (table["task"] == "paws")]
    assert changed["value"].tolist() == [0.8] and {path.name.split("-")[0] for path in opened} <= set(SOME)
    next(runs.glob("toy-2-*/units/paws-*")).unlink()
    next(runs.glob("toy-1-*/run.json")).unlink()  # an incomplete cell's units do not count
    less = results.load(runs)
    assert len(less) == len(table) - 1 - len(SOME)
    assert not ((less["checkpoint"] == "toy@2") & (less["task"] == "paws")).any()
    assert sum(len(sheet.rows) for sheet in results.load_scores(runs, less)) == len(less)


def test_a_file_of_the_same_size_and_time_is_another(runs):
    """Copied with its times, as `cp -p` and `rsync` do."""
    path = next(runs.glob("toy-3-*/units/paws-*"))
    before = os.stat(path)
    frame = units.read_examples(path).assign(accuracy=1.0)
    unit = units.read_unit(path)
    units.write_unit(path, [unit["rows"][0] | {"value": 1.0}], frame, {})
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    table = results.load(runs)
    assert table[(table["checkpoint"] == "toy@3") & (table["task"] == "paws")]["value"].tolist() == [1.0]


@pytest.mark.parametrize("at", [0.0, 0.2, 0.5, 0.9, 0.999])
def test_a_damaged_file_is_made_again(runs, at, capsys):
    """One byte is enough: pages have checksums, and the end of the file is read first."""
    table, path = results.load(runs), runs / results.KEPT
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 0xFF
    path.write_bytes(content)
    assert results.load(runs).equals(table)
    sheets = results.load_scores(runs, table)
    assert sum(sheet.scores.sum() for sheet in sheets) == pytest.approx((table["value"] * table["n"]).sum())
    path.write_bytes(content[: len(content) // 2])
    assert results.load(runs).equals(table) and "is damaged" in capsys.readouterr().err
    capsys.readouterr()
    assert results.load(runs).equals(table) and not capsys.readouterr().err


def test_a_file_of_another_version_is_made_again(runs, monkeypatch):
    table = results.load(runs)
    pd.DataFrame({"stamp": ["x"], "value": [1.0]}).to_parquet(runs / results.KEPT)
    assert results.load(runs).equals(table) and results.load_scores(runs, table)


def test_a_folder_that_cannot_be_written_is_read_all_the_same(many, tmp_path, capsys):
    shutil.copytree(many, tmp_path / "runs")
    (tmp_path / "runs" / results.KEPT.parent).write_text("not a folder")
    assert len(results.load(tmp_path / "runs")) > FEW
    assert "cannot be written" in capsys.readouterr().err


def test_scores_are_those_of_the_examples(runs):
    put(runs, 4, "paws", 1, ["paws", "rte"], 0.3)
    table = results.load(runs)
    sheets, done = results.load_scores(runs, table), 0
    every = results.load_examples(runs).sort_values([*results.KEY, "example_id"])
    of = {key: frame for key, frame in every.groupby(results.KEY, observed=True)}
    for sheet in sheets:
        for row, scores in zip(sheet.rows, sheet.scores, strict=True):
            frame = of[tuple(table.iloc[row][results.KEY])]
            assert frame["score"].tolist() == scores.tolist() and sheet.task == table["task"][row]
            assert frame["example_id"].tolist() == sheet.example_id.tolist()
            assert frame["target"].tolist() == sheet.target.tolist() and np.isnan(sheet.chance).all()
            done += 1
    assert done == len(table) == len({row for sheet in sheets for row in sheet.rows})
    assert len(sheets) == len(SOME)  # one per task, whatever the cell


def test_other_examples_are_another_sheet(tmp_path):
    for step in (1, 2):
        put(tmp_path, step, "", None, ["paws"])
    path = next(tmp_path.glob("toy-2-*/units/*"))
    frame, unit = units.read_examples(path), units.read_unit(path)
    half = frame[frame["accuracy"] == 1].head(5)
    units.write_unit(path, [unit["rows"][0] | {"value": 1.0, "n": 5}], half, {})
    table = results.load(tmp_path)
    assert sorted(sheet.scores.shape for sheet in results.load_scores(tmp_path, table)) == [(1, 5), (1, 20)]
    path.unlink()
    with pytest.raises(ValueError, match="it has changed since its table was loaded"):
        results.load_scores(tmp_path, table)


def test_examples_of_some_rows_alone(tmp_path, monkeypatch):
    for step in (1, 2):
        put(tmp_path, step, "", None, ["paws", "rte"], 0.25 * step)
    opened = []
    real = units.read_examples
    monkeypatch.setattr(results, "read_examples", lambda path: opened.append(path) or real(path))
    found = results.load_examples(tmp_path, {"task": "rte", "checkpoint": ["toy@2", "toy@9"]})
    assert len(found) == 20 and set(found["task"]) == {"rte"} and found["score"].mean() == 0.5 and len(opened) == 1
    assert isinstance(found["cell_id"].dtype, pd.CategoricalDtype)
    assert results.load_examples(tmp_path, {"task": "paws", "method": "free"}).empty
    with pytest.raises(ValueError, match="where 'shots': no such column; there are family"):
        results.load_examples(tmp_path, {"shots": 1})
