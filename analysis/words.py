"""The report's numbers in words: who, in which setting, how much, and what a verdict rests on.

verdict_sentence(row, levels(report.points))      "BASE 0.333 → 0.333 (chance 0.333), tuned ..."
"""

import pandas as pd

from amuro import results
from analysis import stats
from analysis.study import SETTING, TUNING


def coverage_line(table: pd.DataFrame, shown: int = 3) -> str:
    """`63 of 64 units, missing: ...`; of many missing ones the first `shown` by name."""
    there, expected, missing = results.coverage(table)
    said = f"{there} of {expected} units"
    if not missing or not shown:
        return said + (f", {len(missing)} missing" if missing else "")
    more = f"; and {len(missing) - shown} more" if len(missing) > shown else ""
    return f"{said}, missing: {'; '.join(missing[:shown])}{more}"


def interval_text(row: pd.Series, name: str) -> str:
    """`+0.123 [0.101, 0.145]` from the columns name, name_low, name_high; a dash where there is no number."""
    if pd.isna(row[name]):
        return "–"
    return f"{round(row[name], 3) + 0.0:+.3f} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]"


def setting_text(setting: dict) -> str:
    """A main setting in words."""
    chat = " in the chat template" if setting["apply_chat_template"] else ""
    dtype = "" if setting["dtype"] == "unknown" else f", {setting['dtype']}"
    return f"{setting['prompt_format']} prompt{chat}, {setting['num_shots']} shots{dtype}"


def who(row: pd.Series, frame: pd.DataFrame) -> str:
    """`mnli → rte`, `rte` of BASE, or `mnli`, with family and rate where these vary among the rows of `frame`, and a
    stage `instruct` where that varies."""
    parts = [row["family"]] if frame["family"].nunique() > 1 else []
    parts += [row["stage"]] if frame["stage"].nunique() > 1 and row["stage"] == "instruct" else []
    parts += [" → ".join(row[name] for name in ("dataset", "task") if name in frame and row[name])]
    several = frame.groupby("dataset")["learning_rate"].nunique().max() > 1
    return " ".join(parts + ([f"at rate {row['learning_rate']:g}"] if several and row["learning_rate"] > 0 else []))


def levels(points: pd.DataFrame) -> dict[tuple, float]:
    """(family, checkpoint, stage, dataset, learning rate, setting) -> score; BASE has no dataset and rate 0."""
    keys = ["family", "checkpoint", *TUNING[1:], *SETTING]
    known = points[points["n"] > 0].assign(learning_rate=points["learning_rate"].fillna(0))
    return dict(zip(known[keys].itertuples(index=False, name=None), known["value"], strict=True))


def verdict_sentence(row: pd.Series, scores: dict[tuple, float]) -> str:
    """What a row of the verdicts rests on, with the scores (`levels`) of the first and last checkpoint."""
    if row["missing"]:
        return f"{row['missing'][0].upper()}{row['missing'][1:]}."
    setting = tuple(row[name] for name in SETTING)

    def course(stage: str, dataset: str, rate: float) -> str:
        ends = (scores[row["family"], at, stage, dataset, rate, *setting] for at in (row["first"], row["last"]))
        return " → ".join(f"{score:.3f}" for score in ends)

    said = f"BASE {course('base', '', 0)} (chance {row['chance']:.3f})"
    if row["stage"] == "base":
        alone = "No verdict on tuning for this task."
        return f"{said}: {interval_text(row, 'rise')}. {alone} {row['n']:,} examples{enough(row)}."
    said += f", tuned {course(row['stage'], row['dataset'], row['learning_rate'])}."
    said += f" Tuning adds {interval_text(row, 'gain')} to the last BASE."
    seeds = "one seed" if row["one_seed"] else f"{row['seeds']} seeds"
    below = f" But {row['caveat']}." if row["caveat"] else ""
    return f"{said} {row['n']:,} examples, {seeds}{enough(row)}.{below}"


def enough(row: pd.Series) -> str:
    """Of an undecided row: from where on its examples can show those differences that they leave open, by one test."""
    if row["verdict"] != "undecided":
        return ""
    names = {"rise": "a rise of BASE", "gain": "a gain"}
    left = [name for name in names if row[f"{name}_low"] <= stats.MARGIN <= row[f"{name}_high"]]
    can = ", ".join(f"{names[name]} from {stats.MARGIN + row[f'{name}_detectable']:.2f} on" for name in left)
    return f": enough to show {can} (by one test, before the correction over tasks)" if can else ""
