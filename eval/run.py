"""Evaluate a BASE checkpoint, or a tuned cell whose weights are kept, and store every unit.

    python -m eval.run --checkpoint olmo-1b@342000 --tasks id,ood
    python -m eval.run --cell 1a2b3c4d5e6f --tasks cross_task --num_shots 0,4

For a BASE model, a relation such as `id` means the tasks of all datasets. What is there already is not run again.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from transformers import HfArgumentParser

from amuro import checkpoints, evaluation, settings, tracking
from amuro.cells import Cell, changed_packages, find_cell, read_record, write_record


@dataclass
class Arguments(settings.EvaluationArguments):
    """What is evaluated: a BASE checkpoint or a tuned cell."""

    checkpoint: str | None = field(
        default=None, metadata={"help": "a BASE model: family@step, PATH@step, repo@revision"}
    )
    cell: str | None = field(default=None, metadata={"help": "a tuned model: its folder, or its cell_id under --runs"})
    dtype: str = field(default="float32", metadata={"help": f"of the weights: {', '.join(settings.DTYPES)}"})
    report_to: str = field(default="wandb", metadata={"help": "wandb or none"})


def make_parser() -> HfArgumentParser:
    """All flags."""
    parser = HfArgumentParser(Arguments, allow_abbrev=False, description=__doc__)
    return settings.quiet(parser, "python -m eval.run (--checkpoint CHECKPOINT | --cell CELL) [any flag below]")


def main(argv: list[str] | None = None) -> Path:
    """Evaluate one cell and return its folder. Raises ValueError on a user's mistake."""
    argv, parser = list(sys.argv[1:] if argv is None else argv), make_parser()
    settings.check_flags(argv, parser)
    (arguments,) = parser.parse_args_into_dataclasses(args=argv)
    settings.check_evaluation(arguments)
    if (arguments.checkpoint is None) == (arguments.cell is None):
        raise ValueError("give either --checkpoint (a BASE model) or --cell (a tuned one)")
    if arguments.dtype not in settings.DTYPES:
        raise ValueError(f"--dtype {arguments.dtype!r}: allowed: {', '.join(settings.DTYPES)}")
    if arguments.checkpoint:
        checkpoint = checkpoints.resolve(arguments.checkpoint)
        cell = Cell(checkpoint.family, checkpoint.name, checkpoint.step, checkpoint.tokens_b, checkpoint.base)
        folder = cell.folder(arguments.runs)
    else:
        cell, folder = find_cell(arguments.runs, arguments.cell)
        if not (folder / "weights").is_dir() and cell.stage != "base":
            raise ValueError(f"--cell {folder}: its weights were not kept; run it again with --keep_weights all")
        if changed := changed_packages(read_record(folder)):
            print(f"note: the cell was trained with other packages: {changed}")
        if cell.stage == "base":
            raise ValueError(f"--cell {folder}: is a BASE cell; use --checkpoint {cell.checkpoint}")
    asked = evaluation.request(arguments, cell.dataset, arguments.dtype)
    todo = evaluation.missing(folder, asked)
    if not todo:
        print(f"complete: {folder}")
        return folder

    from amuro import training

    with tracking.run(cell, arguments.runs, enabled=arguments.report_to == "wandb") as run:
        weights = checkpoints.fetch(checkpoint) if arguments.checkpoint else folder / "weights"
        model, tokenizer = training.load(weights, arguments.dtype)
        if read_record(folder) is None:  # a BASE cell has no training to complete
            write_record(folder, cell)
        evaluation.evaluate_units(
            model, tokenizer, weights, cell, folder, asked, todo, lambda unit, made: tracking.log_unit(run, unit, made)
        )
    print(f"done: {folder}")
    return folder


if __name__ == "__main__":
    settings.script(main)
