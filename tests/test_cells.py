"""Identity and records: what determines the weights determines the id, and a file that is there is whole."""

import dataclasses
import json
import os

import pytest

from amuro.cells import Cell, Unit, find_cell, read_record, write_atomic, write_record

CELL = Cell(
    family="olmo-1b",
    checkpoint="olmo-1b@1000",
    step=1000,
    tokens_b=4.0,
    base="allenai/OLMo-1B-hf@abc",
    stage="sft",
    dataset="mnli",
    dataset_digest="d1",
    prompts_version=1,
    hyperparameters={"learning_rate": 2e-6, "batch_size": 8},
    seed=42,
)


def test_the_id_is_stable():
    """A golden id: it may only change with a deliberate change of what a cell is."""
    assert CELL.cell_id == "96db7b845cdd"
    assert CELL.folder("runs").name == "olmo-1b-1000-sft-mnli-seed42-96db7b845cdd"


@pytest.mark.parametrize(
    "change",
    [
        {"base": "allenai/OLMo-1B-hf@def"},
        {"stage": "instruct"},
        {"dataset_digest": "d2"},
        {"prompts_version": 2},
        {"hyperparameters": {"learning_rate": 2e-7, "batch_size": 8}},
        {"seed": 43},
    ],
)
def test_whatever_determines_the_weights_makes_another_cell(change):
    other = dataclasses.replace(CELL, **change)
    assert other.cell_id != CELL.cell_id and other.folder("runs") != CELL.folder("runs")


def test_labels_do_not_enter_the_id():
    assert dataclasses.replace(CELL, family="x", tokens_b=5.0).cell_id == CELL.cell_id


def test_a_record_is_written_whole_and_read_back(tmp_path):
    folder = CELL.folder(tmp_path)
    assert read_record(folder) is None
    write_record(folder, CELL, training={"steps": 3})
    record = read_record(folder)
    assert Cell(**record["cell"]) == CELL and record["training"] == {"steps": 3}
    assert {"torch", "lm-eval"} <= set(record["environment"]["packages"])
    assert [path.name for path in folder.iterdir()] == ["run.json"]
    for name in (CELL.cell_id, folder.name, str(folder)):
        assert find_cell(tmp_path, name) == (CELL, folder)
    with pytest.raises(ValueError, match="0 complete cells match"):
        find_cell(tmp_path, "other")
    record.pop("cell_id")
    (folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"not a record of a cell \('cell_id' is missing\)"):
        read_record(folder)
    (folder / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="not a record of a cell"):
        read_record(folder)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    write_atomic(path, b"old")

    def broken(*_):
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="no space"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_units_file_and_key_say_what_it_is(tmp_path):
    unit = Unit("mnli_matched", "io", 4, 42, "token_prob", "float32")
    assert unit.path(tmp_path).name == "mnli_matched-io-4shot-s42-token_prob-float32.parquet"
    assert unit.key("accuracy") == "eval/mnli_matched/io/4shot/token_prob/accuracy"
    usual = Unit("rte", "io", 4, 42, "free", "float32")
    changes = ({"shot_seed": 1}, {"dtype": "bfloat16"}, {"shot_seed": 1, "dtype": "bfloat16"})
    assert [dataclasses.replace(usual, **change).key("accuracy") for change in changes] == [
        "eval/rte/io/4shot/free/s1/accuracy",
        "eval/rte/io/4shot/free/bfloat16/accuracy",
        "eval/rte/io/4shot/free/s1/bfloat16/accuracy",
    ]
    others = [dataclasses.replace(unit, **{f.name: "7"}) for f in dataclasses.fields(unit)]
    assert len({each.path(tmp_path) for each in (unit, *others)}) == 8
    assert json.loads(json.dumps(dataclasses.asdict(unit)))["prompt_format"] == "io"


def test_a_cell_is_found_by_its_id_whatever_is_wrong_with_others(tmp_path):
    folder = CELL.folder(tmp_path)
    write_record(folder, CELL)
    (tmp_path / "other-0123456789ab").mkdir()
    (tmp_path / "other-0123456789ab" / "run.json").write_text("{")
    for name in (CELL.cell_id, folder.name, str(folder)):
        assert find_cell(tmp_path, name) == (CELL, folder)
    with pytest.raises(ValueError, match="not a record of a cell"):
        find_cell(tmp_path, "0123456789ab")
    with pytest.raises(ValueError, match="0 complete cells match"):
        find_cell(tmp_path, "[a-z]*")
