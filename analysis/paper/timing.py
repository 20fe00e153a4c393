"""Claims on when in pre-training tuning pays: early and late gains, latent improvement, turning points."""

import pandas as pd
from scipy.stats import spearmanr, wilcoxon

from analysis import stats
from analysis.paper.claims import (
    AGAINST,
    ALPHA,
    CARRIED,
    NOT,
    PARTLY,
    Claim,
    NoRows,
    Test,
    early_late,
    p_text,
    published,
)
from analysis.paper.grid import CHECKPOINTS, Grid, changes, tokens
from analysis.paper.learning import unmeasured
from analysis.paper.numbers import FINETUNE, PRETRAIN

SIDES = ("base", "tuned")


def earlier_gains(paper: Grid) -> Claim:
    """Earlier checkpoints gain more."""
    gains = changes(paper, FINETUNE)
    later = early_late(gains)
    if later.empty:
        raise NoRows
    means = gains[later.index].mean(axis=1)
    rank, p = spearmanr(range(len(means)), means)
    p_later = wilcoxon(later).pvalue if later.any() else 1.0
    other = early_late(changes(paper, PRETRAIN)).mean()
    return Claim(
        "Earlier checkpoints gain more",
        "section 6, figure 8",
        "earlier checkpoints obtain more substantial gains from fine-tuning than later checkpoints.",
        "Table 6's means by checkpoint (Spearman's rank correlation), and per set the mean gain from 342000 on minus "
        "the mean gain at 1000 and 18000 (Wilcoxon's signed ranks over sets).",
        f"The mean gain is {means['1000']:+.3f} at 1000 and {means['18000']:+.3f} at 18000, and at most "
        f"{means.max():+.3f}, at {means.idxmax()} (rank correlation with tokens {rank:+.2f}, {p_text(p)}). Later gains "
        f"are larger in {(later > 0).sum()} of {len(later)} sets, on average by {later.mean():+.3f} "
        f"({p_text(p_later)}). In the other group they are larger by {other:+.3f}.",
        (AGAINST if later.mean() > 0 else CARRIED) if p_later < ALPHA else NOT,
    )


def latent(judged: pd.DataFrame) -> Claim:
    """Pre-training improves a model in a way that shows after tuning only."""
    sets = judged[judged["group"] == "finetune"]
    if sets.empty:
        raise NoRows
    hidden = sets["latent"].astype(bool)
    lines = [
        f"{row.task} (tuned rises {row.tuned_rise:+.3f}, BASE {row.rise:+.3f})" for row in sets[hidden].itertuples()
    ]
    others = [f"{row.task} ({row.tuned_rise:+.3f}, {row.rise:+.3f})" for row in sets[~hidden].itertuples()]
    return Claim(
        "Latent improvement",
        "abstract, section 6",
        "the model is, in fact, improving during pre-training, but it cannot express that improvement without "
        "fine-tuning.",
        "Per set, from 1000 to main: the tuned score rises by more than 0.02 and by more than 0.02 beyond BASE's rise "
        "(Holm over the sets), while a rise of BASE by more than 0.02 is not shown.",
        f"{hidden.sum()} of {len(sets)} sets: {', '.join(lines) or 'none'}. Not: {', '.join(others) or 'none'}.",
        CARRIED if hidden.all() else PARTLY if hidden.any() else NOT,
    )


def turning(turned: pd.DataFrame) -> Claim:
    """The tuned curve turns where the BASE curve does."""
    if turned.empty:
        raise NoRows
    spans = {side: [span(*each) for each in turned[[f"before_{side}", f"turning_{side}"]].to_numpy()] for side in SIDES}
    lines = [f"{task} {base} and {tuned}" for task, base, tuned in zip(turned["task"], *spans.values(), strict=True)]
    together, apart = turned["overlap"].astype(bool), turned["apart"].astype(bool)
    rising = turned["before_base"] != ""
    shares = turned[[f"share_{side}" for side in SIDES]].to_numpy(dtype=float)
    wide = sum(base == tuned == "(18000, 342000]" for base, tuned in zip(*spans.values(), strict=True))
    return Claim(
        "The turning points of BASE and tuned agree",
        "sections 6 and 7",
        "the point where more pre-training lead to diminishing return on downstream fine-tuning results approximately "
        "align with the turning point of few-shot performance",
        "Turning point: the first checkpoint that no later one beats by more than 0.02, as the interval from the one "
        "before it; whether the two intervals are the same, per set (BASE, then tuned); and whether they are apart, "
        "one before the other in more than 97.5 % of redrawn curves.",
        f"{together.sum()} of {len(turned)} overlap, {(together & rising).sum()} of the {rising.sum()} whose BASE "
        f"rises at all, and {apart.sum()} are apart beyond the noise of the scores: {'; '.join(lines)}. On redrawn "
        f"scores an interval is the same in {shares.min():.0%} to {shares.max():.0%} of the draws. Both turn in "
        f"(18000, 342000] in {wide} sets, and that interval holds {unmeasured():.0%} of all tokens.",
        CARRIED if together.all() else PARTLY if together.mean() > 0.5 else NOT,
    )


def span(before: str, at: str) -> str:
    """`(18000, 342000]` of the checkpoints that a curve turns between."""
    return f"({before.partition('@')[2] or 'before'}, {at.partition('@')[2]}]"


def early_stop(paper: Grid) -> Claim:
    """Stopping pre-training early does no harm after tuning."""
    cells = published(paper, FINETUNE + PRETRAIN).pivot(index="task", columns="checkpoint", values="tuned")
    cells = cells.reindex(columns=CHECKPOINTS).dropna()
    if cells.empty:
        raise NoRows
    at = stats.best_buys(cells.to_numpy())
    earlier = at < len(CHECKPOINTS) - 1
    times = tokens()
    last = CHECKPOINTS[int(at.max())]
    lines = [f"{task} {CHECKPOINTS[position]}" for task, position in zip(cells.index, at, strict=True)]
    return Claim(
        "Early stopping does no harm",
        "section 6",
        "early stopping in pre-training will not be detrimental to downstream fine-tuning performance.",
        "Best buy per set: the earliest checkpoint whose tuned score is not worse than the best one by more than 0.02.",
        f"{', '.join(lines)}. In {earlier.sum()} of {len(at)} sets it is before main; from {last} on "
        f"({times[last]:.0f} of {times.iloc[-1]:.0f} billion tokens) no set gains more than 0.02. It is known "
        "only after tuning the later checkpoints, and rests on one run per cell.",
        CARRIED if earlier.all() else PARTLY if earlier.mean() > 0.5 else NOT,
    )


TESTS = (
    Test(earlier_gains, "paper", "section 6", "Earlier checkpoints gain more"),
    Test(latent, "judged", "section 6", "Pre-training improves a model in a way that shows after tuning only"),
    Test(turning, "turned", "sections 6 and 7", "The tuned curve turns where the BASE curve does"),
    Test(early_stop, "paper", "section 6", "Stopping pre-training early does no harm after tuning"),
)
