"""Units through the engine: methods from one pass, chat templates, kill and resume, other weights, bad input."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT, forked, make_checkpoint, write_jsonl
from test_settings import eval_run, train_sft
from transformers import AutoTokenizer

from amuro import evaluation, results, tracking
from amuro.cells import Unit, read_record
from amuro.engine import Engine
from amuro.tasks import METHODS
from amuro.units import read_examples, read_unit, write_unit

CHAT = """{% for m in messages %}<|{{ m['role'] }}|>
{{ m['content'] }}{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}
{% endfor %}{% if add_generation_prompt %}<|assistant|>
{% endif %}"""


def places(mirror: Path, runs: Path) -> list[str]:
    return ["--data_dir", str(mirror), "--runs", str(runs), "--report_to", "none", "--limit", "8", "--num_shots", "2"]


def test_methods_of_a_task_come_from_one_pass(family, mirror, tmp_path, monkeypatch, capsys):
    """The paper's Table 3 in one command: BASE and tuned, every method, one pass per task; equal to passes apart."""
    passes, answer = [], Engine.answer
    monkeypatch.setattr(Engine, "answer", lambda self, *given, **more: passes.append(1) or answer(self, *given, **more))
    tuned = train_sft.main(
        ["--checkpoint", f"{family}@20", "--dataset", "mnli", "--num_train_rows", "16", "--learning_rate", "1e-3"]
        + ["--keep_weights", "all", "--tasks", "none", *places(mirror, tmp_path)]
    )
    asks = ["--checkpoint", f"{family}@20", "--tasks", "mnli_matched,rte,paws,stsb", *places(mirror, tmp_path)]
    methods = ",".join(METHODS)
    (base, also) = eval_run.main([*asks, "--cell", read_record(tuned)["cell_id"], "--methods", methods])
    assert also == tuned and len(passes) == 2 * 4
    table = results.load(tmp_path)
    assert len(table) == 2 * 4 * 4 and set(table["method"]) == set(METHODS)
    assert set(zip(table["stage"], table["task"], table["relation"], strict=True)) >= {
        ("base", "rte", ""),
        ("sft", "rte", "ood"),
        ("sft", "paws", "cross_task"),
    }
    free = table[table["method"] == "free"]
    assert (free["n_unparsable"] > 0).any() and (table.drop(free.index)["n_unparsable"] == 0).all()
    shown = capsys.readouterr().out
    assert all(method in shown for method in METHODS) and "stsb" in shown
    for method in METHODS:
        eval_run.main([*asks[:-8], *places(mirror, tmp_path / "apart"), "--methods", method])
    apart = results.load(tmp_path / "apart").set_index(["task", "method"])["value"]
    together = table[table["stage"] == "base"].set_index(["task", "method"])["value"]
    assert apart.sort_index().equals(together.sort_index()) and len(apart) == 16


def test_cells_of_one_name_have_a_line_each_and_a_run_that_was_cut_off_is_finished(
    family, mirror, tmp_path, monkeypatch, capsys
):
    common = ["--checkpoint", f"{family}@20", "--dataset", "mnli", "--num_train_rows", "16", "--keep_weights", "all"]
    common += ["--tasks", "mnli_matched", *places(mirror, tmp_path)]
    cells = [train_sft.main([*common, "--learning_rate", rate]) for rate in ("1e-3", "1e-5")]
    given = ["--cell", ",".join(map(str, cells)), "--tasks", "mnli_matched", *places(mirror, tmp_path)]
    eval_run.main(given)
    shown = capsys.readouterr().out
    assert all(f"\n{folder.name} " in shown for folder in cells)
    repeated = []
    monkeypatch.setattr(tracking, "repeat", lambda cell, folder, **_: repeated.append(folder))
    (cells[1] / tracking.UNFINISHED).write_text('{"run": "abc"}')
    eval_run.main(given)
    assert repeated == [cells[1]]


def test_a_template_that_is_tried_is_taken_back_also_where_it_does_not_fit(family, mirror):
    unit = Unit("mnli_matched", "default", 4, 42, "token_prob", "float32")
    asked, seen = evaluation.Request((unit,), str(mirror), None, None), []

    def prepare(tokenizer):
        seen.append(tokenizer)
        tokenizer.chat_template = CHAT
        raise ValueError("too long")

    with pytest.raises(ValueError, match="too long"):
        evaluation.check_model(family / "step-10", asked, [unit], prepare)
    assert seen[0].chat_template is None


def test_what_a_task_does_not_have_is_not_asked_of_it(family, mirror, tmp_path):
    """`all` with two formats and two methods: benchmarks in their one format, text and choices by their one method."""
    asks = ["--checkpoint", f"{family}@20", "--tasks", "all", "--prompt_format", "default,io"]
    eval_run.main([*asks, "--methods", "token_prob,free", *places(mirror, tmp_path)])
    table = results.load(tmp_path)
    assert len(table) == 6 * 2 * 1 + 7 * 2 * 2 + 6 * 2  # text, labels x methods, choices x metrics
    choices = table[table["method"] == "loglikelihood"]
    assert set(choices["prompt_format"]) == {"default"} and set(choices["metric"]) == {"accuracy", "accuracy_norm"}
    examples = results.load_examples(tmp_path)
    chance = examples.groupby("task")["chance"].mean()
    assert chance["boolq"] == 0.5 and chance["arc_easy"] == pytest.approx(0.25, abs=0.1) and pd.isna(chance["xsum"])


def test_another_draw_of_shots_is_another_unit(family, mirror, tmp_path):
    asks = ["--checkpoint", f"{family}@20", "--tasks", "mnli_matched", *places(mirror, tmp_path)]
    (folder,) = eval_run.main(asks)
    eval_run.main([*asks, "--shot_seed", "7"])
    assert sorted(results.load(tmp_path)["shot_seed"]) == [7, 42] and len(list(folder.glob("units/*"))) == 2


@pytest.fixture(scope="module")
def chat_family(tmp_path_factory) -> Path:
    """A family whose tokenizer has a chat template, as an instruction-tuned model's."""
    folder = tmp_path_factory.mktemp("chat")
    make_checkpoint(folder / "step-1", seed=5)
    tokenizer = AutoTokenizer.from_pretrained(folder / "step-1")
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder / "step-1")
    points = [{"step": 1, "tokens_b": 0.0, "path": "step-1"}]
    (folder / "family.json").write_text(json.dumps({"name": "chat", "checkpoints": points}))
    return folder


@pytest.mark.slow
def test_chat_prompts_equal_the_stock_command(chat_family, mirror, tmp_path):
    """`--apply_chat_template` against `lm_eval --apply_chat_template`; plain and chat scores are different rows."""
    tasks = ("mnli_matched", "paws", "xsum", "arc_easy")
    asks = ["--checkpoint", f"{chat_family}@1", "--tasks", ",".join(tasks), *places(mirror, tmp_path / "runs")]
    eval_run.main([*asks, "--apply_chat_template", "--methods", "token_prob,free"])
    command = [Path(sys.executable).with_name("lm_eval"), "--model", "hf", "--include_path", ROOT / "eval" / "tasks"]
    command += ["--model_args", f"pretrained={chat_family / 'step-1'},dtype=float32", "--device", "cpu"]
    command += ["--tasks", ",".join(f"amuro_{name}" for name in tasks), "--apply_chat_template", "--log_samples"]
    command += ["--metadata", '{"methods": "token_prob,free"}', "--output_path", tmp_path / "stock"]
    command += ["--num_fewshot", "2", "--limit", "8", "--batch_size", "4"]
    env = {**os.environ, "AMURO_DATA_DIR": str(mirror)}
    done = subprocess.run([*map(str, command)], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = (tmp_path / "stock").rglob("results_*.json")
    stock, seen = json.loads(path.read_text())["results"], 0
    for row in results.load(tmp_path / "runs").itertuples():
        name = row.metric + ("_free" if row.method == "free" else "")
        assert stock[f"amuro_{row.task}"][f"{name},none"] == pytest.approx(row.value, abs=1e-9), (row.task, name)
        assert row.apply_chat_template
        seen += 1
    assert seen == 2 + 2 + 1 + 2
    (sample,) = (tmp_path / "stock").rglob("samples_amuro_mnli_matched_*.jsonl")
    prompt = json.loads(sample.read_text().splitlines()[0])["arguments"]["gen_args_0"]["arg_0"]
    assert prompt.startswith("<|user|>\n### Input_1: ") and prompt.count("<|assistant|>\n") == 3
    eval_run.main(asks)
    table = results.load(tmp_path / "runs")
    assert sorted(table[table["task"] == "xsum"]["apply_chat_template"]) == [False, True]


def test_a_killed_evaluation_goes_on_and_is_the_same_to_the_byte(family, mirror, tmp_path):
    """SIGKILL before the first unit, between units, and between the methods of one pass."""
    asks = ["--checkpoint", f"{family}@20", "--tasks", "id", "--methods", "token_prob,free", *places(mirror, "")]
    eval_run.main([*asks, "--runs", str(tmp_path / "whole")])
    units = sorted((tmp_path / "whole").glob("*/units/*.parquet"))
    assert len(units) == 3 + 3 * 2
    kills = 0
    for wanted in (0, 3, 4):
        process = forked(eval_run.main, [*asks, "--runs", str(tmp_path / "cut")])
        seen = lambda: len(list((tmp_path / "cut").glob("*/units/*.parquet")))  # noqa: E731
        deadline = time.time() + 120
        while process.is_alive() and time.time() < deadline:
            if seen() >= wanted and (wanted or list((tmp_path / "cut").glob("*/run.json"))):
                break
            time.sleep(0.002)
        assert process.is_alive()
        process.kill()
        process.join()
        kills += 1
    assert kills == 3 and 4 <= seen() < 9
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cut").glob("*/units/*.parquet")}
    eval_run.main([*asks, "--runs", str(tmp_path / "cut")])
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in before.items()), "a finished unit was run again"
    for path in units:
        assert (tmp_path / "cut" / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes()


def test_results_of_other_weights_are_not_served(family, mirror, tmp_path, capsys):
    """A unit that was scored on other weights (here: it says so) is scored anew; equal weights keep it."""
    arguments = [
        "--checkpoint",
        f"{family}@10",
        "--dataset",
        "paws",
        "--num_train_rows",
        "16",
        "--learning_rate",
        "1e-3",
    ]
    arguments += ["--tasks", "paws", *places(mirror, tmp_path)]
    folder = train_sft.main(arguments)
    (unit,) = folder.glob("units/*")
    written, record = unit.stat().st_mtime_ns, read_record(folder)
    train_sft.main([*arguments, "--keep_weights", "all"])  # trains again: the weights were removed
    assert read_record(folder)["weights"] == record["weights"] and unit.stat().st_mtime_ns == written
    said = read_unit(unit)
    said["about"]["scored"]["weights"] = "sha256:0"
    write_unit(unit, said["rows"], read_examples(unit), said["about"])
    capsys.readouterr()
    train_sft.main(arguments)
    assert "was scored on other rows or weights, evaluated again" in capsys.readouterr().out
    assert read_unit(unit)["about"]["scored"]["weights"] == read_record(folder)["weights"] == record["weights"]


def test_bad_input_is_one_line_before_the_model_is_loaded(family, mirror, tmp_path, monkeypatch):
    from amuro import checkpoints

    monkeypatch.setattr(checkpoints, "load", lambda *_, **__: pytest.fail("the model was loaded"))
    bare = tmp_path / "bare"
    shutil.copytree(family, bare)
    for path in bare.glob("step-20/*tokenizer*"):
        path.unlink()
    short = tmp_path / "short"
    make_checkpoint(short / "step-20", context=48)
    shutil.copy(family / "family.json", short)
    shutil.copytree(short / "step-20", short / "step-10")
    few = tmp_path / "few"
    shutil.copytree(mirror, few)
    rows = [json.loads(line) for line in (few / "glue_mnli" / "train.jsonl").read_text().splitlines()]
    write_jsonl(few / "glue_mnli" / "train.jsonl", rows[:3])
    base = ["--checkpoint", f"{family}@20", "--runs", str(tmp_path / "runs"), "--report_to", "none"]
    cases = [
        ([*base, "--tasks", "mnli_match"], "unknown mnli_match.*did you mean mnli_matched"),
        ([*base, "--methods", "token_probs"], "--methods 'token_probs': unknown; did you mean token_prob"),
        (
            [*base, "--tasks", "mnli_matched", "--data_dir", str(few)],
            "--num_shots 4: the pool of shots of mnli_matched has 3",
        ),
        ([*base, "--data_dir", str(tmp_path / "no")], "--data_dir .*no: no such folder"),
        (
            [*base, "--data_dir", str(mirror), "--apply_chat_template"],
            "the tokenizer of .*step-20 has no chat template",
        ),
        ([*base, "--data_dir", str(mirror), "--checkpoint", f"{bare}@20"], "no tokenizer there"),
        (
            [*base, "--data_dir", str(mirror), "--checkpoint", f"{short}@20", "--tasks", "xsum"],
            "does not fit the model's context of 48 tokens",
        ),
    ]
    for argv, told in cases:
        with pytest.raises(ValueError, match=told) as caught:
            eval_run.main(argv)
        assert len(str(caught.value)) < 500
    assert len(cases) == 7 and not (tmp_path / "runs").exists()
