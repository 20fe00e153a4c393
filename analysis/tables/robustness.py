"""What a conclusion hangs on: the seed, and the learning rate."""

import numpy as np
import pandas as pd

from analysis import stats
from analysis.study import CURVE, NOT_KNOWN, SETTING, Study, headline
from analysis.tables.common import ABOUT, grouped, nothing, spread
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


def rates(study: Study) -> pd.DataFrame:
    """A row per (family, stage, dataset, setting, checkpoint) of what was tuned at several learning rates: the score at
    the one rate that is best over all checkpoints (`fixed`), and at the rate that is best at this checkpoint (`best`,
    too high by the noise of the choice); the verdicts at each rate, and `flips` where they, or the answer whether
    tuning beats BASE here, are not the same at every rate."""
    points = study.points
    tuned = points[(points["stage"] != "base") & headline(points)]
    tuned = tuned[tuned.groupby(ONE_CURVE, dropna=False)["learning_rate"].transform("nunique") > 1]
    said = verdict_by_curve(study) if len(tuned) else {}
    tuned = tuned.sort_values([*ONE_CURVE, "order", "learning_rate"])
    places, found, rate = [], [], tuned["learning_rate"].to_numpy()
    for group in grouped(tuned, ONE_CURVE)[1]:
        known = np.unique(rate[group])
        at = tuned.index.to_numpy()[group].reshape(-1, len(known)).T
        places.append(at[0])
        found.append(rates_of(study, at, known, said))
    heads = points.iloc[np.concatenate([[], *places]).astype(int)][[*ONE_CURVE, *ABOUT]].reset_index(drop=True)
    columns = {name: np.concatenate([[], *(each[name] for each in found)]) for name in RATES}
    return pd.concat([heads, pd.DataFrame(columns, index=heads.index)], axis=1)


def rates_of(study: Study, at: np.ndarray, known: np.ndarray, said: dict[int, str]) -> dict[str, np.ndarray]:
    """The columns RATES, each (checkpoints,), from the points at positions (rates, checkpoints) of one (family, stage,
    dataset, setting); `said` has the verdict by curve."""
    value, low, high = (study.points[name].to_numpy()[at] for name in ("value", "low", "high"))
    fixed, best = stats.envelope(value)
    base, places = study.base[at[fixed]], np.arange(at.shape[1])
    numbers = {"base": np.where(base >= 0, study.points["value"].to_numpy()[base], NOT_KNOWN)}
    for name, chosen in (("fixed", np.full_like(best, fixed)), ("best", best)):
        there = ~np.isnan(value[chosen, places])
        numbers[f"{name}_rate"] = np.where(there, known[chosen], NOT_KNOWN)
        numbers |= spread(name, value[chosen, places], low[chosen, places], high[chosen, places])
    # An interval that lies above BASE's score at one rate and not at another; a missing score says neither.
    beats = low > numbers["base"]
    mixed = (beats & ~np.isnan(low)).any(axis=0) & (~beats & ~np.isnan(low + numbers["base"])).any(axis=0)
    curves = study.points["curve"].to_numpy()[at[:, 0]]
    verdict = {f"{rate:g}": said[curve] for rate, curve in zip(known, curves, strict=True) if curve in said}
    texts = ", ".join(f"{rate:g}" for rate in known), "; ".join(f"{rate}: {text}" for rate, text in verdict.items())
    numbers |= {
        name: np.full(len(places), text, object) for name, text in zip(("rates", "verdicts"), texts, strict=True)
    }
    return numbers | {"flips": mixed | (len(set(verdict.values())) > 1)}
