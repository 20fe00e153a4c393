"""All that is computed from the authors' rows, with what their code does otherwise switched on.

found = reproduce("path/to/results")     found.table6, found.mrc, found.table3, found.figures, found.claims, ...
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis import tables
from analysis.paper import design, learning, prompts, timing, transfer
from analysis.paper.authors import LEVELS, read, rows
from analysis.paper.claims import NO_ROWS, Claim, NoRows
from analysis.paper.curves import figures
from analysis.paper.grid import Grid, grid
from analysis.paper.learning import groups_of
from analysis.paper.numbers import mrc, table3, table6
from analysis.paper.untested import UNTESTED
from analysis.study import collect

# name -> what the authors' code does; each is a parameter that is off unless the paper's numbers are reproduced.
QUIRKS = {
    "sciq_twice": "the group learned in pre-training counts the pair (sciq, tulu) two times (Table 6, figure 8)",
    "listed_pairs": "the mean ratio of change takes four listed pairs each way; Eq. 1 says every other evaluation set",
    "cut_off": "the printed mean ratio of change is cut off, not rounded",
    "raw_change": "figure 5, captioned as a ratio, shows the change itself",
    "hidden_labels": "QQP and STS-B are scored on rows without labels (figures 4a, 5 and 11, Table 3)",
}


@dataclass(frozen=True)
class Reproduction:
    """`every`: all published rows; `table`: those of them that the paper uses, in our columns; `paper`: its cells."""

    every: pd.DataFrame
    table: pd.DataFrame
    paper: Grid
    table6: pd.DataFrame
    mrc: pd.DataFrame
    table3: pd.DataFrame
    figures: dict[int, pd.DataFrame]
    verdicts: pd.DataFrame
    turning: pd.DataFrame
    claims: list[Claim]


def reproduce(folder: str | Path) -> Reproduction:
    """Everything from the folder with the authors' three tables. ValueError where they cannot be read."""
    table = rows(folder, hidden_labels=True)
    paper = grid(table)
    study = collect(rows(folder), None, LEVELS)
    judged, turned = groups_of(tables.verdicts(study)), groups_of(tables.turning(study))
    return Reproduction(
        every=read(folder, hidden_labels=True),
        table=table,
        paper=paper,
        table6=table6(paper, sciq_twice=True),
        mrc=mrc(paper, listed_pairs=True, cut_off=True),
        table3=table3(paper, table),
        figures=figures(paper, raw_change=True, sciq_twice=True),
        verdicts=judged,
        turning=turned,
        claims=list(tested(paper, table, judged, turned)),
    )


def tested(paper: Grid, table: pd.DataFrame, judged: pd.DataFrame, turned: pd.DataFrame) -> Iterator[Claim]:
    """Every claim. `judged` and `turned` are the verdicts and the turning points of Table 6's sets (`groups_of`),
    `table` holds the rows scored on hidden labels too."""
    given = {"paper": paper, "table": table, "judged": judged, "turned": turned}
    for test in (*learning.TESTS, *timing.TESTS, *prompts.TESTS, *transfer.TESTS, *design.TESTS):
        try:
            yield test.run(*([given[test.takes]] if test.takes else []))
        except NoRows:
            yield Claim(test.says, test.where, test.says, "None.", "None of its rows is there.", NO_ROWS)
    yield from UNTESTED


def identities(every: pd.DataFrame) -> pd.DataFrame:
    """One row per table and model id: what it says, how many rows it has and how many are used, and why not all."""
    about = ["weights", "step", "dataset", "epochs", "learning_rate", "shots", "converted", "chat"]
    groups = every.groupby(["table", "model_id", *about], dropna=False, sort=True)
    reasons = groups["left_out"].agg(lambda found: "; ".join(sorted({each for each in found if each})))
    used = groups["left_out"].agg(lambda found: int((found == "").sum()))
    found = pd.DataFrame({"rows": groups.size(), "used": used, "left_out": reasons})
    return found.reset_index().astype({"step": "Int64", "epochs": "Int64", "shots": "Int64"})


def unknown(every: pd.DataFrame) -> pd.DataFrame:
    """The rows that are not understood: table, model_id, eval_dataset, value, left_out."""
    lost = every[every["left_out"].str.startswith("unknown")]
    return lost[["table", "model_id", "eval_dataset", "value", "left_out"]]
