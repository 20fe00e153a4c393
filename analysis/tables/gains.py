"""Tuned against BASE at every checkpoint: per task, and over the tasks of a relation."""

from functools import lru_cache

import numpy as np
import pandas as pd

from analysis import stats
from analysis.study import NOT_KNOWN, SETTING, SHOTS, TUNING, Study, headline
from analysis.tables.common import differences, grouped, holm_by, readings, spread, test_name

WEIGHED = [*TUNING, *SHOTS, "dtype", "relation", "checkpoint", "order", "step", "tokens_b"]
RELATIONS = ("id", "ood", "cross_task", "benchmark")
WHAT = ["family", "checkpoint", "order", "step", "tokens_b", *TUNING[1:], "task", "relation", *SETTING[1:], "chance"]


def gains(study: Study) -> pd.DataFrame:
    """A row per (tuning, setting, checkpoint): difference and gain with intervals, two-sided p (exact McNemar, paired
    bootstrap) and p_holm over the tasks of one tuning, checkpoint and prompt; n and seeds."""
    return compared(study).copy()


@lru_cache(maxsize=1)
def compared(study: Study) -> pd.DataFrame:
    """`gains`, made once of a study."""
    tuned = np.flatnonzero(study.points["stage"] != "base")
    rows, base = study.points.iloc[tuned].reset_index(drop=True), study.base[tuned]
    found = differences(study, tuned, base)
    values = study.points["value"].to_numpy()
    out = rows[WHAT].assign(base=np.where(base >= 0, values[base], NOT_KNOWN), tuned=rows["value"])
    out = out.assign(**spread("difference", found["mean"], found["low"], found["high"]))
    out = out.assign(**spread("gain", *(stats.gain(found[name], rows["chance"]) for name in ("mean", "low", "high"))))
    out = out.assign(stderr=found["stderr"], p=found["p_equal"], test=test_name(study))
    together = [*TUNING, "checkpoint", *SHOTS, "dtype", "reading"]
    out["p_holm"] = holm_by(out.assign(reading=readings(out)), "p", together)
    out["base_paired"], out["tuned_paired"] = found["before"], found["after"]
    out["n"], out["n_unpaired"] = found["n"], found["n_unpaired"]
    for name in ("seeds", "seeds_expected", "seed_spread"):
        out[name] = rows[name]
    out["missing"] = what_lacks(rows, base, found["n"].to_numpy(), ~(rows["chance"] < 1).to_numpy())
    return out


def what_lacks(rows: pd.DataFrame, base: np.ndarray, n: np.ndarray, no_room: np.ndarray) -> np.ndarray:
    """What is missing of each difference, in words."""
    said = rows["missing"].to_numpy(object).copy()
    absent, no_base = rows["n"].to_numpy() == 0, base < 0
    said[absent] = "no tuned"
    said[no_base] = np.where(absent[no_base], "no BASE, no tuned", "no BASE")
    said[~absent & ~no_base & (n == 0)] = "no example in common"
    for at in np.flatnonzero((n > 0) & no_room):  # also where chance is not known
        said[at] = ", ".join(filter(None, [said[at], "no chance level below 1"]))
    return said


@lru_cache(maxsize=1)
def transfer(study: Study) -> pd.DataFrame:
    """Tuned - BASE by relation, from the tuned model's own kind of data outwards, made once of a study: `gains` over
    the tasks of each relation, a row per (tuning, prompt, shots, dtype, relation, checkpoint), tasks weighing the same,
    with MRC and median ratio; tasks that are missing or have a BASE of 0 are named."""
    rows = compared(study)
    rows = rows[rows["relation"].isin(RELATIONS) & headline(rows)].reset_index(drop=True)
    heads, groups = grouped(rows, WEIGHED)
    names = ("difference", "stderr", "tuned_paired", "base_paired", "gain", "n", "seeds")
    columns = {name: rows[name].to_numpy() for name in names}
    tasks, missing = rows["task"].to_numpy(object), rows["missing"].to_numpy(object)
    out = []
    for group in groups:
        there = group[columns["n"][group] > 0]
        about = spread("change", NOT_KNOWN, NOT_KNOWN, NOT_KNOWN) | {"gain": NOT_KNOWN, "seeds": 0}
        if len(there):
            about = spread("change", *stats.mean_of_means(columns["difference"][there], columns["stderr"][there]))
            about |= {"gain": columns["gain"][there].mean(), "seeds": int(columns["seeds"][there].min())}
        ratios = stats.ratios_of_change(columns["tuned_paired"][there], columns["base_paired"][there])
        about |= {"tasks": len(there), "tasks_expected": len(group), "n": int(columns["n"][there].sum())}
        about |= {"mrc": ratios.mrc, "mrc_t": ratios.t, "mrc_p": ratios.p, "median_ratio": ratios.median}
        about |= {"mrc_tasks": ratios.n, "base_zero": ", ".join(tasks[there[at]] for at in ratios.zero)}
        gaps = [f"{tasks[at]}: {missing[at]}" for at in group if missing[at]]
        out.append(about | {"missing": "; ".join(gaps)})
    names = [*spread("change", 0, 0, 0), "gain", "seeds", "tasks", "tasks_expected", "n", "mrc", "mrc_t", "mrc_p"]
    names += ["median_ratio", "mrc_tasks", "base_zero", "missing"]
    return pd.concat([heads, pd.DataFrame(out, columns=names, index=heads.index)], axis=1)


def forgetting(study: Study) -> pd.DataFrame:
    """Tuned - BASE on the tasks of the other datasets, and on the benchmarks: see `transfer`."""
    found = transfer(study)
    return found[found["relation"].isin(("cross_task", "benchmark"))].reset_index(drop=True)
