"""Weights & Biases for one cell: our own run, opened before the trainer's callback, with everything under `--runs`.

Local files are the truth; W&B gets the same values. Without a configured key the run is recorded offline.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from amuro.cells import Cell, Unit

PROJECT = "amuro"
_said: set[str] = set()
_ours: dict[str, str] = {}  # the folders that an earlier cell of this process has set, maybe for another --runs


@contextmanager
def run(cell: Cell, runs: str, enabled: bool, **config) -> Iterator:
    """The W&B run of a cell, finished on leaving (as failed on an exception); None where tracking is off, and in all
    of several processes but one."""
    from accelerate import PartialState

    os.environ["WANDB_LOG_MODEL"] = "false"  # the callback's upload of weights: ours to decide, never by environment
    if not enabled or not PartialState().is_main_process:
        yield None
        return
    for name, folder in (("WANDB_DIR", ""), ("WANDB_DATA_DIR", "wandb/data"), ("WANDB_CACHE_DIR", "wandb/cache")):
        path = Path(runs).resolve() / folder
        path.mkdir(parents=True, exist_ok=True)
        if os.environ.get(name, _ours.get(name)) == _ours.get(name):  # what the user has set stays
            os.environ[name] = _ours[name] = str(path)
    import wandb

    # The config has one level, whose keys are the flags' names.
    about = {name: value for name, value in asdict(cell).items() if name != "hyperparameters"}
    opened = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        group=cell.family,
        job_type=cell.stage,
        name=cell.name,
        tags=[tag for tag in (cell.family, cell.stage, cell.dataset) if tag],
        config={**about, **cell.hyperparameters, "cell_id": cell.cell_id, **config},
        dir=os.environ["WANDB_DIR"],  # the client may have read the environment before
        mode=_mode(wandb),
        settings=wandb.Settings(silent=True, console="off"),
        reinit="finish_previous",
    )
    try:
        yield opened
    except BaseException:
        opened.finish(exit_code=1)
        raise
    opened.finish()


def log_unit(opened, unit: Unit, rows: list[dict]) -> None:
    """Put a unit's values into the run's summary under `eval/<task>/<format>/<k>shot/<method>/<metric>`."""
    if opened is not None:
        for row in rows:
            opened.summary[unit.key(row["metric"])] = row["value"]


def log_progress(opened, bar) -> None:
    """Log how far an evaluation is, as its progress bar shows it: examples done, examples per second, seconds left."""
    if opened is not None:
        rate = bar.format_dict["rate"] or bar.n / max(bar.format_dict["elapsed"], 1e-9)
        left = (bar.total - bar.n) / rate if rate else None
        opened.log(
            {
                "evaluation/examples": bar.n,
                "evaluation/examples_per_s": rate,
                "evaluation/seconds_left": left,
            }
        )


def _mode(wandb) -> str:
    """WANDB_MODE where it is set; else online with a key and offline without one, said once."""
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    if wandb.login(prompt=False):
        return "online"
    if "offline" not in _said:
        _said.add("offline")
        print("W&B: no key is configured, runs are recorded offline (`wandb login` or WANDB_API_KEY changes that)")
    return "offline"
