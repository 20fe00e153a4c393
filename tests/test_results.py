"""The one table: files round-trip, unsound rows are refused, gaps are named, intervals equal their definition."""

import contextlib
import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from amuro import results, units
from amuro.cells import Cell, Unit, write_record
from amuro.evaluation import rows_of
from amuro.units import read_unit


def put(
    runs, step: int, dataset: str, seed: int | None, tasks, value: float = 0.5, version: int = 1, chat: bool = False
) -> None:
    cell = Cell(
        "toy", f"toy@{step}", step, step / 1e6, f"base-{step}", "sft" if dataset else "base", dataset, seed=seed
    )
    folder = cell.folder(runs)
    for task in tasks:
        unit = Unit(task, "default", 0, 42, "token_prob", "float32", chat)
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
        units.write_unit(unit.path(folder), rows_of(cell, unit, examples, version), examples, {})
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


def test_chat_template_is_a_unit_of_its_own(tmp_path):
    put(tmp_path, 1, "", None, ["paws"], 0.5)
    put(tmp_path, 1, "", None, ["paws"], 0.9, chat=True)
    put(tmp_path, 2, "", None, ["paws"], 0.7)
    table = results.load(tmp_path)
    assert list(table.columns)[10:12] == ["shot_seed", "apply_chat_template"]
    assert table["apply_chat_template"].dtype == "boolean"
    found = table.set_index(["checkpoint", "apply_chat_template"])["value"].to_dict()
    assert found == {("toy@1", False): 0.5, ("toy@1", True): 0.9, ("toy@2", False): 0.7}
    scores = results.load_examples(tmp_path).groupby(["checkpoint", "apply_chat_template"])["score"].mean()
    assert scores.to_dict() == pytest.approx(found)
    there, expected, missing = results.coverage(table)
    assert (there, expected, missing) == (3, 4, ["toy@2 base paws default 0 42 chat token_prob float32"])


def test_one_unit_has_a_row_per_metric_and_the_chance_of_its_choices(tmp_path):
    put(tmp_path, 1, "", None, ["paws"])
    (cell_folder,) = (path.parent for path in tmp_path.glob("*/run.json"))
    cell = Cell("toy", "toy@1", 1, 1e-6, "base-1")
    unit = Unit("arc_easy", "default", 4, 42, "loglikelihood", "float32")
    frame = pd.DataFrame({"example_id": ["a", "b", "c"], "target": ["x", "y", "z"], "prediction": ["x", "y", "y"]})
    frame = frame.assign(accuracy=[1.0, 1.0, 0.0], accuracy_norm=[1.0, 0.0, 0.0], chance=[0.25, 0.2, 1 / 3])
    frame = frame.assign(truncated=False, unparsable=False)
    units.write_unit(unit.path(cell_folder), rows_of(cell, unit, frame, version=1), frame, {})
    table = results.load(tmp_path)
    values = table[table["task"] == "arc_easy"].set_index("metric")["value"].to_dict()
    assert values == pytest.approx({"accuracy": 2 / 3, "accuracy_norm": 1 / 3})
    assert results.coverage(table) == (2, 2, [])  # units, not rows
    examples = results.load_examples(tmp_path)
    assert examples.query("task == 'paws'")["chance"].isna().all() and len(examples) == 20 + 2 * 3
    by_metric = examples.query("task == 'arc_easy'").groupby("metric")
    assert by_metric["score"].agg(list).to_dict() == {"accuracy": [1, 1, 0], "accuracy_norm": [1, 0, 0]}
    assert by_metric["chance"].agg(list).to_list() == [[0.25, 0.2, 1 / 3]] * 2


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
    (unit,) = tmp_path.glob("toy-2-*/units/*.parquet")
    unit.write_bytes(unit.read_bytes()[:-10])
    with pytest.raises(ValueError, match="not a result of an evaluation unit"):
        results.load(tmp_path)


@pytest.mark.parametrize("name", ["/tmp/x", "../x", "..", "a\nb", "a\\b", ""])
def test_a_task_whose_name_is_a_path_is_refused(tmp_path, name):
    put(tmp_path, 1, "", None, ["paws"])
    table = results.load(tmp_path)
    assert len(results.check(table.assign(task="my own set 2.1"))) == 1
    with pytest.raises(ValueError, match="^task .*: a name has no slash") as raised:
        results.check(table.assign(task=name))
    assert "\n" not in str(raised.value)


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


def rewrite(path, change_row=None, change_examples=None) -> None:
    """The unit's file again, with other rows or examples."""
    unit, examples = units.read_unit(path), units.read_examples(path).drop(columns="chance")
    rows = [row | (change_row or {}) for row in unit["rows"]]
    units.write_unit(path, rows, change_examples(examples) if change_examples else examples, unit["about"])


@pytest.mark.parametrize(
    ("row", "examples", "said"),
    [
        ({"value": 0.51}, None, "the value 0.51 is not the mean of its examples"),
        ({"value": 1.5}, None, "1 values outside .0, 1. or missing, the first: family toy, checkpoint toy@1"),
        ({"value": float("nan")}, None, "1 values outside"),
        ({"value": "high"}, None, "not a result of an evaluation unit"),
        ({"n": "many"}, None, "n 'many' is not int64; remove the file"),
        ({"metric": "rouge_l"}, None, "not a result of an evaluation unit .*rouge_l"),
        (
            {},
            lambda frame: frame.assign(accuracy=frame["accuracy"] * 2),
            "scores of accuracy outside .0, 1. or missing",
        ),
        ({}, lambda frame: frame.assign(accuracy=np.nan), "scores of accuracy outside"),
        ({}, lambda frame: frame.assign(accuracy="yes"), "not a result of an evaluation unit"),
        ({}, lambda frame: frame.assign(example_id="a"), "examples share an id"),
        ({}, lambda frame: frame.head(0), "no rows or no examples"),
        ({}, lambda frame: frame.head(15), "is not the mean of its examples"),
        ({}, lambda frame: frame.drop(columns="target"), "not a result of an evaluation unit .*target"),
    ],
)
def test_a_wrong_unit_is_one_line_with_its_file(tmp_path, row, examples, said):
    put(tmp_path, 1, "", None, ["paws"])
    (path,) = tmp_path.glob("*/units/*.parquet")
    rewrite(path, row, examples)
    with pytest.raises(ValueError, match=said) as error:
        results.load(tmp_path)
    assert "\n" not in str(error.value) and (str(path) in str(error.value) or "values outside" in said)


def test_every_damage_of_a_units_file_is_found(tmp_path):
    """A byte of the scores, anywhere in the file's pages, or a file that is cut: never another mean."""
    put(tmp_path, 1, "", None, ["paws"])
    (path,) = tmp_path.glob("*/units/*.parquet")
    content, table = path.read_bytes(), results.load(tmp_path)
    end = len(content) - int.from_bytes(content[-8:-4], "little") - 8  # where the pages end and the metadata begin
    refused = 0
    for at in [*range(4, end, 7), *range(end, len(content), 31)]:
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        with contextlib.suppress(ValueError):  # nothing else is raised
            read_unit(path)
        try:
            found = results.load(tmp_path)
        except ValueError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
        else:  # a byte that says nothing of the scores
            assert found["value"].tolist() == table["value"].tolist() and found["n"].tolist() == [20]
    assert refused > end / 7 / 2
    for size in (0, 3, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match="not a result of an evaluation unit"):
            results.load(tmp_path)


def test_a_damaged_record_is_told(tmp_path):
    put(tmp_path, 1, "", None, ["paws"])
    (record,) = tmp_path.glob("*/run.json")
    record.write_text("{")
    with pytest.raises(ValueError, match="run.json: not a record of a cell"):
        results.load(tmp_path)


def test_the_same_unit_twice_is_told_with_its_cell(tmp_path):
    put(tmp_path, 1, "", None, ["paws"])
    (path,) = tmp_path.glob("*/units/*.parquet")
    path.with_name("copy.parquet").write_bytes(path.read_bytes())
    with pytest.raises(
        ValueError, match=f"2 rows share a key, the first: family toy.*cell_id {path.parent.parent.name[-12:]}"
    ):
        results.load(tmp_path)


def test_sound_tables_of_little_are_loaded(tmp_path):
    """One cell; BASE without tuned; tuned without BASE; a cell without units."""
    for at, cells in enumerate(([(1, "", None)], [(1, "", None), (2, "", None)], [(1, "paws", 1), (2, "paws", 1)])):
        runs = tmp_path / str(at)
        for cell in cells:
            put(runs, *cell, ["paws"])
        table = results.load(runs)
        assert len(table) == len(cells) and results.coverage(table) == (len(cells), len(cells), [])
        assert sum(len(sheet.rows) for sheet in results.load_scores(runs, table)) == len(cells)
    write_record(Cell("toy", "toy@1", 1, 1e-6, "b").folder(tmp_path / "3"), Cell("toy", "toy@1", 1, 1e-6, "b"))
    table = results.load(tmp_path / "3")
    assert table.empty and list(table.columns) == list(results.COLUMNS)
    assert results.coverage(table) == (0, 0, []) and results.load_scores(tmp_path / "3", table) == []
    assert results.load_examples(tmp_path / "3").empty
