"""Single answers: turned right or wrong by tuning, and when over pre-training they were learned."""

import numpy as np
import pandas as pd

from analysis import stats
from analysis.study import CURVE, NOT_KNOWN, SETTING, TUNING, Study, together
from analysis.tables.common import ABOUT, curve_rows

TURNED = ["wrong_right", "right_wrong", "wrong_right_by_chance", "right_wrong_by_chance", "p"]
LEARNED = [f"{side}_{what}" for side in ("base", "tuned") for what in ("new", "learned", "learned_by_chance")]


def transitions(study: Study) -> pd.DataFrame:
    """A row per (tuning, checkpoint, setting) of right-or-wrong tasks: shares of the examples that BASE has wrong and
    the tuned right, and the reverse; what independent answers at the same rates would give; p that both are as
    likely."""
    points = study.points
    told = points["metric"].str.startswith("accuracy") & (points["stage"] != "base") & (points["n"] > 0)
    at = np.flatnonzero(told & (study.base >= 0)) if study.paired else np.array([], dtype=int)
    out = {name: np.full(len(at), NOT_KNOWN) for name in TURNED} | {"n": np.zeros(len(at), int)}
    for which, scores, _ in together(study, np.column_stack([study.base[at], at])):
        found = stats.transitions(scores[:, 0], scores[:, 1])
        for name in (*TURNED, "n"):
            out[name][which] = getattr(found, name)
    return points.iloc[at][[*TUNING, *ABOUT, *SETTING, "seeds"]].reset_index(drop=True).assign(**out)


def trajectories(study: Study) -> pd.DataFrame:
    """When examples are learned: a row per (tuning, setting, checkpoint) of right-or-wrong tasks with scores of BASE
    and tuned at every checkpoint (of BASE alone where nothing was tuned). An example is learned at the first
    checkpoint from which on it stays right: `base_new` and `tuned_new` are the shares learned at this one,
    `..._learned` up to it, `..._learned_by_chance` what independent answers at the same rates would give; `lost`: BASE
    right, tuned wrong here. Of several seeds an example is right where most have it so."""
    points, scored = study.points, study.points["n"].to_numpy() > 0
    told = points["metric"].str.startswith("accuracy").to_numpy() & study.paired
    tuned = pd.MultiIndex.from_frame(points.loc[(points["stage"] != "base") & scored, ["family", *SETTING]])
    told &= (points["stage"] != "base") | ~pd.MultiIndex.from_frame(points[["family", *SETTING]]).isin(tuned)
    curves = [curve for curve in curve_rows(study, told) if scored[curve].all() and len(curve) > 1]
    curves = [curve for curve in curves if (study.base[curve] >= 0).all()]
    columns = [*CURVE, *ABOUT, *LEARNED, "lost", "n"]
    parts = [points.iloc[:0].reindex(columns=columns)]
    for alone in (True, False):
        some = [curve for curve in curves if (points["stage"].iloc[curve[0]] == "base") == alone]
        for size in sorted({len(curve) for curve in some}):
            at = np.array([curve for curve in some if len(curve) == size])
            both = study.base[at] if alone else np.hstack([study.base[at], at])
            for which, scores, _ in together(study, both):
                found = learning(scores > 0.5, size)
                lines = points.iloc[at[which].ravel()][[*CURVE, *ABOUT, "curve"]]
                parts.append(lines.assign(n=scores.shape[-1], **{name: each.ravel() for name, each in found.items()}))
    found = pd.concat(parts[1:] or parts)
    return found.sort_values(["curve", "order"], ignore_index=True)[columns] if len(found) else found


def learning(right: np.ndarray, checkpoints: int) -> dict[str, np.ndarray]:
    """The columns of `trajectories`, each (j, checkpoints), from right (j, checkpoints or twice as many, n), BASE's
    first."""
    out = dict.fromkeys([*LEARNED, "lost"], np.full((len(right), checkpoints), NOT_KNOWN))
    sides = {"base": right[:, :checkpoints], "tuned": right[:, checkpoints:]}
    for side, answers in sides.items():
        if answers.shape[1]:
            learned = stats.learned_share(answers)
            out[f"{side}_learned"], out[f"{side}_new"] = learned, np.diff(learned, prepend=0)
            out[f"{side}_learned_by_chance"] = stats.learned_by_chance(answers)
    if sides["tuned"].shape[1]:
        out["lost"] = (sides["base"] & ~sides["tuned"]).mean(axis=-1)
    return out
