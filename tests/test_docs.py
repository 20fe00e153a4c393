"""What the documents say is so: their commands can be typed, their links lead somewhere, the tests they name exist.

A command is parsed by the parser of the program that it names (typed.py), and executed where it needs no hub, GPU, W&B
or cluster, and no minutes.
"""

import ast
import json
import os
import random
import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer
import yaml
from conftest import ROOT, run, sentence, write_jsonl
from test_own_dataset import insert
from test_own_dataset import run as run_in
from typed import commands, parse, program

from amuro import cli, results
from amuro.prompts import PAPER, PROMPT_FORMATS
from amuro.recipes import PUBLISHED
from amuro.registry.families import families, family
from amuro.tasks import DATASETS, TASKS
from analysis import stats

PAGES = sorted((ROOT / "docs").glob("*.md"))
TEXTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "eval/tasks/README.md", "bench/README.md")] + PAGES
SCRIPTS = sorted([*(ROOT / "sweeps").rglob("*.yaml"), *(ROOT / "sweeps").rglob("*.sbatch")])
WRITTEN = ("eval/tasks/snli.yaml", "eval/tasks/ag_news.yaml")  # by who follows a page; its test does


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


# ---- commands

LEAST = {"README.md": 30, "CONTRIBUTING.md": 5, "eval/tasks/README.md": 5, "bench/README.md": 5}
LEAST |= {"docs/adding.md": 7, "docs/running.md": 25, "docs/protocol.md": 2}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_of_a_page_parses(path, tmp_path):
    (tmp_path / "mine.jsonl").write_text("{}")
    seen = [parse(each.replace("mine.jsonl", str(tmp_path / "mine.jsonl"))) for each in commands(path)]
    assert len(seen) >= LEAST.get(str(path.relative_to(ROOT)), 0), seen


def test_no_command_is_lost():
    assert sum(len(commands(path)) for path in TEXTS + SCRIPTS) >= 160


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_on_top_of_a_sweep_parses(path):
    seen = [parse(each) for each in commands(path)]
    grid = path.parent.name == "sweeps"
    assert len(seen) >= (5 if grid else 1) and (not grid or {"amuro", "wandb", "sbatch"} <= set(seen)), seen


WRONG = {
    "make dmeo": "dmeo",
    "amuro chekpoints list olmo-1b": "No such command 'chekpoints'",
    "amuro checkpoints list olmo-1c": "no family 'olmo-1c'",
    "amuro run sweeps/olmo_chpts.yaml": "no sweeps/olmo_chpts.yaml",
    "amuro run sweeps/olmo_ckpts.yaml --only dataset=mnlii": "nothing has it",
    "amuro run sweeps/olmo_ckpts.yaml --processs 2": "No such option",
    "python train_sft.py --checkpoint olmo-1b@1000 --dataset mnlii": "did you mean mnli",
    "python train_sft.py --checkpoint olmo-1c@1000 --dataset mnli": "olmo-1c@1000: no such family",
    "python train_sft.py ... --learning_rat 1": "did you mean learning_rate",
    "python -m eval.run --checkpoint olmo-1b@1000 --tasks idd": "unknown idd",
    "python -m analysis.report --ruins runs": "unrecognized arguments: --ruins",
    "python bench/eval_speed.py --parts steps": "required: --data_dir",
    "lm_eval --model hf --task_s x": "unrecognized arguments: --task_s",
    "lm_eval --model hf --tasks amuro_rtee": "no task or tag amuro_rtee",
    "wandb agnet ENTITY/amuro/ID": "No such command 'agnet'",
    "sbatch sweeps/slurm/rya.sbatch sweeps/olmo_ckpts.yaml": "no sweeps/slurm/rya.sbatch",
    "sbatch sweeps/slurm/ray.sbatch sweeps/olmo_ckpts.yaml --bogus": "No such option",
    "accelerate launch --config_file sweeps/accelerate/dpp.yaml train_sft.py": "no sweeps/accelerate/dpp.yaml",
    "export AMURO_DATADIR=mirror": "AMURO_DATADIR is read nowhere",
}


@pytest.mark.parametrize("command", WRONG)
def test_a_command_that_is_wrong_is_found(command, capsys):
    with pytest.raises((Exception, SystemExit)) as found:
        parse(command)
    assert WRONG[command] in f"{found.value}{capsys.readouterr().err}"


OFFLINE = re.compile(r"amuro (plan|status) sweeps/|amuro run .*--dry_run|amuro checkpoints families")


def test_commands_that_need_nothing_run(tmp_path):
    """Those of all pages that need no hub, GPU or cluster and write nothing, as they are typed, where no runs are."""
    for name in ("sweeps", "train_sft.py", "train_instruct.py", "eval"):
        os.symlink(ROOT / name, tmp_path / name)
    found = dict.fromkeys(each.split(" > ")[0].split(" #")[0] for path in TEXTS for each in commands(path))
    typed = [each for each in found if OFFLINE.match(each) and "nursery" not in each]
    for command in typed:
        code = f"import os; os.chdir({str(tmp_path)!r}); from amuro.cli import app; app({shlex.split(command)[1:]!r})"
        done = run("-c", code)
        assert done.returncode == 0 and len(done.stdout) > 50, f"{command}\n{done.stderr[-2000:]}"
    assert len(typed) >= 6, typed


SMALL = {  # what makes a command of the nursery a matter of seconds
    "train_sft.py": ["--num_train_rows", "16", "--limit", "4", "--report_to", "none"],
    "train_instruct.py": ["--limit", "4", "--report_to", "none"],
    "-m eval.run": ["--limit", "4", "--report_to", "none"],
}


@pytest.mark.slow
def test_commands_of_the_nursery_run(tmp_path, monkeypatch):
    """Those that need nothing but a nursery, where a tiny one was raised: each makes a cell."""
    monkeypatch.chdir(tmp_path)
    typer.main.get_command(cli.app).main(["nursery", "--preset", "tiny"], standalone_mode=False)
    found = dict.fromkeys(each for path in TEXTS + SCRIPTS for each in commands(path) if "nursery@" in each)
    for command in found:
        name, rest = re.fullmatch(r"python (-m eval\.run|\S+\.py) (.*)", command).groups()
        words = shlex.split(re.sub(r"nursery@\d+", "nursery@8", rest))
        program("eval/run.py" if name.startswith("-m") else name).main([*words, *SMALL[name]])
    made = [json.loads(path.read_text())["cell"]["stage"] for path in Path("runs").glob("*/run.json")]
    assert len(found) >= 2 and {"sft", "instruct"} <= set(made)


# ---- adding.md, executed


def blocks(language: str) -> list[str]:
    text = (ROOT / "docs" / "adding.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def test_the_family_of_adding_md_is_a_family(tmp_path, monkeypatch):
    (tmp_path / "my_llama.yaml").write_text(blocks("yaml")[0])
    mine = family(str(tmp_path / "my_llama.yaml"))
    assert mine.name == "my-llama" and mine.repo == "me/my-llama-checkpoints" and mine.computed
    written = json.loads(blocks("json")[0])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "family.json").write_text(json.dumps(written))
    assert family(str(tmp_path / "mine")).name == "mine" and len(blocks("json")) == 2


def test_the_conversation_of_adding_md_can_be_trained_on(tmp_path):
    from amuro.data import conversation_rows

    (tmp_path / "mine.jsonl").write_text(blocks("json")[1])
    loaded = conversation_rows(str(tmp_path / "mine.jsonl"), None, 2000, 1.0, 42)
    assert len(loaded.rows) == 1 and not loaded.refused


@pytest.mark.slow
def test_the_task_of_adding_md_is_evaluated(family, tmp_path):
    """Its blocks go into a copy of the programs, where it says, and its command is typed there."""
    copy = tmp_path / "copy"
    for name in ("amuro", "eval", "sweeps"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    template, fields, source, task = blocks("python")
    prompts, tasks = copy / "amuro" / "prompts.py", copy / "amuro" / "tasks.py"
    text = insert(prompts.read_text(encoding="utf-8"), "}\nBENCHMARK = {", template)
    prompts.write_text(insert(text, '    "arc": ("question",)', fields), encoding="utf-8")
    text = insert(tasks.read_text(encoding="utf-8"), "\n_TASKS = (\n", source)
    tasks.write_text(insert(text, ")\nTASKS = {", f"    {task.strip()},\n"), encoding="utf-8")
    (copy / "eval" / "tasks" / "ag_news.yaml").write_text(blocks("yaml")[1], encoding="utf-8")
    rng = random.Random(0)
    for split in ("train", "test"):
        rows = [{"text": sentence(rng), "label": n % 4} for n in range(16)]
        write_jsonl(copy / "mirror" / "ag_news" / f"{split}.jsonl", rows)
    (command,) = [each for each in commands(ROOT / "docs" / "adding.md") if "ag_news" in each]
    run_in(copy, *shlex.split(command.replace("olmo-1b@342000", f"{family}@10"))[1:])
    table = results.load(copy / "runs")
    assert set(table["task"]) == {"ag_news"} and set(table["num_shots"]) == {4} and set(table["n"]) == {6}


# ---- what else they say


def test_links_lead_somewhere():
    seen = 0
    for path in [*TEXTS, ROOT / "CHANGELOG.md"]:
        text = path.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text):
            if target.startswith(("https://", "http://")):
                continue
            name, _, anchor = target.partition("#")
            place = (path.parent / name).resolve() if name else path
            assert place.exists() and place.is_relative_to(ROOT), f"{path.name}: {target}"
            if anchor:
                titles = re.findall(r"^#+ (.+)$", place.read_text(encoding="utf-8"), re.M)
                assert anchor in [re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in titles], target
            seen += 1
    assert seen >= 12


def test_files_that_are_named_exist():
    """Of paths in backticks; what is made when something runs begins with RUNS, runs or a placeholder."""
    seen = 0
    for path in [*TEXTS, ROOT / "CHANGELOG.md"]:
        for name in re.findall(
            r"`((?:amuro|analysis|bench|docs|eval|sweeps|tests)/[\w./-]*)`", path.read_text("utf-8")
        ):
            if name not in WRITTEN:
                assert (ROOT / name).exists(), f"{path.name}: {name}"
                seen += 1
    assert seen >= 20


def test_the_tests_that_guard_against_traps_exist():
    text = (ROOT / "docs" / "traps.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", text)
    traps = re.split(r"^- ", text.partition("\n## ")[2], flags=re.M)[1:]
    for file, name in named:
        tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{file}::{name}"
    assert len(traps) >= 35 and all("::test_" in trap for trap in traps) and len(set(named)) == len(named) >= 40


def table(page: str, first: str) -> list[list[str]]:
    """The rows of the table whose head begins with `first`."""
    lines = (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(first))
    end = next(n for n in range(start, len(lines) + 1) if n == len(lines) or not lines[n].startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start + 2 : end]]


def test_the_protocol_shows_the_prompts_that_are_used():
    shown = {
        row[0]: [cell.strip("`").replace("\\n", "\n") for cell in row[1:]] for row in table("protocol.md", "| family |")
    }
    assert shown == {name: [each[form] for form in PROMPT_FORMATS] for name, each in PAPER.items()}


def test_the_protocol_shows_the_published_settings_and_the_margins():
    text = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    published = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
    rate = lambda number: f"{number:.0e}".replace("e-0", "e-")  # noqa: E731
    for name, column in (("olmo-1b", 1), ("llama3-8b", 2)):
        sft = published[name]["sft"]
        said = dict((row[0], row) for row in table("protocol.md", "| | OLMo-1B |"))["fine-tuning (SFT)"][column]
        assert (
            f"{sft['num_train_rows']:,} rows, {sft['num_train_epochs']:.0f} epochs, batch {sft['batch_size']}" in said
        )
        assert f"rate {rate(sft['learning_rate'])}" in said
        assert all(f"{data}: {rate(own['learning_rate'])}" in said for data, own in sft.get("per_dataset", {}).items())
    assert (stats.MARGIN, stats.ALPHA) == (0.02, 0.05) and "margin 0.02, α = .05" in text


def test_the_protocol_names_every_licence():
    said = {}
    for licence, names in table("protocol.md", "| licence |"):
        said |= dict.fromkeys(re.findall(r"[a-z]\w+", names), licence)
    sources = {n: each.source for n, each in {**DATASETS, **TASKS}.items() if not n.startswith("mnli_")}
    assert {name: said.get(name) for name in sources} == {name: source.licence for name, source in sources.items()}
    text = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    others = {each.licence for each in families().values()} - {"Apache-2.0"}
    assert len(others) == 3 and all(licence in text for licence in others)


def test_the_task_readme_names_every_task_and_the_tree_every_file():
    tasks = (ROOT / "eval" / "tasks" / "README.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in tasks for name in TASKS) and len(TASKS) == 19
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [path.name for path in (ROOT / "amuro").glob("[a-z]*.py") if path.name not in readme]
    assert not missing


def test_the_drawing_is_sound():
    from xml.etree import ElementTree

    root = ElementTree.parse(ROOT / "docs" / "scheme.svg").getroot()
    text = "".join(root.itertext())
    assert all(word in text for word in ("BASE", "SFT", "instruct", "id", "ood", "cross-task", "benchmark"))
    assert "prefers-color-scheme: dark" in text and "http" not in re.sub(r'xmlns="[^"]+"', "", text)


def test_checks_elsewhere_are_those_of_the_repository():
    """GitHub runs .ci/run itself, on the same Python; hooks have the pinned ruff."""
    (job,) = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert [each["with"]["python-version"] for each in job["steps"] if "with" in each] == ["3.11"]
    (hooks,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    pin = re.search(r"^ruff==(\S+)", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.M)[1]
    assert hooks["rev"] == f"v{pin}" and [each["id"] for each in hooks["hooks"]] == ["ruff-check", "ruff-format"]
