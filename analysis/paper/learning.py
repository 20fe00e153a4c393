"""Claims on what is learned in pre-training, and what tuning adds to it."""

import numpy as np
import pandas as pd
from scipy.stats import ttest_ind

from amuro.tasks import relation_of
from analysis import stats
from analysis.paper.claims import (
    ALPHA,
    CARRIED,
    LATE,
    NOT,
    PARTLY,
    Claim,
    NoRows,
    Test,
    base_cells,
    compared,
    p_text,
    rise,
)
from analysis.paper.grid import RATES, Grid, changes, tokens
from analysis.paper.numbers import FINETUNE, PRETRAIN

LEARNED = ("learned in pre-training", "both")


def groups_of(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of one of the report's tables that are about the sets of the paper's Table 6, in its order, with a
    column `group`; without those that lack a score."""
    paired = [(*each, "pretrain") for each in PRETRAIN] + [(*each, "finetune") for each in FINETUNE]
    sets = pd.DataFrame(paired, columns=["task", "dataset", "group"])
    at = (frame["num_shots"] == 4) & (frame["prompt_format"] == "default") & (frame["missing"] == "")
    at &= frame["learning_rate"].to_numpy() == frame["dataset"].astype(object).map(RATES).to_numpy(dtype=float)
    return sets.merge(frame[at], on=["task", "dataset"])


def unmeasured() -> float:
    """The share of all tokens between 18000 and 342000, where no checkpoint was tuned."""
    times = tokens()
    return (times["342000"] - times["18000"]) / times.iloc[-1]


def groups(judged: pd.DataFrame) -> Claim:
    """All sets fall into one of two groups."""
    if judged.empty:
        raise NoRows
    learned = judged["verdict"].isin(LEARNED)
    right = np.where(judged["group"] == "pretrain", learned, judged["verdict"] == "learned in fine-tuning")
    rows = judged[~right].itertuples()
    lines = [f"{row.task} {row.verdict} (BASE rises {row.rise:+.3f}, tuning adds {row.gain:+.3f})" for row in rows]
    return Claim(
        "Two groups of evaluation sets",
        "section 5, figure 6",
        "all datasets fall into one of two groups [...] The second group [...] shows tasks that are never learned "
        "during pre-training",
        "Our verdict per set (margin 0.02, Holm over the sets of one kind of tuning), from the rows at 1000 and main, "
        "beside the paper's group.",
        f"{right.sum()} of {len(judged)} sets are learned in pre-training or in fine-tuning as their group is. Not: "
        f"{'; '.join(lines) or 'none'}.",
        CARRIED if right.all() else PARTLY if right.mean() > 0.5 else NOT,
    )


def levels_off(paper: Grid) -> Claim:
    """No improvement past step 342,000."""
    found = rise(base_cells(paper, [task for task, _ in PRETRAIN]), "base", LATE[0], "main")
    more = (found["p"] < ALPHA) & (found["mean"] > 0)
    beyond = more & (found["mean"] > stats.MARGIN)
    excluded = found["high"] < stats.MARGIN
    lines = [f"{row.Index} {row.mean:+.3f} [{row.low:+.3f}, {row.high:+.3f}]" for row in found.itertuples()]
    return Claim(
        "Improvement of BASE stops at step 342,000",
        "section 5, figure 6a",
        "performance levels off fairly early on and remains consistent [...] We find improvements stop increasing past "
        "step 342,000",
        "BASE at main minus BASE at 342000 on each set of figure 6a (normal, Holm over the sets).",
        f"{', '.join(lines)}: {more.sum()} of {len(found)} still rise, {beyond.sum()} of them by a mean "
        f"above {stats.MARGIN}; {excluded.sum()} intervals exclude a rise by that much. Nothing was measured between "
        f"18000 and 342000, {unmeasured():.0%} of all tokens: the levelling off can lie anywhere in there.",
        CARRIED if excluded.all() else PARTLY if excluded.mean() > 0.5 else NOT,
    )


def does_not_help(paper: Grid) -> Claim:
    """No gain on what was learned in pre-training, at any checkpoint."""
    cells = compared(paper, PRETRAIN)
    helped = cells[(cells["p"] < ALPHA) & (cells["change"] > 0)].sort_values("change", ascending=False)
    excluded = cells["change_high"] < stats.MARGIN
    largest = [f"{row.task} at {row.checkpoint} {row.change:+.3f}" for row in helped.head(4).itertuples()]
    return Claim(
        "Fine-tuning does not help where pre-training did",
        "section 6, figure 9",
        "These datasets do not improve with fine-tuning [...] This effect is observed at all checkpoints; fine-tuning "
        "simply does not help.",
        "Tuned minus BASE in every cell of the five sets (normal, Holm over the cells).",
        f"{len(helped)} of {len(cells)} cells gain, by up to: {', '.join(largest) or 'none'}; {excluded.sum()} "
        f"intervals exclude a gain by {stats.MARGIN}. The mean change is "
        f"{cells['change'].mean():+.3f}; at main it is {cells[cells['checkpoint'] == 'main']['change'].mean():+.3f}.",
        CARRIED if helped.empty and excluded.all() else NOT,
    )


def helps_everywhere(paper: Grid) -> Claim:
    """Significant improvements at every checkpoint on what was not learned in pre-training."""
    cells = compared(paper, FINETUNE)
    helped = (cells["p"] < ALPHA) & (cells["change"] > 0)
    worse = (cells["p"] < ALPHA) & (cells["change"] < 0)
    by_time = helped.groupby(cells["checkpoint"], sort=False).agg(["sum", "size"])
    lines = [f"{name} {row['sum']} of {row['size']}" for name, row in by_time.iterrows()]
    lost = [f"{row.task} at {row.checkpoint} {row.change:+.3f}" for row in cells[worse].itertuples()]
    return Claim(
        "Fine-tuning helps at every checkpoint where pre-training did not",
        "section 6, figures 8 and 10",
        "For these, fine-tuning yields significant improvements at every model checkpoint",
        "Tuned minus BASE in every cell of the seven sets (normal, Holm over the cells).",
        f"{helped.sum()} of {len(cells)} cells gain ({', '.join(lines)}); {worse.sum()} lose "
        f"({', '.join(lost) or 'none'}).",
        CARRIED if helped.all() else PARTLY if helped.mean() > 0.5 else NOT,
    )


def less_gain(paper: Grid) -> Claim:
    """What was learned in pre-training gains less."""
    means = {name: changes(paper, pairs).mean().dropna() for name, pairs in (("pre", PRETRAIN), ("fine", FINETUNE))}
    if means["pre"].empty or means["fine"].empty:
        raise NoRows
    test = ttest_ind(means["fine"], means["pre"], equal_var=False)
    own = [sum(relation_of(*each) == "id" for each in pairs) for pairs in (PRETRAIN, FINETUNE)]
    alike = [f"{name} {mean:+.3f}" for name, mean in means["fine"].items() if name.endswith(" <- tulu")]
    other = ", ".join(alike) or "none"
    apart = means["fine"].mean() - means["pre"].mean()
    return Claim(
        "What was learned in pre-training gains less by tuning",
        "section 1, section 6, table 6",
        "tasks for which the model already performs well during pre-training benefit much less from fine-tuning than "
        "those where the model does not demonstrate capabilities.",
        "Mean change per set over its checkpoints, the two groups against each other (Welch's t over sets); and how "
        "each group was tuned.",
        f"{means['fine'].mean():+.3f} against {means['pre'].mean():+.3f} ({p_text(test.pvalue)}). But {own[1]} of the "
        f"{len(FINETUNE)} sets that gain were tuned on their own training set, and {own[0]} of the {len(PRETRAIN)} "
        f"others: group and kind of tuning can hardly be told apart. Tuned on instructions as the others are: {other}.",
        PARTLY if apart > 0 and test.pvalue < ALPHA else NOT,
    )


TESTS = (
    Test(groups, "judged", "section 5", "All sets fall into one of two groups"),
    Test(levels_off, "paper", "section 5", "No improvement past step 342,000"),
    Test(does_not_help, "paper", "section 6", "No gain on what was learned in pre-training, at any checkpoint"),
    Test(
        helps_everywhere,
        "paper",
        "section 6",
        "Significant improvements at every checkpoint on what was not learned in pre-training",
    ),
    Test(less_gain, "paper", "abstract", "What was learned in pre-training gains less"),
)
