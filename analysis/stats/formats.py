"""How far apart the prompt formats of a task are: best minus worst, and its trend over pre-training.

    found = format_range(scores)                 scores (..., formats, n) of the same examples
    found = range_of_means(means, errors, n)      (..., formats), where no examples are known
    slope = range_trend(scores, log_tokens)      scores (checkpoints, formats, n)

The largest of several noisy means is too large and the smallest too small, so best - worst is too large on average, and
a bootstrap, which adds noise once more, lies above even that. Here the noise is kept apart. Of two formats with the
true difference d, the observed one errs by e, which the bootstrap draws around 0. The observed range is at least d of
the pair that is truly best and worst, plus its e, and at most the true range plus the largest e of the pairs that may
be it (the contenders: those that are not clearly closer together than the observed best and worst). So

    low   = observed - 97.5 % quantile of the largest e of the contenders
    high  = observed -  2.5 % quantile of the e of the observed pair
    range = observed - bias, which is how much larger a range is on average after the bootstrap's noise than before

all at least 0. With one contender this is the plain difference of two formats; the interval always holds the range.
"""

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from analysis.stats.estimates import RESAMPLES, Estimate, Z, blocks, mean_of_means, noise, percentiles

# Standard errors that a pair may fall behind the observed best and worst: with 1.5 some intervals are too short, with 3
# too long (tests/test_stats_coverage.py); in a mean over many tasks no contender may be overlooked.
CONTENDS, CONTENDS_IN_MEANS = 2.0, 3.0


@dataclass(frozen=True)
class Range:
    """Best minus worst format, or an array of them: corrected for its bias, with a 95 % interval; as observed, with its
    bias; and what a mean of ranges needs: mean and spread of the largest e of the contenders (`most`, `above`), spread
    of the observed pair's e (`below`)."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    observed: np.ndarray
    bias: np.ndarray
    most: np.ndarray
    above: np.ndarray
    below: np.ndarray
    n: int


def drawn(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(means (...), bootstrap draws around them (RESAMPLES, ...)) of scores (..., n)."""
    return scores.mean(axis=-1), noise(scores)


def normal_noise(errors: np.ndarray, seed: int = 0) -> np.ndarray:
    """Draws (RESAMPLES, ...) around means with standard errors (...), each for itself: where no examples are known."""
    return errors * np.random.default_rng(seed).standard_normal((RESAMPLES, *np.shape(errors)))


def errors_of_range(
    means: np.ndarray, draws: np.ndarray, within: float = CONTENDS
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(observed best - worst (...), its bias (...), draws of the largest e of the contenders (resamples, ...), draws of
    the observed pair's e (resamples, ...)) of means (..., formats) with draws around them (resamples, ..., formats)."""
    ones, others = np.array(list(permutations(range(means.shape[-1]), 2))).T
    differences, draws = means[..., ones] - means[..., others], draws[..., ones] - draws[..., others]
    at = differences.argmax(axis=-1)[..., None]
    observed, pair = np.take_along_axis(differences, at, axis=-1), np.take_along_axis(draws, at[None], axis=-1)
    bias = ((differences + draws).max(axis=-1) - (observed + pair)[..., 0]).mean(axis=0)
    contends = observed - differences <= within * (draws - pair).std(axis=0)
    largest = np.where(contends, draws, -np.inf).max(axis=-1)
    return observed[..., 0], bias, largest, pair[..., 0]


def format_range(scores: np.ndarray) -> Range:
    """Best minus worst format of scores (..., formats, n)."""
    shape, (formats, n) = scores.shape[:-2], scores.shape[-2:]
    rows = scores.reshape(-1, formats, n)
    parts = [range_of_errors(*drawn(rows[part])) for part in blocks(len(rows), RESAMPLES * formats**2)]
    together = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Range(**{name: values.reshape(shape)[()] for name, values in together.items()}, n=n)


def range_of_means(means: np.ndarray, errors: np.ndarray, n: int) -> Range:
    """The same of means (..., formats) with standard errors (..., formats), unpaired."""
    return Range(**range_of_errors(means, normal_noise(errors)), n=n)


def range_of_errors(means: np.ndarray, draws: np.ndarray) -> dict[str, np.ndarray]:
    """The numbers of a Range by name, from what `errors_of_range` takes."""
    observed, bias, largest, pair = errors_of_range(means, draws)
    (top,), (bottom,) = percentiles(largest, 97.5), percentiles(pair, 2.5)
    _, _, larger, _ = errors_of_range(means, draws, CONTENDS_IN_MEANS)
    return {
        "mean": np.maximum(0, observed - bias),
        "low": np.maximum(0, observed - np.maximum(top, bias)),
        "high": np.maximum(0, observed - np.minimum(bottom, 0)),
        "observed": observed,
        "bias": bias,
        "most": (larger - pair).mean(axis=0),
        "above": larger.std(axis=0),
        "below": pair.std(axis=0),
    }


def mean_range(
    observed: np.ndarray, bias: np.ndarray, most: np.ndarray, above: np.ndarray, below: np.ndarray
) -> tuple[float, float, float]:
    """(mean, low, high) of the ranges (k,) of k tasks with different examples, from what their Range tells: at least 0.
    Biases add up where noise averages out, so the mean is corrected before it is cut at 0, and `low` by the most."""
    up, down = (Z * np.sqrt(np.square(each).sum()) / len(each) for each in (above, below))
    mean, low = observed.mean() - bias.mean(), observed.mean() - np.maximum(most, bias).mean() - up
    return max(0.0, mean), max(0.0, low), max(0.0, observed.mean() + down)


def range_trend(scores: np.ndarray, log_tokens: np.ndarray) -> Estimate:
    """The slope of the range of scores (checkpoints, formats, n) over log_tokens (checkpoints,), per unit of it, by
    least squares; of the corrected ranges, which are not cut at 0 here. The examples are drawn alike at every
    checkpoint. ValueError for fewer than two different places."""
    return trend_of_draws(*drawn(scores), log_tokens, scores.shape[-1])


def trend_of_draws(means: np.ndarray, draws: np.ndarray, log_tokens: np.ndarray, n: int) -> Estimate:
    """The same from means (checkpoints, formats) and draws around them (resamples, checkpoints, formats)."""
    if len(set(log_tokens)) < 2:
        raise ValueError("a trend needs two checkpoints at different numbers of tokens")
    observed, bias, _, pair = errors_of_range(means, draws)
    centred = np.asarray(log_tokens) - np.mean(log_tokens)
    share = centred / np.square(centred).sum()
    slope, draws = float((observed - bias) @ share), pair @ share
    low, high = slope - np.array(percentiles(draws, 97.5, 2.5))
    return Estimate(slope, float(min(low, slope)), float(max(high, slope)), float(draws.std()), n)


def mean_trend(slopes: list[Estimate]) -> tuple[float, float, float]:
    """(mean, low, high) of the slopes of tasks with different examples."""
    return mean_of_means(np.array([each.mean for each in slopes]), np.array([each.stderr for each in slopes]))
