"""Curves over the checkpoints of a history: where they turn, and which checkpoint is the best buy.

at = turning_points(values)                 values (..., checkpoints)
share = agreement(at, turning_points(draws))      how many bootstrap draws of the curve say the same
"""

import numpy as np

from analysis.stats.comparisons import MARGIN
from analysis.stats.estimates import resample

SHARES = 500  # bootstrap draws behind a share, whose standard error is then below 0.023


def turning_points(values: np.ndarray, margin: float = MARGIN) -> np.ndarray:
    """The position (...) of the first checkpoint of values (..., checkpoints) that no later one beats by more than the
    margin. The last checkpoint always is such a one: there the curve has not turned yet."""
    best_later = np.maximum.accumulate(values[..., ::-1], axis=-1)[..., ::-1]
    return (best_later - values <= margin + 1e-9).argmax(axis=-1)  # a difference of the margin is not more than it


def best_buys(values: np.ndarray, margin: float = MARGIN) -> np.ndarray:
    """The position (...) of the earliest checkpoint of values (..., checkpoints) that is not worse than the best by
    more than the margin."""
    return (values.max(axis=-1, keepdims=True) - values <= margin + 1e-9).argmax(axis=-1)


def curve_draws(scores: np.ndarray) -> np.ndarray:
    """Bootstrap draws (SHARES, ..., checkpoints) of curves with scores (..., checkpoints, n): the examples are drawn
    alike at every checkpoint and, of as many examples, in every curve."""
    return resample(scores, SHARES)


def normal_draws(values: np.ndarray, errors: np.ndarray, seed: int = 0) -> np.ndarray:
    """Draws (SHARES, ...) of values (...) with standard errors (...), each for itself: where no examples are known."""
    noise = np.random.default_rng(seed).standard_normal((SHARES, *np.shape(values)))
    return values + errors * noise


def agreement(positions: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Share (...) of the draws (SHARES, ...) that give the same position (...)."""
    return (drawn == positions).mean(axis=0)
