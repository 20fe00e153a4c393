"""Every flag of the scripts, and where each value comes from: flag, recipe, published, house (ours),
default, library, or derived from others.

    arguments, sft, lora, origins = parse(make_parser(), argv, stage="sft")

`--recipe NAME` reads sweeps/recipes/NAME.yaml (or a path to a YAML): its keys are flags, and `per_dataset` holds those
that differ for a dataset. What neither a flag nor a recipe gives takes the published value for (family, stage, dataset)
from `published.yaml` (recipes.py). What the flags may be is checked in checks.py; `--help` explains them (usage.py).
"""

import argparse
import errno
import json
import os
import sys
from dataclasses import dataclass, field, fields
from functools import partial

from amuro.cells import SHOT_SEED
from amuro.checks import (
    INSTRUCT,
    LORA,
    check_dataset,
    check_evaluation,
    check_lora,
    check_optimizer,
    check_training,
    values_of,
)
from amuro.data import SAMPLE_SEED, TRAIN_ROWS
from amuro.prompts import PROMPT_FORMATS
from amuro.recipes import for_dataset, published_values, read_recipe, refuse, refused
from amuro.run_config import check_sweep
from amuro.running import ledger
from amuro.tasks import METHODS, RELATIONS, SFT, TASKS
from amuro.usage import help_text

# Our own defaults of trainer settings: what the protocol asks, where the library's default would do something else.
HOUSE = {
    "gradient_checkpointing": False,
    "logging_nan_inf_filter": False,  # a NaN loss must be seen
    "save_strategy": "no",
    "report_to": "wandb",
    "lora_target_modules": "all-linear",  # OLMo has no default in peft, and attention alone learns less
}

# Errors of the system that are about what was typed: a name that is too long, a loop, a place that cannot be written.
NAMES = {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENOENT}
NAMES |= {errno.EACCES, errno.EPERM, errno.EROFS}


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
    if_claimed: str = field(
        default="wait", metadata={"help": "where another command has the cell: wait, or leave it to that one (exit 75)"}
    )


@dataclass
class ScriptArguments(EvaluationArguments):
    """What both training scripts share."""

    dataset: str = field(kw_only=True)
    recipe: str | None = field(default=None, metadata={"help": "NAME of sweeps/recipes/NAME.yaml, or a YAML file"})
    batch_size: int = field(
        default=8, metadata={"help": "effective batch: rows per optimizer step, over all processes"}
    )
    sample_seed: int = field(default=SAMPLE_SEED, metadata={"help": "seed of the draw of the training rows"})
    held_out_rows: int = field(
        default=0, metadata={"help": "of the training rows, how many are not trained on, to measure the loss on them"}
    )
    log_model: str = field(
        default="reference", metadata={"help": "the tuned model in W&B: its digest (reference), files (upload), none"}
    )
    keep_weights: str = field(
        default="none", metadata={"help": "all: keep the tuned weights; none: remove them once evaluated"}
    )


@dataclass
class TrainingArguments(ScriptArguments):
    """One cell of train_sft.py: a checkpoint, a dataset, hyper-parameters, a seed. Any SFTConfig flag may be given."""

    dataset: str = field(kw_only=True, metadata={"help": f"what to train on: {', '.join(SFT)}"})
    num_train_rows: int = field(default=TRAIN_ROWS, metadata={"help": "training rows, drawn by --sample_seed"})


@dataclass
class InstructArguments(ScriptArguments):
    """One cell of train_instruct.py: a checkpoint, conversations, hyper-parameters, a seed."""

    tasks: str = field(
        default="benchmark", metadata={"help": f"comma list of {', '.join(RELATIONS)}, all, none, {', '.join(TASKS)}"}
    )
    dataset: str = field(
        default="tulu", kw_only=True, metadata={"help": f"{', '.join(INSTRUCT)}, or a .jsonl file of `messages`"}
    )
    train_fraction: float = field(default=0.05, metadata={"help": "share of the conversations, drawn by --sample_seed"})
    num_train_rows: int | None = field(
        default=None, metadata={"help": "number of conversations, instead of --train_fraction"}
    )


def parse(parser, argv: list[str] | None, stage: str) -> tuple[ScriptArguments, object, object, dict[str, str]]:
    """(our arguments, SFTConfig, ModelConfig, origin of every value). ValueError with one line on a bad flag or recipe.

    Of the ModelConfig only the LoRA flags and `attn_implementation` can be given.
    """
    import torch

    argv = list(sys.argv[1:] if argv is None else argv)
    given = check_flags(argv, parser)
    first = _first_pass(argv, parser)
    recipe = read_recipe(first.recipe, parser) if first.recipe is not None else {}
    checkpoint, dataset = (getattr(first, name) or recipe.get(name) for name in ("checkpoint", "dataset"))
    dataset = dataset or parser.get_default("dataset")
    check_dataset(dataset, stage)
    recipe = for_dataset(recipe, dataset)
    gpu, name = torch.cuda.is_available(), (checkpoint or "").rpartition("@")[0]
    published, whose = published_values(name, stage, dataset)
    layers = {  # each beats the ones before it
        "house": {**HOUSE, "bf16": gpu, "use_cpu": not gpu, "output_dir": "runs", "dataloader_pin_memory": gpu},
        "published" if whose == name else f"published for {whose}": published,
        "recipe": recipe,
    }
    own, *libraries = ([each.name for each in fields(kind)] for kind in parser.dataclass_types)
    origins = dict.fromkeys(own, "default") | dict.fromkeys(sum(libraries, []), "library")
    for layer, values in layers.items():
        parser.set_defaults_with_config(**values)
        origins |= dict.fromkeys(values, layer)
    parser.format_help = partial(help_text, parser, refused(parser), origins, everything="--help_all" in argv)
    arguments, sft, lora = _made(parser, argv)
    origins |= {name: "flag" for name in given if name in origins}
    if "train_fraction" in given and "num_train_rows" in recipe:  # the flag wins
        arguments.num_train_rows, origins["num_train_rows"] = None, "flag"
    origins |= dict.fromkeys(("output_dir", "gradient_accumulation_steps"), "derived")
    if origins["per_device_train_batch_size"] == "library":
        origins["per_device_train_batch_size"] = "derived"  # a process's share of --batch_size
    check_dataset(arguments.dataset, stage)
    check_evaluation(arguments)
    check_training(arguments, sft, given, recipe)
    check_lora(lora, given, recipe)
    check_optimizer(sft)
    check_sweep((arguments, sft, lora))
    return arguments, sft, lora, origins


def check_flags(argv: list[str], parser: argparse.ArgumentParser) -> list[str]:
    """The flags that `argv` gives; ValueError on one that does not exist (with the nearest) or belongs to Amuro."""
    dests = {option: action.dest for action in parser._actions for option in action.option_strings}
    words = [word.split("=")[0] for word in argv if word.startswith("--") and len(word) > 2]
    given = [dests.get(word, word[2:].replace("-", "_")) for word in words]
    refuse(given, parser, "flag --")
    return given


def _made(parser, argv: list[str]):
    """The dataclasses. ValueError also where a library finds a value wrong in its own way: a file or package that is
    not there, text that is no JSON."""
    try:
        return parser.parse_args_into_dataclasses(args=argv)
    except json.JSONDecodeError as error:
        wrong = [word for word in argv if word.partition("=")[2].startswith("{") or word.startswith("{")]
        raise ValueError(f"{' '.join(wrong) or 'a flag'}: not JSON ({error})") from None
    except (ArithmeticError, AttributeError, ImportError, OSError, TypeError) as error:
        said = " ".join(str(error).split()).partition(". ")[0]
        raise ValueError(f"a flag or the recipe has a value that cannot be used: {said}; see --help_all") from None


def _first_pass(argv: list[str], parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The three flags that the defaults of all others depend on."""
    scan = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    scan.error = parser.error  # type: ignore[method-assign]
    for name in ("recipe", "checkpoint", "dataset"):
        scan.add_argument(f"--{name}")
    return scan.parse_known_args(argv)[0]


def describe(origins: dict[str, str], *parts) -> str:
    """One line per value that matters, with its origin. Of the library's defaults only those are shown that decide the
    weights, of the LoRA settings none where all weights are trained."""
    from amuro.training import ALWAYS_IDENTITY

    values = values_of(parts)
    adapters = values.get("use_peft", False)
    decides = [*ALWAYS_IDENTITY, *(name for name in values if adapters and name.startswith(LORA))]
    hidden = {"output_dir"} | {name for name in values if not adapters and name.startswith(LORA)}
    if values.get("num_train_rows"):
        hidden.add("train_fraction")  # the number of rows wins
    shown = [name for name in values if (origins[name] != "library" or name in decides) and name not in hidden]
    return "\n".join(f"  {name:<28} {values[name]!s:<28} ({origins[name]})" for name in shown)


def with_origins(origins: dict[str, str], *parts) -> dict[str, dict]:
    """Every setting with its value and origin, as JSON can hold it: for `run.json`."""
    values = values_of(parts)
    plain = {
        name: value if isinstance(value, int | float | type(None)) else str(value) for name, value in values.items()
    }
    return {name: {"value": plain[name], "origin": origins[name]} for name in values if name != "hub_token"}


def quiet(parser, usage: str):
    """The HfArgumentParser with a help that teaches (usage.py); its errors are a ValueError of one line."""

    def error(message: str):
        raise ValueError(f"{message}; see --help")

    parser.error, parser.usage = error, usage
    if len(parser.dataclass_types) > 1:
        parser.add_argument("--help_all", action="help", help="this, and every other flag of the libraries")
    parser.format_help = partial(help_text, parser, refused(parser))
    return parser


def script(main, program: str = "") -> None:
    """Run a script's main: a user's mistake ends in one line and exit code 2 (AMURO_DEBUG=1 shows the traceback). How
    a `program` that makes cells ended is noted in the ledger."""
    try:
        if program:
            ledger.run(program, main)
        else:
            main()
    except (ValueError, OSError) as error:
        if os.environ.get("AMURO_DEBUG") or (isinstance(error, OSError) and error.errno not in NAMES):
            raise
        sys.exit(_fail(error))


def _fail(error: Exception) -> int:
    print("error:", " ".join(str(error).split()), file=sys.stderr)
    return 2
