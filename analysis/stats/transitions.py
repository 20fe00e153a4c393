"""What happens to single answers: turned right or wrong by tuning; learned at a checkpoint and kept.

found = transitions(base, tuned)             scores (..., n), right or wrong, or shares of seeds that are right
at = learned_at(right)                       right (..., checkpoints, n)
"""

from dataclasses import dataclass

import numpy as np

from analysis.stats.comparisons import compare


@dataclass(frozen=True)
class Transitions:
    """Shares of the n examples, or arrays of them, that turned right and wrong; what independent answers with the same
    rates would give; and the two-sided p that both are as likely (McNemar)."""

    wrong_right: np.ndarray
    right_wrong: np.ndarray
    wrong_right_by_chance: np.ndarray
    right_wrong_by_chance: np.ndarray
    p: float | np.ndarray
    n: int


def transitions(before: np.ndarray, after: np.ndarray) -> Transitions:
    """From `before` (..., n) to `after` (..., n), each 0 or 1, or a mean over seeds: then a mean of the seeds' shares,
    tested by paired bootstrap."""
    rates = before.mean(axis=-1), after.mean(axis=-1)
    up, down = ((1 - before) * after).mean(axis=-1), (before * (1 - after)).mean(axis=-1)
    by_chance = (1 - rates[0]) * rates[1], rates[0] * (1 - rates[1])
    return Transitions(up, down, *by_chance, compare(after, before).p_equal, before.shape[-1])


def learned_at(right: np.ndarray) -> np.ndarray:
    """For each example the position (..., n) of the first checkpoint from which on it is right at every one of right
    (..., checkpoints, n); the number of checkpoints where it is wrong at the last one."""
    kept = np.logical_and.accumulate(right[..., ::-1, :].astype(bool), axis=-2)
    return right.shape[-2] - kept.sum(axis=-2)


def learned_share(right: np.ndarray) -> np.ndarray:
    """Share of the examples that are right from each checkpoint on to the last: (..., checkpoints)."""
    places = np.arange(right.shape[-2])[:, None]
    return (learned_at(right)[..., None, :] <= places).mean(axis=-1)


def learned_by_chance(right: np.ndarray) -> np.ndarray:
    """The same (..., checkpoints) if answers at different checkpoints were independent, at each one's rate."""
    rates = right.astype(bool).mean(axis=-1)
    return np.cumprod(rates[..., ::-1], axis=-1)[..., ::-1]
