"""What the paper's figures show, as rows: figure, task, dataset, checkpoint, variant, prompt_format, value, stderr.

    shown = figures(paper, raw_change=True)     number of the figure -> its rows, for 2 and 4 to 14

Figures 3 and 15 show Llama3-8B, of which no row is published. A BASE row carries the dataset of the curve it is drawn
beside. A point that was not published stays as a row without a value.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.paper.grid import Grid, pair
from analysis.paper.numbers import FINETUNE, PRETRAIN

COLUMNS = ["figure", "task", "dataset", "checkpoint", "variant", "prompt_format", "value", "stderr"]
FORMATS = ("default", "instruct", "io")


@dataclass(frozen=True)
class Curve:
    """A panel's curves: BASE and, where there is a dataset, tuned on it, in one or more prompt formats."""

    figure: str
    task: str
    dataset: str = ""
    formats: tuple[str, ...] = ("default",)


# The sets are those of the authors' notebook. Figures 2 and 4 show examples; the captions of 2 and 4b do not say which.
OOD = [("tweetqa", "socialiqa"), ("sciq_qg", "socialiqa"), ("cnn", "xsum"), ("rte", "mnli"), ("gpt3nli", "mnli")]
OOD += [("qqp", "paws"), ("stsb", "paws")]
FROM_CLASSES = [("paws", "mnli"), ("socialiqa", "mnli"), ("xsum", "mnli"), ("mnli_matched", "paws")]
FROM_CLASSES += [("socialiqa", "paws"), ("xsum", "paws")]
FROM_TEXTS = [("mnli_matched", "socialiqa"), ("paws", "socialiqa"), ("paws", "xsum"), ("mnli_matched", "xsum")]
IN_FORMATS = [("mnli_matched", "mnli"), ("paws", "paws"), ("xsum", "xsum"), ("socialiqa", "socialiqa")]
NEVER_LEARNED = ("mnli_matched", "xsum", "socialiqa", "paws", "boolq")
CURVES = [Curve("2", "mnli_matched", "mnli", FORMATS)]
CURVES += [Curve("4a", "qqp", "paws"), Curve("4b", "gpt3nli", "mnli")]
CURVES += [Curve("6a", task) for task, _ in PRETRAIN] + [Curve("6b", task) for task in NEVER_LEARNED]
CURVES += [Curve("7a", "mnli_matched", "mnli"), Curve("7b", "hellaswag", "tulu")]
CURVES += [Curve("9", *each) for each in (*PRETRAIN, ("boolq", "tulu"))]
CURVES += [Curve("10", *each) for each in FINETUNE if each[1] != "tulu"]
CURVES += [Curve("11", *each) for each in OOD]
CURVES += [Curve("12", *each) for each in FROM_CLASSES] + [Curve("13", *each) for each in FROM_TEXTS]
CURVES += [Curve("14", *each, FORMATS) for each in IN_FORMATS]

KINDS = {"question": OOD[:2], "summary": OOD[2:3], "inference": OOD[3:5], "paraphrase": OOD[5:]}  # the bars of figure 5


def figures(paper: Grid, raw_change: bool = False, sciq_twice: bool = False) -> dict[int, pd.DataFrame]:
    """The rows of every figure by its number.

    raw_change: figure 5 is captioned as a ratio of change, and the notebook draws the change itself;
    sciq_twice: figure 8 has Table 6's groups, in which one pair stands two times.
    """
    found: dict[int, list[pd.DataFrame]] = {number: [] for number in (2, *range(4, 15))}
    for curve in CURVES:
        found[int(curve.figure.rstrip("ab"))].append(_curve(paper, curve))
    found[5] = [_change_by_kind(paper, raw_change)]
    found[8] = [_change_by_group(paper, sciq_twice)]
    return {number: pd.concat(rows, ignore_index=True)[COLUMNS] for number, rows in found.items()}


def _curve(paper: Grid, curve: Curve) -> pd.DataFrame:
    """The rows of one panel's curves."""
    rows = []
    for prompt_format in curve.formats:
        found = pair(paper, curve.task, curve.dataset, prompt_format).reset_index()
        for variant in ("base", "tuned") if curve.dataset else ("base",):
            columns = {variant: "value", f"{variant}_stderr": "stderr"}
            points = found[["checkpoint", *columns]].rename(columns=columns)
            rows.append(points.assign(variant=variant, prompt_format=prompt_format))
    return pd.concat(rows).assign(figure=curve.figure, task=curve.task, dataset=curve.dataset)


def _change_by_kind(paper: Grid, raw_change: bool) -> pd.DataFrame:
    """Figure 5: the mean change on out-of-domain sets over all checkpoints, by kind of task, and its standard error."""
    rows = []
    for kind, pairs in KINDS.items():
        cells = pd.concat([pair(paper, *each) for each in pairs])
        change = cells["tuned"] - cells["base"]
        rows.append(
            _mean(change if raw_change else change / cells["base"], "5", kind, "change" if raw_change else "ratio")
        )
        rows[-1] |= {"dataset": pairs[0][1], "checkpoint": "mean"}
    return pd.DataFrame(rows)


def _change_by_group(paper: Grid, sciq_twice: bool) -> pd.DataFrame:
    """Figure 8: the mean change by checkpoint and group, Table 6's numbers, with the standard error over the sets."""
    rows = []
    for group, pairs in (("pretrain", PRETRAIN + PRETRAIN[:1] * sciq_twice), ("finetune", FINETUNE)):
        cells = {each: pair(paper, *each) for each in pairs}
        for checkpoint in cells[pairs[0]].index:
            change = pd.Series(
                [cells[each].at[checkpoint, "tuned"] - cells[each].at[checkpoint, "base"] for each in pairs]
            )
            rows.append(_mean(change, "8", group, "change") | {"dataset": "", "checkpoint": checkpoint})
    return pd.DataFrame(rows)


def _mean(change: pd.Series, figure: str, task: str, variant: str) -> dict:
    """One bar: mean and standard error of the cells; without a value where one of them was not published."""
    mean, error = change.mean(skipna=False), change.std(ddof=1) / len(change) ** 0.5
    bar = {"figure": figure, "task": task, "variant": variant, "prompt_format": "default"}
    return bar | {"value": mean, "stderr": error if not np.isnan(mean) else np.nan}
