"""Claims on how the study was made: its noise, its shots, its choice of checkpoints."""

import numpy as np
import pandas as pd

from analysis import stats
from analysis.paper.authors import HIDDEN
from analysis.paper.claims import ALPHA, CARRIED, NOT, PARTLY, Claim, NoRows, Test
from analysis.paper.curves import NEVER_LEARNED
from analysis.paper.grid import CHECKPOINTS, Grid, tokens

TWINS = ["738000", "main"]  # 20 steps apart, where main is the last published step


def apart(paper: Grid, first: str, second: str) -> pd.DataFrame:
    """Scores of two checkpoints in the cells that both have, but those on hidden labels: value, stderr and n of each,
    by task, dataset and prompt_format."""
    kept = {key: rows.loc[[first, second]] for key, rows in paper.items() if key[0] not in HIDDEN}
    both = pd.concat(kept).unstack().dropna() if kept else pd.DataFrame()
    if both.empty:
        raise NoRows
    return both


def noise(paper: Grid) -> Claim:
    """Uncertainty is that of the examples."""
    twins = apart(paper, *TWINS)
    ends = [twins[name][at].to_numpy(dtype=float) for at in TWINS for name in ("value", "stderr", "n")]
    found = stats.compare_means(*ends, 0.0)
    far, gap = stats.holm(found.p_equal) < ALPHA, np.abs(found.mean)
    worst = [(*twins.index[at], gap[at]) for at in gap.argsort()[::-1][:4]]
    lines = [f"{task} {f'tuned on {data}' if data else 'BASE'} ({form}) {size:.3f}" for task, data, form, size in worst]
    floor, late = np.quantile(gap, 0.95), CHECKPOINTS[2:-1]
    steps = [apart(paper, *each)["value"].diff(axis=1).iloc[:, 1].abs() for each in zip(late, late[1:], strict=False)]
    beyond = pd.concat(steps) > floor
    return Claim(
        "Bootstrap over examples shows how sure a score is",
        "limitations (Randomness), all figures",
        "we only assess uncertainty with Bootstrap during evaluation",
        "738000 and main are 20 steps apart (if main is step 738020), so their scores should agree within their "
        "standard errors (normal, Holm over the cells); and how many changes between neighbouring checkpoints from "
        "342000 to 738000 exceed what 95 % of these differences stay below.",
        f"{far.sum()} of {len(gap)} cells differ by more than their standard errors explain; median "
        f"{np.median(gap):.3f}, 95 % below {floor:.3f}, most: {', '.join(lines)}. Of the changes between neighbours "
        f"from 342000 to 738000, {beyond.sum()} of {len(beyond)} exceed that. What differs from run to run is not in "
        "the bands of the figures.",
        NOT if far.any() else CARRIED,
    )


def uniform() -> Claim:
    """Checkpoints uniform in tokens."""
    times = tokens()
    gaps = times.diff().dropna().drop("main")
    lines = [f"{name} {gap:.0f}" for name, gap in gaps.items()]
    even = gaps.max() / gaps.min()
    return Claim(
        "Checkpoints uniform in tokens",
        "section 3.1",
        "We select checkpoints uniformly by the number of tokens seen from the pre-training history along with the "
        "first and the final checkpoints.",
        "Billions of tokens from each checkpoint to the next.",
        f"Up to {', '.join(lines)}: the largest gap is {even:.0f} times the smallest, and "
        f"{gaps.max() / times.iloc[-1]:.0%} of the history lies in it without a checkpoint.",
        CARRIED if even < 1.5 else NOT,
    )


def shots(table: pd.DataFrame) -> Claim:
    """Constant whatever the number of shots."""
    base = table[(table["stage"] == "base") & table["task"].isin(NEVER_LEARNED) & (table["prompt_format"] == "default")]
    other = base[base["num_shots"] != 4]
    sizes = other.groupby(["task", "num_shots"]).size()
    lines = [
        f"{task} with {count} shots at {size} checkpoint{'s' * (size > 1)}" for (task, count), size in sizes.items()
    ]
    enough = [task for task in NEVER_LEARNED if other[other["task"] == task]["checkpoint"].nunique() > 1]
    both = other.merge(base[base["num_shots"] == 4], on=["task", "checkpoint"], suffixes=("_other", ""))
    both = both.astype({name: float for name in ("value", "value_other")})
    far = ""
    if len(both):
        odd = both.loc[(both["value"] - both["value_other"]).abs().idxmax()]
        scores = f"{odd['value_other']:.3f} with {odd['num_shots_other']} shots, {odd['value']:.3f} with 4"
        far = f" The number of shots changes {odd['task']} at {odd['checkpoint'].split('@')[1]} most: {scores}."
    return Claim(
        "Never learned, whatever the number of shots",
        "section 5, figure 6b",
        "Performance remains constant throughout the whole pre-training process even when we vary shot sizes.",
        "Which sets of figure 6b have BASE rows with other numbers of shots, at more than one checkpoint.",
        f"{len(enough)} of {len(NEVER_LEARNED)} sets ({', '.join(enough) or 'none'}). There are: "
        f"{', '.join(lines) or 'none'}.{far}",
        CARRIED if len(enough) == len(NEVER_LEARNED) else PARTLY if len(enough) > 2 else NOT,
    )


TESTS = (
    Test(noise, "paper", "limitations", "Uncertainty is that of the examples"),
    Test(shots, "table", "section 5", "Constant whatever the number of shots"),
    Test(uniform, "", "section 3.1", "Checkpoints uniform in tokens"),
)
