"""The numbers the paper prints, beside the same numbers computed from its published rows.

    table6(paper, sciq_twice=True)     mean change by tuning, by checkpoint and group of evaluation sets
    mrc(paper, listed_pairs=True)      mean ratio of change between classification and generation, percent
    table3(paper, table)               the final checkpoint, labels read by token probability

What the authors' code does otherwise than the text says are named parameters, all of them off: our own analysis does
not do these things.
"""

import numpy as np
import pandas as pd

from analysis import stats
from analysis.paper.grid import CHECKPOINTS, Grid, changes, pair

# The two groups of section 5, with what each was tuned on.
FINETUNE = [("mnli_matched", "mnli"), ("mnli_mismatched", "mnli"), ("paws", "paws"), ("xsum", "xsum")]
FINETUNE += [("xlsum", "xsum"), ("socialiqa", "socialiqa"), ("boolq", "tulu")]
PRETRAIN = [(task, "tulu") for task in ("sciq", "hellaswag", "arc_challenge", "arc_easy", "openbookqa")]
TABLE6 = {"pretrain": dict(zip(CHECKPOINTS, (0.048, 0.048, 0.004, 0.01, 0.03, 0.027, 0.021, -0.005), strict=True))}
TABLE6["finetune"] = dict(zip(CHECKPOINTS, (0.062, 0.149, 0.286, 0.297, 0.304, 0.297, 0.264, 0.290), strict=True))

CLASSIFICATION, GENERATION = ("mnli", "paws"), ("xsum", "socialiqa")
LISTED = {"classification->generation": [(task, dataset) for dataset in CLASSIFICATION for task in GENERATION]}
LISTED["generation->classification"] = [(task, data) for data in GENERATION for task in ("paws", "mnli_matched")]
TASKS_OF = {"classification": ("mnli_matched", "mnli_mismatched", "rte", "gpt3nli", "paws", "qqp", "stsb")}
TASKS_OF["generation"] = ("xsum", "xlsum", "cnn", "socialiqa", "sciq_qg", "tweetqa")
MRC = {"classification->generation": "-61.4", "generation->classification": "0.3"}

TABLE3 = [  # name, task, dataset, printed for tuned and BASE; RTE's tuned score has two digits in the paper
    ("MNLI", "mnli_matched", "mnli", "0.792", "0.327"),
    ("RTE", "rte", "mnli", "0.66", "0.241"),
    ("Paws", "paws", "paws", "0.878", "0.558"),
    ("STS-B", "stsb", "paws", "0.744", "0.964"),
]


def table6(paper: Grid, sciq_twice: bool = False) -> pd.DataFrame:
    """checkpoint, group, published, computed, equal (to three digits), reason.

    sciq_twice: the notebook lists the pair (sciq, tulu) two times in the group learned in pre-training.
    """
    found = []
    for group, pairs in (("pretrain", PRETRAIN + PRETRAIN[:1] * sciq_twice), ("finetune", FINETUNE)):
        for checkpoint, cells in changes(paper, pairs).iterrows():
            published = TABLE6[group][checkpoint]
            computed = cells.mean(skipna=False)  # a mean over fewer sets would be another number
            reason = "" if cells.notna().all() else f"no rows: {', '.join(cells.index[cells.isna()].unique())}"
            equal = f"{computed:.3f}" == f"{published:.3f}"
            reason = reason or ("" if equal else f"differs by {computed - published:+.4f}")
            found.append(dict(checkpoint=checkpoint, group=group, published=published, computed=computed))
            found[-1] |= {"equal": equal, "reason": reason}
    return pd.DataFrame(found)


def ratio_cells(paper: Grid, direction: str, listed_pairs: bool = False) -> pd.DataFrame:
    """task, dataset, checkpoint, base, tuned, base_stderr, tuned_stderr, n of every published cell of a direction.

    listed_pairs: the notebook takes four pairs of sets; the paper's Eq. 1 says all sets but the one trained on.
    """
    source, target = direction.split("->")
    pairs = LISTED[direction]
    if not listed_pairs:
        datasets = {"classification": CLASSIFICATION, "generation": GENERATION}[source]
        pairs = [(task, dataset) for dataset in datasets for task in TASKS_OF[target]]
    cells = [pair(paper, task, dataset).assign(task=task, dataset=dataset) for task, dataset in pairs]
    return pd.concat(cells).dropna(subset=["base", "tuned"]).reset_index()


def mrc(paper: Grid, listed_pairs: bool = False, cut_off: bool = False) -> pd.DataFrame:
    """direction, published, computed, median (percent), t, p (against 0), n_cells, equal, reason.

    cut_off: the paper prints the first digits of the number and does not round it.
    """
    found = []
    for direction, published in MRC.items():
        cells = ratio_cells(paper, direction, listed_pairs)
        ratios = stats.ratios_of_change(cells["tuned"].to_numpy(), cells["base"].to_numpy())
        computed = 100 * ratios.mrc
        shown = np.trunc(computed * 10) / 10 if cut_off else round(computed, 1)
        equal, expected = bool(np.isclose(shown, float(published))), 8 * len(LISTED[direction])
        reason = "" if len(cells) >= expected else f"{len(cells)} of {expected} cells are published"
        if equal and f"{computed:.1f}" != published:
            reason = f"the paper cuts digits off; rounded it is {computed:.1f}"
        reason = reason or ("" if equal else f"differs by {computed - float(published):+.3f}")
        found.append({"direction": direction, "published": float(published), "computed": computed})
        found[-1] |= {"median": 100 * ratios.median, "t": ratios.t, "p": ratios.p}
        found[-1] |= {"n_cells": ratios.n, "equal": equal, "reason": reason}
    return pd.DataFrame(found)


def table3(paper: Grid, table: pd.DataFrame) -> pd.DataFrame:
    """dataset, variant, published, computed, equal (in the digits printed), reason: the column TokenProb of the paper's
    Table 3, at `main`. `table` (rows of our table) is where a printed number that is not there is looked for."""
    found = []
    for name, task, dataset, *printed in TABLE3:
        here = pair(paper, task, dataset).loc["main"]
        for variant, text in zip(("tuned", "base"), printed, strict=True):
            digits, computed = len(text.split(".")[1]), here[variant]
            equal = f"{computed:.{digits}f}" == text
            reason = "" if equal else "no row"
            if not equal and not np.isnan(computed):
                reason = f"differs by {computed - float(text):+.4f}; {_elsewhere(table, task, dataset, variant, text)}"
            found.append({"dataset": name, "variant": variant, "published": float(text), "computed": computed})
            found[-1] |= {"equal": equal, "reason": reason}
    return pd.DataFrame(found)


def _elsewhere(table: pd.DataFrame, task: str, dataset: str, variant: str, text: str) -> str:
    """Which other row of the same evaluation set and training set shows the printed number."""
    same = (table["task"] == task) & (table["dataset"] == (dataset if variant == "tuned" else ""))
    shown = table[same & (table["value"].map(lambda value: f"{value:.3f}") == text)]
    places = [f"{row.checkpoint}, {row.prompt_format}, {row.num_shots} shots" for row in shown.itertuples()]
    if not places:
        return "no other row of this set shows it either"
    return f"the printed number is the one of {' and of '.join(places)}"
