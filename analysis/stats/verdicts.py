"""What a task's scores at both ends of a history say: learned in pre-training, in fine-tuning, both, latent, or not.

found = verdicts([evidence(...), evidence(...)])     what was learned where, with Holm's correction over tasks
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.stats.comparisons import ALPHA, MARGIN, Difference, compare, compare_means, holm, normal_difference


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
    """BASE's scores (..., n) of the same examples at the first and the last checkpoint of a history; `chance` is one
    level, or one for each row (..., 1)."""
    return Evidence(rise=compare(last, first, margin), above_chance=compare(last, chance, margin))


def evidence(
    first_base: np.ndarray,
    last_base: np.ndarray,
    first_tuned: np.ndarray,
    last_tuned: np.ndarray,
    chance: float,
    margin: float = MARGIN,
) -> Evidence:
    """Scores (..., n) of the same examples at the first and the last checkpoint, before and after tuning."""
    return Evidence(
        rise=compare(last_base, first_base, margin),
        above_chance=compare(last_base, chance, margin),
        gain=compare(last_tuned, last_base, margin),
        tuned_above_chance=compare(last_tuned, chance, margin),
        tuned_rise=compare(last_tuned, first_tuned, margin),
        extra_rise=compare(last_tuned - first_tuned, last_base - first_base, margin),
    )


def evidence_of_means(
    values: np.ndarray, errors: np.ndarray, n: np.ndarray, chance: np.ndarray, margin: float = MARGIN
) -> Evidence:
    """The same from means (..., k) and standard errors (..., k) alone, k = 2 or 4 ends in the order of `evidence`'s
    arguments; n and chance (...). Unpaired, so it finds less."""

    def between(one: int, other: int) -> Difference:
        ends = ((values[..., at], errors[..., at], n) for at in (one, other))
        return compare_means(*next(ends), *next(ends), margin)

    def above(one: int) -> Difference:
        return compare_means(values[..., one], errors[..., one], n, chance, 0 * n, n, margin)

    if values.shape[-1] == 2:
        return Evidence(between(1, 0), above(1))
    extra = values[..., 3] - values[..., 2] - values[..., 1] + values[..., 0]
    last = normal_difference(extra, np.sqrt(np.square(errors).sum(axis=-1)), n, margin)
    return Evidence(between(1, 0), above(1), between(3, 1), above(3), between(3, 2), last)


@dataclass(frozen=True)
class Verdict:
    """What one task's evidence amounts to; the p-values are Holm-adjusted over the tasks judged together.
    `p_above_chance`: that the last tuned beats chance by more than the margin, which no verdict asks. Where BASE alone
    was judged, `latent` is None and the p-values about tuning are NaN."""

    verdict: str
    latent: bool | None
    p_pretraining: float
    p_finetuning: float
    p_latent: float
    p_above_chance: float = float("nan")


def verdicts(cases: Sequence[Evidence], margin: float = MARGIN, alpha: float = ALPHA) -> list[Verdict]:
    """The verdict on each of the tasks judged together; `margin` is the one that their evidence was made with.

    Learned in pre-training: the last BASE beats the first BASE and chance by more than the margin. Learned in
    fine-tuning: the last tuned beats the last BASE by more than it, also where that is below chance. Not learned, which
    is not corrected over the tasks: the 95 % intervals exclude, of BASE and of tuned each, the rise (the gain) or that
    it beats chance by more than it; else undecided. Latent: tuned scores rise by more than the margin,
    and by more than it beyond BASE's rise, while a rise of BASE is not shown. A claim of two parts has the larger of
    their p-values.
    """
    pre = holm([max(case.rise.p, case.above_chance.p) for case in cases])
    fine = holm([case.gain.p for case in cases])
    latent = holm([max(case.tuned_rise.p, case.extra_rise.p) for case in cases])
    above = holm([case.tuned_above_chance.p for case in cases])
    found = []
    for case, p_pre, p_fine, p_latent, p_above in zip(cases, pre, fine, latent, above, strict=True):
        excluded = max(min(case.rise.high, case.above_chance.high), min(case.gain.high, case.tuned_above_chance.high))
        name = {
            (True, True): "both",
            (True, False): "learned in pre-training",
            (False, True): "learned in fine-tuning",
            (False, False): "not learned" if excluded < margin else "undecided",
        }[bool(p_pre < alpha), bool(p_fine < alpha)]
        # BASE's own rise is not corrected: a correction would make "does not rise" the easier claim.
        hidden = bool(p_latent < alpha and case.rise.p >= alpha)
        found.append(Verdict(name, hidden, float(p_pre), float(p_fine), float(p_latent), float(p_above)))
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
