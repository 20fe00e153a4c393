"""What is missing is named with the command that fills it, which is tried where it can be; and what cannot be said."""

import json
import shlex

import pandas as pd
import pytest
from conftest import ROOT
from test_results import put
from test_settings import eval_run, train_sft

from amuro import results
from amuro.cells import Cell, Unit, write_record
from amuro.evaluation import rows_of, units_asked
from amuro.running import ledger
from amuro.tasks import TASKS
from amuro.units import write_unit
from analysis.coverage import COLUMNS, coverage, notes


def cell_of(step: int, dataset: str, seed: int | None) -> Cell:
    """As `put` makes it."""
    stage = "sft" if dataset else "base"
    return Cell("toy", f"toy@{step}", step, step / 1e6, f"base-{step}", stage, dataset, seed=seed)


def unit_of(task: str, chat: bool = False) -> Unit:
    return Unit(task, "default", 0, 42, "token_prob", "float32", chat)


def asked(runs, step: int, dataset: str, seed: int | None, tasks, fail="", **flags) -> None:
    """A command that was run: its cell with its units, and its entry in the ledger."""
    cell = cell_of(step, dataset, seed)
    program = "train_sft.py" if dataset else "eval/run.py"
    given = {"checkpoint": f"family@{step}", "tasks": ",".join(tasks), "num_shots": "0", "runs": str(runs), **flags}
    given |= {"dataset": dataset, "seed": seed} if dataset else {}

    def main(argv):
        ledger.about(cell.folder(runs), [unit_of(task) for task in tasks])
        if fail:
            raise ValueError(fail)
        put(runs, step, dataset, seed, tasks)
        return cell.folder(runs)

    runs.mkdir(exist_ok=True)
    try:
        ledger.run(program, main, [f"--{name}={value}" for name, value in given.items()])
    except ValueError:
        assert fail


def test_nothing_missing_is_an_empty_table(tmp_path):
    put(tmp_path, 1, "", None, ["paws"])
    found = coverage(results.load(tmp_path), tmp_path)
    assert found.empty and list(found.columns) == COLUMNS


def test_what_the_last_checkpoint_alone_was_asked_is_not_missing_elsewhere(tmp_path):
    for step in (1, 2, 3):
        put(tmp_path, step, "", None, ["paws", "qqp"] if step == 3 else ["paws"])
        put(tmp_path, step, "paws", 1, ["paws", "rte"] if step != 2 else ["paws"])
    there, expected, missing = results.coverage(results.load(tmp_path))
    assert (there, expected) == (9, 10) and missing == ["toy@2 sft paws seed 1 rte default 0 42 token_prob float32"]


def test_the_ledgers_commands_are_those_of_the_other_checkpoints(tmp_path):
    runs = tmp_path / "runs"
    for step in (1, 2):
        asked(runs, step, "", None, ["paws", "qqp"])
    asked(runs, 1, "paws", 1, ["paws", "qqp"], recipe="nursery-sft")
    put(runs, 3, "", None, ["paws"])
    found = coverage(results.load(runs), runs).set_index(["checkpoint", "stage"])
    base = "python -m eval.run --checkpoint=family@3 --tasks=paws,qqp --num_shots=0"
    assert found.loc[("toy@3", "base"), "command"] == f"{base} --runs={runs}"
    assert found.loc[("toy@3", "base"), "missing"] == "qqp default 0 42 token_prob float32"
    words = shlex.split(found.loc[("toy@2", "sft"), "command"])
    assert words[:3] == ["python", "train_sft.py", "--checkpoint=family@2"] and "--recipe=nursery-sft" in words
    assert found.loc[("toy@2", "sft"), ["units_missing", "units_expected"]].tolist() == [2, 2]
    assert set(found["why"]) == {"other cells of its kind have it"} and len(found) == 3


def test_a_failed_command_is_told_with_its_cause(tmp_path):
    runs = tmp_path / "runs"
    asked(runs, 1, "", None, ["paws"])
    asked(runs, 2, "", None, ["paws"], fail="no space left")
    asked(runs, 2, "mnli", 1, ["rte"], fail="out of memory")
    found = coverage(results.load(runs), runs).set_index("stage")
    assert found["why"].to_dict() == {"base": "failed: no space left", "sft": "failed: out of memory"}
    assert found.loc["sft", ["checkpoint", "dataset", "seed", "units_missing"]].tolist() == ["family@2", "mnli", 1, 1]
    assert len(found) == 2


def test_a_unit_that_is_gone_is_asked_again_by_its_own_command(tmp_path):
    runs = tmp_path / "runs"
    for step in (1, 2):
        asked(runs, step, "", None, ["paws", "rte"])
    next(runs.glob("toy-2-*/units/rte-*")).unlink()
    (row,) = coverage(results.load(runs), runs).to_dict("records")
    assert row["command"].startswith("python -m eval.run --checkpoint=family@2 --tasks=paws,rte")
    assert (row["units_missing"], row["units_expected"], row["why"]) == (1, 2, "was there, and is gone")


def test_without_a_ledger_the_recorded_flags_and_the_missing_units_make_it(tmp_path):
    for step in (1, 2):
        cell = cell_of(step, "mnli", 7)
        for task in ("rte", "paws", "xsum") if step == 1 else ("paws",):
            unit = Unit(task, "instruct", 4, 9, "generate" if task == "xsum" else "free", "float32")
            metric = "rouge_l" if task == "xsum" else "accuracy"
            frame = pd.DataFrame({"example_id": ["a"], "target": "x", "prediction": "x", metric: 1.0})
            frame = frame.assign(truncated=False, unparsable=False)
            write_unit(unit.path(cell.folder(tmp_path)), rows_of(cell, unit, frame, 1), frame, {})
        given = {"checkpoint": f"some where/family@{step}", "dataset": "mnli", "seed": 7, "recipe": "mine"}
        given |= {"tasks": "all", "num_shots": "4", "runs": "elsewhere"}
        recorded = {name: {"value": value, "origin": "flag"} for name, value in given.items()}
        recorded["max_length"] = {"value": 5, "origin": "published"}
        write_record(cell.folder(tmp_path), cell, settings=recorded)
    (row,) = coverage(results.load(tmp_path), tmp_path).to_dict("records")
    expected = ["--checkpoint=some where/family@2", "--dataset=mnli", "--seed=7", "--recipe=mine", "--tasks=rte,xsum"]
    expected += ["--prompt_format=instruct", "--num_shots=4", "--methods=free", "--shot_seed=9", f"--runs={tmp_path}"]
    assert sorted(shlex.split(row["command"])[2:]) == sorted(expected)
    arguments, *_ = train_sft.read(
        shlex.split(row["command"])[2:-1][:3] + [f"--recipe={ROOT / 'sweeps/recipes'}/nursery-sft.yaml"]
    )
    assert arguments.dataset == "mnli"


def test_the_flags_are_those_of_a_cell_that_has_the_task(tmp_path, monkeypatch):
    put(tmp_path, 1, "", None, ["paws"])
    put(tmp_path, 2, "", None, ["paws", "rte"])
    monkeypatch.delitem(TASKS, "rte")  # a task that is not known here, too
    (row,) = coverage(results.load(tmp_path), tmp_path, named=False).to_dict("records")
    command = "python -m eval.run --checkpoint=toy@1 --tasks=rte --prompt_format=default --num_shots=0"
    assert row["command"] == f"{command} --methods=token_prob"


def test_a_command_on_both_stages_is_asked_of_one(tmp_path):
    runs = tmp_path / "runs"
    for step in (1, 2):
        put(runs, step, "paws", 1, ["paws"])
    asked(runs, 1, "", None, ["rte"], cell="some")
    tuned = cell_of(1, "paws", 1)
    entry = next((runs / "commands").glob("*.json"))
    known = json.loads(entry.read_text())
    known["folders"][tuned.folder(runs).name] = [unit_of("rte").path(runs).name]
    entry.write_text(json.dumps(known))
    put(runs, 1, "paws", 1, ["paws", "rte"])
    put(runs, 2, "", None, ["paws"])
    put(runs, 1, "", None, ["paws", "rte"])
    found = coverage(results.load(runs), runs)
    commands = {row.stage: shlex.split(row.command) for row in found.itertuples()}
    assert "--checkpoint=family@2" in commands["base"] and not any("--cell" in each for each in commands["base"])
    cell = f"--cell={cell_of(2, 'paws', 1).cell_id}"
    assert cell in commands["sft"] and not any("--checkpoint" in each for each in commands["sft"])


def test_a_table_without_cells_has_commands_too(tmp_path):
    for step in (1, 2):
        put(tmp_path, step, "", None, ["paws", "rte"] if step == 1 else ["paws"])
        put(tmp_path, step, "paws", 3, ["paws", "rte"] if step == 2 else ["rte"])
    found = coverage(results.load(tmp_path))
    for command, program in zip(found["command"], (eval_run, train_sft), strict=True):
        words = [word for word in shlex.split(command) if word.startswith("--")]
        read = program.read([*words, "--data_dir=mirror"])
        arguments = read[0] if isinstance(read, tuple) else read
        assert (
            arguments.tasks in ("rte", "paws") and len(units_asked(arguments, getattr(arguments, "dataset", ""))) == 1
        )
    assert "--checkpoint=toy@2 --tasks=rte" in found["command"][0] and "--seed=3" in found["command"][1]


@pytest.mark.slow
@pytest.mark.parametrize("noted", [True, False])
def test_the_commands_fill_what_is_missing(family, mirror, tmp_path, monkeypatch, noted):
    """Real cells, with and without a ledger: a BASE unit of each kind and a tuned cell are missing, then nothing is."""
    monkeypatch.setenv("AMURO_DATA_DIR", str(mirror))
    runs = tmp_path / "runs"
    runs.mkdir()

    def start(program: str, *flags: str) -> None:
        main = {"train_sft.py": train_sft.main, "eval/run.py": eval_run.main}[program]
        ledger.run(program, main, flags) if noted else main(flags)

    places = [f"--runs={runs}", "--eval_batch_size=32", "--report_to=none", "--limit=6"]
    base = [*places, "--num_shots=0,2", "--methods=token_prob,free"]
    start("eval/run.py", f"--checkpoint={family}@10", "--tasks=rte,xsum,arc_easy", *base)
    start("eval/run.py", f"--checkpoint={family}@20", "--tasks=arc_easy", *base[:-1], "--prompt_format=default")
    tuned = [
        "--dataset=mnli",
        "--tasks=rte,mnli_matched",
        "--num_shots=0",
        "--learning_rate=1e-3",
        "--num_train_epochs=1",
    ]
    start("train_sft.py", f"--checkpoint={family}@10", *tuned, *places)
    table = results.load(runs)
    assert results.coverage(table)[:2] == (8 + 2 + 2, 20)
    found = coverage(table, runs)
    assert set(found["checkpoint"]) == {"toy@20"} and found["units_missing"].sum() == 8
    assert len(found) == 2
    for command in found["command"]:
        words = shlex.split(command)
        program = "train_sft.py" if "train_sft.py" in words else "eval/run.py"
        # A BASE cell records no path of its family.
        flags = [word.replace("=toy@", f"={family}@") for word in words if word.startswith("--")]
        start(program, *flags)
    after = results.load(runs)
    assert results.coverage(after) == (20, 20, []) and coverage(after, runs).empty and set(after["n"]) == {6}


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ([(1, "", None)], ["one cell alone", "BASE without any tuned model", "one checkpoint alone (toy@1)"]),
        ([(1, "paws", 1), (2, "paws", 1)], ["tuned models without BASE"]),
        ([(1, "", None), (2, "", None)], ["BASE without any tuned model"]),
        ([(1, "", None), (2, "", None), (2, "paws", 1)], []),
    ],
)
def test_what_a_table_cannot_tell_is_said(tmp_path, cells, said):
    for step, dataset, seed in cells:
        put(tmp_path, step, dataset, seed, ["paws"])
    lines = notes(results.load(tmp_path))
    assert len(lines) == len(said) and all(text in line for text, line in zip(said, lines, strict=True))


def test_two_dtypes_are_told_of(tmp_path):
    for step in (1, 2):
        put(tmp_path, step, "", None, ["paws"])
        put(tmp_path, step, "paws", 1, ["paws"])
    table = results.load(tmp_path)
    table.loc[0, "dtype"] = "bfloat16"
    assert notes(results.check(table)) == ["toy: scored in bfloat16 and float32; rows of two dtypes are never compared"]
