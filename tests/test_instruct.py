"""train_instruct.py as a user runs it, on a random model and a few conversations."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import write_jsonl
from transformers import AutoTokenizer

from amuro import data, results
from amuro.cells import read_record
from amuro.conversations import set_template
from amuro.programs import load_program

train_instruct = load_program("train_instruct.py")


def arguments(family, mirror, runs, *more) -> list[str]:
    return [
        *("--checkpoint", f"{family}@10", "--data_dir", str(mirror), "--runs", str(runs)),
        *("--learning_rate", "1e-3", "--num_train_epochs", "2", "--num_shots", "0", "--report_to", "none"),
        *("--keep_weights", "all", *(more or ["--train_fraction", "0.5"])),
    ]


@pytest.fixture(scope="module")
def cell(family, mirror, tmp_path_factory) -> Path:
    return train_instruct.main(arguments(family, mirror, tmp_path_factory.mktemp("runs")))


def test_an_instruct_cell_is_trained_and_scored_on_the_benchmarks(cell, family, mirror, capsys):
    record = read_record(cell)
    rows = data.conversation_rows("tulu", str(mirror), fraction=0.5)
    assert record["cell"]["stage"] == "instruct" and record["cell"]["dataset"] == "tulu"
    assert record["cell"]["dataset_digest"] == rows.digest
    assert record["training"]["rows"] == len(rows.rows) - sum(
        count for reason, count in record["training"]["rows_cut"].items() if reason.startswith("left out")
    )
    table = results.load(cell.parent)
    assert sorted(set(table["task"])) == ["arc_challenge", "arc_easy", "boolq", "hellaswag", "openbookqa", "sciq"]
    assert set(table["relation"]) == {"benchmark"} and set(table["stage"]) == {"instruct"}
    assert cell.name.startswith("toy-10-instruct-tulu-seed42-")
    capsys.readouterr()
    assert train_instruct.main(arguments(family, mirror, cell.parent)) == cell
    assert f"complete: {cell}" in capsys.readouterr().out


def test_the_tuned_tokenizer_carries_the_template(cell, family):
    tuned, base = AutoTokenizer.from_pretrained(cell / "weights"), AutoTokenizer.from_pretrained(family / "step-10")
    assert base.chat_template is None
    set_template(base)
    turns = [{"role": "user", "content": "The cat?"}, {"role": "assistant", "content": "The dog."}]
    assert tuned.chat_template == base.chat_template
    text = tuned.apply_chat_template(turns, tokenize=False)
    assert text == "<|user|>\nThe cat?\n<|assistant|>\nThe dog.<|endoftext|>"


def test_other_conversations_by_path_and_chat_prompts(family, mirror, tmp_path):
    """Any file of conversations; what is tuned on chats can be asked in chats, which its base cannot."""
    path = tmp_path / "mine.jsonl"
    shutil.copy(mirror / "instruction_mix" / "train.jsonl", path)
    chat = ["--dataset", str(path), "--num_train_rows", "8", "--tasks", "paws", "--apply_chat_template", "true"]
    folder = train_instruct.main(arguments(family, mirror, tmp_path / "runs", *chat))
    table = results.load(tmp_path / "runs")
    assert folder.name.startswith("toy-10-instruct-mine-seed42-") and read_record(folder)["training"]["rows"] == 8
    assert table["apply_chat_template"].tolist() == [True] and table["relation"].tolist() == ["cross_task"]


def test_bad_conversations_are_named_before_anything_is_trained(family, mirror, tmp_path):
    path = tmp_path / "bad.jsonl"
    cases = [
        ([{"text": "no turns"}], "bad.jsonl, row 1: field 'messages'"),
        ([{"messages": [{"role": "user", "content": 3}]}], "bad.jsonl, row 1: .*turn 1: 'content' is int"),
        ([{"messages": [{"role": "user", "content": "hello"}]}], "no conversation to train on"),
    ]
    for rows, told in cases:
        write_jsonl(path, rows)
        with pytest.raises(ValueError, match=told):
            train_instruct.main(arguments(family, mirror, tmp_path / "runs", "--dataset", str(path)))
    path.write_text(json.dumps({"messages": []})[:-1])
    with pytest.raises(ValueError, match="row 1: not JSON"):
        train_instruct.main(arguments(family, mirror, tmp_path / "runs", "--dataset", str(path)))
    with pytest.raises(ValueError, match="--dataset 'tulip'"):
        train_instruct.main(arguments(family, mirror, tmp_path / "runs", "--dataset", "tulip"))
    assert not list(tmp_path.glob("runs/*/run.json")) and len(cases) == 3
