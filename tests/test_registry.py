"""`amuro checkpoints`: what exists, a selection, an audit and a download, from a hub on the loopback or a folder."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import SHARED, needs_shared, run
from hub import Hub, commit_of

from amuro.registry.families import families

LIST = SHARED.parent / "paper" / "OLMo-1B.csv"
COMMANDS = ("families", "list", "select", "audit", "fetch")


def checkpoints(*arguments, **env) -> subprocess.CompletedProcess:
    command = [Path(sys.executable).with_name("amuro"), "checkpoints", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, check=False)


@pytest.fixture
def hub(tmp_path):
    """hub({repo: {revision: files}}) serves them, and gives the environment that finds them."""
    opened = []

    def serve(repos: dict, **faults) -> dict[str, str]:
        opened.append(Hub({("models", repo): refs for repo, refs in repos.items()}, **faults))
        return {"HF_ENDPOINT": opened[-1].url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}

    yield serve
    for each in opened:
        each.close()


def olmo_1b() -> dict[str, dict]:
    """The refs of the real history: 351 names, as its repository rounds them, and main."""
    steps = [int(row["Step"]) for row in csv.DictReader(LIST.open())]
    assert len(steps) == 351
    return {"main": {}} | {f"step{step}-tokens{int(step * 4192700 / 1e9)}B": {} for step in steps[::-1]}


@pytest.mark.parametrize("arguments", [[], *([command, "--help"] for command in COMMANDS), ["families"]])
def test_light_and_quick(arguments):
    """No torch, transformers or pandas; each answers within seconds, nothing asked of a hub."""
    code = f"import sys; sys.argv = ['amuro', 'checkpoints', *{arguments!r}]\nfrom amuro.cli import app\n"
    code += f"try: app()\nexcept SystemExit as done: assert done.code in {(0, None) if arguments else (2,)}\n"
    code += "assert not {'torch', 'transformers', 'wandb', 'pandas', 'huggingface_hub'} & set(sys.modules)"
    started = time.perf_counter()
    done = run("-c", code)
    assert done.returncode == 0 and time.perf_counter() - started < 5, done.stderr
    assert len(done.stdout + done.stderr) > 200


def test_list_select_and_audit_load_no_torch(family, hub, tmp_path):
    env = hub({"EleutherAI/pythia-70m": {name: {} for name in ("main", "step0", "step1000", "step2000")}})
    for arguments in (
        ["list", "pythia-70m"],
        ["select", "pythia-70m", "-n", "2"],
        ["audit", str(family), "--runs", str(tmp_path)],
    ):
        code = f"import sys; sys.argv = ['amuro', 'checkpoints', *{arguments!r}]\nfrom amuro.cli import app\n"
        code += "try: app()\nexcept SystemExit as done: assert not done.code\n"
        code += "assert not {'torch', 'transformers', 'wandb'} & set(sys.modules)"
        done = run("-c", code, **env)
        assert done.returncode == 0, done.stderr


def test_families_in_three_formats():
    table = checkpoints("families").stdout
    names = {each.group.replace("{size}", "SIZE") for each in families().values()}
    assert all(f"\n{name} " in table for name in names) and "nursery" in table
    assert "no checkpoint exists between step 117850 and 330000" in table and "allenai/OLMo#879" in table
    assert table.count("needs remote code") == 3 and "360?" in table  # K2's number is not confirmed
    told = json.loads(checkpoints("families", "--format", "json").stdout)
    assert [each["name"] for each in told] == list(families())
    assert all(each["sources"] for each in told)
    rows = list(csv.DictReader(io.StringIO(checkpoints("families", "--format", "csv").stdout)))
    assert [row["name"] for row in rows] == list(families())
    assert json.loads(rows[0]["defects"])[0]["source"] == "allenai/OLMo#879"
    done = checkpoints("families", "--format", "xml")
    assert done.returncode == 2 and done.stderr == "error: --format 'xml': allowed: table, csv, json\n"


def test_help_shows_a_history_of_ones_own_and_what_cannot_be_seen():
    assert "pattern: 'step-(?P<step>\\d+)'" in checkpoints("families", "--help").stdout
    told = " ".join(checkpoints("audit", "--help").stdout.split())
    assert "cannot see two steps whose weights were exchanged" in told and "Exit code 1" in told


@needs_shared
def test_the_real_history_is_listed(hub):
    env = hub({"allenai/OLMo-1B-hf": olmo_1b() | {"draft": {}}})
    rows = list(csv.DictReader(io.StringIO(checkpoints("list", "olmo-1b", "--format", "csv", **env).stdout)))
    assert len(rows) == 351
    assert (rows[0]["step"], rows[0]["tokens_b"], rows[0]["revision"]) == ("1000", "4.0", "step1000-tokens4B")
    assert rows[-1]["commit"] == commit_of("step738020-tokens3094B")
    told = json.loads(checkpoints("list", "olmo-1b", "--format", "json", **env).stdout)
    assert [each["step"] for each in told] == [int(row["step"]) for row in rows]
    done = checkpoints("list", "olmo-1b", **env)
    assert len(done.stdout.splitlines()) == 352 and done.stderr.count("note: ") == 1  # the hole


@needs_shared
def test_the_papers_eight_and_the_hole(hub):
    env = hub({"allenai/OLMo-1B-hf": olmo_1b()})
    done = checkpoints("select", "olmo-1b", "--like", "paper", **env)
    eight = "1000 18000 342000 424000 505000 592000 738000 main".split()
    assert f"values: [{', '.join(f'olmo-1b@{each}' for each in eight)}]" in done.stdout, done.stderr
    assert "row 70 of 351" in done.stdout and "117850 and 330000, 28.7% of the run" in done.stdout
    done = checkpoints("select", "olmo-1b", "-n", "8", "--include", "18000,424000", "--format", "json", **env)
    chosen = {each["step"]: each["rule"] for each in json.loads(done.stdout)}
    assert len(chosen) == 8 and chosen[18000] == chosen[424000] == "included"
    assert (chosen[1000], chosen[738020]) == ("first", "last")


def test_a_list_says_what_is_computed_and_what_is_missing(hub):
    env = hub({"EleutherAI/pythia-70m": {name: {} for name in ("main", "step0", "step1000", "step2000")}})
    done = checkpoints("list", "pythia-70m", **env)
    assert [line.split()[:3] for line in done.stdout.splitlines()[1:]] == [
        ["0", "0", "step0"],
        ["1000", "2.09715", "step1000"],
        ["2000", "4.1943", "step2000"],
        ["143000", "299.893", "main"],
    ]
    for told in ("4 checkpoints are there, 154 are expected", "step x 2,097,152", "EleutherAI/pythia#83"):
        assert told in done.stderr
    done = checkpoints("select", "pythia-70m", "-n", "3", **env)
    assert "serve the same weights (EleutherAI/pythia#83, EleutherAI/pythia#198); of these: 0\n" in done.stdout
    done = checkpoints("list", "pythia-1b", **env)
    assert done.returncode == 2 and done.stderr.count("\n") == 1


def test_a_selection_of_stages_can_be_resolved(hub):
    """Where a step is there twice, the sweep line has the names, which mean one checkpoint each."""
    names = [f"stage1-step{step}-tokens{step * 2 // 1000 + 1}B" for step in (0, 1000, 2000, 30000)]
    beside = ["stage2-ingredient1-step1000-tokens3B", "stage2-ingredient1-step2000-tokens5B"]
    env = hub({"allenai/OLMo-2-0425-1B": {name: {} for name in ["main", *names, *beside]}})
    out = checkpoints("select", "olmo2-1b", "-n", "3", "--by", "step", "--include", "2000", **env).stdout
    assert f"[olmo2-1b@0, olmo2-1b@{names[2]}, olmo2-1b@30000]" in out
    out = checkpoints("select", "olmo2-1b", "-n", "2", "--stage", "stage2-ingredient1", **env).stdout
    assert f"[olmo2-1b@{beside[0]}, olmo2-1b@{beside[1]}]" in out
    done = checkpoints("select", "olmo2-1b", "--stage", "stage4", **env)
    assert done.returncode == 2 and "there are stage1, stage2-ingredient1" in done.stderr


def test_phases_whose_steps_begin_again_are_one_line(hub):
    ends = [(1, 79721), (2, 3000), (2, 214387), (3, 27728)]
    names = [f"CrystalCoder_phase{phase}_checkpoint_{step:06d}" for phase, step in [(1, 3000), *ends]]
    env = hub({"LLM360/CrystalCoder": {name: {} for name in ["main", *names[::-1]]}})
    told = json.loads(checkpoints("select", "crystal", "-n", "5", "--format", "json", **env).stdout)
    assert [each["revision"] for each in told] == names
    assert [each["tokens_b"] for each in told] == sorted(each["tokens_b"] for each in told)
    done = checkpoints("list", "crystal", **env)
    assert "its weights are refused" in done.stderr and "not confirmed" in done.stderr


def test_a_repository_that_is_refused_says_how_to_be_let_in(hub):
    env = hub({}, refused={"api/models/EleutherAI/pythia-1b": (403, "GatedRepo")})
    done = checkpoints("list", "pythia-1b", **env)
    assert done.returncode == 2 and "hf auth login" in done.stderr and done.stderr.count("\n") == 1


def test_an_audit_finds_and_keeps(family, hub, tmp_path):
    """Two steps with the weights of main: told, kept, exit code 1; of a sound history nothing."""
    final, early = family / "step-20", family / "step-10"
    repo = {"main": final, "step0": early, "step64": final, "step128": final, "step143000": final}
    env = hub({"EleutherAI/pythia-2.8b": repo})
    done = checkpoints("audit", "pythia-2.8b", "0,64", "128", 3000, "--runs", tmp_path, **env)
    assert done.returncode == 1, done.stderr
    assert "identical" in done.stdout and "absent" in done.stdout and "64, 128" in done.stdout
    assert "EleutherAI/pythia#205, EleutherAI/pythia#195); of these: 0, 64, 128" in done.stdout
    kept = json.loads((tmp_path / "audit" / "pythia-2.8b.json").read_text())
    wrong = {each["step"] for each in kept["findings"] if each["kind"] == "identical"}
    assert {64, 128} <= wrong and 0 not in wrong and 3000 in {each["step"] for each in kept["findings"]}
    done = checkpoints("audit", "pythia-2.8b", "step0", "step143000", "--runs", tmp_path, **env)
    assert done.returncode == 0 and "nothing was found" in done.stdout, done.stdout
    done = checkpoints("audit", "pythia-2.8b", "early", **env)
    assert done.returncode == 2 and "neither a step nor a revision's name" in done.stderr


def test_local_families_and_ones_own(family, tmp_path):
    lines = checkpoints("list", family).stdout.splitlines()
    assert [line.split() for line in lines[1:]] == [["10", "1e-05", "step-10"], ["20", "2e-05", "step-20"]]
    assert f"values: [{family}@10, {family}@20]" in checkpoints("select", family, "-n", "2").stdout
    done = checkpoints("audit", family, "--runs", tmp_path)
    assert done.returncode == 0 and "nothing was found in 2" in done.stdout, done.stdout + done.stderr
    done = checkpoints("audit", family, "20", "--weights", "--runs", tmp_path, "--format", "json")
    assert done.returncode == 0 and json.loads(done.stdout) == [], done.stdout + done.stderr
    (tmp_path / "mine.yaml").write_text(f"name: mine\nfolder: {family}\npattern: 'step-(?P<step>\\d+)'\n")
    told = json.loads(checkpoints("list", tmp_path / "mine.yaml", "--format", "json").stdout)
    assert [(each["step"], each["tokens_b"], each["revision"]) for each in told] == [
        (10, None, "step-10"),
        (20, None, "step-20"),
    ]
    done = checkpoints("select", tmp_path / "mine.yaml", "-n", "2")
    assert done.returncode == 2 and "use --by step" in done.stderr
    assert checkpoints("fetch", f"{tmp_path}/mine.yaml@20").stdout.strip() == str((family / "step-20").resolve())
    copy = shutil.copytree(family, tmp_path / "copy")
    shutil.copy(copy / "step-10" / "model.safetensors", copy / "step-20")
    done = checkpoints("audit", copy, "--runs", tmp_path)
    assert done.returncode == 1 and "identical" in done.stdout


def test_fetch_downloads_and_warns(family, hub, tmp_path):
    env = hub({"EleutherAI/pythia-12b": {"main": family / "step-20", "step50000": family / "step-10"}})
    done = checkpoints("fetch", "pythia-12b@50000", **env)
    assert (Path(done.stdout.strip()) / "model.safetensors").is_file(), done.stderr
    assert "warning: pythia-12b@50000: published defect" in done.stderr and "#206" in done.stderr


def test_what_was_fetched_is_found_again_offline(family, hub, tmp_path):
    env = hub({"EleutherAI/pythia-70m": {"main": family / "step-20", "step1000": family / "step-10"}})
    folder = checkpoints("fetch", "pythia-70m@1000", **env).stdout
    away = {**env, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}
    done = checkpoints("fetch", "pythia-70m@1000", **away)
    assert done.stdout == folder and done.returncode == 0, done.stderr
    folder = checkpoints("fetch", "pythia-70m@main", **env).stdout
    done = checkpoints("fetch", "pythia-70m@main", **away)
    assert done.stdout == folder and done.returncode == 0, done.stderr
    wrong = checkpoints("fetch", "pythia-160m@1000", **away)
    assert wrong.returncode == 2 and "cannot be had from the hub" in wrong.stderr


def test_a_name_too_long_for_a_file_is_one_line():
    done = checkpoints("list", "x" * 300)
    assert done.returncode == 2 and "longer than a name can be" in done.stderr and "Traceback" not in done.stderr
