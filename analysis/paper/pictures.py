"""The pictures of the paper's figures, from the rows of `analysis.paper.curves`.

    save(picture(rows_of_figure), "figure_07")      figure_07.svg, .png and .pdf

Bands and bars are one standard error, as in the paper. Checkpoints stand at equal distances, as in the paper: 738000
and main are 20 steps apart, 18000 and 342000 are 44 % of the history apart.
"""

import altair as alt
import pandas as pd

from analysis.figures import CONFIG, PALETTE
from analysis.paper.authors import HIDDEN
from analysis.paper.grid import CHECKPOINTS

VARIANTS = {"base": "#E69F00", "tuned": "#0072B2"}  # the paper's orange, dashed, and blue
DASHES = {"base": [6, 4], "tuned": [1, 0]}
TITLES = {
    2: "Performance in different task formats (an example)",
    4: "Out-of-domain performance (examples)",
    5: "Change of out-of-domain performance by tuning, mean over checkpoints",
    6: "Few-shot performance of BASE: learned in pre-training (6a), never learned (6b)",
    7: "A set that gains from fine-tuning (7a) and one that does not (7b)",
    8: "Change by tuning, by group of evaluation sets",
    9: "After instruction tuning",
    10: "After supervised fine-tuning, in domain",
    11: "After supervised fine-tuning, out of domain",
    12: "Tuned on a classification task, evaluated on another task",
    13: "Tuned on a generation task, evaluated on classification",
    14: "Performance in different task formats",
}
ACROSS = alt.X("checkpoint:N", sort=list(CHECKPOINTS), title="pre-training step", axis=alt.Axis(labelAngle=-40))

MANY = alt.Scale(range=list(PALETTE))
LEGEND = alt.Legend(symbolType="stroke", symbolOpacity=1, symbolSize=300, symbolStrokeWidth=3)


def picture(rows: pd.DataFrame) -> alt.TopLevelMixin:
    """The chart of one figure's rows (columns of `analysis.paper.curves.COLUMNS`)."""
    number = int(rows["figure"].iloc[0].rstrip("ab"))
    data = rows.assign(low=rows["value"] - rows["stderr"], high=rows["value"] + rows["stderr"])
    if number in (5, 8):
        chart = _bars(data, number)
    elif number == 6:
        chart = alt.hconcat(*(_tasks(panel) for _, panel in data.groupby("figure"))).resolve_scale(color="independent")
    else:
        data["panel"] = data["task"] + " (tuned on " + data["dataset"] + ")"
        data.loc[data["task"].isin(HIDDEN), "panel"] += ': rate of the answer "no"'
        colours = alt.Scale(domain=list(VARIANTS), range=list(VARIANTS.values()))
        colour = alt.Color("variant:N", title=None, scale=colours, legend=LEGEND)
        if data["prompt_format"].nunique() > 1:
            colour = alt.Color("prompt_format:N", title="prompt format", scale=MANY, legend=LEGEND)
        chart = _facets(data, colour, columns=3 if data["panel"].nunique() > 4 else 2)
    subtitle = "the authors' published rows; bands and bars: one standard error"
    return chart.properties(title=alt.Title(f"Figure {number}: {TITLES[number]}", subtitle=subtitle)).configure(
        **CONFIG
    )


def _lines(data: pd.DataFrame, colour: alt.Color) -> alt.LayerChart:
    """Lines with bands over the checkpoints, BASE dashed where it stands beside tuned curves."""
    base = alt.Chart(data).encode(x=ACROSS, color=colour, detail=["variant:N", "prompt_format:N", "task:N"])
    score = alt.Y("value:Q", title="score", scale=alt.Scale(zero=False))
    band = base.mark_area(opacity=0.18).encode(y=alt.Y("low:Q", title="score"), y2="high:Q")
    line = base.mark_line(invalid="break-paths-show-domains").encode(y=score)
    if data["variant"].nunique() > 1:
        dash = alt.Scale(domain=list(DASHES), range=list(DASHES.values()))
        line = line.encode(strokeDash=alt.StrokeDash("variant:N", title=None, scale=dash, legend=LEGEND))
    return alt.layer(band, line, base.mark_point(filled=True, size=36, opacity=1).encode(y=score))


def _facets(data: pd.DataFrame, colour: alt.Color, columns: int) -> alt.FacetChart:
    """A panel for each evaluation set and what was tuned on."""
    panel = alt.Facet("panel:N", sort=list(dict.fromkeys(data["panel"])), title=None)
    chart = _lines(data, colour).properties(width=230, height=170).facet(facet=panel, columns=columns)
    return chart.resolve_scale(y="independent").resolve_axis(x="independent")


def _tasks(data: pd.DataFrame) -> alt.LayerChart:
    """One panel with a line for each evaluation set."""
    tasks = list(dict.fromkeys(data["task"]))
    scale = alt.Scale(domain=tasks, range=list(PALETTE)[: len(tasks)])
    colour = alt.Color("task:N", title=None, scale=scale, legend=LEGEND)
    return _lines(data, colour).properties(width=300, height=220, title=data["figure"].iloc[0])


def _bars(data: pd.DataFrame, number: int) -> alt.LayerChart:
    """Bars with their standard errors: by kind of task (figure 5), or by checkpoint and group (figure 8)."""
    colour = alt.Color("task:N", title=None, scale=MANY, legend=None if number == 5 else alt.Legend())
    if number == 5:
        base = alt.Chart(data).encode(x=alt.X("task:N", title=None, sort=None, axis=alt.Axis(labelAngle=0)))
    else:
        base = alt.Chart(data).encode(x=ACROSS, xOffset=alt.XOffset("task:N", sort=["pretrain", "finetune"]))
    title = "tuned - BASE" if data["variant"].iloc[0] == "change" else "(tuned - BASE) / BASE"
    bars = base.mark_bar().encode(y=alt.Y("value:Q", title=title), color=colour)
    errors = base.mark_rule(strokeWidth=1.6).encode(y=alt.Y("low:Q", title=title), y2="high:Q")
    return alt.layer(bars, errors).properties(width=480, height=260)
