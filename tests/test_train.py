"""train_sft.py and eval/run.py as a user runs them, on a random model and a small mirror."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import ROOT, forked
from peft import PeftModel
from safetensors.torch import load_file
from test_settings import eval_run, train_sft
from transformers import AutoModelForCausalLM

from amuro import results, tracking, training
from amuro.cells import Cell, read_record, write_record
from amuro.units import read_examples, read_unit, write_unit

FAST = ["--learning_rate", "1e-3", "--num_shots", "0", "--eval_batch_size", "32", "--num_train_epochs", "2"]


def arguments(family, mirror, runs, *more, dataset="mnli", step=10):
    return [
        *("--checkpoint", f"{family}@{step}", "--dataset", dataset, "--data_dir", str(mirror), "--runs", str(runs)),
        *("--report_to", "none", *FAST, *more),
    ]


@pytest.fixture(scope="module")
def cell(family, mirror, tmp_path_factory) -> Path:
    """One complete cell with its weights kept, tracked offline."""
    runs = tmp_path_factory.mktemp("runs")
    return train_sft.main([*arguments(family, mirror, runs), "--keep_weights", "all", "--report_to", "wandb"])


def test_a_cell_leaves_its_record_its_units_and_its_weights(cell, mirror):
    record = read_record(cell)
    training = record["training"]
    assert training["steps"] == 2 * 3 and training["rows"] == 24 and training["rows_truncated"] == 0
    assert training["train_loss"] > 0 and training["tensors_moved"].split()[0] != "0"
    assert record["settings"]["learning_rate"] == {"value": 1e-3, "origin": "flag"}
    assert record["settings"]["batch_size"] == {"value": 8, "origin": "published for olmo-1b"}
    table = results.load(cell.parent)
    assert table["task"].tolist() == ["gpt3nli", "mnli_matched", "mnli_mismatched", "rte"]
    assert (table["learning_rate"] == 1e-3).all() and (table["cell_id"] == record["cell_id"]).all()
    weights = cell / "weights" / "model.safetensors"
    assert weights.stat().st_mode & 0o777 == 0o644
    assert {tensor.dtype for tensor in load_file(weights).values()} == {torch.float32}


def test_a_repeated_cell_is_a_no_op(cell, family, mirror, capsys):
    before = {path: path.stat().st_mtime_ns for path in cell.rglob("*")}
    started = time.perf_counter()
    again = train_sft.main([*arguments(family, mirror, cell.parent), "--keep_weights", "all"])
    assert again == cell and f"complete: {cell}" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in cell.rglob("*")} == before and time.perf_counter() - started < 5


def test_a_changed_setting_is_another_cell(cell, family, mirror, tmp_path):
    other = ["--tasks", "none"]
    changes = [["--learning_rate", "2e-3"], ["--seed", "1"], ["--num_train_rows", "16"], ["--adam_beta1", "0.8"]]
    folders = {train_sft.main([*arguments(family, mirror, tmp_path, *other), *change]) for change in changes}
    same = train_sft.main(arguments(family, mirror, tmp_path, *other, "--logging_steps", "1", "--eval_batch_size", "4"))
    assert len(folders | {same}) == 5 and same.name == cell.name


def test_evaluation_after_training_equals_evaluation_of_the_kept_weights(cell, tmp_path):
    """In memory and reloaded, the same weights give the same predictions; another unit joins the same cell."""
    units = sorted((cell / "units").glob("mnli_matched-default*"))
    before = pd.read_parquet(units[0])
    units[0].unlink()
    mirror = read_record(cell)["settings"]["data_dir"]["value"]
    more = ["--num_shots", "0", "--data_dir", mirror, "--report_to", "none", "--runs", str(cell.parent)]
    assert eval_run.main(["--cell", read_record(cell)["cell_id"], "--tasks", "mnli_matched,paws", *more]) == [cell]
    assert pd.read_parquet(units[0]).equals(before)
    added = list((cell / "units").glob("paws-*"))
    assert len(added) == 1
    added[0].unlink()


def test_autocast_ends_with_the_training(family, mirror, tmp_path):
    """Trained under bf16 autocast, the model in memory is evaluated in float32 like its stored weights: to the bit."""
    more = ("--bf16", "true", "--keep_weights", "all", "--tasks", "mnli_matched,xsum", "--max_steps", "3")
    folder = train_sft.main(arguments(family, mirror, tmp_path, *more))
    assert read_record(folder)["cell"]["hyperparameters"]["training_dtype"] == "bfloat16"
    before = {path: pd.read_parquet(path) for path in (folder / "units").iterdir()}
    for path in before:
        path.unlink()
    places = ["--num_shots", "0", "--data_dir", str(mirror), "--report_to", "none", "--eval_batch_size", "32"]
    eval_run.main(["--cell", str(folder), "--tasks", "mnli_matched,xsum", *places])
    assert len(before) == 2 and all(pd.read_parquet(path).equals(rows) for path, rows in before.items())
    model = AutoModelForCausalLM.from_pretrained(folder / "weights")
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_weights_go_once_evaluated_and_come_back_when_units_are_missing(family, mirror, tmp_path, capsys):
    folder = train_sft.main(arguments(family, mirror, tmp_path))
    assert not (folder / "weights").exists() and len(list((folder / "units").iterdir())) == 4
    with pytest.raises(ValueError, match="its weights were not kept"):
        eval_run.main(["--cell", str(folder), "--tasks", "rte", "--data_dir", str(mirror), "--report_to", "none"])
    removed = next((folder / "units").glob("rte-*"))
    content = pd.read_parquet(removed)
    removed.unlink()
    train_sft.main(arguments(family, mirror, tmp_path))
    assert pd.read_parquet(removed).equals(content) and not (folder / "weights").exists()


def test_scores_of_former_weights_go_when_the_training_ends_in_others(family, mirror, tmp_path):
    """Weights gone and another task asked: the training is repeated, and on a GPU it may end in other bits."""
    folder = train_sft.main([*arguments(family, mirror, tmp_path), "--tasks", "mnli_matched,rte"])
    (of_others,) = folder.glob("units/rte-*")
    unit = read_unit(of_others)
    unit["about"]["scored"]["weights"] = "sha256:other"
    write_unit(of_others, unit["rows"], read_examples(of_others), unit["about"])
    train_sft.main([*arguments(family, mirror, tmp_path), "--tasks", "xsum"])
    assert sorted(path.name.split("-")[0] for path in folder.glob("units/*")) == ["mnli_matched", "xsum"]


def test_weights_that_were_replaced_are_not_scored_as_the_cells(family, mirror, tmp_path):
    argv = [*arguments(family, mirror, tmp_path), "--keep_weights", "all"]
    folder = train_sft.main([*argv, "--tasks", "rte"])
    shutil.copy(family / "step-20" / "model.safetensors", folder / "weights" / "model.safetensors")
    places = ["--data_dir", str(mirror), "--report_to", "none", "--runs", str(tmp_path)]
    with pytest.raises(ValueError, match="not the weights of the cell's record; remove the folder"):
        eval_run.main(["--cell", str(folder), "--tasks", "xsum", *places])
    with pytest.raises(ValueError, match="not the weights of the cell's record"):
        train_sft.main([*argv, "--tasks", "xsum"])
    assert [path.name.split("-")[0] for path in folder.glob("units/*")] == ["rte"]


def test_a_launchers_precision_is_a_part_of_the_cell(monkeypatch):
    """`accelerate launch --mixed_precision bf16` trains in bf16, whatever the script's flags say."""
    plain = train_sft.read(["--checkpoint", "a@1", "--dataset", "mnli"])
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    launched = train_sft.read(["--checkpoint", "a@1", "--dataset", "mnli"])
    said = [training.hyperparameters(sft, 8, lora)["training_dtype"] for _, sft, lora, _ in (plain, launched)]
    assert said == ["float32", "bfloat16"]


def test_kept_weights_stay_where_the_same_cell_is_asked_for_more(family, mirror, tmp_path):
    folder = train_sft.main([*arguments(family, mirror, tmp_path), "--tasks", "none", "--keep_weights", "all"])
    train_sft.main([*arguments(family, mirror, tmp_path), "--tasks", "id"])
    assert (folder / "weights" / "model.safetensors").is_file() and list((folder / "units").iterdir())


def test_a_base_checkpoint_is_evaluated_on_the_union_of_relations(family, mirror, tmp_path):
    more = [
        "--data_dir",
        str(mirror),
        "--runs",
        str(tmp_path),
        "--num_shots",
        "0",
        "--limit",
        "4",
        "--report_to",
        "none",
    ]
    (folder,) = eval_run.main(["--checkpoint", f"{family}@20", "--tasks", "ood", *more])
    table = results.load(tmp_path)
    assert set(table["task"]) == {"cnn", "sciq_qg", "tweetqa", "rte", "gpt3nli", "qqp", "stsb"}
    assert (table["dataset"] == "").all() and (table["n"] == 4).all() and read_record(folder)["cell"]["seed"] is None
    more[more.index("4")] = "6"
    eval_run.main(["--checkpoint", f"{family}@20", "--tasks", "rte", *more])
    again = results.load(tmp_path).set_index("task")["n"]
    assert again["rte"] == 6 and again["cnn"] == 4


def test_broken_trainings_stop_with_their_cause(family, mirror, tmp_path):
    cases = [
        (["--learning_rate", "1e30"], "loss is|grad_norm is|training loss is"),
        (["--learning_rate", "1e-40"], "no weight moved in 6 steps"),
    ]
    for change, told in cases:
        with pytest.raises(RuntimeError, match=told):
            train_sft.main([*arguments(family, mirror, tmp_path), "--tasks", "none", "--logging_steps", "1", *change])
    assert not list(tmp_path.glob("*/run.json")) and len(cases) == 2
    with pytest.raises(ValueError, match="--batch_size 8 over 1 processes does not divide"):
        train_sft.main([*arguments(family, mirror, tmp_path), "--per_device_train_batch_size", "3"])


def test_lora_is_merged_for_evaluation_and_its_adapter_is_kept(family, mirror, tmp_path):
    """Only the chosen matrices move; the stored weights are base + adapter; the adapter's settings are identity."""
    lora = ["--use_peft", "true", "--lora_r", "4", "--lora_target_modules", "q_proj", "v_proj", "--keep_weights", "all"]
    folder = train_sft.main(arguments(family, mirror, tmp_path, "--tasks", "mnli_matched", *lora))
    base = AutoModelForCausalLM.from_pretrained(family / "step-10", dtype=torch.float32)
    stored = AutoModelForCausalLM.from_pretrained(folder / "weights", dtype=torch.float32).state_dict()
    moved = {name for name, weight in base.state_dict().items() if not torch.equal(weight, stored[name])}
    assert moved == {f"model.layers.{i}.self_attn.{name}_proj.weight" for i in (0, 1) for name in "qv"}
    merged = PeftModel.from_pretrained(base, folder / "adapter").merge_and_unload().state_dict()
    assert all(torch.allclose(merged[name], stored[name], atol=1e-7) for name in stored)
    chosen = read_record(folder)["cell"]["hyperparameters"]
    assert (chosen["use_peft"], chosen["lora_r"], chosen["lora_alpha"]) == (True, 4, 32)
    other = train_sft.main(arguments(family, mirror, tmp_path, "--tasks", "none", *lora, "--lora_alpha", "8"))
    assert other.name != folder.name
    assert results.load(tmp_path)["task"].tolist() == ["mnli_matched"]


def test_a_killed_cell_is_run_again_and_is_the_same(cell, family, mirror, tmp_path):
    """SIGKILL while or after the weights are written, and after the record: no unit is lost or doubled, and weights
    with a record are not trained again."""
    argv = arguments(family, mirror, tmp_path, "--keep_weights", "all")

    def kill_when(seen) -> None:
        process = forked(train_sft.main, argv)
        deadline = time.time() + 120
        while not seen() and time.time() < deadline and process.is_alive():
            time.sleep(0.001)
        assert process.is_alive(), "the process ended before it could be killed"
        process.kill()
        process.join()

    folder = tmp_path / cell.name
    kill_when(lambda: (folder / "weights").is_dir())
    assert read_record(folder) is None or not list(folder.glob("units/*.parquet"))
    kill_when(lambda: (folder / "run.json").is_file())
    trained = (folder / "run.json").stat().st_mtime_ns
    train_sft.main(argv)
    assert (folder / "run.json").stat().st_mtime_ns == trained
    assert len(list((cell / "units").iterdir())) == 4
    for path in sorted((cell / "units").iterdir()):
        assert pd.read_parquet(folder / "units" / path.name).equals(pd.read_parquet(path)), path.name


@pytest.mark.slow
def test_the_stock_console_script_gives_the_same_values(family, mirror, tmp_path):
    """`lm_eval --model hf` from another folder, and eval/run.py: equal on three tasks in all formats, with shots."""
    names = ("mnli_matched", "paws", "xsum")
    more = ["--num_shots", "2", "--prompt_format", "default,instruct,io", "--limit", "12", "--report_to", "none"]
    places = ["--data_dir", str(mirror), "--runs", str(tmp_path / "runs"), "--eval_batch_size", "4"]
    eval_run.main(["--checkpoint", f"{family}@20", "--tasks", ",".join(names), *more, *places])
    ours = results.load(tmp_path / "runs").set_index(["task", "prompt_format"])["value"]
    command = [Path(sys.executable).with_name("lm_eval"), "--model", "hf", "--include_path", ROOT / "eval" / "tasks"]
    command += ["--model_args", f"pretrained={family / 'step-20'},dtype=float32", "--device", "cpu"]
    formats = ("", "_instruct", "_io")
    command += ["--tasks", ",".join(f"amuro_{name}{each}" for name in names for each in formats)]
    command += ["--num_fewshot", "2", "--limit", "12", "--batch_size", "4", "--output_path", tmp_path / "stock"]
    env = {**os.environ, "AMURO_DATA_DIR": str(mirror)}
    done = subprocess.run([*map(str, command)], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = (tmp_path / "stock").rglob("results_*.json")
    stock = json.loads(path.read_text())["results"]
    seen = 0
    for name in names:
        for each in formats:
            metric = "rouge_l,none" if name == "xsum" else "accuracy,none"
            value = ours[name, each.removeprefix("_") or "default"]
            assert stock[f"amuro_{name}{each}"][metric] == pytest.approx(value, abs=1e-12)
            seen += 1
    assert seen == 9


def test_every_cell_is_tracked_under_its_own_runs_folder(tmp_path, monkeypatch):
    """Two --runs in one process: W&B's folders follow; a folder that the user has set stays."""
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "mine"))
    for name in ("a", "b"):
        cell = Cell("toy", "toy@1", 1, 1.0, "sha256:0")
        write_record(cell.folder(tmp_path / name), cell, weights="sha256:0")
        with tracking.run(cell, cell.folder(tmp_path / name), enabled=True) as opened:
            assert Path(opened.dir).is_relative_to(tmp_path / name / "wandb")
            assert os.environ["WANDB_DATA_DIR"] == str(tmp_path / name / "wandb" / "data")
            assert os.environ["WANDB_CACHE_DIR"] == str(tmp_path / "mine")
            assert (opened.project, opened.group, opened.config["base"]) == ("amuro", "toy base", "sha256:0")


def test_wandb_records_the_cell_offline(cell):
    """The offline run's own file, read by W&B's own reader: config, name, group, tags and the values."""
    (folder,) = (cell.parent / "wandb").glob("offline-run-*")
    done = subprocess.run(
        [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--summary", "--json", str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    record = json.loads(done.stdout)
    text = json.dumps(record)
    assert read_record(cell)["cell_id"] in text and record["name"] == "toy@10 sft mnli lr 0.001 seed 42"
    values = results.load(cell.parent).set_index("task")["value"]
    for task, value in values.items():
        assert record["summary"][f"eval/{task}/default/0shot/token_prob/accuracy"] == pytest.approx(value)
    examples = sum(len(pd.read_parquet(path)) for path in cell.glob("units/*"))
    assert record["summary"]["evaluation/examples"] == examples and record["summary"]["evaluation/seconds_left"] == 0
    assert record["summary"]["evaluation/examples_per_s"] > 0
    assert not list(cell.parent.rglob("wandb/data/artifacts/staging/*"))
