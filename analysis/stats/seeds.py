"""How much of a score is the seed's: variance between runs that differ in their seed alone, beside that of examples.

found = seed_spread(values, errors)          values (..., seeds)
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """Variances, or arrays of them: between seeds (same examples), within a seed (which examples were drawn), and the
    share that the seeds have of both."""

    between: np.ndarray
    within: np.ndarray
    share: np.ndarray


def seed_spread(values: np.ndarray, errors: np.ndarray) -> Spread:
    """Of scores (..., seeds) with standard errors over examples (..., seeds). Two seeds at least. The seeds answered
    the same examples, so `between` holds no noise of drawing examples, only that which each seed has for itself."""
    between, within = values.var(axis=-1, ddof=1), np.square(errors).mean(axis=-1)
    total = between + within
    return Spread(between, within, np.divide(between, total, out=np.zeros_like(total), where=total > 0))
