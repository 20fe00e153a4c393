"""Means with their intervals, and chance levels. Scores are per example, in [0, 1]; the last axis is the examples.

    found = mean_interval(scores, "accuracy")       Wilson for right and wrong, bootstrap else
    draws = resample(scores)                        means of bootstrap samples, the same examples drawn for every row

All resampling is seeded: equal input, equal output.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from rouge_score.rouge_scorer import RougeScorer
from scipy import stats

RESAMPLES = 1000
Z = float(stats.norm.ppf(0.975))
BATCH = 4_000_000  # examples drawn at a time, and means held at a time, which bounds the memory of a bootstrap


@dataclass(frozen=True)
class Estimate:
    """A number, or an array of them, with its 95 % interval, standard error and the number of examples behind it."""

    mean: float | np.ndarray
    low: float | np.ndarray
    high: float | np.ndarray
    stderr: float | np.ndarray
    n: int | np.ndarray


def counts(n: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each of n examples is in each bootstrap sample: arrays (batch, n), `resamples` rows in all."""
    rng, step = np.random.default_rng(seed), max(1, BATCH // n)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float32)


@lru_cache(maxsize=4)
def kept_counts(n: int, resamples: int, seed: int) -> list[np.ndarray]:
    """`counts` of few examples, which many tables ask for."""
    return list(counts(n, resamples, seed))


def noise(scores: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Means of bootstrap samples of scores (..., n), less the mean of all: float32 (resamples, ...). Every row takes
    the same samples, so that draws of two rows are paired by example."""
    rows = scores.reshape(-1, scores.shape[-1])
    n = rows.shape[1]
    centred = (rows - rows.mean(axis=1, keepdims=True)).astype(np.float32)  # 0 to the last digit of what does not vary
    drawn = kept_counts(n, resamples, seed) if n * resamples <= BATCH else counts(n, resamples, seed)
    draws = np.concatenate([each @ centred.T for each in drawn])
    return (draws / np.float32(n)).reshape(resamples, *scores.shape[:-1])


def resample(scores: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Means of bootstrap samples of scores (..., n): an array (resamples, ...)."""
    return noise(scores, resamples, seed) + scores.mean(axis=-1)


def percentiles(draws: np.ndarray, *wanted: float) -> list[np.ndarray]:
    """Percentiles of draws (resamples, ...) over their first axis, each (...); linear between two draws."""
    ordered = np.sort(np.moveaxis(draws, 0, -1), axis=-1)
    places = [(len(draws) - 1) * each / 100 for each in wanted]
    below = [ordered[..., int(place)] for place in places]
    above = [ordered[..., int(np.ceil(place))] for place in places]
    return [low + (high - low) * (place % 1) for low, high, place in zip(below, above, places, strict=True)]


def blocks(rows: int, columns: int = RESAMPLES) -> Iterator[slice]:
    """Slices over `rows`, so many at a time that BATCH numbers are held where each row takes `columns`."""
    step = max(1, BATCH // columns)
    return (slice(start, start + step) for start in range(0, rows, step))


def bootstrap(scores: np.ndarray) -> Estimate:
    """The means of scores (..., n), each with its percentile bootstrap interval."""
    rows = scores.reshape(-1, scores.shape[-1])
    ends = [percentiles(noise(rows[part]), 2.5, 97.5) for part in blocks(len(rows))]
    shape, mean = scores.shape[:-1], scores.mean(axis=-1)
    low, high = (mean + np.concatenate([each[end] for each in ends]).reshape(shape) for end in (0, 1))
    return Estimate(mean, low, high, standard_error(scores), scores.shape[-1])


def standard_error(scores: np.ndarray) -> np.ndarray:
    """Of the means of scores (..., n); NaN for a single example."""
    n = scores.shape[-1]
    return scores.std(axis=-1, ddof=1) / n**0.5 if n > 1 else np.full(scores.shape[:-1], np.nan)


def wilson(right: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95 % interval of the rates of `right` (...) in n examples (Wilson 1927); scipy has it for one rate."""
    rate = right / n
    centre, room = rate + Z**2 / (2 * n), Z * np.sqrt(rate * (1 - rate) / n + Z**2 / (4 * n**2))
    low, high = ((centre + side * room) / (1 + Z**2 / n) for side in (-1, 1))
    return np.where(right == 0, 0.0, low), np.where(right == n, 1.0, high)


def is_binary(*scores: np.ndarray) -> np.ndarray:
    """Which rows of all the scores (..., n) hold nothing but 0 and 1, as a mask (...)."""
    return np.logical_and.reduce([((each == 0) | (each == 1)).all(axis=-1) for each in scores])


def mean_interval(scores: np.ndarray, metric: str) -> Estimate:
    """Means of scores (..., n): Wilson for right and wrong answers; bootstrap for text and averages over seeds."""
    shape, n = scores.shape[:-1], scores.shape[-1]
    rows = scores.reshape(-1, n)
    exact = is_binary(rows) if metric.startswith("accuracy") else np.zeros(len(rows), bool)
    low, high = wilson(rows.sum(axis=1), n)
    if not exact.all():
        found = bootstrap(rows[~exact])
        low[~exact], high[~exact] = found.low, found.high
    return Estimate(scores.mean(axis=-1), low.reshape(shape)[()], high.reshape(shape)[()], standard_error(scores), n)


def mean_of_means(means: np.ndarray, errors: np.ndarray) -> tuple[float, float, float]:
    """(mean, low, high) of means (k,) with standard errors (k,) over k sets of different examples, all weighing the
    same: a normal interval. The sets themselves are taken as given."""
    mean, room = float(np.mean(means)), Z * float(np.sqrt(np.square(errors).sum())) / len(means)
    return mean, mean - room, mean + room


def majority_rate(labels: Sequence[str]) -> float:
    """Chance level of labels (n,): the accuracy of always giving the most frequent one."""
    return Counter(labels).most_common(1)[0][1] / len(labels)


def text_chance(references: Sequence[str], seed: int = 0) -> float:
    """Chance level of texts (n,): mean ROUGE-L (F, no stemming) of each against another one of them.

    The partners are a seeded derangement: one random cycle through all. Raises ValueError for fewer than two.
    """
    if len(references) < 2:
        raise ValueError("the chance level of texts needs two references at least")
    cycle = np.random.default_rng(seed).permutation(len(references))
    scorer = RougeScorer(["rougeL"])
    pairs = zip(cycle, np.roll(cycle, 1), strict=True)
    return float(np.mean([scorer.score(references[a], references[b])["rougeL"].fmeasure for a, b in pairs]))
