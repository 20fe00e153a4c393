"""Two models on the same examples: differences with interval and tests, Holm's correction, gain and ratio of change.

found = compare(tuned, base)                        scores (..., n), paired by position
found = compare_means(0.8, 0.01, 500, 0.7, 0.01, 500)       where only means and standard errors are known
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from analysis.stats.estimates import Z, blocks, is_binary, noise, percentiles, wilson

MARGIN = 0.02  # a difference below two points is of no interest
ALPHA = 0.05
POWER = 0.8  # of the smallest detectable difference


@dataclass(frozen=True)
class Difference:
    """A mean difference, or an array of them: 95 % interval, standard error, one-sided p that it exceeds the margin,
    two-sided p that there is a difference at all, smallest detectable difference beyond the margin (`detectable`)."""

    mean: float | np.ndarray
    low: float | np.ndarray
    high: float | np.ndarray
    stderr: float | np.ndarray
    p: float | np.ndarray
    p_equal: float | np.ndarray
    detectable: float | np.ndarray
    n: int | np.ndarray


def compare(scores: np.ndarray, others: np.ndarray | float, margin: float = MARGIN) -> Difference:
    """Means of scores (..., n) - others (..., n), paired by example, or - a constant, or constants (..., 1).

    Right and wrong answers: Bonett and Price's interval and McNemar's exact test (against a constant: Wilson's interval
    and the exact binomial test). Else: paired bootstrap. Raises ValueError where shapes differ.
    """
    scores = np.asarray(scores)
    constant = np.ndim(others) == 0 or (np.shape(others)[-1] == 1 and scores.shape[-1] > 1)
    if not scores.ndim or not scores.shape[-1] or not (constant or np.shape(others) == scores.shape):
        raise ValueError(f"paired scores must be two equally long arrays, not {scores.shape} and {np.shape(others)}")
    n = scores.shape[-1]
    rows, others = scores.reshape(-1, n), np.broadcast_to(others, scores.shape).reshape(-1, n)
    differences = rows - others
    exact = is_binary(rows) if constant else is_binary(rows, others)
    low, high, p_equal = (np.empty(len(rows)) for _ in range(3))
    low[exact], high[exact], p_equal[exact] = (exact_level if constant else exact_pairs)(rows[exact], others[exact])
    rest = np.flatnonzero(~exact)
    for part in blocks(len(rest)):
        at = rest[part]
        draws, mean = noise(differences[at]), differences[at].mean(axis=1)
        low[at], high[at] = (mean + end for end in percentiles(draws, 2.5, 97.5))
        p_equal[at] = two_sided(draws, mean)
    shape = scores.shape[:-1]
    parts = (differences.mean(axis=1), low, high, *spread_of(differences, margin), p_equal)
    mean, low, high, stderr, p, detectable, p_equal = (part.reshape(shape)[()] for part in parts)
    return Difference(mean, low, high, stderr, p, p_equal, detectable, n)


def two_sided(draws: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Two-sided p (...) that means (...) with bootstrap draws around them (resamples, ...) are 0: twice the share of
    draws on the other side of it or at it (1e-6 is the draws' precision), never below 2 / (resamples + 1)."""
    sides = [(side.sum(axis=0) + 1) / (len(draws) + 1) for side in (draws <= 1e-6 - means, draws >= -1e-6 - means)]
    return np.minimum(1, 2 * np.minimum(*sides))


def spread_of(differences: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(standard error, one-sided p, smallest detectable difference), each (k,), of differences (k, n).

    p that a mean is above `margin` is Student's. Differences that are all the same have no variance to test by: all n
    then lie on one side of the margin, which the sign test gives 1/2 to the power of n. Detectable: how far above the
    margin a mean must be to be found with 80 % power; NaN for n = 1.
    """
    n, means = differences.shape[1], differences.mean(axis=1)
    same = np.ptp(differences, axis=1) < 1e-12
    errors = np.full(len(means), np.nan) if n == 1 else differences.std(axis=1, ddof=1) / n**0.5
    p = np.where(means > margin, 0.5**n, 1.0)
    p[~same] = stats.t.sf((means[~same] - margin) / errors[~same], n - 1)
    return errors, p, detectable(errors)


def detectable(errors: np.ndarray, alpha: float = ALPHA) -> np.ndarray:
    """How far above the margin means with standard errors (...) must be to be found with 80 % power by one one-sided
    test, before any correction over several."""
    return (stats.norm.ppf(1 - alpha) + stats.norm.ppf(POWER)) * errors


def exact_pairs(ones: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(low, high, two-sided p), each (k,), of the difference between rates of right answers (k, n), paired.

    The interval is Wald's after one more pair of each kind that differs (Bonett and Price 2012): unlike a bootstrap's
    it has a width where no answer changes. p is McNemar's, exact. scipy has neither.
    """
    n = ones.shape[1]
    gained, lost = ((ones > others).sum(axis=1), (ones < others).sum(axis=1))
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    room = Z * np.sqrt((up + down - (up - down) ** 2) / (n + 2))
    low, high = (np.clip(up - down + side * room, -1, 1) for side in (-1, 1))
    return low, high, mcnemar(gained, lost)


def mcnemar(gained: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """Exact two-sided p (...) of McNemar's test of the numbers of answers that turned right (...) and wrong (...)."""
    return np.minimum(1, 2 * stats.binom.cdf(np.minimum(gained, lost), gained + lost, 0.5))


def exact_level(ones: np.ndarray, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(low, high, two-sided p), each (k,), of rates of right answers (k, n) against a known level, in rows (k, n)."""
    n, right, level = ones.shape[1], ones.sum(axis=1), levels[:, 0]
    low, high = wilson(right, n)
    sides = stats.binom.cdf(right, n, level), stats.binom.sf(right - 1, n, level)
    return low - level, high - level, np.minimum(1, 2 * np.minimum(*sides))


def compare_means(
    value: np.ndarray,
    stderr: np.ndarray,
    n: np.ndarray,
    other: np.ndarray,
    other_stderr: np.ndarray,
    other_n: np.ndarray,
    margin: float = MARGIN,
) -> Difference:
    """Difference of means (...) known by value and standard error alone, as if of different examples: normal. Paired
    examples would tell more; a standard error of 0 (a known level) is taken at its word."""
    mean, error = np.subtract(value, other), np.hypot(stderr, other_stderr)
    return normal_difference(mean, error, np.minimum(n, other_n), margin)


def normal_difference(mean: np.ndarray, error: np.ndarray, n: np.ndarray, margin: float = MARGIN) -> Difference:
    """A difference (...) by its mean and standard error."""
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.where(error == 0, np.where(mean > margin, 0.0, 1.0), stats.norm.sf((mean - margin) / error))
        p_equal = np.where(error == 0, np.where(mean == 0, 1.0, 0.0), 2 * stats.norm.sf(np.abs(mean) / error))
    return Difference(mean, mean - Z * error, mean + Z * error, error, p[()], p_equal[()], detectable(error), n)


def holm(p: Sequence | np.ndarray) -> np.ndarray:
    """Holm's step-down adjusted p-values of p (m,), in the order given (Holm 1979). ValueError outside [0, 1]."""
    p = np.asarray(p, dtype=float)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values must lie in [0, 1]: {p}")
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1)
    return adjusted


def gain(difference: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """(tuned - base) / (1 - chance) of differences (...), or of their intervals' ends: the share of the room above
    chance that tuning adds. Chance (...) is taken as known; NaN where it is not below 1 (all references the same)."""
    return difference / np.where(np.asarray(chance) < 1, 1 - np.asarray(chance), np.nan)


@dataclass(frozen=True)
class Ratios:
    """(tuned - base) / base over evaluation sets: mean, its t-test against 0, median; `zero` are the sets left out."""

    mrc: float
    p: float
    median: float
    n: int
    zero: list[int]
    t: float = float("nan")


def ratios_of_change(tuned: np.ndarray, base: np.ndarray) -> Ratios:
    """Mean ratio of change (arXiv 2408.06663, Eq. 1) over sets (k,), and the median, which one small base cannot move.

    Sets whose base is 0 have no ratio: `zero` has their positions, n counts the others. NaN where n is too small.
    """
    zero, unknown = np.flatnonzero(base == 0).tolist(), float("nan")
    ratios = (tuned[base != 0] - base[base != 0]) / base[base != 0]
    if not len(ratios):
        return Ratios(unknown, unknown, unknown, 0, zero)
    t = p = unknown
    if len(ratios) > 1 and np.ptp(ratios) > 0:
        t = float(ratios.mean() / (ratios.std(ddof=1) / len(ratios) ** 0.5))
        p = 2 * float(special.stdtr(len(ratios) - 1, -abs(t)))  # scipy's ttest_1samp takes 100 times as long
    return Ratios(float(ratios.mean()), p, float(np.median(ratios)), len(ratios), zero, t)
