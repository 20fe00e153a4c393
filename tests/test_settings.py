"""Flags, recipes and published values: each with its origin, each mistake one line that says how to mend it."""

import importlib.util

import pytest
from conftest import ROOT

from amuro import settings


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


train_sft, eval_run = load(ROOT / "train_sft.py"), load(ROOT / "eval" / "run.py")


def parse(*argv):
    return settings.parse(train_sft.make_parser(), list(argv), stage="sft")


def test_published_values_apply_per_family_and_dataset():
    cases = [
        ("olmo-1b@1000", "xsum", 2e-7, 8, 3.0),
        ("olmo-1b@1000", "mnli", 2e-6, 8, 3.0),
        ("llama3-8b@main", "xsum", 5e-6, 16, 2.0),
        ("other/model@main", "paws", 2e-6, 8, 3.0),
    ]
    for checkpoint, dataset, rate, batch, epochs in cases:
        arguments, sft, origins = parse("--checkpoint", checkpoint, "--dataset", dataset)
        assert (sft.learning_rate, arguments.batch_size, sft.num_train_epochs) == (rate, batch, epochs)
        assert origins["learning_rate"] == origins["batch_size"] == "published"
        assert (sft.warmup_steps, sft.max_grad_norm, sft.weight_decay, sft.max_length) == (0.03, 0.0, 0.0, 2048)
        assert sft.gradient_checkpointing is False and origins["gradient_checkpointing"] == "house"
        assert origins["adam_beta1"] == "library" and origins["runs"] == "default"


def test_a_flag_beats_a_recipe_and_a_recipe_beats_the_published_value(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("learning_rate: 1.0e-3\nnum_train_epochs: 1\ndataset: paws\nseed: 7\n")
    arguments, sft, origins = parse("--checkpoint=olmo-1b@1000", f"--recipe={path}", "--num_train_epochs=2")
    assert (sft.learning_rate, sft.num_train_epochs, arguments.dataset, sft.seed) == (1e-3, 2.0, "paws", 7)
    assert origins["learning_rate"] == "recipe" and origins["num_train_epochs"] == "flag"
    assert origins["dataset"] == "recipe" and origins["lr_scheduler_type"] == "published"
    shown = settings.describe(origins, arguments, sft)
    assert "learning_rate                0.001                        (recipe)" in shown
    assert "batch_size                   8                            (published)" in shown


def test_every_recipe_of_the_repository_parses():
    recipes = sorted((ROOT / "sweeps" / "recipes").glob("*.yaml"))
    for path in recipes:
        parse("--recipe", path.stem, "--checkpoint", "nursery@1", "--dataset", "mnli")
    assert len(recipes) >= 1


BASE = ["--checkpoint", "olmo-1b@1000", "--dataset", "mnli"]
BAD_FLAGS = [
    ([], "required: --checkpoint, --dataset"),
    (BASE[:2], "required: --dataset"),
    ([*BASE[:2], "--dataset", "mnlii"], "did you mean mnli"),
    ([*BASE, "--learning_rat", "1"], "flag --learning_rat: unknown; did you mean learning_rate"),
    ([*BASE, "--learning_rate", "fast"], "argument --learning_rate.*invalid float"),
    ([*BASE, "--learning_rate", "0"], "--learning_rate 0.0: must be above 0"),
    ([*BASE, "--output_dir", "x"], "--output_dir cannot be given: the folder follows"),
    ([*BASE, "--output-dir=x"], "--output_dir cannot be given"),
    ([*BASE, "--run_name=x"], "--run_name cannot be given"),
    ([*BASE, "--resume_from_checkpoint", "x"], "a cell resumes by itself"),
    ([*BASE, "--gradient_accumulation_steps", "2"], "derived from --batch_size"),
    ([*BASE, "--trust_remote_code", "true"], "no code from a repository is run"),
    ([*BASE, "--config", "x.yaml"], "use --recipe"),
    ([*BASE, "--batch_size", "0"], "--batch_size 0: must be at least 1"),
    ([*BASE, "--num_train_rows", "-1"], "--num_train_rows -1: must be at least 1"),
    ([*BASE, "--limit", "0"], "--limit 0: must be at least 1"),
    ([*BASE, "--num_shots", "4,x"], "--num_shots 'x'"),
    ([*BASE, "--num_shots", "9"], "--num_shots '9'"),
    ([*BASE, "--prompt_format", "defualt"], "did you mean default"),
    ([*BASE, "--tasks", "idd"], "--tasks: unknown idd"),
    ([*BASE, "--keep_weights", "some"], "allowed: none, all"),
    ([*BASE, "--max_length", "2"], "must be at least 8 tokens"),
    ([*BASE, "--packing", "true"], "--packing and --padding_free"),
    ([*BASE, "--recipe", "nowhere"], "no file .*nowhere.yaml; recipes there: nursery-sft"),
]


@pytest.mark.parametrize(("argv", "told"), BAD_FLAGS)
def test_a_bad_flag_is_one_clear_line(argv, told):
    with pytest.raises(ValueError, match=told) as error:
        parse(*argv)
    assert "\n" not in str(error.value)


BAD_RECIPES = [
    ("learning_rate: 2e-6", "YAML 1.1 reads it as text, write 2.0e-06"),
    ("learning_rat: 1.0", "key learning_rat: unknown; did you mean learning_rate"),
    ("output_dir: x", "key output_dir cannot be given"),
    ("batch_size: 8.5", "batch_size: 8.5 is float, int is needed"),
    ("batch_size: true", "batch_size: True is bool, int is needed"),
    ("batch_size: eight", "is text, a number is needed"),
    ("dataset: 3", "dataset: 3 is int, str is needed"),
    ("- a", "must be a mapping"),
    ("a: [", "not YAML"),
]


@pytest.mark.parametrize(("content", "told"), BAD_RECIPES)
def test_a_bad_recipe_is_one_clear_line(tmp_path, content, told):
    (tmp_path / "bad.yaml").write_text(content)
    with pytest.raises(ValueError, match=told) as error:
        parse(*BASE, "--recipe", str(tmp_path / "bad.yaml"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], "give --checkpoint"),
        (["--checkpoint", "a@1", "--cell", "b"], "no family or folder"),
        (["--checkpoint", "a@1", "--methods", "tokenprob"], "--methods 'tokenprob': unknown; did you mean token_prob"),
        (["--checkpoint", "a@1", "--prompt_format", "io", "--tasks", "benchmark"], "have the format default only"),
        (["--cell", "b", "--runs", "nowhere"], "0 complete cells match"),
        (["--checkpoint", "a@1", "--dtype", "int8"], "allowed: float32, bfloat16"),
        (["--checkpoint", "a@1", "--tasks", "x"], "--tasks: unknown x"),
        (["--checkpoint", "a@1", "--num_shot", "4"], "flag --num_shot: unknown; did you mean num_shots"),
    ],
)
def test_a_bad_evaluation_is_one_clear_line(argv, told):
    with pytest.raises(ValueError, match=told):
        eval_run.main(argv)
