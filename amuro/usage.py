"""The `--help` of the scripts: their own flags and the libraries' most used ones in groups, each with the value that it
has when it is not given. What else is given (`--recipe`, `--checkpoint`, `--dataset`) changes these values, also in
`--help`.

    python train_sft.py --help --recipe llama3-8b-sft
"""

import argparse
import inspect
import textwrap
from pathlib import Path

from amuro.recipes import RECIPES

WIDTH, COLUMN = 118, 32

GROUPS = {
    "what": "checkpoint cell dataset recipe num_train_rows train_fraction sample_seed held_out_rows seed dtype",
    "training": """learning_rate num_train_epochs max_steps batch_size per_device_train_batch_size max_length
    lr_scheduler_type warmup_steps weight_decay max_grad_norm optim bf16 gradient_checkpointing attn_implementation
    torch_compile save_strategy save_steps logging_steps""",
    "LoRA": "use_peft lora_r lora_alpha lora_dropout lora_target_modules",
    "evaluation": """tasks prompt_format num_shots methods apply_chat_template shot_seed limit eval_batch_size""",
    "where": "data_dir runs if_claimed keep_weights report_to log_model help help_all",
}
HELP = {  # of the libraries' flags that are shown
    "learning_rate": "the peak of the schedule; `amuro rates` chooses one on held-out rows",
    "num_train_epochs": "times that all rows are trained on",
    "max_steps": "optimizer steps, instead of epochs; -1: by epochs",
    "per_device_train_batch_size": "rows per forward pass on a device; by default its whole share of --batch_size",
    "max_length": "tokens of a row; longer ones are shortened, and counted",
    "lr_scheduler_type": "linear, cosine, constant_with_warmup, ...",
    "warmup_steps": "optimizer steps of warm-up; below 1, a share of all steps",
    "weight_decay": "of AdamW",
    "max_grad_norm": "the norm that gradients are clipped to; 0: they are not",
    "optim": "the optimizer",
    "seed": "of the order of the rows, and of dropout",
    "bf16": "compute in bfloat16; the weights are float32 in any case",
    "gradient_checkpointing": "less memory for about a third more time",
    "attn_implementation": "sdpa, eager, flash_attention_2, ... by default the library's choice",
    "torch_compile": "compile the model first",
    "save_strategy": "checkpoints to go on from after a kill: no, steps, epoch",
    "save_steps": "optimizer steps from one to the next; below 1, a share of all steps",
    "logging_steps": "optimizer steps between two points of the loss curve",
    "report_to": "wandb (WANDB_MODE=offline keeps it on this machine) or none",
    "use_peft": "train LoRA adapters only; they are merged for the evaluation",
    "lora_r": "rank of the adapters",
    "lora_alpha": "their scale is lora_alpha / lora_r",
    "lora_dropout": "dropout in front of them",
    "lora_target_modules": "where they are; all-linear: at every linear layer but the last",
    "help": "this; the values shown follow --checkpoint, --dataset and --recipe",
}


def help_text(parser: argparse.ArgumentParser, hidden, origins: dict | None = None, everything: bool = False) -> str:
    """The help of a script: usage, its docstring, the flags in groups, the recipes. `hidden` flags are left out;
    `origins` says where the values shown come from; `everything` lists the libraries' other flags too."""
    actions = {action.dest: action for action in reversed(parser._actions) if action.dest not in hidden}
    grouped = {title: [name for name in names.split() if name in actions] for title, names in GROUPS.items()}
    shown = {name for names in grouped.values() for name in names}
    rest = sorted(name for name in actions if name not in shown)
    if everything:
        grouped["all others"] = rest
    parts = [f"usage: {parser.usage}", inspect.cleandoc(parser.description)]
    for title, names in grouped.items():
        if names:
            parts.append("\n".join([f"{title}:", *(_flag(actions[name], origins or {}) for name in names)]))
    if "recipe" in actions:
        recipes = "".join(f"\n  {path.stem:<{COLUMN - 2}}{_about(path)}" for path in sorted(RECIPES.glob("*.yaml")))
        script, dataset = parser.usage.split()[0], " --dataset mnli" if actions["dataset"].required else ""
        example = f"python {script} --recipe small-gpu-lora --checkpoint olmo-1b@342000{dataset}"
        parts.append(f"recipes:{recipes}\n\n    {example}")
    if rest and not everything:
        parts.append(f"{len(rest)} more flags of TRL's SFTConfig and ModelConfig can be given: --help_all lists them.")
    return "\n\n".join(parts) + "\n"


def _flag(action: argparse.Action, origins: dict[str, str]) -> str:
    origin, value = origins.get(action.dest), getattr(action.default, "value", action.default)
    text = HELP.get(action.dest) or " ".join((action.help or "").replace("%%", "%").split())
    if action.dest == "help" and not origins:
        text = "this"
    if origin == "library" and action.dest not in HELP:
        text = text.split(". ")[0].rstrip(".")
    if action.required:
        text += " [required]"
    elif value not in (None, argparse.SUPPRESS) and action.dest != "per_device_train_batch_size":
        known = [str(value)] + [origin] * (origin not in (None, "default"))
        text += f" [{', '.join(known)}]".replace(", ", ",\xa0").replace(" for ", "\xa0for\xa0")  # stays on a line
    name = f"  --{action.dest}".ljust(COLUMN - 1) + " "
    wrapped = textwrap.fill(text, WIDTH, initial_indent=name, subsequent_indent=" " * COLUMN, break_on_hyphens=False)
    return wrapped.replace("\xa0", " ")


def _about(recipe: Path) -> str:
    return recipe.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ").rstrip(".")
