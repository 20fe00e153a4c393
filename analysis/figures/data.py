"""The frames that the figures draw: a report's tables with the labels that curves, choices and legends go by.

    frames = figure_frames(report)      name -> DataFrame

Beside the columns of its table a frame has, as far as the table tells: series (BASE, or what was tuned on), tokens,
prompt, shots, reading, and usual_prompt, usual_shots, usual_reading: whether that is the task's usual one
(`analysis.usual`). Columns that give colours are categorical, with the categories of the whole study in order, so that
all figures agree.
"""

import numpy as np
import pandas as pd

from analysis.study import SETTING, TUNING

BASE_LABEL = "BASE (not tuned)"
MEAN = "mean of seeds"
HERE, PAPER = "this study", "the paper"
CHOICES = {  # a choice -> the columns of a setting that it stands for
    "prompt": ["prompt_format", "apply_chat_template"],
    "shots": ["num_shots", "shot_seed"],
    "reading": ["method", "metric", "dtype"],
}
DRAWN = ["family", "task", "dataset", "stage", "relation", "line", "source", "seed", "series", "checkpoint", "verdict"]
DRAWN += ["prompt", "shots", "reading", "usual_prompt", "usual_shots", "usual_reading", "num_shots", "tokens", "step"]
DRAWN += ["what", "checkpoint_before", "tokens_before", "step_before"]
DRAWN += ["value", "low", "high", "ratio", "chance", "n", "seeds", "tasks", "missing"]
UNTOLD = ("shot_seed", "dtype")
POINT = ["family", "checkpoint", *TUNING[1:], *SETTING]


def figure_frames(report) -> dict[str, pd.DataFrame]:
    """All frames of an `analysis.contents.Report`; one is empty where nothing of its kind was measured."""
    frames = {"scores": scores(report), "ranges": valued(report.formats, "range"), "changes": changes(report.gains)}
    frames |= {"groups": valued(report.groups, "change"), "turning": turned(report)}
    frames |= {"transitions": transitions(report.transitions), "trajectories": trajectories(report.trajectories)}
    every = {name: labelled(frame, report).filter(DRAWN) for name, frame in frames.items()}
    for column in ("series", "prompt", "checkpoint", "verdict"):
        there = [frame for frame in every.values() if column in frame]
        order = in_order([frame[column] for frame in there], column, report)
        for frame in there:
            frame[column] = pd.Categorical(frame[column], order, ordered=True)
    for frame in (frame for frame in every.values() if "what" in frame):  # of each frame its own
        frame["what"] = pd.Categorical(frame["what"], in_order([frame["what"]], "what", report), ordered=True)
    return {name: compact(frame) for name, frame in every.items()}


def compact(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with its texts as categories, which are compared once each."""
    texts = [name for name in frame if pd.api.types.is_string_dtype(frame[name]) and frame[name].dtype != "category"]
    return frame.astype(dict.fromkeys(texts, "category"))


def scores(report) -> pd.DataFrame:
    """The points (means over seeds), each seed's own rows where there are several, and the authors' points."""
    points = report.points.assign(seed="", source=HERE)
    frames = [points]
    if (points["seeds_expected"] > 1).any():
        points["seed"] = points["seed"].where(points["stage"] == "base", MEAN)
        rows = report.table[report.table["stage"] != "base"].astype({"tokens_b": float, "learning_rate": float})
        rows = rows.rename(columns={"ci_low": "low", "ci_high": "high"}).astype({"seed": str})
        rows = rows.merge(points[[*POINT, "chance"]], on=POINT).assign(seeds=1, source=HERE, missing="")
        frames.append(rows[[name for name in points.columns if name in rows]])
    if len(report.authors):
        frames.append(report.authors.assign(seed="", source=PAPER))
    return pd.concat(frames, ignore_index=True)


def valued(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The table with its number `name` and that number's interval as value, low, high."""
    return table.rename(columns={name: "value", f"{name}_low": "low", f"{name}_high": "high"})


def changes(gains: pd.DataFrame) -> pd.DataFrame:
    """Tuned - BASE as value, low, high, and its ratio to BASE on the same examples (not where BASE is 0)."""
    table = valued(gains.assign(difference=gains.get("difference", float("nan"))), "difference")
    return table.assign(
        ratio=table["value"] / table["base_paired"].where(table["base_paired"] > 0) if len(table) else None
    )


def turned(report) -> pd.DataFrame:
    """A row per turning point of BASE or tuned: its checkpoint as tokens, step and checkpoint, the one before it as the
    same with `_before` (the same checkpoint where there is none), `what`: whose it is, and value: the share in favour.
    """
    times = report.points.drop_duplicates(["family", "checkpoint"])
    times = times.set_index(["family", "checkpoint"])[["tokens_b", "step"]].astype(float)
    frames = []
    for side, what in (("base", "BASE turns"), ("tuned", "tuned turns")):
        rows = report.turning[report.turning[f"turning_{side}"] != ""].copy()
        rows["checkpoint"], rows["value"], rows["what"] = rows[f"turning_{side}"], rows[f"share_{side}"], what
        rows["checkpoint_before"] = rows[f"before_{side}"].where(rows[f"before_{side}"] != "", rows["checkpoint"])
        for name, suffix in (("checkpoint", ""), ("checkpoint_before", "_before")):
            at = times.reindex(pd.MultiIndex.from_frame(rows[["family", name]]))
            rows[f"tokens{suffix}"], rows[f"step{suffix}"] = at["tokens_b"].to_numpy() * 1e9, at["step"].to_numpy()
        rows["missing"] = rows[f"still_rising_{side}"].map({True: "still rising at the last one compared", False: ""})
        frames.append(rows)
    return pd.concat(frames, ignore_index=True)


def transitions(table: pd.DataFrame) -> pd.DataFrame:
    """Shares of the examples that tuning turned, a row per direction, observed and as chance alone gives them."""
    return melted(table, {"wrong_right": "wrong → right", "right_wrong": "right → wrong"})


def trajectories(table: pd.DataFrame) -> pd.DataFrame:
    """Shares of the examples that each side has learned up to a checkpoint, or that tuning lost there."""
    kinds = {"base_learned": "BASE has learned", "tuned_learned": "tuned has learned", "lost": "lost by tuning"}
    return melted(table, kinds)


def melted(table: pd.DataFrame, kinds: dict[str, str]) -> pd.DataFrame:
    """A row per row of the table and column of `kinds`: what, value, and line: observed or by chance."""
    frames = []
    for name, what in kinds.items():
        for column, line in ((name, "observed"), (f"{name}_by_chance", "by chance")):
            if column in table:
                frames.append(table.assign(what=what, line=line, value=table[column], low=None, high=None, missing=""))
    return pd.concat(frames, ignore_index=True).astype({"low": float, "high": float})


def labelled(frame: pd.DataFrame, report) -> pd.DataFrame:
    """The frame with the labels that its columns allow."""
    frame = frame.copy()
    if "tokens_b" in frame and "tokens" not in frame:
        frame["tokens"] = frame["tokens_b"].astype(float) * 1e9
    if "dataset" in frame:
        frame["series"] = series(frame, report.points)
    if "relation" in frame and "line" not in frame:
        frame["line"] = frame["relation"].replace("", "other").mask(frame["stage"] == "base", "BASE")
        if "source" in frame:
            frame["line"] = frame["line"].mask(frame["source"] == PAPER, PAPER)
    chosen = report.usual.set_index(["family", "task"])
    chosen = chosen[~chosen.index.duplicated()]
    for choice, columns in CHOICES.items():
        if set(columns) <= set(frame.columns):
            frame[choice] = choice_label(choice, frame, report.points)
            if "task" in frame:
                usual = chosen[columns].reindex(pd.MultiIndex.from_frame(frame[["family", "task"]]))
                same = usual.astype(object).where(usual.notna(), None).to_numpy() == frame[columns].to_numpy(object)
                if "source" in frame:  # the paper does not tell its dtype, nor does a seed draw its shots
                    same |= np.outer(frame["source"] == PAPER, [name in UNTOLD for name in columns])
                frame[f"usual_{choice}"] = same.all(axis=1)
    return frame


def series(frame: pd.DataFrame, points: pd.DataFrame) -> pd.Series:
    """What a curve is called: BASE, or the dataset that was tuned on, with stage, rate and source where these tell."""
    rates = points.groupby("dataset")["learning_rate"].nunique()
    several = frame["dataset"].isin(rates[rates > 1].index)
    rate = pd.Series([f" at rate {each:g}" for each in frame["learning_rate"]], frame.index, str).where(several, "")
    label = frame["dataset"].astype(str) + np.where(frame["stage"] == "instruct", " (instruct)", "") + rate
    label = label.mask(frame["stage"] == "base", BASE_LABEL)
    return label.mask(frame["source"] == PAPER, label + ", the paper's") if "source" in frame else label


def choice_label(choice: str, frame: pd.DataFrame, points: pd.DataFrame) -> pd.Series:
    """A setting's part in words; what never varies in the study is left out."""
    if choice == "prompt":
        return frame["prompt_format"].astype(str) + np.where(
            frame["apply_chat_template"].eq(True), ", chat template", ""
        )
    if choice == "shots":
        shots = frame["num_shots"].astype(str) + " shots"
        return shots + ("" if points["shot_seed"].nunique() < 2 else ", shot seed " + frame["shot_seed"].astype(str))
    label = frame["method"].astype(str) + ", " + frame["metric"].astype(str)
    return label + ("" if points["dtype"].nunique() < 2 else ", " + frame["dtype"].astype(str))


def in_order(columns: list[pd.Series], name: str, report) -> list[str]:
    """The values of a column in the order of their colours: BASE first, checkpoints by time, else by name."""
    values = {value for column in columns for value in column.dropna().unique()}
    if name == "checkpoint":
        return [each for names in report.checkpoints.values() for each in names if each in values]
    return sorted(values, key=lambda value: (not value.startswith("BASE"), value != "default", value))
