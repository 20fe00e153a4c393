"""Evaluates one model on units (task, format, shots ...) through lm-evaluation-harness, one stored file per unit.

python -m eval.run --checkpoint nursery@200 --tasks id,ood           a BASE model
evaluate_units(model, tokenizer, ...)                                a model in memory, straight after training
"""

import contextlib
import io
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from amuro.cells import Cell, Unit
from amuro.data import evaluation_rows, resolve_data_dir
from amuro.results import interval, read_unit, write_unit
from amuro.tasks import TASK_VERSION, TASKS, relation_of

TASKS_FOLDER = Path(__file__).parent.parent / "eval" / "tasks"


@dataclass(frozen=True)
class Request:
    """What is asked of `missing` and `evaluate_units`: the units and the data they are scored on."""

    units: tuple[Unit, ...]
    data_dir: str | None
    limit: int | None
    batch_size: int


def request(arguments, dataset: str = "", dtype: str = "float32") -> Request:
    """The request that command-line arguments make. Loads and checks all its data: ValueError before any model load."""
    from amuro.settings import units

    asked = Request(
        tuple(units(arguments, dataset, dtype)),
        resolve_data_dir(arguments.data_dir),
        arguments.limit,
        arguments.eval_batch_size,
    )
    for unit in asked.units:
        pool = len(evaluation_rows(unit.task, asked.data_dir, unit.shot_seed).shots)
        if unit.num_shots > pool:
            raise ValueError(f"--num_shots {unit.num_shots}: the pool of shots of {unit.task} has {pool} rows")
    return asked


def missing(folder: Path, asked: Request) -> list[Unit]:
    """The units of a cell's folder that are not there, or were scored on other data or another number of rows."""
    out = []
    for unit in asked.units:
        path = unit.path(folder)
        if not path.is_file():
            out.append(unit)
        elif read_unit(path)["about"]["scored"] != _scored(unit, asked):
            print(f"{path.name}: scored on other rows than asked for now; it is evaluated again")
            out.append(unit)
    return out


def _scored(unit: Unit, asked: Request) -> dict:
    """What decides which rows a unit is scored on, as far as the unit itself does not say it."""
    digest = evaluation_rows(unit.task, asked.data_dir, unit.shot_seed).digest
    return {"data_digest": digest, "limit": asked.limit, "task_version": TASK_VERSION}


def evaluate_units(
    model, tokenizer, checkpoint_folder: Path, cell: Cell, folder: Path, asked: Request, todo: list[Unit], on_unit=None
) -> None:
    """Score `todo` with a model in memory and store each unit as soon as it is done; `on_unit(unit, rows)` is told.

    `checkpoint_folder` is where the tasks find the tokenizer and the context length.
    """
    import torch
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # a warning per task about the data hook that we chose
    model.eval()
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=asked.batch_size)
    places = {"pretrained": str(checkpoint_folder), **({"data_dir": asked.data_dir} if asked.data_dir else {})}
    bar = tqdm(todo, desc=f"evaluate {cell.name}", unit="unit")
    for unit in bar:
        bar.set_postfix_str(f"{unit.task} {unit.prompt_format} {unit.num_shots}-shot")
        manager = TaskManager(
            include_path=str(TASKS_FOLDER), include_defaults=False, metadata={**places, "shot_seed": unit.shot_seed}
        )
        started = time.perf_counter()
        with torch.no_grad():
            examples, version = score_unit(lm, manager, unit, asked.limit)
        rows = [row_of(cell, unit, examples, version)]
        about = {
            "scored": _scored(unit, asked),
            "unit": asdict(unit),
            "seconds": round(time.perf_counter() - started, 3),
            "origin": evaluation_rows(unit.task, asked.data_dir, unit.shot_seed).test.origin,
        }
        write_unit(unit.path(folder), rows, examples, about)
        if on_unit:
            on_unit(unit, rows)


def harness_name(unit: Unit) -> str:
    """The name of the YAML task that a unit runs."""
    return f"amuro_{unit.task}" + ("" if unit.prompt_format == "default" else f"_{unit.prompt_format}")


def score_unit(lm, manager, unit: Unit, limit: int | None) -> tuple[pd.DataFrame, int]:
    """One line per scored example, and the task's version, from the harness's own evaluator."""
    from lm_eval.evaluator import evaluate

    loaded = manager.load([harness_name(unit)])
    (task,) = loaded["tasks"].values()
    task.set_config("num_fewshot", unit.num_shots)
    metric = TASKS[unit.task].metric
    with contextlib.redirect_stderr(io.StringIO()):  # the harness's two bars per unit: our bar over all units says more
        samples = evaluate(lm, loaded, limit=limit, bootstrap_iters=0, log_samples=True)["samples"][task.task_name]
    samples.sort(key=lambda sample: sample["doc_id"])
    examples = pd.DataFrame(
        {
            "example_id": [sample["doc"]["example_id"] for sample in samples],
            "target": [sample["doc"]["target"] for sample in samples],
            "prediction": [task.predict(sample["filtered_resps"]) for sample in samples],
            metric: [float(sample[metric]) for sample in samples],
            "truncated": [bool(sample["n_truncated"]) for sample in samples],
            "unparsable": False,
        }
    )
    return examples, task.VERSION


def row_of(cell: Cell, unit: Unit, examples: pd.DataFrame, version: int) -> dict:
    """The row of the one table that a unit's examples make (columns: `amuro.results.COLUMNS`)."""
    metric = TASKS[unit.task].metric
    scores = examples[metric].to_numpy(np.float64)
    stderr, low, high = interval(metric, scores)
    return {
        **{name: getattr(cell, name) for name in ("family", "step", "tokens_b", "checkpoint", "stage", "dataset")},
        **asdict(unit),
        "relation": relation_of(unit.task, cell.dataset) if cell.dataset else "",
        "metric": metric,
        "value": float(scores.mean()),
        "stderr": stderr,
        "ci_low": low,
        "ci_high": high,
        "n": len(scores),
        "n_truncated": int(examples["truncated"].sum()),
        "n_unparsable": int(examples["unparsable"].sum()),
        "learning_rate": cell.hyperparameters.get("learning_rate"),
        "seed": cell.seed,
        "cell_id": cell.cell_id,
        "task_version": version,
    }
