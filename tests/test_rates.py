"""`amuro rates`: the rate is chosen on held-out training rows, by losses that an independent computation confirms."""

import csv
import json
import shutil
from dataclasses import replace

import pytest
import torch
import typer
from transformers import AutoModelForCausalLM, AutoTokenizer

from amuro import cli, data, rates
from amuro.cells import find_cell
from amuro.encoding import encode_rows

RATES = [1e-2, 1e-3, 1e-5]


def flags(mirror, runs) -> list[str]:
    places = ["--data_dir", str(mirror), "--runs", str(runs), "--report_to", "none"]
    return [*places, "--num_train_epochs", "2", "--keep_weights", "all"]


@pytest.fixture(scope="module")
def search(family, mirror, tmp_path_factory):
    """Three rates on 16 of the mirror's 24 rows, 8 held out: (trials, path of the table, runs)."""
    runs = tmp_path_factory.mktemp("runs")
    listed = ",".join(map(str, RATES))
    return *rates.choose(f"{family}@10", "mnli", listed, 8, flags(mirror, runs)), runs


@torch.no_grad()
def loss_of(folder, rows) -> float:
    """Mean loss per completion token, one row at a time."""
    model = AutoModelForCausalLM.from_pretrained(folder / "weights")
    tokenizer = AutoTokenizer.from_pretrained(folder / "weights")
    losses = []
    for example in encode_rows(rows, "inference", tokenizer, 2048)[0]:
        logprobs = model(torch.tensor([example["input_ids"]])).logits[0].log_softmax(-1)
        losses += [-logprobs[i - 1, label] for i, label in enumerate(example["labels"]) if label != -100]
    return torch.stack(losses).mean().item()


def test_the_table_equals_an_independent_computation(search, mirror):
    trials, path, runs = search
    held_out = data.training_rows("mnli", str(mirror)).rows[-8:]
    with open(path, newline="") as file:
        table = list(csv.DictReader(file))
    assert path == runs / "rates" / "toy-10-mnli-seed42.csv"
    assert [float(row["learning_rate"]) for row in table] == RATES
    losses = []
    for row, trial in zip(table, trials, strict=True):
        cell, folder = find_cell(runs, row["cell_id"])
        losses.append(loss_of(folder, held_out))
        assert float(row["held_out_loss"]) == pytest.approx(losses[-1], abs=1e-5) == trial.held_out_loss
        assert cell.hyperparameters["learning_rate"] == trial.learning_rate and not list(folder.glob("units/*"))
        assert row["held_out_rows"] == "8" and float(row["train_loss"]) > 0
        assert (row["checkpoint"], row["dataset"], row["seed"]) == ("toy@10", "mnli", "42")
    assert len(set(losses)) == 3
    assert [row["chosen"] for row in table] == [str(loss == min(losses)) for loss in losses]


def test_the_report_names_the_flag_and_a_rate_at_the_border(search):
    trials, _, _ = search
    best = min(trials, key=lambda trial: trial.held_out_loss)
    lines = rates.report(trials).splitlines()
    assert lines[-1] == f"--learning_rate {best.learning_rate}" and lines[0].split()[:2] == list(
        ("learning_rate", "held_out_loss")
    )
    assert [line.endswith("  chosen") for line in lines[1:4]] == [trial is best for trial in trials]
    border = [line for line in lines if "of the list: try one beyond it" in line]
    assert len(border) == (best.learning_rate != 1e-3)


def test_called_again_nothing_is_trained_again(search, family, mirror, capsys):
    trials, path, runs = search
    before = path.read_bytes()
    again = rates.choose(f"{family}@10", "mnli", "0.01,1e-3,0.00001", 8, flags(mirror, runs))
    assert again == (trials, path) and path.read_bytes() == before
    assert capsys.readouterr().out.count("complete: ") == 3


def test_a_cell_without_these_held_out_rows_is_named(search, family, mirror):
    """The training rows are the same 16, the rows held out are not."""
    _, _, runs = search
    more = [*flags(mirror, runs), "--num_train_rows", "20"]
    with pytest.raises(ValueError, match="toy-10-sft-mnli.*with 8 held out, not 4; remove the folder"):
        rates.choose(f"{family}@10", "mnli", ",".join(map(str, RATES)), 4, more)


@pytest.mark.parametrize(
    ("listed", "held_out", "more", "told"),
    [
        ("2.0e-6", 8, [], "two different rates at least"),
        ("1e-6,1e-06", 8, [], "two different rates at least"),
        ("1e-6,0", 8, [], "each above 0"),
        ("1e-6,fast", 8, [], "a comma list of numbers is needed"),
        ("1e-6,1e-5", 0, [], "--held_out_rows 0: rates are chosen on held-out rows"),
        ("1e-6,1e-5", 8, ["--tasks=id"], "--tasks after --: `amuro rates` sets it itself"),
        ("1e-6,1e-5", 8, ["--learning-rate", "1"], "--learning_rate after --"),
        ("1e-6,1e-5", 8, ["--sed", "1"], "flag --sed: unknown; did you mean seed"),
    ],
)
def test_a_mistake_is_one_clear_line(listed, held_out, more, told):
    with pytest.raises(ValueError, match=told) as error:
        rates.choose("toy@10", "mnli", listed, held_out, more)
    assert "\n" not in str(error.value)


def test_a_rate_that_diverges_is_not_chosen(family, mirror, tmp_path, capsys):
    trials, path = rates.choose(f"{family}@10", "mnli", "1e-3,1e30", 8, flags(mirror, tmp_path))
    assert [trial.learning_rate for trial in trials] == [1e-3]
    assert "1e+30 is not chosen: the training loss is nan" in capsys.readouterr().out
    assert len(path.read_text().splitlines()) == 2
    with pytest.raises(ValueError, match="the loss of each is not a number; try lower ones"):
        rates.choose(f"{family}@10", "mnli", "1e29,1e30", 8, flags(mirror, tmp_path))


def test_of_conversations_fewer_may_be_measured_than_are_held_out(search, tmp_path):
    """What cannot be learned from is left out; the same call again must find the same."""
    folder = tmp_path / "cell"
    shutil.copytree(find_cell(search[2], search[0][0].cell_id)[1], folder)
    record = json.loads((folder / "run.json").read_text())
    record["training"] |= {"held_out_rows": 7, "train_loss": None}  # and it was interrupted
    (folder / "run.json").write_text(json.dumps(record))
    trial = rates._trial(folder, 8)
    assert trial.held_out_rows == 7 and " - " in rates.report([replace(trial, chosen=True)])
    with pytest.raises(ValueError, match="with 8 held out, not 7"):
        rates._trial(folder, 7)


def test_the_command_prints_the_table(search, family, mirror, capsys):
    """Through the command line, with flags of the script after `--`; the cells are there already."""
    _, path, runs = search
    given = ["--checkpoint", f"{family}@10", "--dataset", "mnli", "--held_out_rows", "8"]
    listed = ["--learning_rates", ",".join(map(str, RATES))]
    command = ["rates", *given, *listed, "--", *flags(mirror, runs)]
    typer.main.get_command(cli.app).main(command, standalone_mode=False)
    out = capsys.readouterr().out
    assert f"table: {path}" in out and "  chosen\n" in out
