"""What a conclusion hangs on: the seed, and the learning rate."""

import numpy as np
import pandas as pd

from analysis import stats
from analysis.study import CURVE, NOT_KNOWN, SETTING, Study, headline
from analysis.tables.common import ABOUT, grouped, nothing, spread
from analysis.tables.gains import compared
from analysis.tables.verdicts import one_seed_verdicts, verdict_by_curve

SEEDS = ["seeds", "value", "between_sd", "within_sd", "seed_share"]


def seed_variance(study: Study) -> pd.DataFrame:
    """A row per point with several seeds: the standard deviation between seeds (which answered the same examples), that
    of a seed's mean over examples, and the seeds' share of the variance of both; the verdicts that each seed alone
    gives (`1: both; 2: undecided`), and whether they agree."""
    points = study.points
    several = np.array([at for at in sorted(study.by_seed) if study.kind[at] >= 0], dtype=int)
    alone, curves = one_seed_verdicts(study), points["curve"].to_numpy()
    out = {name: np.full(len(several), NOT_KNOWN) for name in SEEDS}
    counts = np.array([len(study.by_seed[at]) for at in several], dtype=int)
    for count, kind in sorted(set(zip(counts.tolist(), study.kind[several].tolist(), strict=True))):
        which = np.flatnonzero((counts == count) & (study.kind[several] == kind))
        for part in stats.blocks(len(which), count * len(study.masks[kind])):
            at = which[part]
            scores = np.array([list(study.by_seed[each].values()) for each in several[at]])[..., study.masks[kind]]
            found = stats.seed_spread(scores.mean(axis=-1), stats.standard_error(scores))
            numbers = (count, scores.mean(axis=(1, 2)), found.between**0.5, found.within**0.5, found.share)
            for name, values in zip(SEEDS, numbers, strict=True):
                out[name][at] = values
    said = [alone.get(int(curve), {}) for curve in curves[several]]
    texts = ["; ".join(f"{seed}: {verdict}" for seed, verdict in each.items()) for each in said]
    agree = [len(set(each.values())) == 1 if each else None for each in said]
    heads = points.iloc[several][[*CURVE, *ABOUT, "n"]].reset_index(drop=True)
    return heads.assign(**out, verdict_on_one_seed=texts, verdicts_agree=agree).astype({"seeds": "Int64"})


ONE_CURVE = ["family", "stage", "dataset", *SETTING]
RATES = ["base", "fixed_rate", *nothing("fixed"), "best_rate", *nothing("best"), "rates", "verdicts", "flips"]
RATES += ["contradiction"]
ADDS = ("learned in fine-tuning", "both")


def rates(study: Study) -> pd.DataFrame:
    """A row per (family, stage, dataset, setting, checkpoint) of what was tuned at several learning rates: the score at
    the one rate that is best over all checkpoints (`fixed`), and at the rate that is best at this checkpoint (`best`,
    too high by the noise of the choice); the verdicts at each rate; and `flips` where two rates contradict each other,
    as the `contradiction` says: tuned - BASE, paired, has an interval above 0 at one and below 0 at another, or a task
    that is learned in fine-tuning at one is not learned at another. That one rate shows what another leaves open is
    none."""
    points = study.points
    tuned = points[(points["stage"] != "base") & headline(points)]
    tuned = tuned[tuned.groupby(ONE_CURVE, dropna=False)["learning_rate"].transform("nunique") > 1]
    said = verdict_by_curve(study) if len(tuned) else {}
    ends = np.full((2, len(points)), NOT_KNOWN)
    ends[:, points["stage"].to_numpy() != "base"] = compared(study)[["difference_low", "difference_high"]].to_numpy().T
    tuned = tuned.sort_values([*ONE_CURVE, "order", "learning_rate"])
    places, found, rate = [], [], tuned["learning_rate"].to_numpy()
    for group in grouped(tuned, ONE_CURVE)[1]:
        known = np.unique(rate[group])
        at = tuned.index.to_numpy()[group].reshape(-1, len(known)).T
        places.append(at[0])
        found.append(rates_of(study, at, known, said, ends))
    heads = points.iloc[np.concatenate([[], *places]).astype(int)][[*ONE_CURVE, *ABOUT]].reset_index(drop=True)
    columns = {name: np.concatenate([[], *(each[name] for each in found)]) for name in RATES}
    return pd.concat([heads, pd.DataFrame(columns, index=heads.index)], axis=1)


def rates_of(
    study: Study, at: np.ndarray, known: np.ndarray, said: dict[int, str], ends: np.ndarray
) -> dict[str, np.ndarray]:
    """The columns RATES, each (checkpoints,), from the points at positions (rates, checkpoints) of one (family, stage,
    dataset, setting); `said` has the verdict by curve, `ends` (2, points) the intervals of tuned - BASE."""
    value, low, high = (study.points[name].to_numpy()[at] for name in ("value", "low", "high"))
    fixed, best = stats.envelope(value)
    base, places = study.base[at[fixed]], np.arange(at.shape[1])
    numbers = {"base": np.where(base >= 0, study.points["value"].to_numpy()[base], NOT_KNOWN)}
    for name, chosen in (("fixed", np.full_like(best, fixed)), ("best", best)):
        there = ~np.isnan(value[chosen, places])
        numbers[f"{name}_rate"] = np.where(there, known[chosen], NOT_KNOWN)
        numbers |= spread(name, value[chosen, places], low[chosen, places], high[chosen, places])
    curves = study.points["curve"].to_numpy()[at[:, 0]]
    names = [f"{rate:g}" for rate in known]
    verdict = {name: said[curve] for name, curve in zip(names, curves, strict=True) if curve in said}
    texts = ", ".join(names), "; ".join(f"{name}: {text}" for name, text in verdict.items())
    numbers |= {
        name: np.full(len(places), text, object) for name, text in zip(("rates", "verdicts"), texts, strict=True)
    }
    adds, none = ([name for name, text in verdict.items() if text in kinds] for kinds in (ADDS, ("not learned",)))
    opposed = (
        [f"learned in fine-tuning at {', '.join(adds)}, not learned at {', '.join(none)}"] if adds and none else []
    )
    contradiction = []
    for lower, upper in ends[:, at].transpose(2, 0, 1):
        gains, losses = (", ".join(np.array(names)[side]) for side in (lower > 0, upper < 0))
        mixed = [f"tuning gains at {gains} and loses at {losses}"] if gains and losses else []
        contradiction.append("; ".join(mixed + opposed))
    contradiction = np.array(contradiction, object)
    return numbers | {"contradiction": contradiction, "flips": contradiction != ""}
