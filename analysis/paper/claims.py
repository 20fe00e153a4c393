"""What a claim of the paper is here, and what the tests of claims share.

A claim has the sentence of the paper, our test of it on the published rows, what came out, and one of VERDICTS. Every
number in it is computed. Each published run was made once, with one seed: no test here can see how much another run of
the same cell would differ, and the cells of one checkpoint, or of one evaluation set, are not independent.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import sem, t

from analysis import stats
from analysis.paper.grid import CHECKPOINTS, Grid, pair

CARRIED, PARTLY, NOT, AGAINST = "carried", "carried in part", "not carried", "contradicted"
NO_ROWS = "no rows"
VERDICTS = (CARRIED, PARTLY, NOT, AGAINST, NO_ROWS)
ALPHA = stats.ALPHA
EARLY, LATE = CHECKPOINTS[:2], CHECKPOINTS[2:]  # nothing was tuned between 18000 and 342000


@dataclass(frozen=True)
class Claim:
    """A claim of the paper: where it stands, what it says, our test, what the numbers say, the verdict."""

    title: str
    where: str
    says: str
    test: str
    finding: str
    verdict: str


@dataclass(frozen=True)
class Test:
    """How a claim is tested: by a function, which `takes` one of the reproduction's parts ("" for none) and raises
    NoRows where that has nothing to test; then the claim is named by where it stands and what it says."""

    run: Callable[..., Claim]
    takes: str
    where: str
    says: str


class NoRows(Exception):
    """None of the rows that a claim is about was published."""


def published(paper: Grid, pairs: list[tuple[str, str]]) -> pd.DataFrame:
    """`pair`'s columns, task, dataset and checkpoint of every cell of the (task, dataset) that has BASE and tuned."""
    found = [pair(paper, *each).assign(task=each[0], dataset=each[1]) for each in pairs]
    cells = pd.concat(found).reset_index().dropna(subset=["base", "tuned"])
    if cells.empty:
        raise NoRows
    return cells


def compared(paper: Grid, pairs: list[tuple[str, str]]) -> pd.DataFrame:
    """`published` with change (tuned - BASE), change_low, change_high, change_stderr, and p (two-sided, normal, Holm
    over the cells). Unpaired, as only means are published."""
    cells = published(paper, pairs)
    known = [cells[name].to_numpy() for name in ("tuned", "tuned_stderr", "n", "base", "base_stderr", "n")]
    found = stats.compare_means(*known, margin=0.0)
    ends = {"change_low": found.low, "change_high": found.high, "change_stderr": found.stderr}
    return cells.assign(change=found.mean, **ends, p=stats.holm(found.p_equal))


def rise(cells: pd.DataFrame, name: str, first: str, last: str) -> pd.DataFrame:
    """The column `name` of cells (with `<name>_stderr` and n) at the checkpoint `last` minus at `first`: first, last,
    mean, low, high and p (two-sided, normal, Holm over the tasks), by task."""
    columns = [(each, at) for at in (last, first) for each in (name, f"{name}_stderr", "n")]
    ends = cells.pivot(index="task", columns="checkpoint", values=[name, f"{name}_stderr", "n"])
    ends = ends.reindex(columns=columns).dropna()
    if ends.empty:
        raise NoRows
    found = stats.compare_means(*(ends[each].to_numpy() for each in columns), margin=0.0)
    both = {"first": ends[name, first], "last": ends[name, last]}
    return pd.DataFrame(
        both | {"mean": found.mean, "low": found.low, "high": found.high, "p": stats.holm(found.p_equal)}
    )


def base_cells(paper: Grid, tasks: list[str]) -> pd.DataFrame:
    """base, base_stderr, n, task and checkpoint of every published BASE cell of the tasks."""
    found = pd.concat([pair(paper, task).assign(task=task) for task in tasks]).reset_index().dropna(subset=["base"])
    if found.empty:
        raise NoRows
    return found[["task", "checkpoint", "base", "base_stderr", "n"]]


def early_late(values: pd.DataFrame) -> pd.Series:
    """Mean over the later checkpoints minus mean over 1000 and 18000, of values (checkpoints x sets): one for each set
    that has all of them."""
    return (values.loc[list(LATE)].mean(skipna=False) - values.loc[list(EARLY)].mean(skipna=False)).dropna()


def negligible(low: pd.Series | np.ndarray, high: pd.Series | np.ndarray) -> np.ndarray:
    """Which intervals lie within the margin on both sides: a test that finds nothing shows no more than that it found
    nothing, so a claim of no change is carried by these alone."""
    return (np.asarray(low) > -stats.MARGIN) & (np.asarray(high) < stats.MARGIN)


def p_text(p: float) -> str:
    """`p = 0.012`, `p < 0.001`, or that there is none (equal numbers have no test)."""
    if np.isnan(p):
        return "no p"
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean of values (k,), Student's t; NaN for fewer than two."""
    if len(values) < 2:
        return float("nan"), float("nan")
    room = t.ppf(0.975, len(values) - 1) * sem(values)
    return float(np.mean(values) - room), float(np.mean(values) + room)
