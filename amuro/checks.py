"""What the flags may be: every check that needs no model and no data, one line that says what is wrong each.

`settings.parse` and `eval/run.py` call them before anything is loaded.
"""

import math
import os
import re
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

from amuro.names import unknown_of
from amuro.prompts import PROMPT_FORMATS
from amuro.running.claims import CHOICES
from amuro.tasks import DATASETS, METHODS, SFT, TASKS, select_tasks

DTYPES = ("float32", "bfloat16")
LOG_MODEL = ("none", "reference", "upload")
REPORT_TO = ("wandb", "none")
ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")  # of transformers itself
INSTRUCT = tuple(name for name in DATASETS if name not in SFT)
MOST_RANK = 65536  # of adapters
LORA = ("lora_", "use_rslora", "use_dora")  # how the flags begin that shape the adapters

# (least, greatest) of what can be given as a number; seeds are numpy's
NUMBERS = {
    **dict.fromkeys(
        "limit eval_batch_size batch_size num_train_rows per_device_train_batch_size".split(), (1, 2**31 - 1)
    ),
    "save_total_limit": (1, 2**31 - 1),
    **dict.fromkeys("held_out_rows warmup_steps".split(), (0, 2**31 - 1)),
    "dataloader_num_workers": (0, 256),
    "num_train_epochs": (-math.inf, 10**6),
    **dict.fromkeys("seed sample_seed shot_seed data_seed".split(), (0, 2**32 - 1)),
    **dict.fromkeys("weight_decay max_grad_norm adam_epsilon neftune_noise_alpha".split(), (0, math.inf)),
    **dict.fromkeys("adam_beta1 adam_beta2 label_smoothing_factor".split(), (0, 1)),
    "logging_steps": (0, 2**31 - 1),
}


def check_evaluation(arguments) -> None:
    """ValueError on tasks, formats, shots or numbers that do not exist."""
    dataset = getattr(arguments, "dataset", "")
    tasks = select_tasks(arguments.tasks, dataset)
    if not tasks and items(arguments.tasks) != ["none"]:
        raise ValueError(f"--tasks {arguments.tasks}: {dataset} has no such tasks; try benchmark or cross_task")
    for flag, allowed in (("prompt_format", PROMPT_FORMATS), ("methods", METHODS)):
        for name in items(getattr(arguments, flag)):
            if name not in allowed:
                raise ValueError(f"--{flag} {name!r}: {unknown_of(name, allowed)}")
    if arguments.if_claimed not in CHOICES:
        raise ValueError(f"--if_claimed {arguments.if_claimed!r}: allowed: {', '.join(CHOICES)}")
    formats = items(arguments.prompt_format)
    if unasked := [name for name in tasks if not set(formats) & set(TASKS[name].prompt_formats)]:
        raise ValueError(
            f"--prompt_format {arguments.prompt_format}: {', '.join(unasked)} have the format "
            f"{', '.join(TASKS[unasked[0]].prompt_formats)} only; add it, or leave these tasks out"
        )
    if tasks and items(arguments.methods) != ["token_prob"] and not any(TASKS[name].labels for name in tasks):
        raise ValueError(f"--methods {arguments.methods}: none of the tasks has labels to be read; leave it out")
    for text in items(arguments.num_shots):
        if not re.fullmatch("[0-8]", text):
            raise ValueError(f"--num_shots {text!r}: a comma list of numbers from 0 to 8 is needed")
    check_numbers(arguments)
    for name in ("runs", "data_dir"):
        text = getattr(arguments, name)
        if text is not None and not (text.strip() and text.isprintable()):
            raise ValueError(f"--{name} {text!r}: the name of a folder is needed, or leave the flag out")
        if text and text.startswith("~"):
            raise ValueError(f"--{name} {text}: ~ is expanded by a shell alone, as in --{name} ~/x; write the path out")
    if os.path.lexists(arguments.runs) and not os.path.isdir(arguments.runs):
        raise ValueError(f"--runs {arguments.runs}: is there, and no folder; give another one")


def check_numbers(*parts) -> None:
    """ValueError on a number that is none, or is outside of what it can mean."""
    for name, value in values_of(parts).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"--{name} {value}: must be a finite number")
        least, most = NUMBERS.get(name, (None, None))
        if least is None or not isinstance(value, int | float):
            continue
        if value < least:
            raise ValueError(f"--{name} {value}: must be at least {least}")
        if value > most:
            raise ValueError(f"--{name} {value}: must be at most {most}")


def check_dataset(dataset: str | None, stage: str) -> None:
    """ValueError where a stage does not train on this data."""
    allowed = SFT if stage == "sft" else INSTRUCT
    if stage == "instruct" and (dataset or "").endswith(".jsonl"):
        if not Path(dataset).is_file():
            raise ValueError(f"--dataset {dataset}: no such file; allowed: {', '.join(allowed)}, or a .jsonl file")
    elif dataset in DATASETS and dataset not in allowed:
        raise ValueError(
            f"--dataset {dataset}: {'train_instruct.py' if stage == 'sft' else 'train_sft.py'} trains on it"
        )
    elif dataset is not None and dataset not in allowed:
        raise ValueError(f"--dataset {dataset!r}: {unknown_of(dataset, allowed)}")


def check_training(arguments, sft, given: list[str], recipe: dict) -> None:
    """ValueError on a training that cannot be meant, or that the scripts cannot do; `given` are the flags."""
    check_numbers(arguments, sft)
    fraction = getattr(arguments, "train_fraction", 1.0)  # of train_instruct.py alone
    if not 0 < fraction <= 1:
        raise ValueError(f"--train_fraction {fraction}: must be above 0 and at most 1")
    if any({"num_train_rows", "train_fraction"} <= set(names) for names in (given, recipe)):
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
        raise ValueError(f"--report_to {' '.join(map(str, sft.report_to))}: allowed: {', '.join(REPORT_TO)}")
    if sft.use_liger_kernel and not find_spec("liger_kernel"):
        raise ValueError("--use_liger_kernel: the package liger-kernel is not installed; leave the flag out")
    if sft.max_length is None or sft.max_length < 8:
        raise ValueError(f"--max_length {sft.max_length}: must be at least 8 tokens")
    if sft.packing or sft.padding_free:
        raise ValueError("--packing and --padding_free: rows are pre-tokenised one by one here; leave them out")
    if sft.fp16 and sft.use_cpu:
        raise ValueError("--fp16: float16 needs a GPU; leave it out, or give --bf16 true")
    if sft.pad_to_multiple_of is not None and sft.pad_to_multiple_of < 1:
        raise ValueError(f"--pad_to_multiple_of {sft.pad_to_multiple_of}: must be at least 1")
    if sft.max_steps == 1 and sft.warmup_steps > 0:
        raise ValueError("--max_steps 1: its one step would be warm-up, at rate 0; add --warmup_steps 0")
    if sft.optim_args and sft.optim.startswith("adamw_torch"):
        raise ValueError(
            f"--optim_args {sft.optim_args}: AdamW takes none of them; --adam_beta1 and the like are flags"
        )
    if sft.save_strategy not in ("no", "steps", "epoch"):
        raise ValueError(f"--save_strategy {sft.save_strategy.value}: allowed: no, steps, epoch")
    if sft.save_strategy == "steps" and not sft.save_steps > 0:
        raise ValueError(f"--save_steps {sft.save_steps}: must be above 0 (below 1 it is a share of all steps)")
    if "save_steps" in given and sft.save_strategy != "steps":
        raise ValueError("--save_steps: nothing is saved without --save_strategy steps")


def check_lora(lora, given: list[str], recipe: dict) -> None:
    """ValueError on adapters that cannot be, or that nothing uses, and on attention from a repository's code."""
    shaped = [name for name in (*given, *recipe) if name.startswith(LORA)]
    if shaped and not lora.use_peft:
        raise ValueError(f"--{shaped[0]}: needs --use_peft; without it all weights are trained, which has no adapters")
    if lora.attn_implementation not in (None, *ATTENTION):
        name = lora.attn_implementation
        raise ValueError(
            f"--attn_implementation {name!r}: {unknown_of(name, ATTENTION)} (no code from a repository is run)"
        )
    if lora.use_peft and not lora.lora_alpha > 0:
        raise ValueError(f"--lora_alpha {lora.lora_alpha}: must be above 0")
    if not 1 <= lora.lora_r <= MOST_RANK or not 0 <= lora.lora_dropout < 1:
        both = f"--lora_r {lora.lora_r} --lora_dropout {lora.lora_dropout}"
        raise ValueError(f"{both}: from 1 to {MOST_RANK}; from 0 to below 1")


def check_optimizer(sft) -> None:
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


def items(text: str) -> list[str]:
    """The distinct items of a comma list, in order."""
    return list(dict.fromkeys(item.strip() for item in str(text).split(",")))


def values_of(parts) -> dict:
    """All fields of some dataclasses, enumerations by their value."""
    values = {each.name: getattr(part, each.name) for part in parts for each in fields(part)}
    return {name: getattr(value, "value", value) for name, value in values.items()}
