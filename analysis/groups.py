"""Gains by group: how much tuning adds, early and late, to the tasks of each verdict (the paper's Table 6, Figure 8).

group_gains(gains_in_usual_settings, verdicts_in_usual_settings)
"""

import pandas as pd

from analysis.study import TUNING

COLUMNS = ["family", "checkpoint", "step", "tokens_b", "verdict", "change", "change_low", "change_high", "tasks", "n"]


def group_gains(gains: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """Mean of tuned - BASE over the tasks of each verdict: a row per (family, checkpoint, verdict). A task that was
    tuned for at several learning rates with one verdict counts once, as their mean.

    `tasks` says over how many, `missing` which of the group have no number there. The interval is normal, from the
    tasks' own: it says what other examples would change, with these tasks.
    """
    key, group = [*TUNING, "task"], [*COLUMNS[:4], "verdict"]
    every = gains.merge(verdicts[[*key, "verdict"]].drop_duplicates(key), on=key)
    several = every.groupby([*group, "stage", "dataset"], dropna=False)["learning_rate"].transform("nunique") > 1
    rate = pd.Series([f" at rate {each:g}" for each in every["learning_rate"]], every.index, str).where(several, "")
    every["lacking"] = (every["task"] + rate).where(every["difference"].isna())
    every["half"] = (every["difference_high"] - every["difference_low"]) / 2  # of rates, which go together: their mean
    alike = every.groupby([*group, "stage", "dataset", "task"], sort=False, dropna=False, observed=True)
    judged = alike.agg(
        difference=("difference", "mean"),
        half=("half", "mean"),
        n=("n", "max"),
        lacking=("lacking", lambda names: ", ".join(names.dropna())),
    ).reset_index()
    judged["variance"] = judged["half"] ** 2
    judged["lacking"] = judged["lacking"].where(judged["lacking"] != "")
    judged["n"] = judged["n"].where(judged["difference"].notna(), 0)
    found = judged.groupby(group, sort=False, dropna=False, observed=True)
    out = found.agg(
        change=("difference", "mean"),
        variance=("variance", "sum"),
        tasks=("difference", "count"),
        n=("n", "sum"),
        missing=("lacking", lambda names: ", ".join(names.dropna())),
    ).reset_index()
    half = out["variance"] ** 0.5 / out["tasks"]
    out = out.assign(change_low=out["change"] - half, change_high=out["change"] + half)
    return out.assign(missing=("without " + out["missing"]).where(out["missing"] != "", ""))[[*COLUMNS, "missing"]]
