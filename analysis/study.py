"""What the tables are made of: a point per (tuning, setting, checkpoint), and the scores of its examples.

    study = collect(results.load("runs"), results.load_examples("runs"))

Runs that differ in their seed alone are averaged per example; everything is paired by example. Rows are only ever
compared within one setting, which has one prompt, with or without chat template, one draw of shots and one dtype.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from amuro.results import KEY
from analysis import stats

TUNING = ["family", "stage", "dataset", "learning_rate"]  # one curve over the checkpoints of a family
READING = ["method", "metric", "dtype"]
SHOTS = ["prompt_format", "num_shots", "shot_seed", "apply_chat_template"]
SETTING = ["task", *SHOTS, *READING]
STANDARD = ("token_prob", "generate", "loglikelihood")  # each task's usual way of reading an answer
BESIDE = "accuracy_norm"  # a second reading of the answers that `accuracy` is about: shown, never counted beside it
NOT_KNOWN = float("nan")


@dataclass(frozen=True)
class Study:
    """`points`: a row per (tuning, setting, checkpoint), the missing ones too, with value, interval, n, seeds, chance.
    `examples[i]`: of row i, a frame over example_id with score (mean over seeds), target, chance; None where missing.
    `checkpoints`: family -> its checkpoints in order.
    """

    points: pd.DataFrame
    examples: list[pd.DataFrame | None]
    checkpoints: dict[str, list[str]]


def collect(table: pd.DataFrame, examples: pd.DataFrame) -> Study:
    """The study in a results table and its examples, as `amuro.results` loads them. ValueError where they disagree."""
    scores = {key: frame for key, frame in examples.groupby(KEY, sort=False)}
    plain = ("learning_rate", "tokens_b", "value", "ci_low", "ci_high")
    table = table.astype(dict.fromkeys(plain, "float64"))  # NaN for what is not known, as in all the tables here
    times = table[["family", "checkpoint", "step", "tokens_b"]].drop_duplicates()
    times = times.sort_values(["family", "tokens_b", "step", "checkpoint"])
    checkpoints = times.groupby("family")["checkpoint"].agg(list).to_dict()
    points, kept = [], []
    for key, rows in table.groupby([*TUNING, *SETTING], dropna=False):
        about = dict(zip([*TUNING, *SETTING], key, strict=True))
        seeds = sorted(rows["seed"].dropna().unique())
        for time in times[times["family"] == about["family"]].itertuples():
            here = rows[rows["checkpoint"] == time.checkpoint]
            point = about | {"checkpoint": time.checkpoint, "step": time.step, "tokens_b": time.tokens_b}
            point["relation"] = rows["relation"].iloc[0]
            frame = average_seeds(here, scores) if len(here) else None
            absent = [int(seed) for seed in seeds if seed not in set(here["seed"])]
            point |= describe(here, frame, absent) | {"seeds_expected": len(seeds)}
            points.append(point)
            kept.append(frame)
    return Study(pd.DataFrame(points).astype({"step": "Int64"}), kept, checkpoints)


def average_seeds(rows: pd.DataFrame, scores: dict[tuple, pd.DataFrame]) -> pd.DataFrame:
    """Score (mean over `rows`, one per seed), target and chance by example_id, of the examples that every seed has.

    Raises ValueError where two rows share their seed, or where a row is not the mean of its examples.
    """
    if rows["seed"].duplicated().any() or (len(rows) > 1 and rows["seed"].isna().any()):
        first = rows.iloc[0]
        what = f"{first['checkpoint']} {first['stage']} {first['dataset']} {first['task']}"
        cells = ", ".join(rows["cell_id"])
        raise ValueError(
            f"{what}: cells {cells} differ in more than seed and learning rate; report them from two folders"
        )
    frames = []
    for key, value in zip(rows[KEY].itertuples(index=False, name=None), rows["value"], strict=True):
        if key not in scores:
            raise ValueError(f"a row without examples: {dict(zip(KEY, key, strict=True))}")
        frame = scores[key].set_index("example_id")
        if frame.index.has_duplicates or not np.isclose(frame["score"].mean(), value, atol=1e-6):
            raise ValueError(
                f"the row's value {value} is not the mean of its examples: {dict(zip(KEY, key, strict=True))}"
            )
        frames.append(frame)
    every = pd.concat([frame["score"] for frame in frames], axis=1, join="inner").sort_index()
    return frames[0].loc[every.index, ["target", "chance"]].assign(score=every.mean(axis=1).astype(float))


def describe(rows: pd.DataFrame, frame: pd.DataFrame | None, absent: list[int]) -> dict:
    """Value, interval, n, chance and seeds of one point, what is missing of it, and the unparsable answers (all seeds).

    The chance level is the mean over examples of 1 / number of choices where the examples tell it.
    """
    numbers = dict.fromkeys(("value", "low", "high", "chance", "seed_spread"), NOT_KNOWN)
    numbers |= dict.fromkeys(("n", "n_unparsable", "seeds"), 0)
    if frame is None:
        return numbers | {"missing": "no result"}
    metric, scores, values = rows["metric"].iloc[0], frame["score"].to_numpy(), rows["value"]
    found = stats.Estimate(scores.mean(), *rows[["ci_low", "ci_high"]].iloc[0], len(scores))
    if len(rows) > 1:  # else the row has its interval already
        found = stats.mean_interval(scores, metric)
    chance = frame["chance"].mean()
    numbers = {"value": found.mean, "low": found.low, "high": found.high, "n": found.n}
    numbers |= {"chance": chance_of(tuple(frame["target"]), metric) if np.isnan(chance) else float(chance)}
    numbers |= {"seed_spread": float(values.max() - values.min()), "n_unparsable": int(rows["n_unparsable"].sum())}
    missing = [f"seed {seed}" for seed in absent]
    if rows["n"].max() > len(frame):
        missing.append(f"{rows['n'].max() - len(frame)} examples that not every seed has")
    return numbers | {"seeds": int(rows["seed"].notna().sum()), "missing": ", ".join(missing)}


@cache
def chance_of(targets: tuple[str, ...], metric: str) -> float:
    """The chance level of labels or texts (n,); NaN for a single text."""
    if metric != "rouge_l":
        return stats.majority_rate(targets)
    return stats.text_chance(targets) if len(targets) > 1 else NOT_KNOWN


def paired(*frames: pd.DataFrame) -> tuple[np.ndarray, int]:
    """Scores (n, k) of the examples that all k frames have, and how many examples are not in all of them."""
    scores = pd.concat([frame["score"] for frame in frames], axis=1)
    both = scores.dropna()
    return both.to_numpy(), len(scores) - len(both)


def pairs(study: Study) -> Iterator[tuple[pd.Series, pd.Series | None, np.ndarray | None, int, str]]:
    """For each tuned point: its row, BASE's row of the same checkpoint and setting, their scores (n, 2) as (BASE,
    tuned), the number of unpaired examples, and what is missing."""
    base = base_rows(study)
    for row in study.points[study.points["stage"] != "base"].itertuples():
        at = base.get((row.family, row.checkpoint, *(getattr(row, name) for name in SETTING)))
        frames = [None if at is None else study.examples[at], study.examples[row.Index]]
        lacking = [name for name, frame in zip(("BASE", "tuned"), frames, strict=True) if frame is None]
        scores, unpaired = paired(*frames) if not lacking else (None, 0)
        missing = ", ".join([f"no {name}" for name in lacking] or [row.missing] * bool(row.missing))
        if scores is not None and not len(scores):
            scores, missing = None, "no example in common"
        yield row, None if at is None else study.points.loc[at], scores, unpaired, missing


def base_rows(study: Study) -> dict[tuple, int]:
    """(family, checkpoint, setting) -> position of BASE's point."""
    base = study.points[study.points["stage"] == "base"]
    return {tuple(key): at for at, *key in base[["family", "checkpoint", *SETTING]].itertuples()}


def headline(frame: pd.DataFrame) -> pd.Series:
    """Which rows are what a task is judged by: its usual way of reading answers, and one metric per answer."""
    return frame["method"].isin(STANDARD) & (frame["metric"] != BESIDE)
