"""Statistics of the report: arrays in, numbers out. Nothing here reads a table or draws a figure.

    paired = compare(tuned_scores, base_scores)          mean difference, 95 % interval, one-sided p against the margin
    found = verdicts([evidence(...), evidence(...)])     what was learned where, with Holm's correction over tasks

Scores are per example, in [0, 1], and paired by position. All resampling is seeded: equal input, equal output.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rouge_score.rouge_scorer import RougeScorer
from scipy import stats

from amuro.results import interval

RESAMPLES = 2000
MARGIN = 0.02  # a difference below two points is of no interest
ALPHA = 0.05
POWER = 0.8  # of the smallest detectable difference
BATCH = 2_000_000  # indices drawn at a time, which bounds the memory of a bootstrap
FEW = 50  # up to so many distinct rows are resampled by their counts


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval and the number of examples behind it."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Difference:
    """A mean paired difference: 95 % interval, one-sided p that it exceeds the margin, detectable difference."""

    mean: float
    low: float
    high: float
    p: float
    detectable: float
    n: int


def resample_means(scores: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """Means of bootstrap samples of scores (n,), or of the rows of (n, k): an array (resamples,) or (resamples, k)."""
    rng, n = np.random.default_rng(seed), len(scores)
    distinct, counts = np.unique(scores, axis=0, return_counts=True)
    if len(distinct) <= FEW:  # the same distribution, without n indices per sample
        return rng.multinomial(n, counts / n, size=resamples) @ distinct / n
    step = max(1, BATCH // n)
    sizes = [min(step, resamples - start) for start in range(0, resamples, step)]
    return np.concatenate([scores[rng.integers(n, size=(size, n))].mean(axis=1) for size in sizes])


def mean_of_means(sets: Sequence[np.ndarray]) -> Estimate:
    """The mean over sets of each set's mean score, sets (n_i,) weighing the same; n is the sum of all n_i.

    Percentile bootstrap over the examples within each set; the sets themselves are taken as given.
    """
    draws = np.mean([resample_means(scores, seed) for seed, scores in enumerate(sets)], axis=0)
    low, high = np.percentile(draws, (2.5, 97.5))
    return Estimate(float(np.mean([scores.mean() for scores in sets])), low, high, sum(map(len, sets)))


def mean_of_ranges(sets: Sequence[np.ndarray]) -> Estimate:
    """The mean over sets of (best - worst column mean), sets (n_i, formats); bootstrap as in `mean_of_means`.

    A range is never negative and noise enlarges it: between two equal columns its interval does not reach below 0.
    """
    draws = np.mean([np.ptp(resample_means(scores, seed), axis=1) for seed, scores in enumerate(sets)], axis=0)
    low, high = np.percentile(draws, (2.5, 97.5))
    return Estimate(float(np.mean([np.ptp(scores.mean(axis=0)) for scores in sets])), low, high, sum(map(len, sets)))


def mean_interval(scores: np.ndarray, metric: str) -> Estimate:
    """Mean of scores (n,): Wilson for right and wrong answers; bootstrap for text and averages over seeds."""
    if metric.startswith("accuracy") and np.isin(scores, (0, 1)).all():
        _, low, high = interval("accuracy", scores)
        return Estimate(float(scores.mean()), low, high, len(scores))
    return mean_of_means([scores])


def exceeds(differences: np.ndarray, margin: float = MARGIN) -> float:
    """One-sided p that the mean of paired differences (n,) is above `margin`: Student's t.

    Differences that are all the same have no variance to test by. All n then lie on one side of the margin, which the
    sign test gives 1/2 to the power of n.
    """
    if np.ptp(differences) < 1e-12:
        return 0.5 ** len(differences) if differences.mean() > margin else 1.0
    return float(stats.ttest_1samp(differences, margin, alternative="greater").pvalue)


def detectable(differences: np.ndarray, alpha: float = ALPHA) -> float:
    """How far above the margin a mean of such differences (n,) must be to be found with 80 % power; NaN for n = 1."""
    if len(differences) < 2:
        return float("nan")
    error = differences.std(ddof=1) / len(differences) ** 0.5
    return float((stats.norm.ppf(1 - alpha) + stats.norm.ppf(POWER)) * error)


def compare(scores: np.ndarray, others: np.ndarray | float, margin: float = MARGIN) -> Difference:
    """Mean of scores (n,) - others (n,) or a constant, paired by example. Raises ValueError where shapes differ."""
    others = np.broadcast_to(others, scores.shape) if np.ndim(others) == 0 else others
    if scores.shape != others.shape or scores.ndim != 1 or not len(scores):
        raise ValueError(f"paired scores must be two equally long arrays, not {scores.shape} and {others.shape}")
    differences = scores - others
    found = mean_of_means([differences])
    p = exceeds(differences, margin)
    return Difference(found.mean, found.low, found.high, p, detectable(differences), found.n)


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's step-down adjusted p-values of p (m,), in the order given (Holm 1979). ValueError outside [0, 1]."""
    p = np.asarray(p, dtype=float)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values must lie in [0, 1]: {p}")
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1)
    return adjusted


def majority_rate(labels: Sequence[str]) -> float:
    """Chance level of labels (n,): the accuracy of always giving the most frequent one."""
    return Counter(labels).most_common(1)[0][1] / len(labels)


def text_chance(references: Sequence[str], seed: int = 0) -> float:
    """Chance level of texts (n,): mean ROUGE-L (F, no stemming) of each against another one of them.

    The partners are a seeded derangement: one random cycle through all. Raises ValueError for fewer than two.
    """
    if len(references) < 2:
        raise ValueError("the chance level of texts needs two references at least")
    cycle = np.random.default_rng(seed).permutation(len(references))
    scorer = RougeScorer(["rougeL"])
    pairs = zip(cycle, np.roll(cycle, 1), strict=True)
    return float(np.mean([scorer.score(references[a], references[b])["rougeL"].fmeasure for a, b in pairs]))


def gain(difference: Difference, chance: float) -> Estimate:
    """(tuned - base) / (1 - chance), of tuned compared with base: the share of the room above chance that tuning adds.

    Chance is taken as known. Raises ValueError where it is not below 1 (all references the same).
    """
    if not 0 <= chance < 1:
        raise ValueError(f"chance level {chance}: a gain needs one in [0, 1)")
    room = 1 - chance
    return Estimate(difference.mean / room, difference.low / room, difference.high / room, difference.n)


@dataclass(frozen=True)
class Ratios:
    """(tuned - base) / base over evaluation sets: mean, its t-test against 0, median; `zero` are the sets left out."""

    mrc: float
    p: float
    median: float
    n: int
    zero: list[int]


def ratios_of_change(tuned: np.ndarray, base: np.ndarray) -> Ratios:
    """Mean ratio of change (arXiv 2408.06663, Eq. 1) over sets (k,), and the median, which one small base cannot move.

    Sets whose base is 0 have no ratio: `zero` has their positions, n counts the others. NaN where n is too small.
    """
    zero = np.flatnonzero(base == 0).tolist()
    ratios = (tuned[base != 0] - base[base != 0]) / base[base != 0]
    if not len(ratios):
        return Ratios(float("nan"), float("nan"), float("nan"), 0, zero)
    varied = len(ratios) > 1 and np.ptp(ratios) > 0
    p = float(stats.ttest_1samp(ratios, 0).pvalue) if varied else float("nan")
    return Ratios(float(ratios.mean()), p, float(np.median(ratios)), len(ratios), zero)


@dataclass(frozen=True)
class Evidence:
    """What a verdict on one task rests on; the tuned parts are None of a task that nothing was tuned for."""

    rise: Difference  # last BASE - first BASE
    above_chance: Difference  # last BASE - chance
    gain: Difference | None = None  # last tuned - last BASE
    tuned_above_chance: Difference | None = None  # last tuned - chance
    tuned_rise: Difference | None = None  # last tuned - first tuned
    extra_rise: Difference | None = None  # tuned rise - BASE rise


def base_evidence(first: np.ndarray, last: np.ndarray, chance: float, margin: float = MARGIN) -> Evidence:
    """BASE's scores (n,) of the same examples at the first and the last checkpoint of a history."""
    return Evidence(rise=compare(last, first, margin), above_chance=compare(last, chance, margin))


def evidence(
    first_base: np.ndarray,
    last_base: np.ndarray,
    first_tuned: np.ndarray,
    last_tuned: np.ndarray,
    chance: float,
    margin: float = MARGIN,
) -> Evidence:
    """Scores (n,) of the same examples at the first and the last checkpoint of a history, before and after tuning."""
    return Evidence(
        rise=compare(last_base, first_base, margin),
        above_chance=compare(last_base, chance, margin),
        gain=compare(last_tuned, last_base, margin),
        tuned_above_chance=compare(last_tuned, chance, margin),
        tuned_rise=compare(last_tuned, first_tuned, margin),
        extra_rise=compare(last_tuned - first_tuned, last_base - first_base, margin),
    )


@dataclass(frozen=True)
class Verdict:
    """What one task's evidence amounts to; the p-values are Holm-adjusted over the tasks judged together. Where BASE
    alone was judged, `latent` is None and the p-values about tuning are NaN."""

    verdict: str
    latent: bool | None
    p_pretraining: float
    p_finetuning: float
    p_latent: float


def verdicts(cases: Sequence[Evidence], margin: float = MARGIN, alpha: float = ALPHA) -> list[Verdict]:
    """The verdict on each of the tasks judged together; `margin` is the one that their evidence was made with.

    Learned in pre-training: the last BASE beats the first BASE and chance by more than the margin. Learned in
    fine-tuning: the last tuned beats the last BASE by more than it. Not learned: the intervals exclude both, or exclude
    that BASE or tuned beats chance by more than it; else undecided. Latent: tuned scores rise by more than the margin,
    and by more than it beyond BASE's rise, while a rise
    of BASE is not shown. A claim of two parts has the larger of their p-values.
    """
    pre = holm([max(case.rise.p, case.above_chance.p) for case in cases])
    fine = holm([case.gain.p for case in cases])
    latent = holm([max(case.tuned_rise.p, case.extra_rise.p) for case in cases])
    found = []
    for case, p_pre, p_fine, p_latent in zip(cases, pre, fine, latent, strict=True):
        excluded = max(min(case.rise.high, case.above_chance.high), min(case.gain.high, case.tuned_above_chance.high))
        name = {
            (True, True): "both",
            (True, False): "learned in pre-training",
            (False, True): "learned in fine-tuning",
            (False, False): "not learned" if excluded < margin else "undecided",
        }[bool(p_pre < alpha), bool(p_fine < alpha)]
        # BASE's own rise is not corrected: a correction would make "does not rise" the easier claim.
        hidden = bool(p_latent < alpha and case.rise.p >= alpha)
        found.append(Verdict(name, hidden, float(p_pre), float(p_fine), float(p_latent)))
    return found


def base_verdicts(cases: Sequence[Evidence], margin: float = MARGIN, alpha: float = ALPHA) -> list[Verdict]:
    """The verdict by BASE's curve alone on each of the tasks judged together; it says nothing about tuning.

    Learned in pre-training as in `verdicts`. Not learned: the intervals exclude that; else undecided.
    """
    found = []
    for case, p in zip(cases, holm([max(case.rise.p, case.above_chance.p) for case in cases]), strict=True):
        excluded = min(case.rise.high, case.above_chance.high) < margin
        name = "learned in pre-training" if p < alpha else "not learned" if excluded else "undecided"
        found.append(Verdict(name, None, float(p), float("nan"), float("nan")))
    return found
