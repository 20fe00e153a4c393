"""The `amuro` command: light, and without torch until something is computed.

amuro nursery --out nursery          raise a small pre-training history to try everything on
amuro checkpoints families           the public pre-training histories; also list, select, audit, fetch
amuro status --runs runs             which cells and units are there
amuro rates --checkpoint ...         choose a learning rate on held-out training rows
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from amuro.registry import commands

# Click re-wraps a paragraph unless it begins with \b.
HELP = "What more pre-training buys after fine-tuning, and what fine-tuning makes a model forget, per checkpoint.\n\n"
app = typer.Typer(
    help=HELP + "\b\n" + __doc__.split("\n\n")[1], no_args_is_help=True, add_completion=False, rich_markup_mode=None
)
app.add_typer(commands.app, name="checkpoints")


@app.command()
def nursery(
    out: Annotated[Path, typer.Option(help="folder to write family/ and data/ under")] = Path("nursery"),
    preset: Annotated[str, typer.Option(help="default (about two minutes on two cores) or tiny (seconds)")] = "default",
    seed: Annotated[int, typer.Option(help="seed of the world, its text and the weights")] = 0,
    text: Annotated[Path | None, typer.Option(help="folder of .txt files to pre-train on instead of the world")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; the same number gives the same bytes")] = None,
) -> None:
    """Raise a small pre-training history: a positive control, and something to try every command on."""
    from amuro.nursery import raise_nursery

    family = raise_nursery(out, preset=preset, seed=seed, text=text, threads=threads)
    print(f"family: {family}   checkpoints: amuro checkpoints list {family}")


@app.command()
def status(runs: Annotated[Path, typer.Option(help="the folder that cells are written under")] = Path("runs")) -> None:
    """Every complete cell with its number of units, and what is missing from the grid they span."""
    from amuro.registry.doubts import of_runs
    from amuro.results import KEY, coverage, load

    table = load(runs)
    units = table.drop_duplicates([name for name in KEY if name != "metric"])
    cells = units.groupby(["family", "step", "stage", "dataset", "seed", "cell_id"], dropna=False).size()
    for (family, step, stage, dataset, seed, cell_id), count in cells.items():
        tuned = f"{stage} {dataset} seed {seed}" if dataset else "base"
        print(f"{cell_id}  {family}@{step:<10} {tuned:<28} {count:>4} units")
    there, expected, missing = coverage(table)
    for doubt in of_runs(runs):
        print(f"warning: {doubt}")
    print(f"{len(cells)} cells, {there} of {expected} units" + "".join(f"\n  missing: {each}" for each in missing))


@app.command()
def rates(
    checkpoint: Annotated[str, typer.Option(help="family@step, family@main, PATH@step or hub repo@revision")],
    dataset: Annotated[str, typer.Option(help="what to train on, as in train_sft.py")],
    learning_rates: Annotated[
        str, typer.Option("--learning_rates", help="comma list of the rates to try")
    ] = "2.0e-5,2.0e-6,2.0e-7",
    held_out_rows: Annotated[
        int, typer.Option("--held_out_rows", help="training rows to choose on, which are not trained on")
    ] = 500,
    flags: Annotated[list[str] | None, typer.Argument(help="after --: any other flag of train_sft.py")] = None,
) -> None:
    """Choose a learning rate on held-out training rows (the paper's appendix B); writes RUNS/rates/*.csv.

    \b
    amuro rates --checkpoint nursery@200 --dataset mnli --learning_rates 5.0e-4,1.0e-3,2.0e-3,4.0e-3 \\
        -- --recipe nursery-sft --data_dir nursery/data --report_to none
    """
    from amuro.rates import choose, report

    trials, path = choose(checkpoint, dataset, learning_rates, held_out_rows, flags or [])
    print(f"{report(trials)}\ntable: {path}")


def main() -> None:
    """The console script: a user's mistake ends in one line and exit code 2."""
    from amuro.settings import script

    script(app)


if __name__ == "__main__":
    sys.exit(main())
