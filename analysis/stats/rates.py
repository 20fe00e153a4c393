"""Does a conclusion hang on the learning rate? The curve at one fixed rate, and the envelope of the best at each point.

fixed, best = envelope(values)               values (rates, checkpoints)
"""

import numpy as np


def envelope(values: np.ndarray) -> tuple[int, np.ndarray]:
    """(fixed, best): the rate whose mean over checkpoints is highest, and the best rate (checkpoints,) at each, as
    positions in values (rates, checkpoints). NaN is a missing score; a checkpoint without any has position -1.

    Both are chosen by the scores they are reported with, so the envelope is too high by the noise of its choice.
    """
    there = ~np.isnan(values)
    whole = there[:, there.any(axis=0)].all(axis=1)  # a rate that misses a checkpoint would be compared on others
    means = np.where(there, values, 0).sum(axis=1) / np.maximum(1, there.sum(axis=1))
    fixed = int(np.where(whole if whole.any() else there.any(axis=1), means, -np.inf).argmax())
    best = np.where(there, values, -np.inf).argmax(axis=0)
    return fixed, np.where(there.any(axis=0), best, -1)
