"""Every formula against brute force or scipy on a thousand random cases, to 1e-9: pytest tests/test_stats_cases.py"""

import itertools
import statistics
from math import comb, sqrt

import numpy as np
import pytest
from scipy import stats as scipy_stats

from analysis import stats

CASES = 1000


def near(found, expected) -> bool:
    """Whether two numbers, or arrays, are the same to 1e-9, NaN being NaN."""
    return bool(np.allclose(found, expected, rtol=1e-9, atol=1e-9, equal_nan=True))


def answers(rng, *shape: int) -> np.ndarray:
    """Right and wrong answers at random rates, some of them 0 and 1."""
    rates = np.clip(rng.random(shape[:-1]) * 1.4 - 0.2, 0, 1)
    return (rng.random(shape) < rates[..., None]).astype(float)


def test_wilson_is_scipys():
    rng, done = np.random.default_rng(0), 0
    for _ in range(CASES):
        n = int(rng.integers(1, 500))
        right = int(rng.integers(0, n + 1))
        low, high = stats.wilson(np.array(right), n)
        theirs = scipy_stats.binomtest(right, n).proportion_ci(method="wilson")
        done += near((low, high), (theirs.low, theirs.high))
    assert done == CASES


def test_mcnemar_is_the_exact_binomial_test():
    rng, done = np.random.default_rng(1), 0
    for _ in range(CASES):
        gained, lost = rng.integers(0, 40, 2)
        expected = scipy_stats.binomtest(int(gained), int(gained + lost)).pvalue if gained + lost else 1.0
        done += near(stats.mcnemar(gained, lost), expected)
    assert done == CASES


def by_hand(one: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Bonett and Price's interval and McNemar's p from the pairs, in plain Python."""
    pairs = list(zip(one.tolist(), other.tolist(), strict=True))
    n, gained, lost = len(pairs), sum(a > b for a, b in pairs), sum(a < b for a, b in pairs)
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    room = statistics.NormalDist().inv_cdf(0.975) * sqrt((up + down - (up - down) ** 2) / (n + 2))
    changed = gained + lost
    p = min(1, 2 * sum(comb(changed, k) for k in range(min(gained, lost) + 1)) / 2**changed)
    return max(-1, up - down - room), min(1, up - down + room), p


def test_differences_of_right_answers():
    """All parts of a comparison, many rows at a time, against each row by hand and scipy's t-test."""
    rng, done = np.random.default_rng(2), 0
    for _ in range(CASES // 20):
        n = int(rng.integers(2, 120))
        ones, others, margin = answers(rng, 20, n), answers(rng, 20, n), float(rng.choice([0.0, 0.02, 0.1]))
        found = stats.compare(ones, others, margin)
        for at in range(20):
            differences = ones[at] - others[at]
            expected = by_hand(ones[at], others[at])
            if np.ptp(differences) == 0:
                p = 0.5**n if differences[0] > margin else 1.0
            else:
                p = scipy_stats.ttest_1samp(differences, margin, alternative="greater").pvalue
            error = statistics.stdev(differences) / sqrt(n)
            parts = (found.low, found.high, found.p_equal, found.mean, found.p, found.stderr)
            right = (*expected, differences.mean(), p, error)
            done += near([part[at] for part in parts], right) and near(found.detectable[at], 2.486474860024463 * error)
    assert done == CASES


def test_rates_against_a_known_level():
    rng, done = np.random.default_rng(3), 0
    for _ in range(CASES // 10):
        n, levels = int(rng.integers(2, 150)), rng.random(10)
        ones = answers(rng, 10, n)
        found = stats.compare(ones, levels[:, None])
        for at in range(10):
            test = [
                scipy_stats.binomtest(int(ones[at].sum()), n, levels[at], alternative=side)
                for side in ("less", "greater")
            ]
            ends = scipy_stats.binomtest(int(ones[at].sum()), n).proportion_ci(method="wilson")
            expected = (ends.low - levels[at], ends.high - levels[at], min(1, 2 * min(each.pvalue for each in test)))
            done += near((found.low[at], found.high[at], found.p_equal[at]), expected)
    assert done == CASES


def test_bootstrap_is_a_resampling_of_examples():
    """Against the mean of every sample drawn by its indices (the sums are float32: 1e-6), and numpy's percentiles."""
    rng, done = np.random.default_rng(4), 0
    for seed in range(50):
        scores = rng.random((3, int(rng.integers(2, 60))))
        n = scores.shape[1]
        drawn = np.random.default_rng(seed).integers(n, size=(40, n))
        draws = stats.resample(scores, 40, seed)
        for sample, row in itertools.product(range(40), range(3)):
            done += abs(draws[sample, row] - scores[row, drawn[sample]].mean()) < 1e-6
    assert done == 50 * 40 * 3
    draws = rng.normal(size=(301, CASES))
    found, expected = stats.percentiles(draws, 2.5, 50, 97.5), np.percentile(draws, (2.5, 50, 97.5), axis=0)
    assert near(found, expected)


def test_bootstrap_tells_of_differences_what_its_draws_do():
    rng, done = np.random.default_rng(5), 0
    ones, others = rng.random((CASES, 30)), rng.random((CASES, 30)) * 0.9
    found = stats.compare(ones, others)
    draws = stats.resample(ones - others)
    ends = np.percentile(draws, (2.5, 97.5), axis=0)
    for at in range(CASES):
        below, above = np.sum(draws[:, at] <= 1e-6) + 1, np.sum(draws[:, at] >= -1e-6) + 1
        p = min(1, 2 * min(below, above) / (len(draws) + 1))
        same = np.allclose((found.low[at], found.high[at]), ends[:, at], atol=1e-6) and near(found.p_equal[at], p)
        t = scipy_stats.ttest_1samp(ones[at] - others[at], 0.02, alternative="greater").pvalue
        done += same and near(found.p[at], t)
    assert done == CASES


def test_means_without_examples():
    rng, done, normal = np.random.default_rng(6), 0, statistics.NormalDist()
    value, other = rng.random((2, CASES))
    error, other_error = rng.random((2, CASES)) * 0.1
    found = stats.compare_means(value, error, np.full(CASES, 90), other, other_error, np.full(CASES, 70))
    for at in range(CASES):
        mean, spread = value[at] - other[at], sqrt(error[at] ** 2 + other_error[at] ** 2)
        room = normal.inv_cdf(0.975) * spread
        p, both = 1 - normal.cdf((mean - 0.02) / spread), 2 * (1 - normal.cdf(abs(mean) / spread))
        parts = (found.mean, found.low, found.high, found.stderr, found.p, found.p_equal, found.n)
        done += near([part[at] for part in parts], (mean, mean - room, mean + room, spread, p, both, 70))
    assert done == CASES
    known = stats.compare_means(0.5, 0.0, 9, 0.3, 0.0, 9)
    assert (known.p, known.p_equal, known.low) == (0, 0, 0.5 - 0.3)


def test_holm_is_the_closed_test():
    """Holm's adjusted p is the closed test's: the largest Bonferroni p over all sets that contain the hypothesis."""
    rng, done = np.random.default_rng(7), 0
    for _ in range(CASES // 5):
        p = rng.random(5) ** 3
        for at, adjusted in enumerate(stats.holm(p)):
            sets = [s for size in range(1, 6) for s in itertools.combinations(range(5), size) if at in s]
            done += near(adjusted, max(min(1, len(s) * min(p[list(s)])) for s in sets))
    assert done == CASES


def test_ratios_of_change():
    rng, done = np.random.default_rng(8), 0
    for _ in range(CASES):
        k = int(rng.integers(1, 9))
        tuned, base = rng.random(k), rng.random(k) * (rng.random(k) < 0.8)
        ratios = [(t - b) / b for t, b in zip(tuned, base, strict=True) if b]
        found = stats.ratios_of_change(tuned, base)
        expected = [np.nan] * 4
        if ratios:
            expected[:2] = [sum(ratios) / len(ratios), statistics.median(ratios)]
        if len(ratios) > 1:
            expected[2:] = scipy_stats.ttest_1samp(ratios, 0)
        done += near((found.mrc, found.median, found.t, found.p), expected) and found.n + len(found.zero) == k
    assert done == CASES


def test_gains_and_seeds():
    rng, done = np.random.default_rng(9), 0
    for _ in range(CASES):
        scores, chance = answers(rng, 2, 30), float(rng.random() * 0.99)
        raw = stats.compare(*scores)
        found = [stats.gain(each, chance) for each in (raw.mean, raw.low, raw.high)]
        expected = [each / (1 - chance) for each in (raw.mean, raw.low, raw.high)]
        values, errors = rng.random(3), rng.random(3)
        spread = stats.seed_spread(values, errors)
        between, within = statistics.variance(values), statistics.mean(errors**2)
        parts = (*found, spread.between, spread.within, spread.share)
        done += near(parts, (*expected, between, within, between / (between + within)))
    assert done == CASES


def turning_by_loops(values: np.ndarray, margin: float) -> int:
    for at, value in enumerate(values):
        if not any(later - value > margin for later in values[at + 1 :]):
            return at
    raise AssertionError("the last value has no later one")


def test_turning_points_and_best_buys():
    rng, done = np.random.default_rng(10), 0
    for _ in range(CASES // 10):
        curves, margin = rng.random((10, int(rng.integers(1, 9)))) * 0.2, float(rng.random() * 0.1)
        turns, buys = stats.turning_points(curves, margin), stats.best_buys(curves, margin)
        for at, curve in enumerate(curves):
            first = next(place for place, value in enumerate(curve) if max(curve) - value <= margin)
            done += (turns[at], buys[at]) == (turning_by_loops(curve, margin), first)
    assert done == CASES


def test_transitions_and_trajectories():
    rng, done = np.random.default_rng(11), 0
    for _ in range(CASES):
        checkpoints, n = int(rng.integers(1, 6)), int(rng.integers(1, 20))
        right = answers(rng, checkpoints, n)
        at, share = stats.learned_at(right), stats.learned_share(right)
        chance, rates = stats.learned_by_chance(right), right.mean(axis=1)
        expected = []
        for example in range(n):
            later = [place for place in range(checkpoints) if right[place:, example].all()]
            expected.append(later[0] if later else checkpoints)
        shares = [sum(place <= step for place in expected) / n for step in range(checkpoints)]
        products = [np.prod(rates[step:]) for step in range(checkpoints)]
        found = stats.transitions(right[0], right[-1])
        up = sum(a < b for a, b in zip(right[0], right[-1], strict=True)) / n
        down = sum(a > b for a, b in zip(right[0], right[-1], strict=True)) / n
        chances = (1 - rates[0]) * rates[-1], rates[0] * (1 - rates[-1])
        parts = (found.wrong_right, found.right_wrong, found.wrong_right_by_chance, found.right_wrong_by_chance)
        same = near(parts, (up, down, *chances)) and near(found.p, by_hand(right[-1], right[0])[2])
        done += same and at.tolist() == expected and near(share, shares) and near(chance, products)
    assert done == CASES


def test_transitions_of_a_mean_over_seeds_are_the_mean_of_the_seeds():
    rng, done = np.random.default_rng(12), 0
    for _ in range(CASES // 10):
        base, tuned = answers(rng, 40), answers(rng, 3, 40)
        mean = stats.transitions(base, tuned.mean(axis=0))
        each = [stats.transitions(base, one) for one in tuned]
        done += near(mean.wrong_right, np.mean([one.wrong_right for one in each]))
        done += near(mean.right_wrong_by_chance, np.mean([one.right_wrong_by_chance for one in each]))
    assert done == 2 * (CASES // 10)


def test_envelope_of_learning_rates():
    rng, done = np.random.default_rng(13), 0
    for _ in range(CASES):
        rates, checkpoints = rng.integers(1, 5, 2)
        values = np.where(rng.random((rates, checkpoints)) < 0.15, np.nan, rng.random((rates, checkpoints)))
        if np.isnan(values).all():
            values[0, 0] = 0.5
        fixed, best = stats.envelope(values)
        expected = [-1 if np.isnan(column).all() else int(np.nanargmax(column)) for column in values.T]
        scored = ~np.isnan(values).all(axis=0)
        whole = [at for at in range(rates) if not np.isnan(values[at, scored]).any()]
        some = whole or [at for at in range(rates) if not np.isnan(values[at]).all()]
        done += best.tolist() == expected and fixed == max(some, key=lambda at: np.nanmean(values[at]))
    assert done == CASES


@pytest.mark.parametrize("formats", [2, 3, 4])
def test_ranges_of_formats(formats):
    """The observed range is the plain one; where one pair is far apart, it is not corrected, and its interval is the
    bootstrap's of this pair."""
    rng, done = np.random.default_rng(14), 0
    levels = np.linspace(0.1, 0.9, formats)[:, None]
    scores = np.clip(levels + rng.normal(0, 0.05, (CASES, formats, 25)), 0, 1)
    found = stats.format_range(scores)
    for at, means in enumerate(scores.mean(axis=-1)):
        done += near((found.observed[at], found.mean[at], found.bias[at]), (max(means) - min(means),) * 2 + (0,))
    pair = stats.bootstrap(scores[:, -1] - scores[:, 0])
    width, same = found.high - found.low, pair.high - pair.low
    assert done == CASES and np.allclose(width, same, atol=1e-6)
