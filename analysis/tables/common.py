"""What the tables share: rows by group, intervals as columns, differences of points, the setting that is shown."""

import numpy as np
import pandas as pd

from analysis import stats
from analysis.study import NOT_KNOWN, SHOTS, Study, headline, together

ABOUT = ["relation", "checkpoint", "order", "step", "tokens_b"]  # of a point, beside its curve
PARTS = ("mean", "low", "high", "stderr", "p", "p_equal", "detectable")


def grouped(frame: pd.DataFrame, keys: list[str]) -> tuple[pd.DataFrame, list[np.ndarray]]:
    """(the keys of each group, the positions of its rows), in the order of their first rows."""
    number = frame.groupby(keys, dropna=False, sort=False).ngroup().to_numpy()
    order = np.argsort(number, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(number[order])) + 1) if len(frame) else []
    first = [group[0] for group in groups]
    return frame[keys].iloc[first].reset_index(drop=True), groups


def spread(name: str, mean: np.ndarray, low: np.ndarray, high: np.ndarray) -> dict[str, np.ndarray]:
    """An estimate as the columns name, name_low, name_high."""
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def nothing(name: str) -> dict[str, float]:
    """The same of an estimate that is not known."""
    return spread(name, NOT_KNOWN, NOT_KNOWN, NOT_KNOWN)


def differences(
    study: Study, after: np.ndarray, before: np.ndarray, examples: list[np.ndarray | None] | None = None
) -> pd.DataFrame:
    """Points `after` (k,) minus points `before` (k,), positions or -1: a row each with the parts of a Difference, both
    means, n and n_unpaired. Paired by example, unless the study knows means alone; NaN where one has no score or they
    share no example. `examples`: other scores of the points (`of_shared_seeds`)."""
    out = {name: np.full(len(after), NOT_KNOWN) for name in (*PARTS, "after", "before")}
    out |= {"n": np.zeros(len(after), int), "n_unpaired": np.zeros(len(after), int)}
    scored = study.points["n"].to_numpy() > 0
    known = np.flatnonzero((after >= 0) & (before >= 0) & scored[after] & scored[before])
    wanted = np.column_stack([after[known], before[known]])
    if study.paired:
        for which, scores, unpaired in together(study, wanted, examples):
            found, at = stats.compare(scores[:, 0], scores[:, 1]), known[which]
            put(out, at, found)
            out["n"][at], out["n_unpaired"][at] = found.n, unpaired
            out["after"][at], out["before"][at] = scores.mean(axis=-1).T
    elif len(known):
        numbers = study.points[["value", "stderr", "n"]].to_numpy(float)
        found = stats.compare_means(*numbers[wanted[:, 0]].T, *numbers[wanted[:, 1]].T)
        put(out, known, found)
        out["n"][known] = found.n
        out["after"][known], out["before"][known] = numbers[wanted, 0].T
    return pd.DataFrame(out)


def put(out: dict[str, np.ndarray], at: np.ndarray, found: stats.Difference) -> None:
    """Write the parts of differences to the places `at`."""
    for name in PARTS:
        out[name][at] = getattr(found, name)


def test_name(study: Study) -> str:
    """How points of a study are compared."""
    return "paired" if study.paired else "unpaired"


def holm_by(frame: pd.DataFrame, p: str, keys: list[str]) -> np.ndarray:
    """Column `p` of the rows, Holm-adjusted among those with the same keys; NaN stays NaN and does not count."""
    adjusted = np.full(len(frame), NOT_KNOWN)
    there = np.flatnonzero(frame[p].notna())
    values = frame[p].to_numpy()
    for group in grouped(frame.iloc[there], keys)[1]:
        adjusted[there[group]] = stats.holm(values[there[group]])
    return adjusted


def curve_rows(study: Study, chosen: np.ndarray) -> list[np.ndarray]:
    """The positions of the points of each curve that has one of the `chosen` (a mask), in the order of checkpoints."""
    curves = study.points["curve"].to_numpy()
    wanted = np.unique(curves[chosen])
    start, end = (np.searchsorted(curves, wanted, side) for side in ("left", "right"))
    return [np.arange(one, other) for one, other in zip(start, end, strict=True)]


def main_setting(study: Study) -> dict:
    """The prompt format, shots, shot seed, chat template and dtype that most points have, `default` before other
    formats. Where there is a tuned point on a dataset's task, only such points count: benchmarks may have other shots.
    """
    points = study.points
    there = points["n"] > 0
    related = points["relation"].isin(("id", "ood", "cross_task"))
    for wanted in (headline(points), related, points["prompt_format"] == "default"):
        there = there & wanted if (there & wanted).any() else there
    counts = points[there].groupby([*SHOTS, "dtype"]).size()
    return dict(zip([*SHOTS, "dtype"], counts.idxmax(), strict=True))


def readings(frame: pd.DataFrame) -> pd.Series:
    """How the answers of each row were read, all tasks' usual ways being one: rows that Holm takes together."""
    return frame["method"].where(~headline(frame), "standard")
