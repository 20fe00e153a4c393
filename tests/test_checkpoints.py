"""Families, references and the hub: resolved by step from a repository's refs, fetched as safetensors only."""

import json
import shutil

import pytest
from conftest import run
from hub import Hub, commit_of

from amuro import checkpoints

SCRIPT = """
import json, sys
from amuro import checkpoints
for reference in sys.argv[1:]:
    try:
        found = checkpoints.resolve(reference)
        folder = checkpoints.fetch(found)
        files = sorted(path.name for path in folder.iterdir())
        print(json.dumps({"step": found.step, "tokens_b": found.tokens_b, "base": found.base, "files": files,
                          "name": found.name, "family": found.family}))
    except ValueError as error:
        print(json.dumps({"error": str(error)}))
"""


def test_a_family_folder_resolves_by_step_and_main(family):
    found = checkpoints.resolve(f"{family}@10")
    assert (found.family, found.name, found.step, found.tokens_b) == ("toy", "toy@10", 10, 1e-5)
    assert found.base.startswith("sha256:") and checkpoints.fetch(found) == family / "step-10"
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
