"""What the page's script works on: the figures' frames and specifications, once, for all of its views.

    embedded(report, frames, axis, drawn)         gzip in base64, which any browser since 2023 unpacks by itself
    controls(report, frames["scores"], axis)      the choices, as HTML

A table travels by columns: `{"n": rows, "columns": {name: [values]}}`, or for few distinct values
`{"of": [distinct values], "at": [position per row]}`. Empty is null.
"""

import base64
import gzip
import json
from html import escape

import numpy as np
import pandas as pd

from analysis.contents import Report
from analysis.figures.catalogue import Figure
from analysis.figures.charts import Axis
from analysis.figures.data import MEAN, PAPER
from analysis.usual import at_usual

DIGITS = 5
ROWS = ["family", "checkpoint", "tokens_b", "stage", "dataset", "task", "relation", "prompt_format", "num_shots"]
ROWS += ["shot_seed", "apply_chat_template", "method", "metric", "value", "ci_low", "ci_high", "n", "n_truncated"]
ROWS += ["n_unparsable", "learning_rate", "seed", "dtype", "cell_id", "task_version"]
CHOICES = {  # choice -> (its label, the option that takes all, the option that takes each task's usual)
    "family": ("family", "", ""),
    "task": ("task", "all tasks", ""),
    "dataset": ("tuned on", "all datasets", ""),
    "prompt": ("prompt", "", "usual"),
    "shots": ("shots", "", "usual"),
    "reading": ("answers read by", "", "usual"),
    "seed": ("seed", "", ""),
    "source": ("curves of", "both", ""),
}


def embedded(report: Report, frames: dict[str, pd.DataFrame], axis: Axis, drawn: list[Figure]) -> str:
    """All data of the page as gzip in base64: those of the figures that are `drawn`, and all rows."""
    content = {
        "figures": [described(figure, frames[figure.frame], axis) for figure in drawn],
        "frames": {name: packed(frames[name], list(frames[name])) for name in {figure.frame for figure in drawn}},
        "rows": packed(report.table, ROWS),
        "axis": axis.column,
        "checkpoints": [name for names in report.checkpoints.values() for name in names],
    }
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=6, mtime=0)).decode()


def described(figure: Figure, frame: pd.DataFrame, axis: Axis) -> dict:
    """A figure as the script takes it."""
    names = ("key", "title", "caption", "frame", "by", "panel", "relations", "shared", "several", "value")
    spec = figure.specification(frame.head(0), axis)
    return {name: getattr(figure, name) for name in names} | {"spec": spec}


def packed(frame: pd.DataFrame, names: list[str]) -> dict:
    """The columns `names` of a table."""
    return {"n": len(frame), "columns": {name: packed_column(frame[name]) for name in names}}


def packed_column(column: pd.Series) -> list | dict:
    """A column as a list, or as its distinct values and the position of each row's among them."""
    if pd.api.types.is_float_dtype(column):
        column = significant(column.astype(float))
    elif pd.api.types.is_bool_dtype(column):
        column = column.astype(int)
    codes, distinct = pd.factorize(column)  # -1 for what is empty
    known = [each.item() if isinstance(each, np.generic) else each for each in distinct]
    if len(known) < len(column) / 4 or not pd.api.types.is_numeric_dtype(column):
        return {"of": [*known, None], "at": np.where(codes < 0, len(known), codes).tolist()}
    return [None if code < 0 else known[code] for code in codes]


def significant(column: pd.Series) -> pd.Series:
    """The numbers (n,) with DIGITS significant digits, of those that are neither 0 nor missing."""
    size = np.floor(np.log10(column.abs().where(column != 0, 1.0)))
    return (column / 10 ** (size - DIGITS + 1)).round() / 10 ** (DIGITS - 1 - size)


def controls(report: Report, scores: pd.DataFrame, axis: Axis) -> str:
    """A labelled list of options for every choice that the study leaves open."""
    out = []
    for name, (label, every, usual) in CHOICES.items():
        values = options_of(name, scores)
        if len(values) < (1 if name == "reading" else 2):
            continue
        options = [("*", every)] * bool(every) + [("usual", usual)] * bool(usual) + [(value, value) for value in values]
        chosen = first_task(report) if name == "task" else options[0][0]
        items = "".join(
            f'<option value="{escape(value)}"{" selected" if value == chosen else ""}>{escape(text)}</option>'
            for value, text in options
        )
        out.append(f'<label>{escape(label)} <select name="{name}">{items}</select></label>')
    if axis.scale:  # else there is nothing to choose from
        kinds = {
            axis.scale: f"{axis.column}, {axis.scale}",
            "linear": f"{axis.column}, linear",
            "even": "checkpoints, evenly",
        }
        items = "".join(f'<option value="{kind}">{text}</option>' for kind, text in kinds.items())
        out.append(f'<label>across <select name="across">{items}</select></label>')
    return "".join(out)


def options_of(name: str, scores: pd.DataFrame) -> list[str]:
    """What a choice can be, in order; of readings only those that are not some task's usual one."""
    there = scores[scores["value"].notna()]
    if name == "reading":
        there = there[~there["usual_reading"].astype(bool)]
    values = [value for value in there[name].unique() if value and not pd.isna(value)]
    return sorted(values, key=lambda value: (value != MEAN, value == PAPER, value))


def first_task(report: Report) -> str:
    """The task to begin with: a latent one, else one learned in fine-tuning, else any; of these a dataset's own."""
    judged = at_usual(report.verdicts, report.usual)
    if not len(judged) or "verdict" not in judged:
        return sorted(report.table["task"].unique())[0]
    rank = (judged["latent"] == True) * 2 + (judged["verdict"] == "learned in fine-tuning")  # noqa: E712
    own = (judged["relation"] == "id").astype(int)
    return judged.loc[(rank.astype(int) * 2 + own).idxmax(), "task"]
