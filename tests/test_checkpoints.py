"""Families, references and the hub: resolved by step from a repository's refs, fetched as safetensors only."""

import json
import shutil

import pytest
from conftest import run
from hub import Hub, commit_of

from amuro import checkpoints
from amuro.registry import fetching

SCRIPT = """
import json, sys
from amuro import checkpoints
from amuro.registry import fetching
for reference in sys.argv[1:]:
    try:
        found = checkpoints.resolve(reference)
        folder = fetching.fetch(found)
        files = sorted(path.name for path in folder.iterdir())
        print(json.dumps({"step": found.step, "tokens_b": found.tokens_b, "base": found.base, "files": files,
                          "name": found.name, "family": found.family}))
    except ValueError as error:
        print(json.dumps({"error": str(error)}))
"""


def test_a_family_folder_resolves_by_step_and_main(family):
    found = checkpoints.resolve(f"{family}@10")
    assert (found.family, found.name, found.step, found.tokens_b) == ("toy", "toy@10", 10, 1e-5)
    assert found.base.startswith("sha256:") and fetching.fetch(found) == family / "step-10"
    assert checkpoints.resolve(f"{family}@main").step == 20
    assert checkpoints.resolve(f"{family}@20").base != found.base


def test_the_digest_follows_the_content(family, tmp_path):
    copy = shutil.copytree(family / "step-10", tmp_path / "copy")
    assert checkpoints.digest(copy) == checkpoints.digest(family / "step-10")
    (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
    assert checkpoints.digest(copy) != checkpoints.digest(family / "step-10")


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("olmo-1b", "write family@step"),
        ("@10", "write family@step"),
        ("olmo-1c@10", "did you mean olmo-1b@10"),
        ("./nowhere@10", "known: olmo-1b"),
        ("{family}@15", "nearest: 10, 20"),
        ("{family}@ten", "neither a step nor main"),
        ("pythia@1000", "did you mean pythia-14m@1000, pythia-31m@1000"),
        ("nowhere.yaml@10", "nowhere.yaml: cannot be read"),
        ("olmo-7b@1000", "need code of allenai/OLMo-7B.*PATH@step"),
        ("crystal@main", "trust_remote_code stays off"),
        ("smollm3-3b@main", "main has no model, the final one is HuggingFaceTB/SmolLM3-3B-Base@main"),
    ],
)
def test_a_bad_reference_says_what_is_near(family, reference, told):
    with pytest.raises(ValueError, match=told):
        checkpoints.resolve(reference.format(family=family))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "not JSON"),
        ("[]", "needs `name`"),
        ('{"name": "x", "checkpoints": []}', "needs `name`"),
        ('{"name": "x", "checkpoints": [{"step": "1", "tokens_b": 1, "path": "a"}]}', "checkpoints.0. needs 'step'"),
        ('{"name": "x", "checkpoints": [{"step": 1, "tokens_b": 1, "path": "gone"}]}', "has no config.json"),
    ],
)
def test_a_bad_family_file_is_named(tmp_path, content, told):
    (tmp_path / "family.json").write_text(content)
    with pytest.raises(ValueError, match=told):
        checkpoints.resolve(f"{tmp_path}@1")


def test_nursery_means_the_folder_in_the_environment(family, tmp_path, monkeypatch):
    monkeypatch.setenv("AMURO_NURSERY", str(family))
    assert checkpoints.resolve("nursery@10").step == 10
    monkeypatch.setenv("AMURO_NURSERY", str(tmp_path))
    with pytest.raises(ValueError, match="amuro nursery --out"):
        checkpoints.resolve("nursery@10")


def test_without_the_hub_the_remedy_is_one_line(tmp_path):
    """Network down, or offline mode: models and datasets, no traceback."""
    for env in ({"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}, {"HF_HUB_OFFLINE": "1"}):
        env["HF_HOME"] = str(tmp_path)
        done = run("-c", SCRIPT, "olmo-1b@1000", "someone/model@main", **env)
        errors = [json.loads(line)["error"] for line in done.stdout.splitlines()]
        assert len(errors) == 2 and all("cannot be had from the hub" in each for each in errors), done.stderr
        assert all("write PATH@step" in each and "\n" not in each for each in errors)
        done = run("-c", "from amuro import data\ndata.training_rows('mnli', None)", **env)
        assert "ValueError: dataset nyu-mll/glue cannot be had from the hub" in done.stderr
        assert done.stderr.strip().endswith("give a local copy with --data_dir or AMURO_DATA_DIR")


def test_hub_revisions_are_found_by_step_and_fetched(family, tmp_path):
    """The real client against a stand-in: names with three roundings of tokens, `main`, a plain repository, errors."""
    pickled = shutil.copytree(family / "step-10", tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    both = shutil.copytree(family / "step-20", tmp_path / "both")
    (both / "pytorch_model.bin").write_bytes(b"never fetched")
    hub = Hub(
        {
            ("models", "allenai/OLMo-1B-hf"): {
                "main": family / "step-20",
                "step1000-tokens4B": family / "step-10",
                "step342000-tokens1433B": both,
                "other-branch": family / "step-10",
            },
            ("models", "someone/model"): {"main": family / "step-20", "step64": family / "step-10", "old": pickled},
        }
    )
    references = ["olmo-1b@342000", "olmo-1b@main", "someone/model@step64", "someone/model@main"]
    wrong = ["olmo-1b@18000", "someone/model@stp64", "nobody/model@main", "someone/model@old"]
    done = run("-c", SCRIPT, *references, *wrong, HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "hf"), HF_HUB_OFFLINE="0")
    hub.close()
    assert done.returncode == 0, done.stderr
    out = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(out) == 8
    assert out[0]["step"] == 342000 and out[0]["tokens_b"] == 1433.0 and out[0]["name"] == "olmo-1b@342000"
    assert out[0]["base"] == f"allenai/OLMo-1B-hf@{commit_of('step342000-tokens1433B')}"
    assert "model.safetensors" in out[0]["files"] and "pytorch_model.bin" not in out[0]["files"]
    assert not any("pytorch_model.bin" in path for path in hub.requests)
    assert (out[1]["step"], out[1]["tokens_b"]) == (342000, 1433.0)
    assert out[1]["base"].endswith(commit_of("main"))
    assert (out[2]["step"], out[2]["family"]) == (64, "someone/model") and out[3]["step"] is None
    assert "nearest: 1000, 342000" in out[4]["error"]
    assert "nearest: step64" in out[5]["error"]
    assert "no repository 'nobody/model'" in out[6]["error"]
    assert "no safetensors" in out[7]["error"]


def test_steps_that_several_stages_have_are_named(family, tmp_path):
    """A step that is there more than once is refused with the names; `main` in its kinds, and tokens of stages."""
    names = [
        "main",
        "stage1-step1000-tokens3B",
        "stage1-step1907359-tokens4001B",
        "stage2-ingredient1-step1000-tokens3B",
    ]
    repos = {
        "allenai/OLMo-2-0425-1B": names,
        "EleutherAI/pythia-70m": ["main", "step0"],
        "meta-llama/Meta-Llama-3-8B": ["main"],
    }
    repos |= {each["repo"]: ["main"] for each in checkpoints.families()["tinyllama"].repos}
    hub = Hub({("models", repo): {name: family / "step-10" for name in there} for repo, there in repos.items()})
    references = ["olmo2-1b@1000", *(f"olmo2-1b@{name}" for name in [*names[1:], "1907359", "main"])]
    references += ["pythia-70m@143000", "pythia-70m@main", "llama3-8b@main", "tinyllama@1431000", "tinyllama@main"]
    env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
    done = run("-c", SCRIPT, *references, **env)
    hub.close()
    out = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(out) == len(references), done.stderr
    assert "write one of olmo2-1b@stage1-step1000-tokens3B, olmo2-1b@stage2-ing" in out[0]["error"]
    assert [(each["name"].split("@")[1], each["step"], each["tokens_b"]) for each in out[1:]] == [
        (names[1], 1000, 3.0),
        ("1907359", 1907359, 4001.0),
        (names[3], 1000, 4004.0),
        ("1907359", 1907359, 4001.0),
        ("main", None, 4052),
        ("143000", 143000, 299.892736),
        ("main", 143000, 299.892736),
        ("main", None, 15000),
        ("1431000", 1431000, 3000),
        ("1431000", 1431000, 3000),
    ]
    assert out[6]["base"] == f"EleutherAI/pythia-70m@{commit_of('main')}"
    assert out[9]["base"].startswith("TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T@")


def test_a_history_of_ones_own(family, tmp_path):
    """A YAML that names a folder: the same weights and identity as with its family.json."""
    text = f"name: mine\nfolder: {family}\npattern: 'step-(?P<step>\\d+)'\ntokens_per_step: 1000\n"
    (tmp_path / "mine.yaml").write_text(text)
    mine, toy = checkpoints.resolve(f"{tmp_path}/mine.yaml@10"), checkpoints.resolve(f"{family}@10")
    assert (mine.family, mine.name, mine.step, mine.tokens_b) == ("mine", "mine@10", 10, 1e-5)
    assert (mine.base, mine.path) == (toy.base, toy.path)
    assert checkpoints.resolve(f"{tmp_path}/mine.yaml@main").name == "mine@20"
    assert [step for step, *_ in checkpoints.history(str(tmp_path / "mine.yaml"))] == [10, 20]
    with pytest.raises(ValueError, match="no step 15; nearest: 10, 20"):
        checkpoints.resolve(f"{tmp_path}/mine.yaml@15")
