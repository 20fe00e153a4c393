"""The one table: files round-trip, unsound rows are refused, gaps are named, intervals equal their definition."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from amuro import results
from amuro.cells import Cell, Unit, write_record
from amuro.evaluation import row_of


def put(runs, step: int, dataset: str, seed: int | None, tasks, value: float = 0.5, version: int = 1) -> None:
    cell = Cell(
        "toy", f"toy@{step}", step, step / 1e6, f"base-{step}", "sft" if dataset else "base", dataset, seed=seed
    )
    folder = cell.folder(runs)
    for task in tasks:
        unit = Unit(task, "default", 0, 42, "token_prob", "float32")
        correct = [float(number < 20 * value) for number in range(20)]
        examples = pd.DataFrame(
            {
                "example_id": [f"{number:02d}" for number in range(20)],
                "target": "yes",
                "prediction": ["yes" if each else "no" for each in correct],
                "accuracy": correct,
                "truncated": [number == 0 for number in range(20)],
                "unparsable": False,
            }
        )
        results.write_unit(unit.path(folder), [row_of(cell, unit, examples, version)], examples, {})
    write_record(folder, cell)


def test_rows_and_examples_come_back(tmp_path):
    put(tmp_path, 1, "", None, ["paws", "qqp"])
    put(tmp_path, 1, "paws", 1, ["paws", "qqp", "mnli_matched", "rte"], 0.9)
    table = results.load(tmp_path)
    assert list(table.columns) == list(results.COLUMNS) and len(table) == 6
    tuned = table[(table["stage"] == "sft")].set_index("task")
    assert tuned["relation"].to_dict() == {"paws": "id", "qqp": "ood", "mnli_matched": "cross_task", "rte": ""}
    assert tuned.loc["paws", ["value", "n", "n_truncated", "seed"]].tolist() == [0.9, 20, 1, 1]
    assert table[table["stage"] == "base"]["seed"].isna().all()
    examples = results.load_examples(tmp_path)
    assert len(examples) == 6 * 20 and examples.groupby("cell_id")["score"].mean().round(3).tolist() in (
        [0.5, 0.9],
        [0.9, 0.5],
    )


def test_gaps_are_named(tmp_path):
    for step in (1, 2):
        put(tmp_path, step, "", None, ["paws"])
        for seed in (1, 2):
            if (step, seed) != (2, 2):
                put(tmp_path, step, "paws", seed, ["paws", "qqp"] if step == 1 else ["paws"])
    there, expected, missing = results.coverage(results.load(tmp_path))
    assert (there, expected) == (7, 10)
    assert missing == [
        "toy@2 sft paws seed 1 qqp default 0 42 token_prob float32",
        "toy@2 sft paws seed 2 (all 2 units)",
    ]


def test_unsound_tables_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no complete cell there"):
        results.load(tmp_path)
    put(tmp_path, 1, "paws", 1, ["paws"])
    table = results.load(tmp_path)
    with pytest.raises(ValueError, match="2 rows share a key"):
        results.check(pd.concat([table, table]))
    for value in (1.2, None):
        with pytest.raises(ValueError, match="1 values outside"):
            results.check(table.assign(value=value))
    put(tmp_path, 2, "paws", 1, ["paws"], version=2)
    with pytest.raises(ValueError, match="two task versions .paws."):
        results.load(tmp_path)
    (unit,) = (path for path in results.unit_files(tmp_path) if "toy-2" in str(path))
    unit.write_bytes(unit.read_bytes()[:-10])
    with pytest.raises(ValueError, match="not a result of an evaluation unit"):
        results.load(tmp_path)


def test_units_of_a_cell_without_a_record_do_not_count(tmp_path):
    put(tmp_path, 1, "paws", 1, ["paws"])
    put(tmp_path, 2, "paws", 1, ["paws"])
    next(tmp_path.glob("toy-2*/run.json")).unlink()
    assert len(results.load(tmp_path)) == 1


def test_accuracy_has_wilsons_interval():
    rng = np.random.default_rng(0)
    for _ in range(200):
        n = int(rng.integers(1, 400))
        scores = (rng.random(n) < rng.random()).astype(float)
        stderr, low, high = results.interval("accuracy", scores)
        p, z = scores.mean(), stats.norm.ppf(0.975)
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
        assert (low, high) == pytest.approx((max(0, centre - half), min(1, centre + half)), abs=1e-9)
        assert stderr == pytest.approx((p * (1 - p) / n) ** 0.5, abs=1e-12)


def test_rouge_has_a_seeded_bootstrap():
    scores = np.random.default_rng(1).random(300)
    stderr, low, high = results.interval("rouge_l", scores)
    assert results.interval("rouge_l", scores) == (stderr, low, high)
    assert stderr == pytest.approx(scores.std(ddof=1) / 300**0.5, rel=0.08)
    assert low < scores.mean() < high and high - low == pytest.approx(2 * 1.96 * stderr, rel=0.1)
    assert results.interval("rouge_l", np.array([0.3])) == (0.0, 0.3, 0.3)


def test_columns_are_the_cells_and_units_own_names():
    unit = {field.name for field in dataclasses.fields(Unit)}
    cell = {field.name for field in dataclasses.fields(Cell)} & set(results.COLUMNS)
    assert unit <= set(results.COLUMNS) and {"family", "checkpoint", "step", "tokens_b", "stage", "dataset"} <= cell
