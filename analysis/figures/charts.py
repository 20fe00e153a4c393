"""The drawings: a frame of `analysis.figures.data` in, one Altair panel out, which gets its rows later. Nothing is
computed here; of the frame a drawing takes its colours, kinds and ticks.

    lines(frame, axis, colour="series", y="score")      values with intervals over pre-training
    dots(frame, axis, value="ratio", x="...")           one row per task, a dot per checkpoint
    spans(frame, axis)                                  one row per task, from one checkpoint to another

The parameter `intervals` of every drawing shows or hides its 95 % intervals.
"""

from dataclasses import dataclass

import altair as alt
import pandas as pd

# Okabe & Ito's colours, which the colour-blind can tell apart; BASE is a grey that shows on white and on black.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#B59F00")
GREY = "#7A7A7A"
SHAPES = ("square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right", "triangle-left")
# viridis between its darkest and its lightest fifth, which show on white and on black
SHADES = ("#46327e", "#3f4788", "#365c8d", "#2e6f8e", "#277f8e", "#21918c", "#1fa187", "#2db27d", "#4ac16d", "#73d056")
RATIOS = [
    0,
    -1,
    1,
    -0.5,
    0.5,
    -0.25,
    0.25,
    -0.1,
    0.1,
    3,
    10,
    30,
    100,
    300,
]  # ticks, the first ones rather than the last
DASHES = {  # how a curve's dataset stands to the task; what a share of examples is
    "BASE": [1, 0],
    "id": [1, 0],
    "ood": [7, 3],
    "cross_task": [2, 3],
    "benchmark": [1, 2],
    "other": [7, 3, 2, 3],
    "the paper": [1, 4],
    "observed": [1, 0],
    "by chance": [3, 4],
}
CONFIG = {
    "font": "system-ui, 'DejaVu Sans', sans-serif",
    "view": {"stroke": None},
    "axis": {"labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal", "gridOpacity": 0.35},
    "legend": {"labelFontSize": 12, "titleFontSize": 12, "symbolStrokeWidth": 2, "symbolSize": 90},
    "title": {"fontSize": 13, "anchor": "start"},
}
SHORT = "replace(format(datum.value, '.3~s'), 'G', 'B')"  # a billion is B here, not giga


@dataclass(frozen=True)
class Axis:
    """The axis of pre-training: a column, its title and its scale."""

    column: str
    title: str
    scale: str
    order: tuple[str, ...] = ()  # of the checkpoints, where these are all that is known


def axis_of(points: pd.DataFrame, checkpoints: dict[str, list[str]]) -> Axis:
    """Tokens where all points tell them, else steps, else the checkpoints in their order."""
    for column, title in (("tokens_b", "pre-training tokens"), ("step", "pre-training step")):
        if points[column].notna().all():
            scale = "log" if (points[column] > 0).all() else "symlog"
            return Axis(column.removesuffix("_b"), f"{title} ({scale})", scale)
    return Axis("checkpoint", "checkpoint", "", tuple(name for names in checkpoints.values() for name in names))


def looks(column: pd.Series) -> dict[str, tuple[str, str]]:
    """(colour, shape) of every category of a column: BASE is grey, checkpoints go from dark to light."""
    names = list(column.cat.categories)
    if column.name == "checkpoint":
        return {
            name: (SHADES[at * (len(SHADES) - 1) // max(1, len(names) - 1)], "circle") for at, name in enumerate(names)
        }
    base = [name for name in names if name.startswith("BASE")]
    others = [name for name in names if name not in base]
    look = {name: (PALETTE[at % len(PALETTE)], SHAPES[at % len(SHAPES)]) for at, name in enumerate(others)}
    return {name: (GREY, "circle") for name in base} | look


def x_of(axis: Axis, data: pd.DataFrame) -> alt.X:
    """The horizontal axis, with a tick at every checkpoint of the data."""
    if not axis.scale:
        return alt.X("checkpoint:N", title=axis.title, sort=list(axis.order), axis=alt.Axis(labelAngle=-30))
    at = sorted(float(value) for value in data[axis.column].dropna().unique())
    marks = alt.Axis(labelExpr=SHORT, values=at, labelOverlap=True, grid=False)
    return alt.X(
        f"{axis.column}:Q", title=axis.title, axis=marks, scale=alt.Scale(type=axis.scale, nice=False, padding=12)
    )


def colour_and_shape(data: pd.DataFrame, column: str) -> tuple[alt.Color, alt.Shape]:
    """The two encodings of a categorical column, with one legend; values that do not occur are left out of it."""
    there = set(data[column].dropna())
    known = {name: look for name, look in looks(data[column]).items() if name in there or not there}
    legend = alt.Legend(title=None, symbolOpacity=1)
    colours, shapes = zip(*known.values(), strict=True) if known else ((), ())
    return (
        alt.Color(f"{column}:N", scale=alt.Scale(domain=list(known), range=list(colours)), legend=legend),
        alt.Shape(f"{column}:N", scale=alt.Scale(domain=list(known), range=list(shapes)), legend=legend),
    )


def tooltip(data: pd.DataFrame, *columns: str) -> list:
    """What hovering over a mark tells: the columns, its interval, examples and seeds."""
    names = [alt.Tooltip(f"{name}:N") for name in columns]
    number = [alt.Tooltip("value:Q", format=".3f"), alt.Tooltip("interval:N", title="95 % interval")]
    seeds = ["seeds:Q"] if "seeds" in data else []
    return [*names, *number, alt.Tooltip("n:Q", format=","), *seeds, "missing:N"]


LONG = alt.Legend(title=None, symbolType="stroke", symbolSize=700)  # room for a dash to be seen


ROWS = alt.NamedData("rows")  # what is drawn is given later, per panel


def panel() -> alt.Chart:
    """The rows with the interval in words."""
    words = "isValid(datum.low) ? format(datum.low, '.3f') + ' to ' + format(datum.high, '.3f') : ''"
    return alt.Chart(ROWS).transform_calculate(interval=words)


INTERVALS = alt.param(name="intervals", value=True)
SHOWN = alt.expr("intervals ? 0.9 : 0")


def lines(
    data: pd.DataFrame, axis: Axis, colour: str, y: str, dash: bool = False, x: str = "", bars: bool = True
) -> alt.LayerChart:
    """Values (n rows: value, low, high) over pre-training, or over the column `x`; with a line at chance where the data
    have that, and without intervals where they have none."""
    hue, shape = colour_and_shape(data, colour)
    across = (
        alt.X(f"{x}:Q", title=x.replace("num_", ""), axis=alt.Axis(grid=False, tickMinStep=1))
        if x
        else x_of(axis, data)
    )
    base = panel().encode(x=across, color=hue)
    score = alt.Y("value:Q", title=y).scale(zero=False)
    line = base.mark_line(invalid="break-paths-show-domains", strokeWidth=2).encode(y=score)
    if dash:
        kinds = [kind for kind in DASHES if kind in set(data["line"]) or not len(data)]
        scale = alt.Scale(domain=kinds, range=[DASHES[kind] for kind in kinds])
        line = line.encode(strokeDash=alt.StrokeDash("line:N", scale=scale, legend=LONG))
    spread = base.mark_rule(strokeWidth=1.4, opacity=SHOWN).encode(y=alt.Y("low:Q", title=""), y2="high:Q")
    about = [name for name in ("task", "checkpoint", colour) if name in data]
    marks = base.mark_point(filled=True, size=55, opacity=1).encode(y=score, shape=shape, tooltip=tooltip(data, *about))
    layers = [line, spread, marks] if bars else [line, marks]
    if "chance" in data and y == "score":
        # A line per level: rows of a panel differ in it where their examples do, as the paper's from ours.
        level = (
            alt.Chart(ROWS)
            .mark_rule(strokeDash=[4, 4], color=GREY, strokeWidth=1.2)
            .encode(y="max(chance):Q", detail="chance:N")
        )
        layers.insert(0, level)
    return alt.layer(*layers).add_params(INTERVALS)


def dots(data: pd.DataFrame, axis: Axis, value: str, x: str) -> alt.LayerChart:
    """One row per task, a dot per checkpoint at the column `value` (titled `x`), from the first, dark, to the last."""
    hue, _ = colour_and_shape(data, "checkpoint")
    marks = alt.Axis(values=RATIOS, format="+,.0%", labelOverlap="greedy", grid=False)
    across = alt.X(
        f"{value}:Q", title=x, scale=alt.Scale(type="symlog", constant=0.5, nice=False, padding=8), axis=marks
    )
    place = panel().encode(x=across, y=alt.Y("task:N", title=None, axis=alt.Axis(grid=True)), color=hue)
    about = [alt.Tooltip(f"{value}:Q", format="+.3f"), *tooltip(data, "task", "checkpoint", "series")]
    points = place.mark_point(filled=True, size=75, opacity=0.9).encode(tooltip=about)
    zero = alt.Chart(ROWS).mark_rule(color=GREY, strokeDash=[4, 4]).encode(x=alt.datum(0))
    return alt.layer(zero, points).add_params(INTERVALS)


def spans(data: pd.DataFrame, axis: Axis) -> alt.LayerChart:
    """One row per task and curve (`what`): from the checkpoint before a turning point to that point, marked."""
    hue, shape = colour_and_shape(data, "what")
    row = alt.Y("task:N", title=None, axis=alt.Axis(grid=True))
    base = panel().encode(x=x_of(axis, data), y=row, yOffset=alt.YOffset("what:N"), color=hue)
    bars = base.mark_rule(strokeWidth=3, opacity=0.55).encode(x2=f"{axis.column}_before")
    about = ["task:N", "series:N", "what:N", "checkpoint:N", "checkpoint_before:N"]
    share = alt.Tooltip("value:Q", format=".0%", title="share of resamples that agree")
    marks = base.mark_point(filled=True, size=55, opacity=1).encode(shape=shape, tooltip=[*about, share, "missing:N"])
    return alt.layer(bars, marks).add_params(INTERVALS)
