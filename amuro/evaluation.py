"""Evaluates one model on units (task, format, shots, method ...), one stored file per unit.

python -m eval.run --checkpoint nursery@200 --tasks id,ood           a BASE model
evaluate_units(model, tokenizer, ...)                                a model in memory, straight after training

Units that ask the same prompts (several methods of one task) are answered together, by one pass of the engine.
"""

import contextlib
import io
import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from amuro import tracking
from amuro.cells import TIMES, Cell, Unit
from amuro.checks import items
from amuro.data import evaluation_rows, resolve_data_dir
from amuro.results import interval
from amuro.tasks import TASK_VERSION, TASKS, relation_of, select_tasks
from amuro.units import read_unit, write_unit

TASKS_FOLDER = Path(__file__).parent.parent / "eval" / "tasks"


@dataclass(frozen=True)
class Request:
    """What is asked of `missing` and `evaluate_units`: the units and the data they are scored on."""

    units: tuple[Unit, ...]
    data_dir: str | None
    limit: int | None
    batch_size: int | None


def request(arguments, dataset: str = "", dtype: str = "float32") -> Request:
    """The request that command-line arguments make. Loads and checks all its data: ValueError before any model load."""
    asked = Request(
        tuple(units_asked(arguments, dataset, dtype)),
        resolve_data_dir(arguments.data_dir),
        arguments.limit,
        arguments.eval_batch_size,
    )
    for unit in asked.units:
        pool = len(evaluation_rows(unit.task, asked.data_dir, unit.shot_seed).shots)
        if unit.num_shots > pool:
            raise ValueError(f"--num_shots {unit.num_shots}: the pool of shots of {unit.task} has {pool} rows")
    return asked


def units_asked(arguments, dataset: str = "", dtype: str = "float32") -> list[Unit]:
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


def check_model(folder: Path, asked: Request, todo: list[Unit], prepare: Callable | None = None) -> None:
    """ValueError, before the weights are loaded, where a checkpoint folder cannot answer the units: no tokenizer, no
    chat template for `apply_chat_template`, labels that share a sub-token, an example that exceeds the context.
    `prepare` does to the tokenizer what training will do to it."""
    seen = set()
    for unit in todo:
        asks = replace(unit, method="", num_shots=0)
        if asks in seen:
            continue
        seen.add(asks)
        task = load_task(folder, asked, [each for each in todo if replace(each, method="", num_shots=0) == asks])
        tokenizer = task.lm.tokenizer
        own = tokenizer.chat_template
        try:
            if prepare:
                prepare(tokenizer)
            if unit.apply_chat_template and not tokenizer.chat_template:
                raise ValueError(f"--apply_chat_template: the tokenizer of {folder} has no chat template")
            try:
                task.check_context(asked.limit, **_chat(unit, task.lm))
            except ValueError:
                raise
            except Exception as error:  # a chat template's own mistake is of any type
                what = f"{type(error).__name__}: {error}"
                raise ValueError(f"{folder}: its tokenizer and config make no prompts ({what})") from error
            if task.spec.labels and task.asks_candidates:
                _ = task.candidates
        finally:
            tokenizer.chat_template = own  # it serves other cells of this process too


def missing(folder: Path, asked: Request, weights: str) -> list[Unit]:
    """The units of a cell's folder that are not there, or were scored on other data, another number of rows or other
    `weights` (their digest)."""
    out = []
    for unit in asked.units:
        path = unit.path(folder)
        if not path.is_file() or read_unit(path)["about"].get("scored") != _scored(unit, asked, weights):
            out.append(unit)
    return out


def _scored(unit: Unit, asked: Request, weights: str) -> dict:
    """What decides a unit's scores, as far as the unit itself does not say it."""
    digest = evaluation_rows(unit.task, asked.data_dir, unit.shot_seed).digest
    return {"data_digest": digest, "limit": asked.limit, "task_version": TASK_VERSION, "weights": weights}


def evaluate_units(
    model,
    tokenizer,
    checkpoint_folder: Path,
    cell: Cell,
    folder: Path,
    asked: Request,
    todo: list[Unit],
    weights: str,
    run=None,
) -> None:
    """Score `todo` with a model in memory and store each unit as soon as it is done; the W&B `run` gets the same.

    `checkpoint_folder` is where the tasks find the tokenizer and the context length, `weights` the weights' digest.
    With several processes (accelerate launch) all take part in each unit, and the main one stores it.
    """
    from amuro.engine import Engine

    model.eval()
    lm = Engine(model, tokenizer, asked.batch_size)
    together = defaultdict(list)
    for unit in todo:
        together[replace(unit, method="")].append(unit)
    sizes = [_size(units[0], asked) for units in together.values()]
    main = lm.state.is_main_process
    bar = tqdm(total=sum(sizes), desc=f"evaluate {cell.name}", unit=" examples", disable=not main, smoothing=0.1)
    for units, size in zip(together.values(), sizes, strict=True):
        first, started = units[0], time.perf_counter()
        bar.set_postfix_str(f"{first.task} {first.shown} {first.num_shots}-shot")
        task, examples = score_units(lm, checkpoint_folder, asked, units, bar)
        for unit in units if main else ():
            rows = rows_of(cell, unit, examples[unit.method], task.VERSION)
            origin = evaluation_rows(unit.task, asked.data_dir, unit.shot_seed).test.origin
            if unit.path(folder).is_file():
                bar.write(f"{unit.path(folder).name}: was scored on other rows or weights, evaluated again")
            about = {"scored": _scored(unit, asked, weights), "unit": asdict(unit), "origin": origin}
            write_unit(unit.path(folder), rows, examples[unit.method], about)
            tracking.log_unit(run, rows)
        if main:
            seconds = time.perf_counter() - started
            tracking.log_progress(run, bar)
            _log_time(folder / TIMES, units, size, seconds, str(lm.device))
    bar.close()


def _log_time(path: Path, units: list[Unit], examples: int, seconds: float, device: str) -> None:
    line = {"units": [unit.path(Path()).stem for unit in units], "examples": examples}
    line |= {"seconds": round(seconds, 3), "examples_per_s": round(examples / seconds, 2), "device": device}
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _size(unit: Unit, asked: Request) -> int:
    rows = len(evaluation_rows(unit.task, asked.data_dir, unit.shot_seed).test.rows)
    return min(rows, asked.limit or rows)


def harness_name(unit: Unit) -> str:
    """The name of the YAML task that a unit runs."""
    return f"amuro_{unit.task}" + ("" if unit.prompt_format == "default" else f"_{unit.prompt_format}")


def load_task(checkpoint_folder: Path, asked: Request, units: list[Unit]):
    """The harness's task that units of the same prompts run, set to their shots and methods."""
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # a warning per task about the data hook that we chose
    first = units[0]
    places = {"pretrained": str(checkpoint_folder), **({"data_dir": asked.data_dir} if asked.data_dir else {})}
    asks = {"shot_seed": first.shot_seed, "methods": [unit.method for unit in units]}
    manager = TaskManager(include_path=str(TASKS_FOLDER), include_defaults=False, metadata={**places, **asks})
    if (name := harness_name(first)) not in manager.all_subtasks:
        raise ValueError(f"{TASKS_FOLDER} has no readable YAML of the task {name}")
    (task,) = manager.load([name])["tasks"].values()
    task.set_config("num_fewshot", first.num_shots)
    return task


def _chat(unit: Unit, lm) -> dict:
    """The harness's arguments that wrap a unit's prompts in the chat template, each shot a turn of its own."""
    if not unit.apply_chat_template:
        return {}
    lm.chat_template_args = {}
    return {"apply_chat_template": True, "fewshot_as_multiturn": True, "chat_template": lm.apply_chat_template}


def score_units(lm, checkpoint_folder: Path, asked: Request, units: list[Unit], bar) -> tuple[Any, dict]:
    """The harness's task, and per method one line per scored example: example_id, target, prediction, a column per
    metric, truncated, unparsable, and for multiple choice `chance`."""
    task = load_task(checkpoint_folder, asked, units)
    with contextlib.redirect_stderr(io.StringIO()):  # the harness's bar per task: our bar over all units says more
        task.build_all_requests(limit=asked.limit, **_chat(units[0], lm))
    count = len(task.instances)
    docs = {instance.doc["example_id"]: instance.doc for instance in task.instances}
    each = count / len(docs)
    done = bar.n
    responses = lm.answer(task.instances, task.encoded, lambda answered: bar.update(answered / each))
    bar.n = done + len(docs)  # whole again, whatever the rounding
    bar.refresh()
    by_doc = defaultdict(list)
    for instance, response in zip(task.instances, responses, strict=True):
        by_doc[instance.doc["example_id"]].append(response)
    answers = {example_id: task.answers(doc, by_doc[example_id]) for example_id, doc in docs.items()}
    return task, {unit.method: _examples(task, docs, answers, unit.method) for unit in units}


def _examples(task, docs: dict[str, dict], answers: dict[str, dict], method: str) -> pd.DataFrame:
    found = [answers[example_id][method] for example_id in docs]
    columns = {
        "example_id": list(docs),
        "target": [doc["target"] for doc in docs.values()],
        "prediction": [answer.prediction for answer in found],
        **{metric: [answer.scores[metric] for answer in found] for metric in task.spec.metrics},
        "truncated": [example_id in task.truncated for example_id in docs],
        "unparsable": [answer.unparsable for answer in found],
    }
    if "choices" in next(iter(docs.values())):
        columns["chance"] = [1 / len(doc["choices"]) for doc in docs.values()]
    return pd.DataFrame(columns)


def rows_of(cell: Cell, unit: Unit, examples: pd.DataFrame, version: int) -> list[dict]:
    """The rows of the one table that a unit's examples make, one per metric (columns: `amuro.results.COLUMNS`)."""
    common = {
        **{name: getattr(cell, name) for name in ("family", "step", "tokens_b", "checkpoint", "stage", "dataset")},
        **asdict(unit),
        "relation": relation_of(unit.task, cell.dataset) if cell.dataset else "",
        "n": len(examples),
        "n_truncated": int(examples["truncated"].sum()),
        "n_unparsable": int(examples["unparsable"].sum()),
        "learning_rate": cell.hyperparameters.get("learning_rate"),
        "seed": cell.seed,
        "cell_id": cell.cell_id,
        "task_version": version,
    }
    rows = []
    for metric in TASKS[unit.task].metrics:
        scores = examples[metric].to_numpy(np.float64)
        stderr, low, high = interval(metric, scores)
        values = {"value": float(scores.mean()), "stderr": stderr, "ci_low": low, "ci_high": high}
        rows.append({**common, "metric": metric, **values})
    return rows
