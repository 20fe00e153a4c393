"""Evaluate BASE checkpoints, or tuned cells whose weights are kept, store every unit, and print the values.

    python -m eval.run --checkpoint olmo-1b@342000 --tasks id,ood,benchmark
    python -m eval.run --cell 1a2b3c4d5e6f --tasks cross_task --num_shots 0,4
    python -m eval.run --checkpoint olmo-1b@main --cell 1a2b3c4d5e6f,6f5e4d3c2b1a \\
        --tasks mnli_matched,rte,paws,stsb --methods token_prob,free,constrained        the paper's Table 3
    accelerate launch -m eval.run ...                                                   on several GPUs

For a BASE model, a relation such as `id` means the tasks of all datasets. What is there already is not run again.
"""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
from accelerate import PartialState
from transformers import HfArgumentParser

from amuro import checkpoints, checks, evaluation, settings, tracking, weights
from amuro.cells import Cell, Unit, changed_packages, find_cell, read_record, write_record
from amuro.registry.fetching import fetch
from amuro.run_config import check_sweep
from amuro.running import claims, ledger
from amuro.units import read_unit


@dataclass
class Arguments(settings.EvaluationArguments):
    """What is evaluated: BASE checkpoints and tuned cells."""

    checkpoint: str | None = field(
        default=None, metadata={"help": "comma list of BASE models: family@step, PATH@step, repo@revision"}
    )
    cell: str | None = field(
        default=None, metadata={"help": "comma list of tuned models: their folders, or cell_ids under --runs"}
    )
    dtype: str = field(default="float32", metadata={"help": f"of the weights: {', '.join(checks.DTYPES)}"})
    report_to: str = field(default="wandb", metadata={"help": "wandb or none"})


@dataclass(frozen=True)
class Model:
    """One model and what is asked of it; `checkpoint` is empty for a tuned one."""

    cell: Cell
    folder: Path
    weights: str
    asked: evaluation.Request
    todo: list[Unit]
    checkpoint: checkpoints.Checkpoint | None


def make_parser() -> HfArgumentParser:
    """All flags."""
    parser = HfArgumentParser(Arguments, allow_abbrev=False, description=__doc__)
    return settings.quiet(parser, "python -m eval.run (--checkpoint CHECKPOINT | --cell CELL) [any flag below]")


def read(argv: list[str] | None = None) -> Arguments:
    """The arguments. ValueError on a flag that is wrong."""
    argv, parser = list(sys.argv[1:] if argv is None else argv), make_parser()
    settings.check_flags(argv, parser)
    (arguments,) = parser.parse_args_into_dataclasses(args=argv)
    checks.check_evaluation(arguments)
    if not any(checks.items(arguments.checkpoint or "") + checks.items(arguments.cell or "")):
        raise ValueError("give --checkpoint (BASE models), --cell (tuned ones), or both")
    if checks.items(arguments.tasks) == ["none"]:
        raise ValueError("--tasks none: nothing would be evaluated; name tasks")
    if arguments.dtype not in checks.DTYPES:
        raise ValueError(f"--dtype {arguments.dtype!r}: allowed: {', '.join(checks.DTYPES)}")
    if arguments.report_to not in checks.REPORT_TO:
        raise ValueError(f"--report_to {arguments.report_to!r}: allowed: {', '.join(checks.REPORT_TO)}")
    return arguments


def main(argv: list[str] | None = None) -> list[Path]:
    """Evaluate cells and return their folders. Raises ValueError on a user's mistake, before any model is loaded,
    Claimed where another command has a cell."""
    arguments = read(argv)
    models = [base_model(name, arguments) for name in checks.items(arguments.checkpoint or "") if name]
    models += [tuned_model(name, arguments) for name in checks.items(arguments.cell or "") if name]
    if len(models) > 1 and tracking.in_sweep():
        raise ValueError("a run of a W&B sweep is about one model: list models under `values`, not in one comma list")
    check_sweep((arguments,))
    places = [fetch(model.checkpoint) if model.checkpoint else model.folder / "weights" for model in models]
    for model, place in zip(models, places, strict=True):
        ledger.about(model.folder, model.asked.units)
        evaluation.check_model(place, model.asked, model.todo)
    main_process = PartialState().is_main_process
    for model, place in zip(models, places, strict=True):
        unfinished = (model.folder / tracking.UNFINISHED).is_file()  # its W&B run was cut off
        if model.todo or tracking.in_sweep() or unfinished:
            with claims.claim(model.folder, arguments.if_claimed):
                weights.tidy(model.folder, read_record(model.folder))
                todo = evaluation.missing(model.folder, model.asked, model.weights)  # another one may have been at it
                evaluate(replace(model, todo=todo), place, arguments, main_process)
        if main_process:
            print(f"{'done' if model.todo else 'complete'}: {model.folder}")
    if main_process:
        print(table(models))
    return [model.folder for model in models]


def base_model(reference: str, arguments: Arguments) -> Model:
    """A BASE checkpoint and its missing units."""
    point = checkpoints.resolve(reference)
    cell = Cell(point.family, point.name, point.step, point.tokens_b, point.base)
    folder, asked = cell.folder(arguments.runs), evaluation.request(arguments, "", arguments.dtype)
    return Model(cell, folder, point.base, asked, evaluation.missing(folder, asked, point.base), point)


def tuned_model(name: str, arguments: Arguments) -> Model:
    """A tuned cell whose weights are kept, and its missing units."""
    cell, folder = find_cell(arguments.runs, name)
    record = read_record(folder)
    if cell.stage == "base":
        raise ValueError(f"--cell {folder}: is a BASE cell; use --checkpoint {cell.checkpoint}")
    if changed := changed_packages(record):
        print(f"note: the cell was trained with other packages: {changed}")
    asked = evaluation.request(arguments, cell.dataset, arguments.dtype)
    if not asked.units:
        raise ValueError(f"--tasks {arguments.tasks}: {cell.dataset} has no such tasks; try benchmark or cross_task")
    todo = evaluation.missing(folder, asked, record["weights"])
    if todo and not (folder / "weights").is_dir():
        raise ValueError(f"--cell {folder}: its weights were not kept; run it again with --keep_weights all")
    if todo:
        weights.check(folder / "weights", record)
    return Model(cell, folder, record["weights"], asked, todo, None)


def evaluate(model: Model, place: Path, arguments: Arguments, main_process: bool) -> None:
    """Load the weights in `place` and score the missing units."""
    tracked = {"enabled": arguments.report_to == "wandb" and main_process, "parts": (arguments,)}
    tracked["job_type"] = "base" if model.checkpoint else "eval"
    if not model.todo:
        tracking.repeat(model.cell, model.folder, **tracked)
        return
    with tracking.run(model.cell, model.folder, **tracked) as run:
        loaded, tokenizer = checkpoints.load(place, arguments.dtype, base=bool(model.checkpoint))
        if main_process and read_record(model.folder) is None:  # a BASE cell has no training to complete
            write_record(model.folder, model.cell, weights=model.weights)
        evaluation.evaluate_units(
            loaded, tokenizer, place, model.cell, model.folder, model.asked, model.todo, model.weights, run
        )


def table(models: list[Model]) -> str:
    """The values of all units asked for: a line per model and way of asking, a column per task."""
    rows = [
        {"model": model.folder.name, **row}
        for model in {each.folder: each for each in models}.values()
        for unit in model.asked.units
        for row in read_unit(unit.path(model.folder))["rows"]
    ]
    found = pd.DataFrame(rows)
    if found.empty:
        return ""
    index = ["model", "prompt_format", "num_shots", "method", "metric"]
    order = list(dict.fromkeys(found["task"]))
    wide = found.set_index([*index, "task"])["value"].unstack("task", sort=False)[order]
    return wide.to_string(float_format=lambda value: f"{value:.3f}", na_rep="-")


if __name__ == "__main__":
    settings.script(main, "eval/run.py")
