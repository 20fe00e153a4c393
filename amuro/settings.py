"""Every flag of the scripts, and where each value comes from: flag, recipe, published, house or library default.

    arguments, sft, origins = parse(make_parser("sft"), argv, stage="sft")

`--recipe NAME` reads sweeps/recipes/NAME.yaml (or a path to a YAML): its keys are flags. What neither a flag nor a
recipe gives takes the published value for (family, stage, dataset) from `published.yaml`.
"""

import argparse
import os
import sys
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path

import yaml

from amuro.cells import Unit
from amuro.data import SAMPLE_SEED, SHOT_SEED, TRAIN_ROWS
from amuro.prompts import PROMPT_FORMATS
from amuro.tasks import DATASETS, METHODS, RELATIONS, TASKS, select_tasks

RECIPES = Path(__file__).parent.parent / "sweeps" / "recipes"
PUBLISHED = Path(__file__).parent / "published.yaml"
DTYPES = ("float32", "bfloat16")

# Our own defaults of trainer settings: what the protocol asks, where the library's default would do something else.
HOUSE = {
    "gradient_checkpointing": False,
    "logging_nan_inf_filter": False,  # a NaN loss must be seen
    "save_strategy": "no",
    "report_to": "wandb",
}
OURS = {  # flags of the trainer that belong to Amuro, and why
    "output_dir": "the folder follows from the cell's identity, so that two settings never share one; use --runs",
    "run_name": "names follow from the cell's identity",
    "resume_from_checkpoint": "a cell resumes by itself",
    "gradient_accumulation_steps": "it is derived from --batch_size (the effective batch), "
    "--per_device_train_batch_size and the number of processes",
    "trust_remote_code": "no code from a repository is run",
    "config": "use --recipe NAME or --recipe FILE.yaml",
}


@dataclass
class EvaluationArguments:
    """What is evaluated, and where everything is."""

    checkpoint: str = field(metadata={"help": "family@step, family@main, PATH@step or hub repo@revision"})
    tasks: str = field(
        default="id,ood", metadata={"help": f"comma list of {', '.join(RELATIONS)}, all, none, {', '.join(TASKS)}"}
    )
    prompt_format: str = field(default="default", metadata={"help": f"comma list of {', '.join(PROMPT_FORMATS)}"})
    num_shots: str = field(default="4", metadata={"help": "comma list of shot counts, e.g. 0,2,4,6"})
    methods: str = field(
        default=METHODS[0], metadata={"help": f"how a label is read: comma list of {', '.join(METHODS)}"}
    )
    apply_chat_template: bool = field(
        default=False, metadata={"help": "wrap prompts in the tokenizer's chat template, each shot a turn of its own"}
    )
    shot_seed: int = field(default=SHOT_SEED, metadata={"help": "seed of the draw of the shots"})
    limit: int | None = field(
        default=None, metadata={"help": "score only the first rows of each task (for trying out)"}
    )
    eval_batch_size: int | None = field(
        default=None, metadata={"help": "most sequences per forward pass in evaluation; default: what fits in memory"}
    )
    data_dir: str | None = field(
        default=None, metadata={"help": "mirror folder of the datasets; default $AMURO_DATA_DIR, without it the hub"}
    )
    runs: str = field(default="runs", metadata={"help": "folder that everything is written under"})


@dataclass
class TrainingArguments(EvaluationArguments):
    """One cell: a checkpoint, a dataset, hyper-parameters, a seed. Any SFTConfig flag may be given too."""

    dataset: str = field(kw_only=True, metadata={"help": f"what to train on: {', '.join(DATASETS)}"})
    recipe: str | None = field(default=None, metadata={"help": "NAME of sweeps/recipes/NAME.yaml, or a YAML file"})
    batch_size: int = field(
        default=8, metadata={"help": "effective batch: rows per optimizer step, over all processes"}
    )
    num_train_rows: int = field(default=TRAIN_ROWS, metadata={"help": "training rows, drawn by --sample_seed"})
    sample_seed: int = field(default=SAMPLE_SEED, metadata={"help": "seed of the draw of the training rows"})
    keep_weights: str = field(
        default="none", metadata={"help": "all: keep the tuned weights; none: remove them once evaluated"}
    )


def parse(parser, argv: list[str] | None, stage: str) -> tuple[TrainingArguments, object, dict[str, str]]:
    """(our arguments, SFTConfig, origin of every value). Raises ValueError with one line on any bad flag or recipe."""
    import torch

    argv = list(sys.argv[1:] if argv is None else argv)
    actions = {action.dest: action for action in parser._actions}
    given = check_flags(argv, parser)
    first = _first_pass(argv)
    recipe = read_recipe(first.recipe, actions) if first.recipe else {}
    checkpoint, dataset = (getattr(first, name) or recipe.get(name) for name in ("checkpoint", "dataset"))
    if dataset is not None and dataset not in DATASETS:
        raise ValueError(f"--dataset {dataset!r}: {_known(dataset, DATASETS)}")
    family = (checkpoint or "").rpartition("@")[0]
    published = published_values(family, stage, dataset)
    gpu = torch.cuda.is_available()
    house = {**HOUSE, "bf16": gpu, "use_cpu": not gpu, "output_dir": "runs", "dataloader_pin_memory": gpu}
    parser.set_defaults_with_config(**{**house, **published, **recipe})
    arguments, sft = parser.parse_args_into_dataclasses(args=argv)

    layers = {"flag": given, "recipe": recipe, "published": published, "house": house}
    names = [each.name for each in (*fields(arguments), *fields(sft))]
    origins = {name: next((layer for layer, keys in layers.items() if name in keys), "library") for name in names}
    own = {each.name for each in fields(arguments)}
    origins = {k: "default" if v == "library" and k in own else v for k, v in origins.items()}
    check_evaluation(arguments)
    _check_training(arguments, sft)
    return arguments, sft, origins


def published_values(family: str, stage: str, dataset: str | None) -> dict:
    """The published hyper-parameters for (family, stage, dataset); a family without an entry takes olmo-1b's."""
    families = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
    own = families.get(family, {})
    own = own if stage in own else families["olmo-1b"]
    return {**own[stage], **own.get(f"{stage}_per_dataset", {}).get(dataset, {})}


def read_recipe(name: str, actions: dict[str, argparse.Action]) -> dict:
    """The flags that a recipe sets, each known and of the right type. Raises ValueError with file, key and remedy."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
    if not path.is_file():
        there = ", ".join(sorted(each.stem for each in RECIPES.glob("*.yaml")))
        raise ValueError(f"--recipe {name!r}: no file {path}; recipes there: {there or 'none'}")
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"--recipe {path}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(recipe, dict):
        raise ValueError(f"--recipe {path}: must be a mapping of flags to values")
    _refuse(recipe, actions, f"--recipe {path}: key ")
    problems = [problem for key, value in recipe.items() if (problem := _mistyped(key, value, actions[key]))]
    if problems:
        raise ValueError(f"--recipe {path}: {'; '.join(problems)}")
    return recipe


def _mistyped(key: str, value, action: argparse.Action) -> str:
    kind = action.type
    if kind in (int, float) and isinstance(value, str):
        remedy = ""
        try:
            mantissa, _, exponent = repr(float(value)).partition("e")
            number = mantissa + ("" if "." in mantissa else ".0") + (f"e{exponent}" if exponent else "")
            remedy = f": YAML 1.1 reads it as text, write {number}"
        except ValueError:
            pass  # not a number at all: the message below says so
        return f"{key}: {value!r} is text, a number is needed{remedy}"
    right = {int: isinstance(value, int), float: isinstance(value, int | float), str: isinstance(value, str)}
    if value is not None and (not right.get(kind, True) or (kind in (int, float) and isinstance(value, bool))):
        return f"{key}: {value!r} is {type(value).__name__}, {kind.__name__} is needed"
    return ""


def check_flags(argv: list[str], parser: argparse.ArgumentParser) -> list[str]:
    """The flags that `argv` gives; ValueError on one that does not exist (with the nearest) or belongs to Amuro."""
    given = [word[2:].split("=")[0].replace("-", "_") for word in argv if word.startswith("--") and len(word) > 2]
    _refuse(given, {action.dest for action in parser._actions}, "flag --")
    return given


def _refuse(names, actions, prefix: str) -> None:
    for name in names:
        if name in OURS:
            raise ValueError(f"{prefix}{name} cannot be given: {OURS[name]}")
    unknown = [name for name in names if name not in actions and not name.startswith("no_") and name != "help"]
    if unknown:
        raise ValueError(f"{prefix}{unknown[0]}: {_known(unknown[0], actions, listing=False)}")


def _known(name: str, known, listing: bool = True) -> str:
    nearest = get_close_matches(name, known, n=1)
    hint = f"unknown; did you mean {nearest[0]}?" if nearest else "unknown; see --help"
    return f"{hint} allowed: {', '.join(known)}" if listing else hint


def _first_pass(argv: list[str]) -> argparse.Namespace:
    """The three flags that the defaults of all others depend on."""
    scan = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("recipe", "checkpoint", "dataset"):
        scan.add_argument(f"--{name}")
    return scan.parse_known_args(argv)[0]


def check_evaluation(arguments: EvaluationArguments) -> None:
    """ValueError on tasks, formats, shots or numbers that do not exist."""
    tasks = select_tasks(arguments.tasks, getattr(arguments, "dataset", ""))
    for flag, allowed in (("prompt_format", PROMPT_FORMATS), ("methods", METHODS)):
        for name in items(getattr(arguments, flag)):
            if name not in allowed:
                raise ValueError(f"--{flag} {name!r}: {_known(name, allowed)}")
    formats = items(arguments.prompt_format)
    if unasked := [name for name in tasks if not set(formats) & set(TASKS[name].prompt_formats)]:
        raise ValueError(
            f"--prompt_format {arguments.prompt_format}: {', '.join(unasked)} have the format "
            f"{', '.join(TASKS[unasked[0]].prompt_formats)} only; add it, or leave these tasks out"
        )
    for text in items(arguments.num_shots):
        if not text.isdigit() or int(text) > 8:
            raise ValueError(f"--num_shots {text!r}: a comma list of numbers from 0 to 8 is needed")
    for name in ("limit", "eval_batch_size"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            raise ValueError(f"--{name} {getattr(arguments, name)}: must be at least 1")


def _check_training(arguments: TrainingArguments, sft) -> None:
    for name in ("batch_size", "num_train_rows"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name} {getattr(arguments, name)}: must be at least 1")
    if arguments.keep_weights not in ("none", "all"):
        raise ValueError(f"--keep_weights {arguments.keep_weights!r}: allowed: none, all")
    if not sft.learning_rate > 0:
        raise ValueError(f"--learning_rate {sft.learning_rate}: must be above 0")
    if sft.max_length is None or sft.max_length < 8:
        raise ValueError(f"--max_length {sft.max_length}: must be at least 8 tokens")
    if sft.packing or sft.padding_free:
        raise ValueError("--packing and --padding_free: rows are pre-tokenised one by one here; leave them out")


def units(arguments: EvaluationArguments, dataset: str = "", dtype: str = "float32") -> list[Unit]:
    """The evaluation units that the arguments ask for, in the suite's order. A format or method that a task does not
    have is not asked of it: benchmark tasks come in one format, and only labels are read in several ways."""
    return [
        Unit(task, prompt_format, int(shots), arguments.shot_seed, method, dtype, arguments.apply_chat_template)
        for task in select_tasks(arguments.tasks, dataset)
        for prompt_format in items(arguments.prompt_format)
        if prompt_format in TASKS[task].prompt_formats
        for shots in items(arguments.num_shots)
        for method in (items(arguments.methods) if TASKS[task].labels else TASKS[task].methods)
    ]


def items(text: str) -> list[str]:
    """The distinct items of a comma list, in order."""
    return list(dict.fromkeys(item.strip() for item in str(text).split(",")))


def describe(origins: dict[str, str], *parts) -> str:
    """One line per value that matters, with its origin; library defaults of the trainer are left out."""
    values = _values(parts)
    shown = [name for name, origin in origins.items() if origin != "library" and name not in ("output_dir",)]
    return "\n".join(f"  {name:<28} {values[name]!s:<28} ({origins[name]})" for name in shown)


def _values(parts) -> dict:
    values = {each.name: getattr(part, each.name) for part in parts for each in fields(part)}
    return {name: getattr(value, "value", value) for name, value in values.items()}  # enumerations by their value


def with_origins(origins: dict[str, str], *parts) -> dict[str, dict]:
    """Every setting with its value and origin, as JSON can hold it: for `run.json`."""
    values = _values(parts)
    secret = ("hub_token",)
    plain = {
        name: value if isinstance(value, int | float | type(None)) else str(value) for name, value in values.items()
    }
    return {name: {"value": plain[name], "origin": origins[name]} for name in values if name not in secret}


def quiet(parser: argparse.ArgumentParser, usage: str) -> argparse.ArgumentParser:
    """The parser with a short usage line and without the flags that cannot be given; its errors are a ValueError of one
    line instead of 200 flags of usage."""

    def error(message: str):
        raise ValueError(f"{message}; see --help")

    parser.error, parser.usage = error, usage
    for action in parser._actions:
        if action.dest in OURS:
            action.help = argparse.SUPPRESS
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser


def script(main) -> None:
    """Run a script's main: a user's mistake ends in one line and exit code 2 (AMURO_DEBUG=1 shows the traceback)."""
    try:
        main()
    except ValueError as error:
        if os.environ.get("AMURO_DEBUG"):
            raise
        sys.exit(_fail(error))


def _fail(error: ValueError) -> int:
    print("error:", " ".join(str(error).split()), file=sys.stderr)
    return 2
