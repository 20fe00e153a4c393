"""The `amuro` command: light, and without torch until something is computed.

amuro nursery --out nursery          raise a small pre-training history to try everything on
amuro checkpoints families           the public pre-training histories; also list, select, audit, fetch
amuro data                           read all datasets once: for machines that are offline later
amuro rates --checkpoint ...         choose a learning rate on held-out training rows
amuro plan sweeps/olmo_ckpts.yaml    what a grid comes to: cells, hours, downloads, disk
amuro run sweeps/olmo_ckpts.yaml     run it, each cell once, on this machine or a Ray cluster
amuro status --runs runs             what is done, at work, stale, failed and missing
amuro sync --runs runs               hand over to W&B what was recorded offline
"""

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from typer._click.exceptions import NoArgsIsHelpError, UsageError  # typer has no public name for them

from amuro.registry import commands
from amuro.registry.commands import folder

# Click re-wraps a paragraph unless it begins with \b.
HELP = "What more pre-training buys after fine-tuning, and what fine-tuning makes a model forget, per checkpoint.\n\n"
app = typer.Typer(
    help=HELP + "\b\n" + __doc__.split("\n\n")[1], no_args_is_help=True, add_completion=False, rich_markup_mode=None
)
app.add_typer(commands.app, name="checkpoints")


@app.command()
def nursery(
    out: Annotated[
        Path, typer.Option(parser=folder, metavar="FOLDER", help="folder to write family/ and data/ under")
    ] = Path("nursery"),
    preset: Annotated[
        str, typer.Option(help="default (two minutes on two cores), tiny (seconds); with --text also study (an hour)")
    ] = "default",
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="seed of the world, its text and the weights")] = 0,
    text: Annotated[Path | None, typer.Option(help="folder of .txt files to pre-train on instead of the world")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; the same number gives the same bytes")
    ] = None,
) -> None:
    """Raise a small pre-training history: a positive control, and something to try every command on."""
    from amuro.nursery import raise_nursery

    family = raise_nursery(out, preset=preset, seed=seed, text=text, threads=threads)
    print(f"family: {family}   checkpoints: amuro checkpoints list {family}")


@app.command()
def data(
    names: Annotated[list[str] | None, typer.Argument(help="datasets and tasks; none: all")] = None,
    data_dir: Annotated[str | None, typer.Option("--data_dir", help="mirror to read instead of the hub")] = None,
) -> None:
    """Read datasets and tasks once: whether all rows are sound, how many there are, and where they are from.

    What is read from the hub stays in its cache (HF_HOME): for machines that are offline later, where HF_HUB_OFFLINE=1
    lets it be found without the hub. A mirror is a folder with SET/SPLIT.jsonl under the hub's field names.

    \b
    amuro data                             everything of the study
    amuro data mnli mnli_matched rte       some
    amuro data --data_dir mirror           check a mirror
    """
    from amuro.data import read_all

    for line in read_all(names or [], data_dir):
        print(line, flush=True)


Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="W&B sweep YAMLs (sweeps/): flat grids")]
Only = Annotated[
    list[str] | None,
    typer.Option(help="NAME=VALUE, like dataset=mnli: only cells that have it; of one name any, of several names all"),
]
Runs = Annotated[
    Path | None,
    typer.Option(
        parser=folder,
        metavar="FOLDER",
        help="the folder that cells are written under; default: the files' own, else runs",
    ),
]


@app.command()
def plan(
    files: Files,
    runs: Runs = None,
    only: Only = None,
    data_dir: Annotated[
        str | None, typer.Option("--data_dir", help="mirror of the datasets, where the files name none")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="cells at a time, for the hours and the disk")] = 1,
) -> None:
    """What grids come to before anything of them runs; exit code 2 where the disk cannot hold it.

    Per file: its cells, which of them are complete or failed, how many are to do, and duplicates, which are run once.
    Hours are the median of complete cells of the same kind under RUNS, for OLMo-1B else the paper's (Table 4). The hub
    is asked for lists of files, and nothing is downloaded. Warnings: checkpoints that an audit under RUNS
    (`amuro checkpoints audit`) or a publication found a fault in.

    \b
    amuro plan sweeps/olmo_base.yaml sweeps/olmo_ckpts.yaml --processes 8
    amuro plan sweeps/olmo_lr.yaml --only dataset=mnli --only dataset=paws
    """
    from amuro.running import grids
    from amuro.running.plan import make, refuse, text

    where = grids.runs_of(grids.read(files, only or ()), runs)
    made = make(files, where, only or (), data_dir, processes)
    print(text(made))
    refuse(made)


@app.command()
def run(
    files: Files,
    runs: Runs = None,
    only: Only = None,
    address: Annotated[
        str | None, typer.Option(help="of a Ray cluster that runs already (auto: the one on this machine)")
    ] = None,
    gpus_per_cell: Annotated[
        int | None, typer.Option("--gpus_per_cell", min=0, help="default: one where there are GPUs; 0: the CPU")
    ] = None,
    cells_per_gpu: Annotated[
        int, typer.Option("--cells_per_gpu", min=1, help="small models: cells that share one GPU")
    ] = 1,
    processes: Annotated[
        int | None, typer.Option(min=1, help="most cells at a time; default: as many as there are GPUs, or cores")
    ] = None,
    retries: Annotated[int, typer.Option(min=0, help="times more that a failing cell is tried")] = 2,
    retry_failed: Annotated[
        bool, typer.Option("--retry_failed", help="also run what failed in an earlier run")
    ] = False,
    disk_budget_gb: Annotated[
        float | None, typer.Option("--disk_budget_gb", min=0, help="most that weights under RUNS may take")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry_run", help="print the commands, as a shell script, and run nothing")
    ] = False,
) -> None:
    """Run grids to their end: each cell once, several at a time, without any server.

    Complete cells are skipped, whoever made them: this command, W&B agents, SLURM jobs and scripts started by hand may
    work on the same grid at the same time, if RUNS is one folder for all. Stopped (Ctrl-C) or killed, the same command
    goes on: a training from its last checkpoint (one is saved when it is stopped, others with --save_strategy). A cell
    that fails is tried again, then set aside with its log, and the others go on. Tuned weights go once they are
    evaluated (keep_weights in the file keeps them). Exit code 0: all complete; 1: not; 130: stopped by Ctrl-C; 75: by
    SIGTERM, run it again.

    \b
    amuro run sweeps/nursery.yaml                              a core each, or a GPU each where there are any
    amuro run sweeps/olmo_*.yaml --only dataset=mnli           the mnli cells of all of them
    amuro run sweeps/pythia_410m.yaml --cells_per_gpu 2        small models share a GPU
    amuro run sweeps/olmo_ckpts.yaml --address auto            on a Ray cluster (sweeps/slurm/ray.sbatch starts one)
    amuro run sweeps/olmo_ckpts.yaml --dry_run > cells.sh      what it would run, and skip
    """
    from amuro.running import grids, ledger, needs
    from amuro.running.plan import check_data

    commands = grids.read(files, only or ())
    where = grids.runs_of(commands, runs)
    entries = ledger.read(where)
    states = {command.key: ledger.state_of(command, entries, where) for command in commands}
    todo = [each for each in commands if states[each.key] == "to do" or (retry_failed and states[each.key] == "failed")]
    needs.named(todo)
    check_data(todo)
    if dry_run:
        keys = {each.key for each in todo}
        for command in commands:
            skipped = "" if command.key in keys else f"# {states[command.key]}: "
            argv = [f"--{name}={value}" for name, value in command.flags if name != "runs"]
            argv += [f"--runs={where}"] * (where != Path("runs"))
            print(f"{skipped}python {shlex.join([command.program, *argv])}")
        return
    from amuro.running import runner

    summary = runner.run(
        commands,
        where,
        address=address,
        gpus_per_cell=gpus_per_cell,
        cells_per_gpu=cells_per_gpu,
        retries=retries,
        retry_failed=retry_failed,
        processes=processes,
        disk_budget_gb=disk_budget_gb,
    )
    print(summary)
    raise typer.Exit(summary.code)


@app.command()
def status(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE...]", help="sweep YAMLs; none: all cells")
    ] = None,
    runs: Runs = None,
    only: Only = None,
    as_json: Annotated[bool, typer.Option("--json", help="all of it, for programs")] = False,
) -> None:
    """What is done, at work, stale (claimed by a process that is gone), failed with the cause, and missing.

    With FILES it says how their commands stand, and lists those that were never run here. Without, it lists every
    complete cell with its number of units, and what is missing from the grid that these cells span.

    \b
    amuro status
    amuro status sweeps/olmo_ckpts.yaml --only dataset=mnli
    amuro status --runs /scratch/runs --json
    """
    from amuro.running import grids
    from amuro.running.status import look, text

    where = grids.runs_of(grids.read(files, only or ()) if files else [], runs)
    found = look(where, files or [], only or ())
    print(json.dumps(asdict(found), indent=1) if as_json else text(found))


@app.command()
def sync(
    runs: Annotated[
        Path, typer.Option(parser=folder, metavar="FOLDER", help="the folder that cells are written under")
    ] = Path("runs"),
) -> None:
    """Hand over to W&B what it does not have yet: what was recorded offline, and what a server that was down missed.

    Twice is once; cut off anywhere, the same command goes on. Every artifact is checked to have arrived, and the
    lineage (checkpoint, tuned model, results) is attached, which W&B's own sync of offline runs leaves out. Exit code 1
    where something is lost or could not be handed over.
    """
    from amuro.sync import sync as hand_over

    report = hand_over(runs)
    print(report)
    raise typer.Exit(report.exit_code)


@app.command()
def rates(
    checkpoint: Annotated[str, typer.Option(help="family@step, family@main, PATH@step or hub repo@revision")],
    dataset: Annotated[str, typer.Option(help="what to train on, as in train_sft.py")],
    learning_rates: Annotated[
        str, typer.Option("--learning_rates", help="comma list of the rates to try")
    ] = "2.0e-5,2.0e-6,2.0e-7",
    held_out_rows: Annotated[
        int, typer.Option("--held_out_rows", min=1, help="training rows to choose on, which are not trained on")
    ] = 500,
    flags: Annotated[list[str] | None, typer.Argument(help="after --: any other flag of the training script")] = None,
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

    script(answer)


def answer() -> None:
    """Runs what was typed. A wrong flag is a ValueError of one line, where the library prints four."""
    try:
        sys.exit(app(standalone_mode=False, prog_name="amuro"))
    except NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except UsageError as error:
        command = error.ctx.command_path if error.ctx else "amuro"
        raise ValueError(f"{error.format_message().rstrip('.')}; see {command} --help") from None


if __name__ == "__main__":
    main()
