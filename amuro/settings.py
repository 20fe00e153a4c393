"""Every flag of the scripts, its checks, and where each value comes from: flag, recipe, published, house or default.

    arguments, sft, lora, origins = parse(make_parser(), argv, stage="sft")

`--recipe NAME` reads sweeps/recipes/NAME.yaml (or a path to a YAML): its keys are flags, and `per_dataset` holds those
that differ for a dataset. What neither a flag nor a recipe gives takes the published value for (family, stage, dataset)
from `published.yaml` (recipes.py). `--help` explains the flags (usage.py).
"""

import argparse
import json
import math
import os
import re
import sys
from dataclasses import dataclass, field, fields
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from amuro.cells import Unit
from amuro.data import SAMPLE_SEED, SHOT_SEED, TRAIN_ROWS
from amuro.prompts import PROMPT_FORMATS
from amuro.recipes import for_dataset, known, published_values, read_recipe, refuse, refused
from amuro.running import ledger
from amuro.running.claims import CHOICES
from amuro.tasks import DATASETS, METHODS, RELATIONS, SFT, TASKS, select_tasks
from amuro.usage import help_text

DTYPES = ("float32", "bfloat16")
LOG_MODEL = ("none", "reference", "upload")
REPORT_TO = ("wandb", "none")
ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")  # of transformers itself
INSTRUCT = tuple(name for name in DATASETS if name not in SFT)
LORA = ("lora_", "use_rslora", "use_dora")  # how the flags begin that shape the adapters

# (least, greatest) of what can be given as a number; seeds are numpy's
NUMBERS = {
    **dict.fromkeys(
        "limit eval_batch_size batch_size num_train_rows per_device_train_batch_size".split(), (1, 2**31 - 1)
    ),
    **dict.fromkeys("save_total_limit gradient_accumulation_steps".split(), (1, 2**31 - 1)),
    **dict.fromkeys("held_out_rows dataloader_num_workers warmup_steps".split(), (0, 2**31 - 1)),
    **dict.fromkeys("seed sample_seed shot_seed data_seed".split(), (0, 2**32 - 1)),
    **dict.fromkeys("weight_decay max_grad_norm adam_epsilon neftune_noise_alpha".split(), (0, math.inf)),
    **dict.fromkeys("adam_beta1 adam_beta2 label_smoothing_factor".split(), (0, 1)),
    "logging_steps": (0, 2**31 - 1),
}

# Our own defaults of trainer settings: what the protocol asks, where the library's default would do something else.
HOUSE = {
    "gradient_checkpointing": False,
    "logging_nan_inf_filter": False,  # a NaN loss must be seen
    "save_strategy": "no",
    "report_to": "wandb",
    "lora_target_modules": "all-linear",  # OLMo has no default in peft, and attention alone learns less
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
    first = _first_pass(argv)
    recipe = read_recipe(first.recipe, parser) if first.recipe is not None else {}
    checkpoint, dataset = (getattr(first, name) or recipe.get(name) for name in ("checkpoint", "dataset"))
    dataset = dataset or parser.get_default("dataset")
    _check_dataset(dataset, stage)
    recipe = for_dataset(recipe, dataset)
    gpu = torch.cuda.is_available()
    layers = {  # each beats the ones before it
        "house": {**HOUSE, "bf16": gpu, "use_cpu": not gpu, "output_dir": "runs", "dataloader_pin_memory": gpu},
        "published": published_values((checkpoint or "").rpartition("@")[0], stage, dataset),
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
    origins |= dict.fromkeys(("output_dir", "gradient_accumulation_steps"), "derived")
    _check_dataset(arguments.dataset, stage)
    check_evaluation(arguments)
    _check_training(arguments, sft, given, recipe)
    _check_lora(lora, given, recipe)
    _check_optimizer(sft)
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
    except (ArithmeticError, ImportError, OSError) as error:
        said = " ".join(str(error).split()).partition(". ")[0]
        raise ValueError(f"a flag or the recipe has a value that cannot be used: {said}; see --help_all") from None


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
                raise ValueError(f"--{flag} {name!r}: {known(name, allowed)}")
    if arguments.if_claimed not in CHOICES:
        raise ValueError(f"--if_claimed {arguments.if_claimed!r}: allowed: {', '.join(CHOICES)}")
    formats = items(arguments.prompt_format)
    if unasked := [name for name in tasks if not set(formats) & set(TASKS[name].prompt_formats)]:
        raise ValueError(
            f"--prompt_format {arguments.prompt_format}: {', '.join(unasked)} have the format "
            f"{', '.join(TASKS[unasked[0]].prompt_formats)} only; add it, or leave these tasks out"
        )
    for text in items(arguments.num_shots):
        if not re.fullmatch("[0-8]", text):
            raise ValueError(f"--num_shots {text!r}: a comma list of numbers from 0 to 8 is needed")
    _check_numbers(arguments)
    for name in ("runs", "data_dir"):
        text = getattr(arguments, name)
        if text is not None and not (text.strip() and text.isprintable()):
            raise ValueError(f"--{name} {text!r}: the name of a folder is needed, or leave the flag out")
    if os.path.lexists(arguments.runs) and not os.path.isdir(arguments.runs):
        raise ValueError(f"--runs {arguments.runs}: is there, and no folder; give another one")


def _check_numbers(*parts) -> None:
    """ValueError on a number that is none, or is outside of what it can mean."""
    for name, value in _values(parts).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"--{name} {value}: must be a finite number")
        least, most = NUMBERS.get(name, (None, None))
        if least is None or not isinstance(value, int | float):
            continue
        if value < least:
            raise ValueError(f"--{name} {value}: must be at least {least}")
        if value > most:
            raise ValueError(f"--{name} {value}: must be at most {most}")


def _check_dataset(dataset: str | None, stage: str) -> None:
    allowed = SFT if stage == "sft" else INSTRUCT
    if stage == "instruct" and (dataset or "").endswith(".jsonl"):
        if not Path(dataset).is_file():
            raise ValueError(f"--dataset {dataset}: no such file; allowed: {', '.join(allowed)}, or a .jsonl file")
    elif dataset in DATASETS and dataset not in allowed:
        raise ValueError(
            f"--dataset {dataset}: {'train_instruct.py' if stage == 'sft' else 'train_sft.py'} trains on it"
        )
    elif dataset is not None and dataset not in allowed:
        raise ValueError(f"--dataset {dataset!r}: {known(dataset, allowed)}")


def _check_training(arguments: ScriptArguments, sft, given: list[str], recipe: dict) -> None:
    _check_numbers(arguments, sft)
    fraction = getattr(arguments, "train_fraction", 1.0)  # of train_instruct.py alone
    if not 0 < fraction <= 1:
        raise ValueError(f"--train_fraction {fraction}: must be above 0 and at most 1")
    if {"num_train_rows", "train_fraction"} <= {*given, *recipe}:
        raise ValueError("--num_train_rows and --train_fraction both say how much to train on: give one of them")
    if arguments.keep_weights not in ("none", "all"):
        raise ValueError(f"--keep_weights {arguments.keep_weights!r}: allowed: none, all")
    if arguments.log_model not in LOG_MODEL:
        raise ValueError(f"--log_model {arguments.log_model!r}: allowed: {', '.join(LOG_MODEL)}")
    if not sft.learning_rate > 0:
        raise ValueError(f"--learning_rate {sft.learning_rate}: must be above 0")
    if sft.max_steps == 0 or sft.max_steps < -1:
        raise ValueError(f"--max_steps {sft.max_steps}: must be at least 1, or -1 (by epochs)")
    if sft.max_steps < 0 and not sft.num_train_epochs > 0:
        raise ValueError(f"--num_train_epochs {sft.num_train_epochs}: must be above 0")
    if sft.report_to not in ([], ["none"], ["wandb"]):
        raise ValueError(f"--report_to {' '.join(sft.report_to)}: allowed: {', '.join(REPORT_TO)}")
    if sft.use_liger_kernel and not find_spec("liger_kernel"):
        raise ValueError("--use_liger_kernel: the package liger-kernel is not installed; leave the flag out")
    if sft.max_length is None or sft.max_length < 8:
        raise ValueError(f"--max_length {sft.max_length}: must be at least 8 tokens")
    if sft.packing or sft.padding_free:
        raise ValueError("--packing and --padding_free: rows are pre-tokenised one by one here; leave them out")
    if sft.save_strategy not in ("no", "steps", "epoch"):
        raise ValueError(f"--save_strategy {sft.save_strategy.value}: allowed: no, steps, epoch")
    if sft.save_strategy == "steps" and not sft.save_steps > 0:
        raise ValueError(f"--save_steps {sft.save_steps}: must be above 0 (below 1 it is a share of all steps)")
    if "save_steps" in given and sft.save_strategy != "steps":
        raise ValueError("--save_steps: nothing is saved without --save_strategy steps")


def _check_lora(lora, given: list[str], recipe: dict) -> None:
    shaped = [name for name in (*given, *recipe) if name.startswith(LORA)]
    if shaped and not lora.use_peft:
        raise ValueError(f"--{shaped[0]}: needs --use_peft; without it all weights are trained, which has no adapters")
    if lora.attn_implementation not in (None, *ATTENTION):
        name = lora.attn_implementation
        raise ValueError(f"--attn_implementation {name!r}: {known(name, ATTENTION)} (no code from a repository is run)")
    if lora.use_peft and not lora.lora_alpha > 0:
        raise ValueError(f"--lora_alpha {lora.lora_alpha}: must be above 0")
    if lora.lora_r < 1 or not 0 <= lora.lora_dropout < 1:
        raise ValueError(f"--lora_r {lora.lora_r} --lora_dropout {lora.lora_dropout}: at least 1; from 0 to below 1")


def _check_optimizer(sft) -> None:
    """ValueError where no optimizer or schedule can be made of these settings: not only once the model is loaded."""
    import torch
    from transformers import Trainer, get_scheduler

    named = f"--optim {getattr(sft.optim, 'value', sft.optim)} --lr_scheduler_type {sft.lr_scheduler_type.value}"
    try:
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(sft)
        optimizer = kind([torch.nn.Parameter(torch.zeros(1))], **settings)
        get_scheduler(sft.lr_scheduler_type, optimizer, 1, 10, scheduler_specific_kwargs=sft.lr_scheduler_kwargs)
    except (ImportError, ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{named}: cannot be used ({' '.join(str(error).split())})") from None


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
    """One line per value that matters, with its origin. Of the library's defaults only those are shown that decide the
    weights, of the LoRA settings none where all weights are trained."""
    from amuro.training import ALWAYS_IDENTITY

    values = _values(parts)
    adapters = values.get("use_peft", False)
    decides = [*ALWAYS_IDENTITY, *(name for name in values if adapters and name.startswith(LORA))]
    hidden = {"output_dir"} | {name for name in values if not adapters and name.startswith(LORA)}
    if values.get("num_train_rows"):
        hidden.add("train_fraction")  # the number of rows wins
    shown = [name for name in values if (origins[name] != "library" or name in decides) and name not in hidden]
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
    except ValueError as error:
        if os.environ.get("AMURO_DEBUG"):
            raise
        sys.exit(_fail(error))


def _fail(error: ValueError) -> int:
    print("error:", " ".join(str(error).split()), file=sys.stderr)
    return 2
