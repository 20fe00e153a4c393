"""What may be set, and where: recipes, published values, and the libraries' flags that are refused.

read_recipe("olmo-1b-sft", parser)                  {flag: value}, each known and of the right type
published_values("olmo-1b", "sft", "xsum")          what holds where neither a flag nor a recipe says anything
"""

import argparse
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import Union, get_args, get_origin, get_type_hints

import yaml

from amuro.names import did_you_mean, unknown_of
from amuro.strict import read_yaml
from amuro.tasks import DATASETS

RECIPES = Path(__file__).parent.parent / "sweeps" / "recipes"
PUBLISHED = Path(__file__).parent / "published.yaml"

ROWS = "rows are tokenised, masked and shortened by Amuro, the same way in training and in evaluation"
CHECKPOINT = "the model is --checkpoint, loaded in float32"
PUSHED = "nothing is uploaded to the hub; --keep_weights all keeps the tuned weights under --runs"
UNSCORED = "nothing is scored while training: tasks are afterwards (--tasks), held-out rows too (--held_out_rows)"
FULL = "weights are trained and stored in float32; where memory is short, try --recipe small-gpu-lora"
OURS = {  # flags of the libraries that belong to Amuro, and why
    "output_dir": "the folder follows from the cell's identity, so that two settings never share one; use --runs",
    "run_name": "names follow from the cell's identity",
    "resume_from_checkpoint": "a cell resumes by itself",
    "save_only_model": "without the optimizer's state a cell cannot go on from its checkpoint",
    "ignore_data_skip": "a cell that goes on must not see the same rows again",
    "load_best_model_at_end": "a cell's weights are those of its last step",
    "eval_strategy": "tasks are scored after the training (--tasks), held-out rows too (--held_out_rows)",
    "gradient_accumulation_steps": "it is derived from --batch_size (the effective batch), "
    "--per_device_train_batch_size and the number of processes",
    "accelerator_config": "the order of the rows, and each process's share of them, belong to a cell's identity",
    "dataloader_drop_last": "every row is trained on",
    "auto_find_batch_size": "--batch_size is the effective batch; where memory is short, lower "
    "--per_device_train_batch_size",
    "trust_remote_code": "no code from a repository is run",
    "config": "use --recipe NAME or --recipe FILE.yaml",
    "lora_task_type": "a causal language model is trained",
    **dict.fromkeys("model_name_or_path model_revision model_init_kwargs".split(), CHECKPOINT),
    **dict.fromkeys("dtype load_in_8bit load_in_4bit bnb_4bit_quant_type bnb_4bit_quant_storage".split(), FULL),
    "use_bnb_nested_quant": FULL,
    **dict.fromkeys("push_to_hub hub_model_id hub_strategy hub_token hub_private_repo".split(), PUSHED),
    **dict.fromkeys("hub_always_push hub_revision".split(), PUSHED),
    **dict.fromkeys("do_eval do_predict eval_steps eval_delay eval_on_start eval_packing".split(), UNSCORED),
    **dict.fromkeys("include_for_metrics batch_eval_metrics prediction_loss_only".split(), UNSCORED),
    **dict.fromkeys("chat_template_path dataset_text_field dataset_kwargs eos_token pad_token".split(), ROWS),
    **dict.fromkeys("truncation_mode shuffle_dataset completion_only_loss assistant_only_loss".split(), ROWS),
}


def published_values(family: str, stage: str, dataset: str | None) -> tuple[dict, str]:
    """(the published hyper-parameters for (family, stage, dataset), the family that they are of: olmo-1b where this one
    has none of its own)."""
    families = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
    whose = family if stage in families.get(family, {}) else "olmo-1b"
    return for_dataset(families[whose][stage], dataset), whose


def for_dataset(values: dict, dataset: str | None) -> dict:
    """The values that hold for a dataset: its own under `per_dataset` over the common ones."""
    common = {name: value for name, value in values.items() if name != "per_dataset"}
    return {**common, **values.get("per_dataset", {}).get(dataset, {})}


def path_of(name: str) -> Path:
    """The file that `--recipe NAME` means: one of sweeps/recipes/, or a YAML by its path."""
    return Path(name) if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"


def read_recipe(name: str, parser: argparse.ArgumentParser) -> dict:
    """The flags that a recipe sets, each known and of the right type. Raises ValueError with file, key and remedy."""
    path = path_of(name)
    if not path.is_file():
        there = ", ".join(sorted(each.stem for each in RECIPES.glob("*.yaml")))
        raise ValueError(f"--recipe {name!r}: no file {path}; recipes there: {there or 'none'}")
    try:
        recipe = read_yaml(path)
    except ValueError as error:
        raise ValueError(f"--recipe {error}") from None
    if not isinstance(recipe, dict):
        raise ValueError(f"--recipe {path}: must be a mapping of flags to values")
    per_dataset = recipe.get("per_dataset", {})
    if not isinstance(per_dataset, dict) or not all(isinstance(values, dict) for values in per_dataset.values()):
        raise ValueError(f"--recipe {path}: per_dataset must be like {{xsum: {{learning_rate: 2.0e-7}}}}")
    if unknown := [dataset for dataset in per_dataset if dataset not in DATASETS]:
        raise ValueError(f"--recipe {path}: per_dataset: {unknown[0]}: {unknown_of(unknown[0], DATASETS)}")
    kinds, choices = _kinds(parser), {action.dest: action.choices for action in parser._actions}
    if "recipe" in recipe:
        raise ValueError(f"--recipe {path}: key recipe: a recipe cannot take another one; copy its keys")
    if both := {"checkpoint", "dataset"} & {key for values in per_dataset.values() for key in values}:
        raise ValueError(f"--recipe {path}: per_dataset: {min(both)}: decides which of them holds; put it outside")
    problems = []
    for values in (for_dataset(recipe, None), *per_dataset.values()):
        refuse(values, parser, f"--recipe {path}: key ")
        if asks := [key for key in values if key not in kinds]:
            raise ValueError(f"--recipe {path}: key {asks[0]}: a question, no setting; leave it out")
        problems += [problem for key, value in values.items() if (problem := _mistyped(key, value, kinds[key]))]
        problems += [
            f"{key}: {value!r}: {unknown_of(value, list(map(str, choices[key])))}"
            for key, value in values.items()
            if choices.get(key) and value not in choices[key]
        ]
    if problems:
        raise ValueError(f"--recipe {path}: {'; '.join(problems)}")
    return recipe


def _kinds(parser) -> dict[str, set[type]]:
    """The types that a flag's value may have, from the dataclasses' annotations."""
    hints = {name: hint for kind in parser.dataclass_types for name, hint in get_type_hints(kind).items()}
    parts = {n: get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,) for n, hint in hints.items()}
    plain = {name: {get_origin(each) or each for each in kinds} for name, kinds in parts.items()}
    return {name: {kind for kind in kinds if isinstance(kind, type)} for name, kinds in plain.items()}


def _mistyped(key: str, value, kinds: set[type]) -> str:
    takes = {float: (int, float), list: (list, str)}
    if isinstance(value, list) and list in kinds and not all(isinstance(each, str) for each in value):
        return f"{key}: {value!r}: texts are needed in the list"
    if any(isinstance(value, bool) == (kind is bool) and isinstance(value, takes.get(kind, kind)) for kind in kinds):
        return ""
    if kinds & {int, float} and isinstance(value, str):
        remedy = ""
        try:
            number = repr(float(value)) if float in kinds else str(int(float(value)))
            number = number if "." in number else number.replace("e", ".0e")
            remedy = f": YAML 1.1 reads it as text, write {number}"
        except ValueError:
            pass  # not a number at all: the message says so
        return f"{key}: {value!r} is text, a number is needed{remedy}"
    wanted = " or ".join(kind.__name__ for kind in (int, float, bool, str, list, dict) if kind in kinds)
    remedy = ': YAML 1.1 reads no and yes as false and true, write "no"' if value is False and str in kinds else ""
    return f"{key}: {value!r} is {type(value).__name__}, {wanted} is needed{remedy}"


def refused(parser) -> dict[str, str]:
    """The flags of the libraries that cannot be given, and why. A script may have a flag of its own of such a name."""
    own = [each.name for each in fields(parser.dataclass_types[0])]
    return {name: why for name, why in OURS.items() if name not in own}


def refuse(names, parser, prefix: str) -> None:
    """ValueError on the first name that is no flag of the parser, or cannot be given; `prefix` says where it stands."""
    actions = [action.dest for action in parser._actions]
    for name in names:
        if name in (ours := refused(parser)):
            raise ValueError(f"{prefix}{name} cannot be given: {ours[name]}")
        if name not in actions:
            raise ValueError(f"{prefix}{name}: unknown{did_you_mean([name], actions)} see --help")
