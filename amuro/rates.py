"""Choose a learning rate as the paper did (appendix B): train with each, keep the one with the lowest loss on training
rows that were held out. No scored set has a say.

    amuro rates --checkpoint olmo-1b@342000 --dataset mnli --learning_rates 2.0e-5,2.0e-6,2.0e-7 --held_out_rows 500
    amuro rates --checkpoint nursery@200 --dataset mnli -- --recipe nursery-sft --data_dir nursery/data --seed 1

Every rate is an ordinary cell without evaluation; stopped and called again, what is trained is not trained again.
"""

import csv
import io
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from amuro.cells import read_record, write_atomic
from amuro.names import unknown_of
from amuro.programs import load_program
from amuro.tasks import DATASETS, SFT

OURS = ("checkpoint", "dataset", "learning_rate", "held_out_rows", "tasks")


@dataclass(frozen=True)
class Trial:
    """One rate and what came of it: losses are means per token in nats. A row of the table."""

    checkpoint: str
    dataset: str
    seed: int
    learning_rate: float
    held_out_loss: float
    held_out_rows: int
    train_loss: float | None  # None where the training was interrupted and went on
    cell_id: str
    chosen: bool = False


def choose(
    checkpoint: str, dataset: str, learning_rates: str, held_out_rows: int, flags: list[str]
) -> tuple[list[Trial], Path]:
    """Train every rate of a comma list; (a trial per rate in the list's order, the table's path).

    `flags` are any other flags of the training script. Raises ValueError on a user's mistake, before any training.
    """
    rates = read_rates(learning_rates)
    if dataset not in DATASETS and not dataset.endswith(".jsonl"):
        raise ValueError(f"--dataset {dataset!r}: {unknown_of(dataset, DATASETS)}, or a .jsonl file")
    if held_out_rows < 1:
        raise ValueError(f"--held_out_rows {held_out_rows}: rates are chosen on held-out rows, 1 at least")
    given = [word[2:].split("=")[0].replace("-", "_") for word in flags if word.startswith("--")]
    if taken := [name for name in given if name in OURS]:
        raise ValueError(f"--{taken[0]} after --: `amuro rates` sets it itself")
    from amuro.training import Diverged

    program = load_program("train_sft.py" if dataset in SFT else "train_instruct.py")
    common = ["--checkpoint", checkpoint, "--dataset", dataset, "--held_out_rows", str(held_out_rows)]
    folders = []
    for rate in rates:
        try:
            folders.append(program.main([*common, *flags, "--tasks", "none", "--learning_rate", repr(rate)]))
        except Diverged as error:
            print(f"{rate:g} is not chosen: {error}")
    if not folders:
        raise ValueError(f"--learning_rates {learning_rates}: the loss of each is not a number; try lower ones")
    trials = [_trial(folder, held_out_rows) for folder in folders]
    best = min(trials, key=lambda trial: trial.held_out_loss)
    trials = [Trial(**(asdict(trial) | {"chosen": trial is best})) for trial in trials]
    name = f"{best.checkpoint}-{best.dataset}-seed{best.seed}.csv".replace("/", "--").replace("@", "-")
    path = folders[0].parent / "rates" / name
    table = io.StringIO()
    writer = csv.DictWriter(table, [each.name for each in fields(Trial)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(trial) for trial in trials)
    write_atomic(path, table.getvalue().encode())
    return trials, path


def read_rates(text: str) -> list[float]:
    """The distinct rates of a comma list; ValueError where they are fewer than two, or one is no rate."""
    try:
        rates = list(dict.fromkeys(float(item) for item in text.split(",")))
    except ValueError:
        raise ValueError(f"--learning_rates {text!r}: a comma list of numbers is needed, 2.0e-5,2.0e-6") from None
    if len(rates) < 2 or not all(rate > 0 and math.isfinite(rate) for rate in rates):
        raise ValueError(f"--learning_rates {text!r}: two different rates at least, each above 0")
    return rates


def _trial(folder: Path, held_out_rows: int) -> Trial:
    """ValueError where the cell was complete before, without these held-out rows: they are no part of its identity."""
    record = read_record(folder)
    cell, training = record["cell"], record["training"]
    before = record["settings"]["held_out_rows"]["value"]  # asked; of conversations fewer may be measured
    if before != held_out_rows:
        raise ValueError(
            f"{folder}: was trained before, on the same rows with {before} held out, not "
            f"{held_out_rows}; remove the folder to train it again, or give another --runs after --"
        )
    return Trial(
        checkpoint=cell["checkpoint"],
        dataset=cell["dataset"],
        seed=cell["seed"],
        learning_rate=cell["hyperparameters"]["learning_rate"],
        held_out_loss=training["held_out_loss"],
        held_out_rows=training["held_out_rows"],
        train_loss=training["train_loss"],
        cell_id=record["cell_id"],
    )


def report(trials: list[Trial]) -> str:
    """The table, the flag to use, and whether the chosen rate is at the border of the list."""
    lines = [f"{'learning_rate':>13} {'held_out_loss':>13} {'train_loss':>11}  cell"]
    for each in trials:
        mark = "  chosen" if each.chosen else ""
        loss = "-" if each.train_loss is None else f"{each.train_loss:.5f}"
        lines.append(f"{each.learning_rate:>13g} {each.held_out_loss:>13.5f} {loss:>11}  {each.cell_id}{mark}")
    best = next(each for each in trials if each.chosen)
    rates = [each.learning_rate for each in trials]
    if best.learning_rate in (max(rates), min(rates)):
        where = "highest" if best.learning_rate == max(rates) else "lowest"
        lines.append(f"{best.learning_rate:g} is the {where} of the list: try one beyond it")
    return "\n".join([*lines, f"--learning_rate {best.learning_rate}"])
