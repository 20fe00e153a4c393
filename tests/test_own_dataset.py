"""A user's own dataset, exactly as eval/tasks/README.md says: its blocks go into a copy, which evaluates and trains."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, sentence, write_jsonl

from amuro import results
from amuro.data import UNUSABLE
from amuro.tasks import TASKS


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language in the README's section, in order."""
    section = (ROOT / "eval" / "tasks" / "README.md").read_text(encoding="utf-8").partition("## Your own dataset")[2]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.M | re.S)


def insert(text: str, before: str, block: str) -> str:
    assert text.count(before) == 1, before
    return text.replace(before, block + before)


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A copy of the programs with the README's blocks where it says, and a small mirror of the new set."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("amuro", "eval", "sweeps"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train_sft.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    source, task, dataset = blocks("python")
    (yaml,) = blocks("yaml")
    specification = folder / "amuro" / "tasks.py"
    text = insert(specification.read_text(encoding="utf-8"), "\n_TASKS = (\n", source)
    text = insert(text, ")\nTASKS = {", f"    {task.strip()},\n")
    specification.write_text(insert(text, ")\nDATASETS = {", f"    {dataset.strip()},\n"), encoding="utf-8")
    (folder / "eval" / "tasks" / "snli.yaml").write_text(yaml, encoding="utf-8")
    rng = random.Random(0)
    for split in ("train", "test"):
        rows = [{"premise": sentence(rng), "hypothesis": sentence(rng), "label": n % 4 - 1} for n in range(24)]
        write_jsonl(folder / "mirror" / "snli" / f"{split}.jsonl", rows)
    return folder


def run(copy: Path, *command: str) -> str:
    """What a command typed in the copy prints; it must succeed."""
    env = {**os.environ, "PYTHONPATH": str(copy)}
    places = ["--data_dir", "mirror", "--runs", "runs", "--limit", "6", "--report_to", "none"]
    done = subprocess.run(
        [sys.executable, *command, *places], cwd=copy, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readmes_dataset_is_new():
    assert "snli" not in TASKS and len(blocks("python")) == 3 and len(blocks("yaml")) == 1
    evaluated, trained = blocks("sh")[0].splitlines()
    assert "--tasks snli" in evaluated and "--dataset snli" in trained


@pytest.mark.slow
def test_it_is_evaluated(copy, family):
    told = run(copy, "-m", "eval.run", "--checkpoint", f"{family}@10", "--tasks", "snli", "--num_shots", "2")
    assert "6 rows without a gold label" in told
    table = results.load(copy / "runs")
    assert set(table["task"]) == {"snli"} and set(table["metric"]) == {"accuracy"} and set(table["n"]) == {6}
    assert set(table["num_shots"]) == {2} and set(table["stage"]) == {"base"}


@pytest.mark.slow
def test_it_is_trained_on(copy, family):
    flags = ["--num_shots", "2", "--num_train_epochs", "1", "--num_train_rows", "8", "--batch_size", "2"]
    flags += ["--learning_rate", "1e-3", "--tasks", "id"]
    run(copy, "train_sft.py", "--checkpoint", f"{family}@10", "--dataset", "snli", *flags)
    table = results.load(copy / "runs")
    tuned = table[table["stage"] == "sft"]
    assert set(tuned["task"]) == {"snli"} and set(tuned["dataset"]) == {"snli"} and set(tuned["relation"]) == {"id"}
    (record,) = [json.loads(path.read_text()) for path in (copy / "runs").glob("*-sft-snli-*/run.json")]
    assert record["training"]["rows"] == 8 and record["training"]["rows_refused"] == {UNUSABLE: 6}
