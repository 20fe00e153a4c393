"""A W&B run's name, group, tags and config; and a check that the script uses the values that a sweep has set.

check_sweep((arguments, sft, lora))      {flag: value} that the sweep has set; ValueError where another was used
"""

import json
import os
from dataclasses import asdict, fields
from enum import Enum
from pathlib import Path

from amuro.cells import Cell
from amuro.strict import read_yaml


def in_sweep() -> bool:
    """Whether a W&B agent has started this process."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


def described(cell: Cell) -> dict:
    """The config: one level, whose keys are the flags' names."""
    about = {name: value for name, value in asdict(cell).items() if name != "hyperparameters"}
    return {**about, **cell.hyperparameters, "cell_id": cell.cell_id}


def named(cell: Cell, job_type: str) -> dict:
    """Name, group, tags and job type: runs of one curve over the checkpoints are a group. (W&B cuts at 128 and 64.)"""
    tuned, seed = ["base"], []
    if cell.dataset:
        tuned, seed = [cell.stage, cell.dataset], [f"lr {cell.hyperparameters['learning_rate']:g}", f"seed {cell.seed}"]
    return {
        "name": " ".join([cell.checkpoint, *tuned, *seed])[-128:],
        "group": " ".join([cell.family, *tuned, *seed[:1]])[-128:],
        "tags": list(dict.fromkeys(tag[-64:] for tag in (cell.family, cell.checkpoint, *tuned))),
        "job_type": job_type,
    }


def check_sweep(parts: tuple) -> dict:
    """What the sweep has set, by flag; empty outside of one. ValueError where the script uses another value: W&B locks
    these keys of the config, which would then tell what was not done."""
    path = os.environ.get("WANDB_SWEEP_PARAM_PATH")
    if not in_sweep() or not path:
        return {}
    said = read_yaml(Path(path))
    if not isinstance(said, dict):
        raise ValueError(f"{path}: not the parameters that a W&B agent hands over, a mapping of flags")
    swept = {key: entry["value"] for key, entry in said.items() if isinstance(entry, dict) and "value" in entry}
    used = {each.name: getattr(part, each.name) for part in parts for each in fields(part)}
    for key in swept.keys() & used.keys():
        if normal(used[key]) != normal(swept[key]):
            raise ValueError(
                f"--{key}: the sweep has set {swept[key]!r}, but {used[key]!r} was used; "
                f"give it in one place: under `parameters` of the sweep's YAML, or in its `command`"
            )
    return swept


def normal(value):
    """A flag's value as the script and a sweep may both write it: "1e-5" is 1e-05, "true" is True, ["a"] is "a"."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, list | tuple):
        return normal(value[0]) if len(value) == 1 else [normal(each) for each in value]
    if isinstance(value, str):
        text = value.strip()
        try:
            return json.loads(text.lower() if text.lower() in ("true", "false") else text)
        except ValueError:
            return None if text == "None" else text
    return value
