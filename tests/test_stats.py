"""Statistics against brute force, hand-made arrays and scipy: pytest tests/test_stats.py"""

import itertools

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from scipy import stats as scipy_stats

from analysis import stats

RNG = np.random.default_rng(7)


def test_bootstrap_against_all_possible_samples():
    """The interval of three scores, by drawing all 27 samples of them."""
    scores = np.array([0.0, 0.3, 0.9])
    every = [np.mean(sample) for sample in itertools.product(scores, repeat=3)]
    draws = stats.resample_means(scores, resamples=20_000)
    assert draws.mean() == pytest.approx(np.mean(every), abs=0.01)
    assert draws.std() == pytest.approx(np.std(every), abs=0.01)
    assert set(np.round(draws, 9)) <= set(np.round(every, 9))


def test_both_ways_of_resampling_agree():
    """Few distinct values are resampled by their counts, many by index: the same distribution."""
    few = RNG.integers(0, 2, size=400).astype(float)
    many = few + RNG.normal(0, 1e-6, size=400)
    assert len(np.unique(many)) > stats.FEW >= len(np.unique(few))
    for name, quantile in (("low", 2.5), ("high", 97.5)):
        expected = np.percentile(stats.resample_means(few), quantile)
        assert getattr(stats.mean_of_means([many]), name) == pytest.approx(expected, abs=0.01)


def test_resampling_keeps_rows_together_and_is_seeded():
    scores = RNG.random((300, 1)).repeat(2, axis=1)
    draws = stats.resample_means(scores, seed=3)
    assert draws.shape == (stats.RESAMPLES, 2) and np.array_equal(draws[:, 0], draws[:, 1])
    assert np.array_equal(draws, stats.resample_means(scores, seed=3))
    assert not np.array_equal(draws, stats.resample_means(scores, seed=4))


def test_bootstrap_interval_is_near_scipys_and_covers():
    scores = RNG.normal(0.4, 0.2, size=250)
    ours = stats.mean_of_means([scores])
    theirs = scipy_stats.bootstrap((scores,), np.mean, method="percentile", rng=1).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.004)
    hits, repeats = 0, 200
    for seed in range(repeats):
        sample = np.random.default_rng(seed).normal(0.4, 0.2, size=60)
        found = stats.mean_of_means([sample])
        hits += found.low <= 0.4 <= found.high
    assert 0.89 <= hits / repeats <= 0.99


def test_mean_interval_is_wilson_for_accuracy_and_bootstrap_for_seed_averages():
    right = np.array([1.0] * 45 + [0.0] * 55)
    found = stats.mean_interval(right, "accuracy")
    wilson = scipy_stats.binomtest(45, 100).proportion_ci(method="wilson")
    assert (found.mean, found.low, found.high, found.n) == pytest.approx((0.45, wilson.low, wilson.high, 100))
    halves = np.array([0.5, 1.0] * 50)
    assert stats.mean_interval(halves, "accuracy") == stats.mean_of_means([halves])


def test_mean_of_means_weighs_sets_the_same():
    found = stats.mean_of_means([np.zeros(10), np.ones(1000)])
    assert (found.mean, found.low, found.high, found.n) == (0.5, 0.5, 0.5, 1010)


def test_range_of_formats():
    scores = np.array([[0.2, 0.5, 0.4]]).repeat(50, axis=0)
    found = stats.mean_of_ranges([scores, scores[:, :1].repeat(2, axis=1)])
    assert (found.mean, found.low, found.high) == pytest.approx((0.15, 0.15, 0.15))


def test_one_sided_test_is_students():
    differences = RNG.normal(0.05, 0.2, size=80)
    t = (differences.mean() - 0.02) / (differences.std(ddof=1) / 80**0.5)
    assert stats.exceeds(differences, 0.02) == pytest.approx(scipy_stats.t.sf(t, 79))


def test_one_sided_test_without_variance():
    cases = [(np.full(10, 0.5), 0.5**10), (np.full(10, 0.02), 1.0), (np.zeros(5), 1.0), (np.array([0.9]), 0.5)]
    done = [stats.exceeds(differences) == p for differences, p in cases]
    assert done == [True] * 4


def test_detectable_difference_is_found_in_four_of_five():
    spread, n = 0.3, 200
    size = 0.02 + (scipy_stats.norm.ppf(0.95) + scipy_stats.norm.ppf(0.8)) * spread / n**0.5
    found = [stats.exceeds(np.random.default_rng(s).normal(size, spread, n)) < 0.05 for s in range(500)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.05)
    sample = RNG.normal(size, spread, 4000)
    assert stats.detectable(sample) == pytest.approx((size - 0.02) * (n / 4000) ** 0.5, rel=0.05)
    assert np.isnan(stats.detectable(sample[:1]))


def test_compare_pairs_by_position():
    base = RNG.random(100)
    found = stats.compare(base + 0.1, base)
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1)) and found.n == 100
    assert stats.compare(base, 0.25).mean == pytest.approx(base.mean() - 0.25)
    with pytest.raises(ValueError, match="equally long"):
        stats.compare(base, base[:50])


def test_holm_against_brute_force():
    """Holm's adjusted p is the closed test's: the largest Bonferroni p over all sets that contain the hypothesis."""
    count = 0
    for _ in range(50):
        p = RNG.random(5) ** 3
        for at, adjusted in enumerate(stats.holm(p)):
            sets = [s for size in range(1, 6) for s in itertools.combinations(range(5), size) if at in s]
            assert adjusted == pytest.approx(max(min(1, len(s) * min(p[list(s)])) for s in sets))
            count += 1
    assert count == 250
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
    raw = stats.compare(np.array([0.0, 1.0] * 20), np.zeros(40))
    found = stats.gain(raw, 0.6)
    assert (found.mean, found.low, found.high) == pytest.approx((0.5 / 0.4, raw.low / 0.4, raw.high / 0.4))
    with pytest.raises(ValueError, match="chance level"):
        stats.gain(raw, 1.0)


def test_ratios_name_the_sets_without_one():
    found = stats.ratios_of_change(np.array([0.2, 0.3, 0.9, 0.1]), np.array([0.4, 0.3, 0.0, 0.2]))
    assert (found.mrc, found.median, found.n, found.zero) == (pytest.approx(-1 / 3), -0.5, 3, [2])
    assert found.p == pytest.approx(scipy_stats.ttest_1samp([-0.5, 0, -0.5], 0).pvalue)
    nothing = stats.ratios_of_change(np.array([0.2]), np.array([0.0]))
    assert np.isnan(nothing.mrc) and nothing.n == 0 and nothing.zero == [0]


def scores(mean: float, n: int = 400, noise: float = 0.02, seed: int = 0) -> np.ndarray:
    return np.clip(np.random.default_rng(seed).normal(mean, noise, n), 0, 1)


VERDICTS = [  # first BASE, last BASE, first tuned, last tuned, chance -> verdict, latent
    ((0.2, 0.7, 0.7, 0.7, 0.3), ("learned in pre-training", False)),
    ((0.3, 0.3, 0.3, 0.8, 0.3), ("learned in fine-tuning", True)),
    ((0.3, 0.3, 0.8, 0.8, 0.3), ("learned in fine-tuning", False)),
    ((0.2, 0.5, 0.5, 0.8, 0.3), ("both", False)),
    ((0.3, 0.3, 0.3, 0.3, 0.3), ("not learned", False)),
    ((0.1, 0.3, 0.3, 0.3, 0.3), ("not learned", False)),  # BASE rises up to chance alone
]


def test_verdicts_of_made_up_tasks():
    cases = [
        stats.evidence(*(scores(mean, seed=seed) for seed, mean in enumerate(means)), chance)
        for (*means, chance), _ in VERDICTS
    ]
    found = [(each.verdict, each.latent) for each in stats.verdicts(cases)]
    assert found == [expected for _, expected in VERDICTS] and len(found) == 6


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
    many = stats.verdicts([case] + [null] * 100_000 if case.gain.p < 1e-6 else [case] + [null] * 1000)
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
