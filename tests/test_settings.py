"""Flags, recipes and published values: each with its origin, each mistake one line that says how to mend it."""

from dataclasses import fields

import pytest
import yaml
from trl import ModelConfig, SFTConfig, TrlParser

from amuro import checks, recipes, settings, training, usage
from amuro.programs import load_program

train_sft, eval_run = load_program("train_sft.py"), load_program("eval/run.py")


def parse(*argv):
    return settings.parse(train_sft.make_parser(), list(argv), stage="sft")


def instruct(*argv):
    parser = TrlParser((settings.InstructArguments, SFTConfig, ModelConfig), allow_abbrev=False, description="x")
    return settings.parse(settings.quiet(parser, "train_instruct.py"), list(argv), stage="instruct")


def test_published_values_apply_per_family_and_dataset():
    cases = [
        ("olmo-1b@1000", "xsum", 2e-7, 8, 3.0),
        ("olmo-1b@1000", "mnli", 2e-6, 8, 3.0),
        ("llama3-8b@main", "xsum", 5e-6, 16, 2.0),
        ("other/model@main", "paws", 2e-6, 8, 3.0),
    ]
    for checkpoint, dataset, rate, batch, epochs in cases:
        arguments, sft, _, origins = parse("--checkpoint", checkpoint, "--dataset", dataset)
        assert (sft.learning_rate, arguments.batch_size, sft.num_train_epochs) == (rate, batch, epochs)
        origin = "published for olmo-1b" if checkpoint.startswith("other") else "published"
        assert origins["learning_rate"] == origins["batch_size"] == origin
        assert (sft.warmup_steps, sft.max_grad_norm, sft.weight_decay, sft.max_length) == (0.03, 0.0, 0.0, 2048)
        assert sft.gradient_checkpointing is False and origins["gradient_checkpointing"] == "house"
        assert origins["adam_beta1"] == "library" and origins["runs"] == "default"
        assert arguments.num_train_rows == 6000 and not hasattr(arguments, "train_fraction")
    arguments, sft, _, origins = instruct("--checkpoint", "olmo-1b@1000")
    assert (sft.learning_rate, arguments.batch_size, sft.num_train_epochs) == (2e-6, 8, 5.0)
    assert (arguments.dataset, arguments.tasks, arguments.num_train_rows) == ("tulu", "benchmark", None)
    assert arguments.train_fraction == 0.05 and origins["train_fraction"] == "published"


def test_a_flag_beats_a_recipe_and_a_recipe_beats_the_published_value(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("learning_rate: 1.0e-3\nnum_train_epochs: 1\ndataset: paws\nseed: 7\n")
    arguments, sft, lora, origins = parse("--checkpoint=olmo-1b@1000", f"--recipe={path}", "--num_train_epochs=2")
    assert (sft.learning_rate, sft.num_train_epochs, arguments.dataset, sft.seed) == (1e-3, 2.0, "paws", 7)
    assert origins["learning_rate"] == "recipe" and origins["num_train_epochs"] == "flag"
    assert origins["dataset"] == "recipe" and origins["lr_scheduler_type"] == "published"
    shown = settings.describe(origins, arguments, sft, lora)
    assert "learning_rate                0.001                        (recipe)" in shown
    assert "batch_size                   8                            (published)" in shown


def test_a_flag_for_how_much_beats_the_recipes_other_one(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("train_fraction: 0.5\n")
    arguments, *_ = instruct("--checkpoint=olmo-1b@1", f"--recipe={path}", "--num_train_rows=20")
    assert arguments.num_train_rows == 20
    path.write_text("num_train_rows: 30\n")
    arguments, _, _, origins = instruct("--checkpoint=olmo-1b@1", f"--recipe={path}", "--train_fraction=0.1")
    assert (arguments.num_train_rows, arguments.train_fraction, origins["train_fraction"]) == (None, 0.1, "flag")
    path.write_text("num_train_rows: 30\ntrain_fraction: 0.5\n")
    with pytest.raises(ValueError, match="give one of them"):
        instruct("--checkpoint=olmo-1b@1", f"--recipe={path}")


def test_a_recipe_may_differ_per_dataset(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("learning_rate: 1.0e-3\nper_dataset: {xsum: {learning_rate: 1.0e-4, max_length: 512}}\n")
    for dataset, rate, length in (("xsum", 1e-4, 512), ("mnli", 1e-3, 2048)):
        _, sft, _, origins = parse("--checkpoint", "a@1", "--recipe", str(path), "--dataset", dataset)
        assert (sft.learning_rate, sft.max_length, origins["learning_rate"]) == (rate, length, "recipe")
    _, sft, _, _ = parse("--checkpoint", "a@1", "--recipe", str(path), "--dataset", "xsum", "--learning_rate", "1")
    assert sft.learning_rate == 1.0


def test_the_description_names_all_that_decides_the_weights():
    """Also where it is the library's default; the adapters' settings where there are adapters."""
    argv = ("--checkpoint", "olmo-1b@1000", "--dataset", "mnli")
    lora = [each.name for each in fields(ModelConfig) if each.name.startswith(checks.LORA)]
    for more, adapters in ((), False), (("--use_peft", "--lora_r", "4"), True):
        *parts, origins = parse(*argv, *more)
        named = {line.split()[0]: line.split()[-1] for line in settings.describe(origins, *parts).splitlines()}
        assert set(training.ALWAYS_IDENTITY) <= set(named) and named["adam_beta1"] == "(library)"
        assert named.get("lora_r") == ("(flag)" if adapters else None) and len(named) < 60
        assert adapters == (set(lora) <= set(named)) and "output_dir" not in named
    *parts, origins = parse(*argv, "--no_gradient_checkpointing", "--save-strategy=steps", "--save_steps", "7")
    assert origins["gradient_checkpointing"] == origins["save_strategy"] == origins["save_steps"] == "flag"
    stored = settings.with_origins(origins, *parts)
    assert stored["save_strategy"] == {"value": "steps", "origin": "flag"} and "hub_token" not in stored
    assert stored["output_dir"]["origin"] == stored["gradient_accumulation_steps"]["origin"] == "derived"
    *parts, origins = instruct("--checkpoint", "olmo-1b@1000", "--num_train_rows", "100")
    assert "train_fraction" not in settings.describe(origins, *parts)


RECIPES = sorted(recipes.RECIPES.glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_repository_parses_and_says_how_to_run_it(path):
    run, *ours = (instruct,) if "instruct" in path.stem else (parse, "--dataset", "mnli")
    for given in (["--recipe", path.stem], [f"--recipe={path.stem}"], ["--recipe", str(path)]):
        *_, origins = run("--checkpoint", "nursery@1", *ours, *given)
        assert "recipe" in origins.values()
    about = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert len(about) >= 2 and f"--recipe {path.stem} " in " ".join(about) and "--checkpoint" in " ".join(about)


@pytest.mark.parametrize("family", ["olmo-1b", "llama3-8b"])
@pytest.mark.parametrize("stage", ["sft", "instruct"])
def test_the_published_recipes_hold_every_published_value(family, stage):
    path = recipes.RECIPES / f"{family}-{stage}.yaml"
    published = yaml.safe_load(recipes.PUBLISHED.read_text())[family].get(stage)
    assert path.is_file() == bool(published)
    if published:
        recipe = yaml.safe_load(path.read_text())
        assert {name: recipe.get(name) for name in published} == published


def test_the_help_teaches(capsys):
    """Every flag of ours and the most used of the libraries', with the value it has; the others on demand."""
    for run, own in ((parse, settings.TrainingArguments), (instruct, settings.InstructArguments)):
        texts = {}
        for flag in ("--help", "-h", "--help_all"):
            with pytest.raises(SystemExit) as done:
                run(flag, "--recipe", "nursery-sft")
            texts[flag] = capsys.readouterr().out
            assert done.value.code == 0
        told = {line.split()[0] for line in texts["--help"].splitlines() if line.startswith("  --")}
        assert texts["-h"] == texts["--help"] and told >= {f"--{each.name}" for each in fields(own)}
        assert told >= {f"--{name}" for name in usage.HELP} and len(told) < 60
        everything = {line.split()[0] for line in texts["--help_all"].splitlines() if line.startswith("  --")}
        libraries = {each.name for kind in (SFTConfig, ModelConfig) for each in fields(kind)}
        assert everything - told == {f"--{name}" for name in libraries - set(recipes.OURS)} - told
        assert all(f"\n  {path.stem} " in texts["--help"] for path in RECIPES)
        assert "    python train_" in texts["--help"] and "--recipe small-gpu-lora --checkpoint" in texts["--help"]
        assert "[0.002, recipe]" in texts["--help"] and "[linear, published for olmo-1b]" in texts["--help"]
        assert max(map(len, texts["--help"].splitlines())) <= 120


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
    ([*BASE, "--recipe", "nowhere"], "no file .*nowhere.yaml; recipes there: llama3-8b-sft, .*nursery-sft"),
    ([*BASE, "--model_name_or_path", "x"], "the model is --checkpoint"),
    ([*BASE, "--model-revision=x"], "the model is --checkpoint"),
    ([*BASE, "--dtype", "bfloat16"], "trained and stored in float32"),
    ([*BASE, "--load_in_4bit"], "try --recipe small-gpu-lora"),
    ([*BASE, "--save_only_model", "true"], "cannot go on from its checkpoint"),
    ([*BASE, "--eos_token", "x"], "rows are tokenised, masked and shortened by Amuro"),
    ([*BASE, "--auto_find_batch_size"], "--batch_size is the effective batch"),
    ([*BASE, "--held_out_rows", "-1"], "--held_out_rows -1: must be at least 0"),
    ([*BASE, "--train_fraction", "0.5"], "flag --train_fraction: unknown"),
    ([*BASE, "--lora_r", "4"], "--lora_r: needs --use_peft"),
    ([*BASE, "--use_dora"], "--use_dora: needs --use_peft"),
    ([*BASE, "--use_peft", "--lora_r", "0"], "--lora_r 0 .*: from 1 to 65536"),
    ([*BASE, "--use_peft", "--lora_dropout", "1"], "--lora_dropout 1.0: .* below 1"),
    ([*BASE, "--save_strategy", "best"], "--save_strategy best: allowed: no, steps, epoch"),
    ([*BASE, "--save_strategy", "sometimes"], "argument --save_strategy.*sometimes"),
    ([*BASE, "--save_strategy", "steps", "--save_steps", "0"], "--save_steps 0.*: must be above 0"),
    ([*BASE, "--save_steps", "5"], "nothing is saved without --save_strategy steps"),
    ([*BASE[:2], "--dataset", "tulu"], "--dataset tulu: train_instruct.py trains on it"),
]


@pytest.mark.parametrize(("argv", "told"), BAD_FLAGS)
def test_a_bad_flag_is_one_clear_line(argv, told):
    with pytest.raises(ValueError, match=told) as error:
        parse(*argv)
    assert "\n" not in str(error.value)


BAD_CONVERSATIONS = [
    (["--dataset", "mnli"], "--dataset mnli: train_sft.py trains on it"),
    (["--dataset", "nowhere.jsonl"], "--dataset nowhere.jsonl: no such file; allowed: tulu, or a .jsonl file"),
    (["--dataset", "tulip"], "did you mean tulu"),
    (["--train_fraction", "0"], "--train_fraction 0.0: must be above 0 and at most 1"),
    (["--train_fraction", "1.5"], "--train_fraction 1.5: must be above 0 and at most 1"),
    (["--train_fraction", "0.5", "--num_train_rows", "5"], "give one of them"),
    (["--num_train_rows", "0"], "--num_train_rows 0: must be at least 1"),
]


@pytest.mark.parametrize(("argv", "told"), BAD_CONVERSATIONS)
def test_a_bad_flag_of_conversations_is_one_clear_line(argv, told):
    with pytest.raises(ValueError, match=told) as error:
        instruct("--checkpoint", "olmo-1b@1000", *argv)
    assert "\n" not in str(error.value)


def test_conversations_may_be_a_file(tmp_path):
    (tmp_path / "own.jsonl").write_text("")
    arguments, *_ = instruct("--checkpoint", "olmo-1b@1000", "--dataset", str(tmp_path / "own.jsonl"))
    assert arguments.dataset.endswith("own.jsonl")


BAD_RECIPES = [
    ("learning_rate: 2e-6", "YAML 1.1 reads it as text, write 2.0e-06"),
    ("learning_rat: 1.0", "key learning_rat: unknown; did you mean learning_rate"),
    ("output_dir: x", "key output_dir cannot be given"),
    ("batch_size: 8.5", "batch_size: 8.5 is float, int is needed"),
    ("batch_size: true", "batch_size: True is bool, int is needed"),
    ("batch_size: eight", "is text, a number is needed"),
    ("dataset: 3", "dataset: 3 is int, str is needed"),
    ("max_length: 2e3", "max_length: '2e3' is text, a number is needed: .* write 2000$"),
    ("max_length: 12.5", "max_length: 12.5 is float, int is needed"),
    ("learning_rate:", "learning_rate: None is NoneType, float is needed"),
    ("use_peft: 'true'", "use_peft: 'true' is str, bool is needed"),
    ("save_strategy: no", 'save_strategy: False is bool, str is needed: .* write "no"'),
    ("lora_target_modules: 3", "lora_target_modules: 3 is int, list is needed"),
    ("lora_r: 4", "--lora_r: needs --use_peft"),
    ("dtype: bfloat16", "key dtype cannot be given: weights are trained"),
    ("per_dataset: {xsum: 1}", "per_dataset must be like"),
    ("per_dataset: {xsun: {learning_rate: 1.0}}", "per_dataset: xsun: unknown; did you mean xsum"),
    ("per_dataset: {xsum: {learning_rat: 1.0}}", "key learning_rat: unknown; did you mean learning_rate"),
    ("per_dataset: {xsum: {learning_rate: 2e-7}}", "write 2.0e-07"),
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
