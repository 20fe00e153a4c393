"""Claims on what tuning does to other sets: forgetting between kinds of tasks, and out-of-domain sets."""

import numpy as np
import pandas as pd

from analysis import stats
from analysis.paper.authors import HIDDEN, LEVELS, OFFICIAL_SIZES, SIZES
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
    base_cells,
    compared,
    interval,
    negligible,
    p_text,
    published,
    rise,
)
from analysis.paper.curves import OOD
from analysis.paper.grid import CHECKPOINTS, Grid
from analysis.paper.numbers import LISTED

CONSTANT = 0.998  # a rate of one and the same answer


def ratios_of(cells: pd.DataFrame) -> np.ndarray:
    """(tuned - base) / base of cells, in percent; of those whose base is not 0."""
    cells = cells[cells["base"] != 0]
    return (100 * (cells["tuned"] - cells["base"]) / cells["base"]).to_numpy()


def classes_forget(paper: Grid) -> Claim:
    """Tuned on classification, a model loses generation."""
    cells = compared(paper, LISTED["classification->generation"])
    cells = cells[cells["base"] != 0].assign(ratio=ratios_of(cells))
    found = stats.ratios_of_change(cells["tuned"].to_numpy(), cells["base"].to_numpy())
    rest = np.array([np.delete(cells["ratio"].to_numpy(), at).mean() for at in range(len(cells))])
    odd = cells.iloc[int(np.abs(rest - 100 * found.mrc).argmax())]
    without = rest[np.abs(rest - 100 * found.mrc).argmax()]
    lost = (cells["p"] < ALPHA) & (cells["change"] < 0)
    pairs = cells.groupby(["dataset", "task"], sort=False)["ratio"].mean()
    lines = [f"{dataset} to {task} {value:+.1f} %" for (dataset, task), value in pairs.items()]
    falls = found.mrc < 0 and found.p < ALPHA
    loose = falls and bool((pairs > 0).any() or abs(without - 100 * found.mrc) > 5)
    return Claim(
        "Classification forgets generation",
        "section 4.3, figure 12",
        "Models fine-tuned on classification tasks and evaluated on generation tasks decrease on average 61.4%.",
        "The mean ratio of change over the listed cells (t-test against 0), without its most influential cell, its "
        "median, by pair, and which cells lose (normal, Holm).",
        f"{100 * found.mrc:+.1f} % (t = {found.t:.2f}, {p_text(found.p)}, {found.n} cells), median "
        f"{100 * found.median:+.1f} %. One cell weighs most: {odd['dataset']} to {odd['task']} at {odd['checkpoint']} "
        f"has {odd['ratio']:+.0f} %, as BASE is {odd['base']:.4f} there; without it the mean is {without:+.1f} %. By "
        f"pair: {', '.join(lines)}. {lost.sum()} of {len(cells)} cells "
        f"lose.{' The direction stands, the number does not.' * loose}",
        NOT if not falls else PARTLY if loose else CARRIED,
    )


def texts_keep(paper: Grid) -> Claim:
    """Tuned on generation, a model keeps classification."""
    pairs = LISTED["generation->classification"]
    cells = published(paper, pairs)
    found = stats.ratios_of_change(cells["tuned"].to_numpy(), cells["base"].to_numpy())
    low, high = interval(ratios_of(cells))
    bases = base_cells(paper, list(dict.fromkeys(task for task, _ in pairs)))
    chance = bases["task"].map(LEVELS).to_numpy()
    above = stats.compare_means(bases["base"], bases["base_stderr"], bases["n"], chance, 0 * chance, bases["n"])
    able = stats.holm(above.p) < ALPHA
    return Claim(
        "Generation keeps classification",
        "section 4.3, figure 13",
        "models fine-tuned on generation tasks can still perform the same as the BASE model on classification tasks, "
        "with a 0.3% MRC, which is not statistically significantly different from a 0% change.",
        "The mean ratio of change with its t-test and interval; and whether BASE had an ability to lose: BASE above "
        "the share of the most frequent answer by more than 0.02 (normal, Holm).",
        f"{100 * found.mrc:+.3f} % [{low:+.2f}, {high:+.2f}] ({p_text(found.p)}, {found.n} cells). BASE is above "
        f"chance in {able.sum()} of {len(able)} cells (highest lead {round(above.mean.max(), 3) + 0:+.3f})"
        f"{': where nothing was known, nothing can be forgotten' * (not able.any())}.",
        AGAINST if found.p < ALPHA and found.mrc < 0 else NOT if not able.any() else PARTLY,
    )


def inference(paper: Grid) -> Claim:
    """MNLI tuning helps on other NLI sets."""
    cells = compared(paper, [each for each in OOD if each[1] == "mnli"])
    helped = (cells["p"] < ALPHA) & (cells["change"] > 0)
    none = [name for name in CHECKPOINTS if not helped[cells["checkpoint"] == name].any()]
    last = cells[cells["checkpoint"] == "main"].set_index("task")
    lines = [f"{task} {row['base']:.3f} to {row['tuned']:.3f}" for task, row in last.iterrows()]
    return Claim(
        "MNLI tuning helps on other inference sets",
        "section 4.2, figures 4b, 5 and 11",
        "NLI datasets experience a boost when fine-tuning on MNLI",
        "Tuned minus BASE in every cell of RTE and GPT3NLI (normal, Holm).",
        f"{helped.sum()} of {len(cells)} cells gain, on average {cells['change'].mean():+.3f}; none gains at "
        f"{', '.join(none) or 'no checkpoint'}. At main: {', '.join(lines) or 'no rows'}. RTE has two labels but is "
        "scored with three candidates, so its BASE can fall below a coin's 0.5, and part of its gain is learning "
        "which answers are allowed.",
        CARRIED if helped.mean() > 0.75 else PARTLY if helped.any() else NOT,
    )


def paraphrases(table: pd.DataFrame) -> Claim:
    """Paws tuning harms other paraphrase sets."""
    table = table.astype({"value": float, "stderr": float})
    official = table["method"] == "loglikelihood"
    hidden = table[table["task"].isin(HIDDEN) & ~official]
    if hidden.empty:
        raise NoRows
    base, constant = hidden[hidden["stage"] == "base"], hidden["value"] >= CONSTANT
    spread = hidden[(hidden["task"] == "qqp") & ~constant]
    implied = (spread["value"] * (1 - spread["value"]) / spread["stderr"] ** 2).median()
    usual = base[(base["task"] == "qqp") & (base["prompt_format"] == "default") & (base["num_shots"] == 4)]
    both = usual.merge(table[(table["task"] == "qqp") & official], on="checkpoint", suffixes=("", "_labelled"))
    beside = [
        f"{row.checkpoint.split('@')[1]} {row.value:.3f} and {row.value_labelled:.3f}" for row in both.itertuples()
    ]
    zero = [f"{row.task} {row.value:.3f}" for row in base[base["num_shots"] == 0].itertuples()]
    unlabelled = constant.any() and (np.isnan(implied) or implied > 2 * OFFICIAL_SIZES["qqp"])
    meaning = (
        " The hub withholds its labels, so that every right answer became no, in the shots too, and the score is the "
        "rate of the answer no; a tuned model that says yes where it should loses by it."
    )
    return Claim(
        "Paws tuning harms other paraphrase sets",
        "section 4.2, figures 4a, 5 and 11",
        "fine-tuning on Paws is detrimental to other paraphrase detection datasets",
        "What the rows of QQP and STS-B are: how many stand at one constant answer, how many examples the standard "
        "errors imply, and BASE on the labelled QQP validation split, which the official table has.",
        f"{constant.sum()} of {len(hidden)} rows of QQP and STS-B are at {CONSTANT} or above. The standard errors of "
        f"QQP imply {implied:,.0f} rows; its test split has {SIZES['qqp']:,}, its labelled one "
        f"{OFFICIAL_SIZES['qqp']:,}.{meaning * bool(unlabelled)} BASE by this score, and on labels: "
        f"{'; '.join(beside) or 'no rows'}. BASE without shots: {', '.join(zero) or 'no rows'}.",
        NOT if unlabelled else PARTLY,
    )


def unaffected(paper: Grid) -> Claim:
    """The amount of pre-training does not change how a model reacts to other domains."""
    cells = compared(paper, [each for each in OOD if each[0] not in HIDDEN])
    every, late = (rise(cells, "change", first, "main") for first in (CHECKPOINTS[0], LATE[0]))
    moved, still = (found[(found["p"] < ALPHA) & (found["mean"].abs() > stats.MARGIN)] for found in (every, late))
    lines = [f"{row.Index} {row.first:+.3f} to {row.last:+.3f}" for row in every.itertuples()]
    none = negligible(every["low"], every["high"])
    against = len(moved) > len(every) / 2 and len(still) > len(late) / 2
    return Claim(
        "Pre-training does not change the reaction to other domains",
        "section 4.2, figure 11",
        "under the same task, the amount of general-purpose pre-training may not affect the model's reaction to "
        "out-of-domain knowledge",
        "The change by tuning at main minus the change at 1000, and at 342000, on the out-of-domain sets with labels "
        "(normal, Holm).",
        f"{', '.join(lines)} from 1000 to main: it differs by more than {stats.MARGIN} in {len(moved)} of {len(every)} "
        f"sets, from 342000 to main in {len(still)} of {len(late)}; {none.sum()} intervals from 1000 to main lie "
        f"within {stats.MARGIN}.",
        CARRIED if none.all() else AGAINST if against else NOT,
    )


TESTS = (
    Test(classes_forget, "paper", "section 4.3", "Tuned on classification, a model loses generation"),
    Test(texts_keep, "paper", "section 4.3", "Tuned on generation, a model keeps classification"),
    Test(inference, "paper", "section 4.2", "MNLI tuning helps on other NLI sets"),
    Test(paraphrases, "table", "section 4.2", "Paws tuning harms other paraphrase sets"),
    Test(
        unaffected,
        "paper",
        "section 4.2",
        "The amount of pre-training does not change how a model reacts to other domains",
    ),
)
