"""Claims on prompt formats, as far as they are about OLMo-1B."""

import numpy as np
import pandas as pd
from scipy.stats import binomtest, ttest_1samp

from analysis import stats
from analysis.paper.claims import (
    AGAINST,
    ALPHA,
    CARRIED,
    LATE,
    NOT,
    PARTLY,
    Claim,
    NoRows,
    Test,
    early_late,
    interval,
    p_text,
)
from analysis.paper.curves import FORMATS, IN_FORMATS
from analysis.paper.grid import CHECKPOINTS, Grid, pair, tokens


def by_format(paper: Grid) -> pd.DataFrame:
    """The scores of figure 14's sets in the three formats: columns task, checkpoint, variant, default, instruct, io; of
    the cells that have all three."""
    rows = []
    for task, dataset in IN_FORMATS:
        found = {name: pair(paper, task, dataset, name) for name in FORMATS}
        for variant in ("base", "tuned"):
            columns = {name: cells[variant] for name, cells in found.items()}
            rows.append(pd.DataFrame(columns).assign(task=task, variant=variant).reset_index())
    scores = pd.concat(rows).dropna()
    if scores.empty:
        raise NoRows
    return scores


def least(paper: Grid) -> Claim:
    """IO is the worst format."""
    scores = by_format(paper)
    found = {}
    for variant, cells in scores.groupby("variant"):
        last = cells[list(FORMATS)].idxmin(axis=1) == "io"
        found[variant] = (int(last.sum()), len(last), binomtest(int(last.sum()), len(last), 1 / 3).pvalue)
    tuned = scores[scores["variant"] == "tuned"]
    worst = (tuned[list(FORMATS)].idxmin(axis=1) == "io").groupby(tuned["task"], sort=False).mean()
    lines = [f"{variant} {k} of {n} cells ({p_text(p)})" for variant, (k, n, p) in found.items()]
    share = found["tuned"][0] / found["tuned"][1] if "tuned" in found else 0.0
    return Claim(
        "The IO format is the least favourable",
        "section 4.1, figures 2 and 14",
        "IO format leads to the least favorable performance",
        "In how many cells io is the lowest of the three formats (binomial, against a third).",
        f"{', '.join(lines)}; tuned, by set: {', '.join(f'{task} {value:.0%}' for task, value in worst.items())}.",
        CARRIED if share > 0.9 else PARTLY if share > 0.5 and found["tuned"][2] < ALPHA else NOT,
    )


def alike(paper: Grid) -> Claim:
    """Default and instruct do the same."""
    scores = by_format(paper)
    tuned = scores[scores["variant"] == "tuned"]
    apart = (tuned["default"] - tuned["instruct"]).to_numpy()
    late = tuned["checkpoint"].isin(LATE).to_numpy()
    near = np.abs(apart) <= stats.MARGIN
    if not late.any():
        raise NoRows
    low, high = interval(apart[late])
    return Claim(
        "Tuned models do as well with default as with instruct prompts",
        "section 4.1, figure 14",
        "Model reports similar performance when evaluated with the default and instruct format",
        "Default minus instruct of the tuned models, from 342000 on, and in how many cells they are within 0.02.",
        f"Within {stats.MARGIN} in {near[late].sum()} of {late.sum()} cells from 342000 on; default leads by "
        f"{apart[late].mean():+.3f} [{low:+.3f}, {high:+.3f}] on average, by up to {apart[late].max():+.3f}.",
        CARRIED if near[late].mean() > 0.75 else NOT,
    )


def early_format(paper: Grid) -> Claim:
    """Early, the format of the training matters; later, less."""
    scores = by_format(paper)
    tuned = scores[scores["variant"] == "tuned"]
    gaps = tuned.assign(gap=tuned["default"] - tuned["instruct"]).pivot(
        index="checkpoint", columns="task", values="gap"
    )
    gaps = gaps.reindex(CHECKPOINTS).dropna(axis=1)
    less = early_late(gaps)
    if len(less) < 2:
        raise NoRows
    test = ttest_1samp(less, 0)
    lines = [f"{task} {value:+.3f}" for task, value in less.items()]
    by_time = [f"{name} {value:+.3f}" for name, value in gaps.mean(axis=1).items()]
    return Claim(
        "Matching the training format matters most early",
        "section 4.1, figure 2",
        "in the early pre-training steps, aligning the task format with fine-tuning data plays a crucial role",
        "Default minus instruct of the tuned models, per set: mean from 342000 on minus mean at 1000 and 18000 (t-test "
        "over sets).",
        f"The lead of default changes by {', '.join(lines)} (mean {less.mean():+.3f}, {p_text(test.pvalue)}). Mean "
        f"lead by checkpoint: {', '.join(by_time)}.",
        CARRIED if less.mean() < 0 and test.pvalue < ALPHA else NOT,
    )


def sensitivity(paper: Grid) -> Claim:
    """Tuned models are sensitive to prompts, further pre-training alleviates it."""
    scores, times = by_format(paper), tokens()
    ranges = scores.assign(range=np.ptp(scores[list(FORMATS)].to_numpy(), axis=1))
    wide = ranges.pivot(index=["variant", "checkpoint"], columns="task", values="range")
    wide = wide.dropna(axis=1)
    means = wide.mean(axis=1).unstack("variant").reindex(CHECKPOINTS)
    if means.isna().any(axis=None) or not {"base", "tuned"} <= set(means):
        raise NoRows
    more = (wide.loc["tuned"] - wide.loc["base"]).mean()
    test = ttest_1samp(more, 0)
    steps = np.log10(times.to_numpy())
    tuned = wide.loc["tuned"].reindex(CHECKPOINTS)
    every = np.array([np.polyfit(steps, tuned[task], 1)[0] for task in tuned])
    later = np.array([np.polyfit(steps[1:], tuned[task].iloc[1:], 1)[0] for task in tuned])
    (low, high), (later_low, later_high) = interval(every), interval(later)
    lines = [f"{name} {row['tuned']:.3f} ({row['base']:.3f})" for name, row in means.iterrows()]
    sensitive = bool(more.mean() > 0 and test.pvalue < ALPHA)
    some = sensitive or high < 0 or later_high < 0
    return Claim(
        "Tuned models are sensitive to the prompt, and more pre-training alleviates it",
        "abstract, section 4.1, figure 14",
        "the model exhibits high sensitivity to evaluation prompts after supervised fine-tuning, but this sensitivity "
        "can be alleviated through further pre-training.",
        "Best minus worst of the three formats per set: tuned against BASE (t-test over sets), and the slope of the "
        "tuned range over a tenfold of tokens (mean over sets, 95 % interval), with and without the checkpoint at "
        "1000.",
        f"Mean range tuned (BASE): {', '.join(lines)}. Tuned exceeds BASE by {more.mean():+.3f} "
        f"({p_text(test.pvalue)}, {len(more)} sets). Slope of the tuned range {every.mean():+.3f} [{low:+.3f}, "
        f"{high:+.3f}] per tenfold of tokens; from 18000 on {later.mean():+.3f} [{later_low:+.3f}, {later_high:+.3f}].",
        CARRIED if sensitive and high < 0 else AGAINST if low > 0 and later_high >= 0 else PARTLY if some else NOT,
    )


TESTS = (
    Test(least, "paper", "section 4.1", "IO is the worst format"),
    Test(alike, "paper", "section 4.1", "Default and instruct do the same"),
    Test(early_format, "paper", "section 4.1", "Early, the format of the training matters; later, less"),
    Test(sensitivity, "paper", "abstract", "Tuned models are sensitive to prompts, further pre-training alleviates it"),
)
