"""Do 95 % intervals hold the truth in 93 to 97 of 100 simulated studies? pytest tests/test_stats_coverage.py

Of right and wrong answers the cover has steps and swings with the rate, most of all near 0 and 1: Wilson's is summed
over all possible results.
"""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from analysis import stats

STUDIES = 4000  # one per cent of them is three standard errors of a cover
NEAR = (0.93, 0.97)


def cover(low: np.ndarray, high: np.ndarray, truth: float) -> float:
    """The share of intervals (studies,) that hold the truth."""
    return float(((low <= truth) & (truth <= high)).mean())


@pytest.mark.parametrize("n", [200, 500, 1319])
def test_wilson(n):
    """The exact cover at every rate from .02 to .98: 93 to 97 % but for a few per cent of the rates, and on average."""
    low, high = stats.wilson(np.arange(n + 1), n)
    rates = np.linspace(0.02, 0.98, 193)
    chances = scipy_stats.binom.pmf(np.arange(n + 1), n, rates[:, None])
    covers = (chances * ((low <= rates[:, None]) & (rates[:, None] <= high))).sum(axis=1)
    assert len(covers) == 193 and ((covers >= 0.93) & (covers <= 0.97)).all()
    assert covers.mean() == pytest.approx(0.95, abs=0.003)


TEXTS = {  # name -> scores of texts (studies, n), their true mean
    "beta": (lambda rng, n: rng.beta(2, 5, (STUDIES, n)), 2 / 7),
    "bumps": (lambda rng, n: rng.choice([0.1, 0.3, 0.9], (STUDIES, n), p=[0.5, 0.3, 0.2]), 0.32),
    "many_zeros": (lambda rng, n: rng.beta(2, 3, (STUDIES, n)) * (rng.random((STUDIES, n)) < 0.5), 0.2),
}


@pytest.mark.parametrize("n", [200, 400])
@pytest.mark.parametrize("name", TEXTS)
def test_bootstrap(name, n):
    draw, truth = TEXTS[name]
    found = stats.mean_interval(draw(np.random.default_rng(n), n), "rouge_l")
    assert len(found.low) == STUDIES and NEAR[0] <= cover(found.low, found.high, truth) <= NEAR[1]


def answers(rng, rates: list[float], n: int = 250) -> np.ndarray:
    """Right and wrong answers (studies, models, n) at true rates; examples are as hard for one model as for another."""
    shared, own = rng.standard_normal((STUDIES, 1, n)), rng.standard_normal((STUDIES, len(rates), n))
    hard = 0.6**0.5 * shared + 0.4**0.5 * own
    return (hard < scipy_stats.norm.ppf(rates)[:, None]).astype(float)


@pytest.mark.parametrize("rates", [(0.5, 0.5), (0.3, 0.8), (0.6, 0.55), (0.9, 0.8)])
def test_differences_of_right_answers(rates):
    scores = answers(np.random.default_rng(1), rates)
    found = stats.compare(scores[:, 0], scores[:, 1])
    assert NEAR[0] <= cover(found.low, found.high, rates[0] - rates[1]) <= NEAR[1]
    level = stats.compare(scores[:, 0], 0.25)
    assert NEAR[0] <= cover(level.low, level.high, rates[0] - 0.25) <= NEAR[1]


def test_differences_of_means_over_seeds_and_of_texts():
    rng = np.random.default_rng(2)
    scores = answers(rng, [0.5, 0.7, 0.7])
    found = stats.compare(scores[:, 1:].mean(axis=1), scores[:, 0])
    assert NEAR[0] <= cover(found.low, found.high, 0.2) <= NEAR[1]
    hard = rng.random((STUDIES, 250))
    one, other = (np.clip(hard * share + rng.normal(0.2, 0.05, hard.shape), 0, 1) for share in (0.6, 0.4))
    true = 0.5 * 0.2
    found = stats.compare(one, other)
    assert NEAR[0] <= cover(found.low, found.high, true) <= NEAR[1]


def test_tests_are_wrong_in_one_of_twenty():
    """At the margin the one-sided p is below .05 in 5 % of the studies; without a difference so is the other."""
    rng = np.random.default_rng(3)
    at_margin = stats.compare(rng.normal(0.02, 0.3, (STUDIES, 250)), np.zeros((STUDIES, 250)))
    nothing = stats.compare(rng.normal(0, 0.3, (STUDIES, 250)), np.zeros((STUDIES, 250)))
    same = answers(rng, [0.5, 0.5])
    exact = stats.compare(same[:, 0], same[:, 1])  # an exact test errs less often
    rates = [(each < 0.05).mean() for each in (at_margin.p, nothing.p_equal, exact.p_equal)]
    assert rates[:2] == pytest.approx([0.05, 0.05], abs=0.012) and 0.02 < rates[2] < 0.055


def test_means_over_tasks():
    rng = np.random.default_rng(4)
    tasks = [answers(rng, rates, n) for rates, n in (((0.5, 0.6), 200), ((0.3, 0.3), 300), ((0.8, 0.6), 250))]
    each = [stats.compare(scores[:, 1], scores[:, 0]) for scores in tasks]
    means, errors = np.array([one.mean for one in each]).T, np.array([one.stderr for one in each]).T
    ends = np.array([stats.mean_of_means(*study)[1:] for study in zip(means, errors, strict=True)])
    assert ends.shape == (STUDIES, 2) and NEAR[0] <= cover(*ends.T, (0.1 + 0 - 0.2) / 3) <= NEAR[1]


RANGES = [(0.5, 0.5), (0.5, 0.52), (0.5, 0.7), (0.5, 0.5, 0.5), (0.5, 0.52, 0.54), (0.5, 0.5, 0.6), (0.4, 0.5, 0.6)]


@pytest.mark.parametrize("rates", RANGES)
def test_ranges_of_formats(rates):
    """Where formats are all but equal the interval may be a little long, but never too short: a bootstrap of the range
    itself misses 0 in most studies there."""
    studies = STUDIES // 4
    scores = answers(np.random.default_rng(5), rates)[:studies]
    found, true = stats.format_range(scores), max(rates) - min(rates)
    share = cover(found.low, found.high, true)
    assert len(found.low) == studies and 0.93 <= share <= 0.985
    assert abs(found.mean.mean() - true) < 0.75 * abs(found.observed.mean() - true) + 0.005
    if true == 0:
        draws = stats.resample(scores[:200])
        assert (np.percentile(np.ptp(draws, axis=-1), 2.5, axis=0) > 0).mean() > 0.5


@pytest.mark.parametrize("levels", [(0.55, 0.65, 0.75), (0.6, 0.6, 0.6), (0.52, 0.52, 0.52), (0.7, 0.6, 0.55)])
def test_trend_of_a_range(levels):
    """Of one format at .5 and another that moves away from it, or nearer."""
    studies, tokens, rng = 400, np.array([0.0, 1.0, 2.0]), np.random.default_rng(6)
    scores = np.stack([answers(rng, [0.5, level])[:studies] for level in levels], axis=1)
    found = [stats.range_trend(study, tokens) for study in scores]
    true = (levels[-1] - levels[0]) / 2
    hits = sum(each.low <= true <= each.high for each in found)
    assert len(found) == studies and 0.92 <= hits / studies <= 0.985  # of 400 studies, one error is 1.1 %
    assert all(each.low <= each.mean <= each.high for each in found)
