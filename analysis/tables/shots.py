"""How scores are read and asked: shot curves, and the ways of reading one task's answers."""

import numpy as np
import pandas as pd

from analysis.study import SETTING, TUNING, Study, of_shared_seeds
from analysis.tables.common import ABOUT, differences, grouped, spread, test_name

FOUR = 4  # the paper's number of shots


def shots(study: Study) -> pd.DataFrame:
    """Shot curves: a row per (BASE or tuning, checkpoint, setting) of those with scores at several numbers of shots,
    with the score and its difference to that with four shots (without these: with the fewest), `against`. Compared are
    the `seeds_compared` that all numbers of shots have; scores are those of all `seeds` of the row."""
    points = study.points[study.points["n"] > 0]
    keys = [*TUNING, *ABOUT, *(name for name in SETTING if name != "num_shots")]
    some = points[points.groupby(keys, dropna=False)["num_shots"].transform("nunique") > 1]
    some = some.sort_values(["curve", "order"])
    against = np.full(len(some), -1)
    numbers = some["num_shots"].to_numpy()
    groups = grouped(some, keys)[1]
    for group in groups:
        against[group] = group[numbers[group] == (FOUR if FOUR in numbers[group] else numbers[group].min())][0]
    at = some.index.to_numpy()
    examples = of_shared_seeds(study, [at[group] for group in groups])
    shared = np.array([not study.paired or examples[point] is not None for point in at], dtype=bool)
    found = differences(study, np.where(shared, at, -1), at[against], examples)
    compared = np.zeros(len(some), dtype=int)
    for group in groups:
        compared[group] = len(frozenset.intersection(*(study.seeds_of[point] for point in at[group])))
    found.loc[at == at[against], ["mean", "low", "high"]] = 0.0  # of what is compared with itself
    found.loc[at == at[against], "p_equal"] = 1.0
    out = some[[*TUNING, *ABOUT, *SETTING, "chance", "n", "seeds"]].reset_index(drop=True)
    out = out.assign(**spread("value", *(some[name].to_numpy() for name in ("value", "low", "high"))))
    out = out.assign(
        seeds_compared=compared,
        against=numbers[against],
        **spread("difference", found["mean"], found["low"], found["high"]),
    )
    return out.assign(p=found["p_equal"].to_numpy(), n_unpaired=found["n_unpaired"].to_numpy(), test=test_name(study))


def methods(study: Study) -> pd.DataFrame:
    """Ways of reading the same task's answers: a row per (BASE or tuning, task, setting, method) at the last checkpoint
    of each family, of those with a score by more than one method (the paper's Table 3). `n_unparsable` counts the
    answers without a label of all seeds."""
    last = study.points["family"].map({family: names[-1] for family, names in study.checkpoints.items()})
    there = study.points[(study.points["n"] > 0) & (study.points["checkpoint"] == last)]
    keys = [*TUNING, *(name for name in SETTING if name != "method")]
    several = there[there.groupby(keys, dropna=False)["method"].transform("nunique") > 1]
    columns = ["family", "checkpoint", *TUNING[1:], "task", "relation", *SETTING[1:]]
    columns += ["value", "value_low", "value_high", "chance", "n", "n_unparsable", "seeds"]
    return several.rename(columns={"low": "value_low", "high": "value_high"})[columns].reset_index(drop=True)
