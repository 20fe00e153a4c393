"""What the tables are made of: a point per (tuning, setting, checkpoint), and the scores of its examples.

    table = results.load("runs")
    study = collect(table, results.load_scores("runs", table))
    study = collect(table, None)            values and standard errors alone, as of published tables

Runs that differ in their seed alone are averaged per example; everything is paired by example. Rows are only ever
compared within one setting, which has one prompt, with or without chat template, one draw of shots and one dtype.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from amuro.results import Sheet
from analysis import stats

TUNING = ["family", "stage", "dataset", "learning_rate"]  # one curve over the checkpoints of a family
READING = ["method", "metric", "dtype"]
SHOTS = ["prompt_format", "num_shots", "shot_seed", "apply_chat_template"]
SETTING = ["task", *SHOTS, *READING]
CURVE = [*TUNING, *SETTING]
STANDARD = ("token_prob", "generate", "loglikelihood")  # each task's usual way of reading an answer
BESIDE = "accuracy_norm"  # a second reading of the answers that `accuracy` is about: shown, never counted beside it
NOT_KNOWN = float("nan")
NUMBERS = ["value", "stderr", "low", "high", "chance"]


@dataclass(frozen=True, eq=False)  # a study is itself alone, so that what was made of one can be kept
class Study:
    """`points`: a row per (tuning, setting, checkpoint), the missing ones too, with value, interval, n, seeds, chance;
    those of one `curve` follow one another in the `order` of the checkpoints.
    `examples[i]`: of point i, the scores (mean over seeds) of all examples of its task, NaN where it has none; None
    where the point is missing, and everywhere in a study of means. Points with the same `kind[i]` have the same
    examples, `masks[kind]`; it is -1 where there are none.
    `base[i]`: the position of BASE's point of the same checkpoint and setting; -1 where that has no score.
    `seeds_of[i]`: its seeds; `by_seed[i]`: of a point with several, the scores of each. `checkpoints`: family -> its
    checkpoints in order.
    """

    points: pd.DataFrame
    examples: list[np.ndarray | None]
    checkpoints: dict[str, list[str]]
    kind: np.ndarray
    masks: list[np.ndarray]
    base: np.ndarray
    seeds_of: list[frozenset[int]]
    by_seed: dict[int, dict[int, np.ndarray]]

    @property
    def paired(self) -> bool:
        """Whether scores of examples are known; else comparisons are of means."""
        return bool(self.masks)


def collect(table: pd.DataFrame, sheets: list[Sheet] | None, levels: dict[str, float] | None = None) -> Study:
    """The study in a results table and its scores, as `amuro.results` loads them; without scores, every point has the
    interval value +- 1.96 standard errors, and `levels` are the chance levels by task.

    Raises ValueError where two runs differ in more than their seed, or where a value alone has no standard error.
    """
    numbers = ("learning_rate", "tokens_b", "value", "stderr", "ci_low", "ci_high")
    table = table.astype(dict.fromkeys(numbers, "float64"))  # NaN for what is not known, as in all the tables here
    times = times_of(table)
    points, rows = grid(table, times)
    examples, kind, masks, by_seed = [None] * len(points), np.full(len(points), -1), [], {}
    if sheets is None:
        mean_points(points, rows, levels or {})
    else:
        single_points(points, rows)
        for same in by_task(sheets):
            place(same, points, rows, examples, kind, masks, by_seed)
    name_missing(points, rows)
    checkpoints = times.groupby("family")["checkpoint"].agg(list).to_dict()
    seeds = rows.dropna(subset="seed").groupby("point")["seed"].agg(frozenset).to_dict()
    seeds_of = [seeds.get(point, frozenset()) for point in points.index]
    return Study(points, examples, checkpoints, kind, masks, base_of(points), seeds_of, by_seed)


def times_of(table: pd.DataFrame) -> pd.DataFrame:
    """The checkpoints of every family in the order of their tokens (then steps): `order` counts them from 0. Steps
    alone do not order them: those of a second stage of pre-training begin again at 0."""
    times = table.groupby(["family", "checkpoint"], as_index=False)[["step", "tokens_b"]].first()
    times = times.sort_values(["family", "tokens_b", "step", "checkpoint"], ignore_index=True)
    return times.assign(order=times.groupby("family").cumcount())


def grid(table: pd.DataFrame, times: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(points, rows): a point for every curve at every checkpoint of its family, without numbers yet; and the table
    sorted by `point` and seed, `at` being the position in the table. ValueError where two rows of a point share their
    seed."""
    rows = table.assign(at=np.arange(len(table)), curve=table.groupby(CURVE, dropna=False).ngroup())
    rows = rows.merge(times[["family", "checkpoint", "order"]], on=["family", "checkpoint"])
    curves = rows.sort_values("at").drop_duplicates("curve")[[*CURVE, "relation", "curve"]]
    points = curves.merge(times, on="family").sort_values(["curve", "order"], ignore_index=True)
    start = np.searchsorted(points["curve"], rows["curve"])
    rows = rows.assign(point=start + rows["order"].to_numpy()).sort_values(["point", "seed"], ignore_index=True)
    shared = rows[rows.duplicated(["point", "seed"], keep=False)]
    alone = rows[rows["seed"].isna() & rows["point"].duplicated(keep=False)]
    if len(shared) or len(alone):
        first = rows[rows["point"] == min([*shared["point"], *alone["point"]])]
        what = " ".join(str(first[name].iloc[0]) for name in ("checkpoint", "stage", "dataset", "task"))
        cells = ", ".join(first["cell_id"])
        raise ValueError(
            f"{what}: cells {cells} differ in more than seed and learning rate; report them from two folders"
        )
    by_point, by_curve = rows.groupby("point"), rows.groupby("curve")
    points["seeds_expected"] = points["curve"].map(by_curve["seed"].nunique()).astype(int)
    sums = {name: by_point[name].sum() for name in ("n_unparsable", "n_truncated")}
    for name, count in ({"seeds": by_point["seed"].count()} | sums).items():
        points[name] = count.reindex(points.index).fillna(0).astype(int)
    points["seed_spread"] = by_point["value"].max() - by_point["value"].min()
    return points.assign(n=0, **dict.fromkeys(NUMBERS, NOT_KNOWN)).astype({"step": "Int64"}), rows


def fill(points: pd.DataFrame, at: np.ndarray, **columns: np.ndarray) -> None:
    """Set columns of the points at positions `at`."""
    for name, values in columns.items():
        points.loc[at, name] = values


def single_points(points: pd.DataFrame, rows: pd.DataFrame) -> None:
    """The numbers of the points with one run, which the run's own row has already."""
    one = rows[~rows["point"].duplicated(keep=False)]
    numbers = {"value": "value", "stderr": "stderr", "low": "ci_low", "high": "ci_high", "n": "n"}
    fill(points, one["point"], **{name: one[of].to_numpy() for name, of in numbers.items()})


def mean_points(points: pd.DataFrame, rows: pd.DataFrame, levels: dict[str, float]) -> None:
    """The numbers of all points of a study without scores. The seeds of a point answered the same examples, so that
    their mean has the standard error of one."""
    if rows["stderr"].isna().any():
        first = rows[rows["stderr"].isna()].iloc[0][["checkpoint", "stage", "dataset", "task"]]
        what = f"{rows['stderr'].isna().sum()} rows without a standard error, the first: {' '.join(first)}"
        raise ValueError(f"{what}; values are compared by it where there are no examples: give it, or leave them out")
    by_point = rows.groupby("point")
    value, error = by_point["value"].mean(), by_point["stderr"].mean()
    numbers = {"value": value, "stderr": error, "n": by_point["n"].min().astype(int)}
    numbers |= {"low": (value - stats.Z * error).clip(0, 1), "high": (value + stats.Z * error).clip(0, 1)}
    fill(points, value.index, **{name: each.to_numpy() for name, each in numbers.items()})
    points["chance"] = points["task"].map(levels).astype(float)


def by_task(sheets: list[Sheet]) -> list[list[Sheet]]:
    """The sheets of one task and metric together; only they share examples."""
    found = {}
    for sheet in sheets:
        found.setdefault((sheet.task, sheet.metric), []).append(sheet)
    return list(found.values())


def place(
    sheets: list[Sheet],
    points: pd.DataFrame,
    rows: pd.DataFrame,
    examples: list,
    kind: np.ndarray,
    masks: list[np.ndarray],
    by_seed: dict[int, dict[int, np.ndarray]],
) -> None:
    """Put the scores of one task and metric into the study's parts, and the numbers that follow from them."""
    target, chance, scores = joined(sheets)
    at, counts, scores = averaged(np.concatenate([sheet.rows for sheet in sheets]), scores, rows, by_seed)
    have, number = np.ones((1, len(target)), dtype=bool), np.zeros(len(scores), dtype=int)
    if len(sheets) > 1:
        have, number = np.unique(~np.isnan(scores), axis=0, return_inverse=True)
    for which, mask in enumerate(have):
        chosen = np.flatnonzero(number == which)
        if not mask.any():  # seeds that share no example
            continue
        kind[at[chosen]] = len(masks)
        masks.append(mask)
        for position in chosen:
            examples[at[position]] = scores[position]
        told = not np.isnan(chance[mask]).any()
        level = chance_of(tuple(target[mask]), sheets[0].metric)
        if told:  # of a choice with fixed answers (yes, no) one of them may be right more often
            level = max(level, chance[mask].mean())
        fill(points, at[chosen], n=int(mask.sum()), chance=level)
        several = chosen[counts[chosen] > 1]
        if len(several):  # the others have their numbers already
            found = stats.mean_interval(scores[several][:, mask], sheets[0].metric)
            fill(points, at[several], value=found.mean, low=found.low, high=found.high, stderr=found.stderr)


def averaged(
    at: np.ndarray, scores: np.ndarray, rows: pd.DataFrame, by_seed: dict[int, dict[int, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(points (k,), their numbers of seeds (k,), mean scores (k, n)) of scores (m, n) of the table's rows at positions
    `at` (m,); a mean is NaN where one seed is. The scores of several seeds go to `by_seed`."""
    here = rows.set_index("at").loc[at, ["point", "seed"]].reset_index(drop=True).sort_values(["point", "seed"])
    if (here.index != np.arange(len(here))).any():  # else they need no copy
        scores = scores[here.index]
    points, start, counts = np.unique(here["point"], return_index=True, return_counts=True)
    seeds = here["seed"].to_numpy(object)
    for place in np.flatnonzero(counts > 1):
        mine = range(start[place], start[place] + counts[place])
        by_seed[int(points[place])] = {int(seeds[row]): scores[row] for row in mine}
    if (counts > 1).any():
        scores = np.add.reduceat(scores, start, axis=0) / counts[:, None]
    return points, counts, scores


def joined(sheets: list[Sheet]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(target (n,), chance (n,), scores (m, n)) over all examples of the sheets, NaN where a row has no score."""
    if len(sheets) == 1:
        return sheets[0].target, sheets[0].chance, sheets[0].scores
    ids = np.unique(np.concatenate([sheet.example_id for sheet in sheets]))
    target, chance = np.empty(len(ids), dtype=object), np.full(len(ids), NOT_KNOWN)
    scores, start = np.full((sum(len(sheet.rows) for sheet in sheets), len(ids)), NOT_KNOWN), 0
    for sheet in sheets:
        columns = np.searchsorted(ids, sheet.example_id)
        target[columns], chance[columns] = sheet.target, sheet.chance
        scores[start : start + len(sheet.rows), columns] = sheet.scores
        start += len(sheet.rows)
    return target, chance, scores


@cache
def chance_of(targets: tuple[str, ...], metric: str) -> float:
    """The chance level of labels or texts (n,); NaN for a single text or none."""
    if metric != "rouge_l":
        return stats.majority_rate(targets) if targets else NOT_KNOWN
    return stats.text_chance(targets) if len(targets) > 1 else NOT_KNOWN


def name_missing(points: pd.DataFrame, rows: pd.DataFrame) -> None:
    """The column `missing`: no result, the seeds that others of the curve have, the examples not every seed has."""
    said = pd.Series("", index=points.index)
    said[~points.index.isin(rows["point"])] = "no result"
    start = np.searchsorted(rows["point"], [points.index, points.index + 1]).T
    seeds, expected = rows["seed"].to_numpy(object), rows.groupby("curve")["seed"].unique()
    for point in points.index[points["seeds"].between(1, points["seeds_expected"] - 1)]:
        absent = set(expected[points.at[point, "curve"]]) - set(seeds[slice(*start[point])])
        said[point] = ", ".join(f"seed {seed}" for seed in sorted(absent))
    lost = rows.groupby("point")["n"].max().reindex(points.index).fillna(0).astype(int) - points["n"]
    for point in points.index[lost > 0]:
        more = f"{lost[point]} examples that not every seed has"
        said[point] = f"{said[point]}, {more}" if said[point] else more
    points["missing"] = said


def base_of(points: pd.DataFrame) -> np.ndarray:
    """For each point the position of BASE's at the same checkpoint and setting, -1 where there is none with a score."""
    spot = points.groupby(["family", "order", *SETTING], dropna=False).ngroup().to_numpy()
    found = np.full(spot.max() + 1, -1)
    base = np.flatnonzero((points["stage"] == "base") & (points["n"] > 0))
    found[spot[base]] = base
    return found[spot]


def together(
    study: Study, wanted: np.ndarray, examples: dict[int, np.ndarray] | list[np.ndarray | None] | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Scores of points to compare: for `wanted` (k, m) positions, all with scores, blocks (which of the k (j,), scores
    (j, m, n) of the examples that all m have, how many examples not all of them have). No block where none is shared.
    `examples`: other scores of the positions, such as those of one seed."""
    examples = study.examples if examples is None else examples
    combinations, number = np.unique(study.kind[wanted], axis=0, return_inverse=True)
    for at, kinds in enumerate(combinations):
        masks = np.array([study.masks[each] for each in kinds])
        shared = masks.all(axis=0)
        which = np.flatnonzero(number == at)
        for part in stats.blocks(len(which), wanted.shape[1] * len(shared)) if shared.any() else ():
            chosen = which[part]
            scores = np.array([examples[each] for each in wanted[chosen].ravel()])
            scores = scores.reshape(len(chosen), wanted.shape[1], -1)
            yield chosen, scores if shared.all() else scores[..., shared], int(masks.any(axis=0).sum() - shared.sum())


def of_shared_seeds(study: Study, groups: list[np.ndarray]) -> list[np.ndarray | None]:
    """`study.examples`, but the points of each group (positions of points with scores) are means over the seeds that
    all of them have, and None where they share none: what was asked of one seed alone is not compared with the mean of
    two, whose difference may be the other seed's. A study of means has no scores to choose from, and stays as it is."""
    examples = list(study.examples)
    for group in groups if study.paired else ():
        sets = [study.seeds_of[point] for point in group]
        shared = frozenset.intersection(*sets)
        for point, seeds in zip(group, sets, strict=True):
            if seeds != shared:
                some = [study.by_seed[point][seed] for seed in sorted(shared)] if shared else None
                examples[point] = np.mean(some, axis=0) if some else None
    return examples


def headline(frame: pd.DataFrame) -> pd.Series:
    """Which rows are what a task is judged by: its usual way of reading answers, and one metric per answer."""
    return frame["method"].isin(STANDARD) & (frame["metric"] != BESIDE)
