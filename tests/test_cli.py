"""The `amuro` command and the house's rules that a machine can check."""

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, run
from test_plan import end, sweep
from test_results import put

from amuro.programs import load_program
from amuro.running.grids import read

LIGHT = [["--help"], ["nursery", "--help"], ["rates", "--help"], ["checkpoints", "--help"], ["checkpoints", "families"]]
LIGHT += [["plan", "--help"], ["run", "--help"], ["status", "--help"], ["sync", "--help"]]
LIGHT += [["plan", "sweeps/olmo_base.yaml"], ["status", "sweeps/olmo_base.yaml"]]
LIGHT += [["run", "sweeps/olmo_base.yaml", "--dry_run"]]


def amuro(*arguments, **env) -> subprocess.CompletedProcess:
    command = [Path(sys.executable).with_name("amuro"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, check=False)


@pytest.mark.parametrize("arguments", LIGHT)
def test_light_commands_answer_without_torch(arguments):
    code = f"import sys; sys.argv = ['amuro', *{arguments!r}]\nfrom amuro.cli import app\n"
    code += "try: app()\nexcept SystemExit as done: assert not done.code\n"
    code += "assert not {'torch', 'transformers', 'wandb', 'ray'} & set(sys.modules)"
    done = run("-c", code)
    assert done.returncode == 0 and len(done.stdout) > 50, done.stderr


def test_checkpoints_of_a_family_are_listed(family, tmp_path):
    lines = amuro("checkpoints", "list", family).stdout.splitlines()
    assert [line.split() for line in lines[1:]] == [["10", "1e-05", "step-10"], ["20", "2e-05", "step-20"]]
    done = amuro("checkpoints", "list", "olmo-1c")
    assert done.returncode == 2 and done.stderr.startswith("error: no family 'olmo-1c'; known: olmo-1b")
    assert "did you mean olmo-1b?" in done.stderr and done.stderr.count("\n") == 1


def test_status_counts_cells_and_names_gaps(tmp_path):
    put(tmp_path, 1, "", None, ["paws"])
    put(tmp_path, 2, "", None, ["paws", "qqp"])
    done = amuro("status", "--runs", tmp_path)
    assert done.returncode == 0 and "2 cells, 3 of 4 units" in done.stdout
    assert "missing: toy@1 base qqp default 0 42 token_prob float32" in done.stdout
    done = amuro("status", "--runs", tmp_path / "nowhere")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "no complete cell there" in done.stderr


def test_a_dry_run_is_a_script_that_says_what_would_be_skipped(tmp_path):
    path = sweep(tmp_path, "checkpoint: {value: olmo-1b@1000}\ndataset: {values: [mnli, paws, xsum]}")
    done, broken, _ = read([path])
    end(tmp_path / "runs", done)
    end(tmp_path / "runs", broken, "failed")
    shown = amuro("run", path, "--runs", tmp_path / "runs", "--dry_run")
    command = "python train_sft.py --checkpoint=olmo-1b@1000 --dataset="
    place = f" --runs={tmp_path / 'runs'}"
    lines = [f"# complete: {command}mnli{place}", f"# failed: {command}paws{place}", f"{command}xsum{place}"]
    assert shown.stdout.splitlines() == lines and shown.returncode == 0, shown.stderr
    assert amuro("run", path, "--runs", tmp_path / "runs", "--dry_run", "--only", "dataset=mnli").stdout.startswith("#")
    again = amuro("run", path, "--runs", tmp_path / "runs", "--dry_run", "--retry_failed").stdout.splitlines()
    assert again[1] == f"{command}paws{place}"


def test_a_run_of_what_is_complete_or_wrong_starts_nothing(tmp_path):
    path = sweep(tmp_path, "checkpoint: {value: olmo-1b@1000}\ndataset: {value: mnli}")
    end(tmp_path / "runs", read([path])[0])
    done = amuro("run", path, "--runs", tmp_path / "runs")
    assert done.returncode == 0 and "0 done, 1 complete before, 0 failed, 0 left" in done.stdout
    for parameters, told in (
        ("checkpoint: {value: olmo-1c@1000}\ndataset: {value: mnli}", "did you mean olmo-1b?"),
        (f"checkpoint: {{value: olmo-1b@1}}\ndataset: {{value: mnli}}\ndata_dir: {{value: {tmp_path}}}", "train.jsonl"),
        ("checkpoint: {value: olmo-1b@1}\ndataset: {value: no}", "reads no as true or false"),
    ):
        done = amuro("run", sweep(tmp_path, parameters), "--runs", tmp_path / "runs")
        assert done.returncode == 2 and done.stderr.startswith("error: ") and told in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "amuro.cli", "plan", "sweeps/olmo_chpts.yaml"],
        ["-m", "amuro.cli", "run", "sweeps/olmo_ckpts.yaml", "--only", "dataset=mnlii"],
        ["-m", "analysis.report", "--runs", "nowhere"],
        ["-m", "amuro.demo", "--out", "nowhere"],
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(command):
    started = time.perf_counter()
    done = run(*command)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ") and time.perf_counter() - started < 60


@pytest.mark.parametrize("command", [["train_sft.py"], ["-m", "analysis.report"]])
def test_help_teaches(command):
    done = run(*command, "--help")
    assert done.returncode == 0 and "--runs" in done.stdout and "python" in done.stdout


@pytest.mark.parametrize("script", ["train_instruct.py", "eval/run.py"])
def test_the_other_scripts_help_teaches_too(script, capsys):
    with pytest.raises(SystemExit) as left:
        load_program(script).main(["--help"])
    told = capsys.readouterr().out
    assert not left.value.code and "--runs" in told and "python" in told


def test_imports_point_one_way():
    """amuro imports none of analysis, eval, bench and the scripts; nothing imports eval."""
    seen = 0
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).parts
        if parts[0] not in ("amuro", "analysis", "eval", "bench", "train_sft.py", "train_instruct.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            roots = {name.split(".")[0] for name in names}
            assert "eval" not in roots, path
            if parts[0] == "amuro":
                assert not roots & {"analysis", "bench", "train_sft", "train_instruct"}, path
        seen += 1
    assert seen >= 20


def test_every_file_says_what_it_is_for():
    files = [path for folder in ("amuro", "analysis", "bench") for path in (ROOT / folder).rglob("*.py")]
    files += [ROOT / "train_sft.py", ROOT / "train_instruct.py", ROOT / "eval" / "run.py"]
    for path in files:
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path}: {node.name}"
    assert len(files) >= 20
