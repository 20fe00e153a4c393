"""Statistics on hand-made arrays: pytest tests/test_stats.py (random cases: test_stats_cases.py, intervals:
test_stats_coverage.py)"""

import itertools

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from scipy import stats as scipy_stats

from analysis import stats
from analysis.stats.comparisons import spread_of

RNG = np.random.default_rng(7)


def test_bootstrap_against_all_possible_samples():
    """The means of three scores, by drawing all 27 samples of them."""
    scores = np.array([0.0, 0.3, 0.9])
    every = [np.mean(sample) for sample in itertools.product(scores, repeat=3)]
    draws = stats.resample(scores, resamples=20_000)
    assert draws.mean() == pytest.approx(np.mean(every), abs=0.01)
    assert draws.std() == pytest.approx(np.std(every), abs=0.01)
    assert set(np.round(draws, 6)) <= set(np.round(every, 6))


def test_resampling_keeps_rows_together_and_is_seeded():
    scores = np.repeat(RNG.random((1, 300)), 2, axis=0)
    draws = stats.resample(scores, seed=3)
    assert draws.shape == (stats.RESAMPLES, 2) and np.array_equal(draws[:, 0], draws[:, 1])
    assert np.array_equal(draws, stats.resample(scores, seed=3))
    assert not np.array_equal(draws, stats.resample(scores, seed=4))


def test_many_examples_are_resampled_in_batches():
    """As many counts as fit the memory at a time, every sample having n examples."""
    from analysis.stats.estimates import BATCH, counts

    n = BATCH // 3
    parts = list(counts(n, 7, seed=0))
    assert [len(part) for part in parts] == [3, 3, 1]
    assert all((part.sum(axis=1, dtype=float) == n).all() for part in parts)


def test_bootstrap_interval_is_near_scipys():
    scores = RNG.normal(0.4, 0.2, size=250)
    ours = stats.bootstrap(scores)
    theirs = scipy_stats.bootstrap((scores,), np.mean, method="percentile", rng=1)
    ends = (theirs.confidence_interval.low, theirs.confidence_interval.high)
    assert (ours.low, ours.high) == pytest.approx(ends, abs=0.004)
    assert ours.stderr == pytest.approx(theirs.standard_error, rel=0.05) and ours.n == 250
    same = stats.bootstrap(np.full((2, 5), 0.1))
    assert same.low.tolist() == same.high.tolist() == same.mean.tolist()


def test_mean_interval_is_wilson_for_accuracy_and_bootstrap_for_seed_averages():
    right = np.array([1.0] * 45 + [0.0] * 55)
    found = stats.mean_interval(right, "accuracy")
    wilson = scipy_stats.binomtest(45, 100).proportion_ci(method="wilson")
    assert (found.mean, found.low, found.high, found.n) == pytest.approx((0.45, wilson.low, wilson.high, 100))
    halves = np.array([0.5, 1.0] * 50)
    both = stats.mean_interval(np.array([right, halves]), "accuracy_norm")
    assert (both.low[0], both.high[0]) == (found.low, found.high)
    alone = stats.bootstrap(halves)
    assert (both.low[1], both.high[1]) == pytest.approx((alone.low, alone.high), abs=1e-7)
    assert stats.mean_interval(right, "rouge_l").low == stats.bootstrap(right).low


def test_mean_of_means_weighs_sets_the_same():
    mean, low, high = stats.mean_of_means(np.array([0.0, 1.0]), np.array([0.3, 0.4]))
    assert (mean, high - mean, mean - low) == pytest.approx((0.5, 1.959964 * 0.25, 1.959964 * 0.25))


def test_range_of_formats_without_noise():
    scores = np.broadcast_to(np.array([0.2, 0.5, 0.4])[:, None], (3, 50))
    found = stats.format_range(np.array([scores, scores * 0]))
    expected = {"mean": [0.3, 0.0], "low": [0.3, 0.0], "high": [0.3, 0.0], "observed": [0.3, 0.0]}
    assert {name: getattr(found, name).tolist() for name in expected} == {
        name: pytest.approx(values) for name, values in expected.items()
    }
    sloped = np.array([scores * factor for factor in (1, 0.8, 0.6)])
    trend = stats.range_trend(sloped, np.array([1.0, 2.0, 3.0]))
    assert (trend.mean, trend.low, trend.high) == pytest.approx((-0.06, -0.06, -0.06), abs=1e-6)
    with pytest.raises(ValueError, match="two checkpoints"):
        stats.range_trend(sloped, np.ones(3))


def test_interval_of_a_range_holds_it():
    """The mistake of a bootstrap of the range itself: it lies above what it is about."""
    found = stats.format_range((RNG.random((300, 3, 60)) < 0.5).astype(float))
    inside = (found.low <= found.mean) & (found.mean <= found.high) & (found.low <= found.observed)
    assert inside.all() and (found.observed <= found.high).all() and len(inside) == 300
    assert found.mean.mean() < 0.75 * found.observed.mean()  # all formats are equal here
    several = stats.mean_range(found.observed, found.bias, found.most, found.above, found.below)
    assert several[1] == 0 < several[0] <= found.mean.mean() and several[2] > several[0]


def test_one_sided_test_without_variance():
    cases = [(np.full(10, 0.5), 0.5**10), (np.full(10, 0.02), 1.0), (np.zeros(5), 1.0), (np.array([0.9]), 0.5)]
    done = [stats.compare(differences, 0.0).p == p for differences, p in cases]
    assert done == [True] * 4


def test_detectable_difference_is_found_in_four_of_five():
    spread, n = 0.3, 200
    size = 0.02 + stats.detectable(np.array(spread / n**0.5))
    samples = np.array([np.random.default_rng(s).normal(size, spread, n) for s in range(500)])
    found = spread_of(samples, 0.02)[1] < 0.05
    assert np.mean(found) == pytest.approx(0.8, abs=0.05)
    sample = RNG.normal(size, spread, 4000)
    assert stats.compare(sample, 0.0).detectable == pytest.approx((size - 0.02) * (n / 4000) ** 0.5, rel=0.05)
    assert np.isnan(stats.compare(sample[:1], 0.0).detectable)


def test_compare_pairs_by_position():
    base = RNG.random(100)
    found = stats.compare(base + 0.1, base)
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1)) and found.n == 100
    assert stats.compare(base, 0.25).mean == pytest.approx(base.mean() - 0.25)
    with pytest.raises(ValueError, match="equally long"):
        stats.compare(base, base[:50])
    levels = stats.compare(np.array([base, base]), np.array([[0.25], [0.5]]))
    assert levels.mean == pytest.approx(base.mean() - np.array([0.25, 0.5]))


def test_answers_that_never_change_still_have_an_interval():
    """A bootstrap would say that the difference is exactly 0; of 20 answers it may well be some points."""
    same = np.array([1.0, 0.0] * 10)
    found = stats.compare(same, same)
    assert found.low < -0.1 and found.high > 0.1 and (found.mean, found.p_equal) == (0, 1)


def test_bootstrap_p_is_small_where_all_examples_improve():
    found = stats.compare(RNG.random((2, 80)) * [[1], [0.01]] + [[0.5], [0]], RNG.random((2, 80)) * [[0.4], [0.01]])
    assert found.p_equal[0] == pytest.approx(2 / (stats.RESAMPLES + 1)) and found.p_equal[1] > 0.001


def test_holm():
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert len(stats.holm([])) == 0
    with pytest.raises(ValueError, match="p-values"):
        stats.holm([0.1, float("nan")])


def test_chance_levels():
    assert stats.majority_rate(["no", "yes", "no", "no"]) == 0.75
    references = ["a b c d", "a b x y", "p q r s", "c d"]
    scorer = RougeScorer(["rougeL"])
    score = {(a, b): scorer.score(references[a], references[b])["rougeL"].fmeasure for a in range(4) for b in range(4)}
    possible = {
        round(np.mean([score[a, b] for a, b in enumerate(order)]), 9)
        for order in itertools.permutations(range(4))
        if all(a != b for a, b in enumerate(order))
    }
    found = [stats.text_chance(references, seed) for seed in range(20)]
    assert {round(value, 9) for value in found} <= possible and len(set(found)) > 1
    assert stats.text_chance(references, 3) == stats.text_chance(references, 3)
    assert stats.text_chance(["same", "same"]) == 1.0
    with pytest.raises(ValueError, match="two references"):
        stats.text_chance(["alone"])


def test_gain_is_the_share_of_the_room_above_chance():
    found = stats.gain(np.array([0.2, -0.1, 0.2]), np.array([0.6, 0.0, 1.0]))
    assert found[:2].tolist() == pytest.approx([0.5, -0.1]) and np.isnan(found[2])


def test_tuned_that_gains_up_to_chance_is_not_above_it():
    right = lambda rate: (np.arange(400) < 400 * rate).astype(float)  # noqa: E731
    cases = [stats.evidence(right(0.24), right(0.24), right(0.3), right(last), 0.53) for last in (0.53, 0.9)]
    found = stats.verdicts(cases)
    assert [each.verdict for each in found] == ["learned in fine-tuning"] * 2
    assert found[0].p_above_chance > 0.5 and found[1].p_above_chance < 0.001


def test_ratios_name_the_sets_without_one():
    found = stats.ratios_of_change(np.array([0.2, 0.3, 0.9, 0.1]), np.array([0.4, 0.3, 0.0, 0.2]))
    assert (found.mrc, found.median, found.n, found.zero) == (pytest.approx(-1 / 3), -0.5, 3, [2])
    nothing = stats.ratios_of_change(np.array([0.2]), np.array([0.0]))
    assert np.isnan(nothing.mrc) and nothing.n == 0 and nothing.zero == [0]


def test_turning_points_of_known_curves():
    curves = [
        [0.1, 0.2, 0.3, 0.3],
        [0.5, 0.5, 0.5, 0.5],
        [0.1, 0.4, 0.2, 0.41],
        [0.3, 0.32, 0.34, 0.36],
        [0.9, 0, 0, 0],
    ]
    assert stats.turning_points(np.array(curves)).tolist() == [2, 0, 1, 2, 0]
    assert stats.best_buys(np.array(curves)).tolist() == [2, 0, 1, 2, 0]
    late = np.array([0.3, 0.1, 0.2])  # after a loss: no later one beats the first
    assert (stats.turning_points(late), stats.best_buys(late)) == (0, 0)


def test_share_of_draws_that_agree():
    steps = np.array([0.2, 0.5, 0.51])[:, None] + RNG.normal(0, 0.05, (3, 400))
    draws = stats.curve_draws(np.array([steps, steps]))
    assert draws.shape == (stats.SHARES, 2, 3) and np.array_equal(draws[:, 0], draws[:, 1])
    at = stats.turning_points(steps.mean(axis=-1))
    assert at == 1 and stats.agreement(at, stats.turning_points(draws)) == pytest.approx([1, 1], abs=0.1)
    loose = stats.normal_draws(np.array([0.2, 0.5, 0.52]), np.full(3, 0.02))
    assert 0.2 < stats.agreement(1, stats.turning_points(loose)) < 0.8


def scores(mean: float, n: int = 400, noise: float = 0.02, seed: int = 0) -> np.ndarray:
    return np.clip(np.random.default_rng(seed).normal(mean, noise, n), 0, 1)


VERDICTS = [  # first BASE, last BASE, first tuned, last tuned, chance -> verdict, latent
    ((0.2, 0.7, 0.7, 0.7, 0.3), ("learned in pre-training", False)),
    ((0.3, 0.3, 0.3, 0.8, 0.3), ("learned in fine-tuning", True)),
    ((0.3, 0.3, 0.8, 0.8, 0.3), ("learned in fine-tuning", False)),
    ((0.2, 0.5, 0.5, 0.8, 0.3), ("both", False)),
    ((0.2, 0.5, 0.2, 0.9, 0.3), ("both", False)),  # tuned rises beyond BASE, but BASE does rise
    ((0.3, 0.3, 0.3, 0.3, 0.3), ("not learned", False)),
    ((0.1, 0.3, 0.3, 0.3, 0.3), ("not learned", False)),  # BASE rises up to chance alone
]


def test_verdicts_of_made_up_tasks():
    cases = [
        stats.evidence(*(scores(mean, seed=seed) for seed, mean in enumerate(means)), chance)
        for (*means, chance), _ in VERDICTS
    ]
    found = [(each.verdict, each.latent) for each in stats.verdicts(cases)]
    assert found == [expected for _, expected in VERDICTS] and len(found) == 7


def test_verdicts_from_means_alone():
    """The same tasks, known by means and standard errors: unpaired, and so with wider intervals."""
    ends = np.array([means[:4] for means, _ in VERDICTS])
    level, n = np.full(7, 0.3), np.full(7, 400)
    many = stats.evidence_of_means(ends, np.full(ends.shape, 0.003), n, level)
    cases = [
        stats.evidence_of_means(each, np.full(4, 0.003), 400, np.float64(0.3)) for each in ends
    ]  # of one row the parts are numbers
    assert [many.extra_rise.mean[at] for at in range(7)] == [case.extra_rise.mean for case in cases]
    found = [(each.verdict, each.latent) for each in stats.verdicts(cases)]
    assert found == [expected for _, expected in VERDICTS] and len(found) == 7
    assert cases[0].extra_rise.stderr == pytest.approx(2 * 0.003) and cases[0].rise.stderr < 2 * 0.003
    alone = stats.evidence_of_means(ends[0, :2], np.full(2, 0.003), 400, np.float64(0.3))
    assert stats.base_verdicts([alone])[0].verdict == "learned in pre-training" and alone.gain is None


def test_verdict_is_undecided_where_the_interval_holds_the_margin():
    noisy = [scores(0.4, n=12, noise=0.3, seed=seed) for seed in range(4)]
    assert stats.verdicts([stats.evidence(*noisy, 0.3)])[0].verdict == "undecided"


def test_verdicts_are_corrected_over_tasks():
    """A gain that is found alone is not found among many tasks without one."""
    flat = scores(0.4)
    steps = np.linspace(0, 1, 400)
    weak = [flat, flat, flat, flat + 0.02 + 0.15 * (np.random.default_rng(1).permutation(steps) - 0.4)]
    case, null = stats.evidence(*weak, 0.3), stats.evidence(flat, flat, flat, flat, 0.3)
    assert case.gain.p < 0.05 / 3
    assert stats.verdicts([case])[0].verdict == "learned in fine-tuning"
    many = stats.verdicts([case] + [null] * 1000)
    assert many[0].p_finetuning == pytest.approx(min(1, case.gain.p * len(many)))


BASE_VERDICTS = [  # first BASE, last BASE, chance -> verdict; what tuning adds is not in them
    ((0.2, 0.7, 0.3), "learned in pre-training"),
    ((0.3, 0.3, 0.3), "not learned"),
    ((0.1, 0.3, 0.3), "not learned"),  # rises up to chance alone
    ((0.6, 0.6, 0.3), "not learned"),  # above chance, but from the start
]


def test_verdicts_by_base_alone_are_those_of_a_tuning_that_changes_nothing():
    alone, unchanged = [], []
    for (first, last, chance), _ in BASE_VERDICTS:
        ends = scores(first, seed=1), scores(last, seed=2)
        alone.append(stats.base_evidence(*ends, chance))
        unchanged.append(stats.evidence(*ends, *ends, chance))
    found = stats.base_verdicts(alone)
    assert [each.verdict for each in found] == [name for _, name in BASE_VERDICTS] and len(found) == 4
    full = stats.verdicts(unchanged)
    assert [(each.verdict, each.p_pretraining) for each in found] == [
        (each.verdict, each.p_pretraining) for each in full
    ]
    assert [(each.latent, np.isnan(each.p_finetuning), np.isnan(each.p_latent)) for each in found] == [
        (None, True, True)
    ] * 4
    noisy = [scores(0.4, n=12, noise=0.3, seed=seed) for seed in range(2)]
    assert stats.base_verdicts([stats.base_evidence(*noisy, 0.3)])[0].verdict == "undecided"
