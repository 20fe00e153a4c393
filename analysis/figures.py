"""One figure per task: BASE and tuned scores over pre-training, with 95 % intervals and the chance level.

    chart = curve_figure(curve_data(study.points), "rte")        an Altair chart, the interactive figure of the page
    save(chart, "report/figures/rte")                            the same as .svg, .png and .pdf, rendered offline

Figures draw what they are given and compute no statistics.
"""

from pathlib import Path

import altair as alt
import pandas as pd
import vl_convert

# Okabe & Ito's colours, which the colour-blind can tell apart; BASE is a grey that shows on white and on black.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#B59F00")
BASE_COLOUR = "#7A7A7A"
SHAPES = ("square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right", "triangle-left")
BASE_LABEL = "BASE (not tuned)"
RELATIONS = {  # how a tuned curve's dataset stands to the task -> (dashes, width)
    "BASE": ([1, 0], 2.2),
    "id": ([1, 0], 2.8),
    "ood": ([7, 3], 2.0),
    "cross_task": ([2, 3], 1.4),
    "benchmark": ([1, 2], 1.8),
    "other": ([7, 3, 2, 3], 1.4),
}
TITLES = {"rouge_l": "ROUGE-L", "accuracy": "accuracy", "accuracy_norm": "accuracy (length-normalised)"}
CONFIG = {
    "font": "system-ui, 'DejaVu Sans', sans-serif",
    "view": {"stroke": None},
    "axis": {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "gridOpacity": 0.35},
    "legend": {"labelFontSize": 12, "titleFontSize": 12, "symbolStrokeWidth": 2, "symbolSize": 90},
    "title": {"fontSize": 15, "subtitleFontSize": 12, "anchor": "start"},
    "header": {"labelFontSize": 12, "title": None},
}


def curve_data(points: pd.DataFrame) -> pd.DataFrame:
    """The points of a study as the figures use them: series, relation, panel, tokens. A missing point stays, empty, so
    that its curve has a gap."""
    data = points.astype(
        {"value": float, "low": float, "high": float, "chance": float, "tokens_b": float, "step": float}
    )
    rates = data.groupby(["family", "stage", "dataset"])["learning_rate"].transform("nunique") > 1
    stage = data["stage"].map({"instruct": " (instruct)"}).fillna("")
    rate = data["learning_rate"].map("{:g}".format).radd(" at rate ").where(rates, "")
    data["series"] = (data["dataset"] + stage + rate).mask(data["stage"] == "base", BASE_LABEL)
    data["relation"] = data["relation"].replace("", "other").mask(data["stage"] == "base", "BASE")
    data["panel"] = panels(data)
    data["tokens"] = data["tokens_b"] * 1e9
    data["interval"] = [f"{row.low:.3f} to {row.high:.3f}" if row.n else "" for row in data.itertuples()]
    wanted = ["task", "metric", "series", "relation", "panel", "checkpoint", "tokens", "step", "value", "low", "high"]
    return data[[*wanted, "chance", "interval", "n", "seeds"]]


def panels(data: pd.DataFrame) -> pd.Series:
    """What tells one panel from another: those parts of family and setting that vary among the points of a task."""
    shots = data["num_shots"].astype(str) + " shots"
    parts = {"family": data["family"], "prompt_format": data["prompt_format"] + " prompt", "num_shots": shots}
    parts["shot_seed"] = "shot seed " + data["shot_seed"].astype(str)
    parts["apply_chat_template"] = data["apply_chat_template"].map({True: "chat template", False: "no chat template"})
    parts |= {name: data[name] for name in ("method", "metric", "dtype")}
    label = pd.Series("", index=data.index)
    for name, part in parts.items():
        varies = data.groupby("task")[name].transform("nunique") > 1
        label = label + (part + " · ").where(varies, "")
    return label.str.removesuffix(" · ")


def position(data: pd.DataFrame) -> alt.X:
    """The horizontal axis: tokens where all are known, else steps, else the checkpoints in their order."""
    for name, title in (("tokens", "pre-training tokens (logarithmic)"), ("step", "pre-training step (logarithmic)")):
        if data[name].notna().all():
            kind = "log" if (data[name] > 0).all() else "symlog"
            short = "replace(format(datum.value, '.3~s'), 'G', 'B')"  # a billion is B here, not giga
            at = sorted(data[name].unique().tolist())  # a tick at every checkpoint
            axis = alt.Axis(labelExpr=short, values=at, labelOverlap=True, grid=False)
            scale = alt.Scale(type=kind, nice=False, padding=12)
            return alt.X(f"{name}:Q", title=title.replace("logarithmic", kind), axis=axis, scale=scale)
    order = list(dict.fromkeys(data["checkpoint"]))
    return alt.X("checkpoint:N", title="checkpoint", sort=order, axis=alt.Axis(labelAngle=-30))


def colours(series: list[str]) -> dict[str, tuple[str, str]]:
    """(colour, shape) of every tuned series, by their sorted names, so that all figures agree; BASE has its own."""
    tuned = [name for name in sorted(set(series)) if name != BASE_LABEL]
    looks = {name: (PALETTE[at % len(PALETTE)], SHAPES[at % len(SHAPES)]) for at, name in enumerate(tuned)}
    return {BASE_LABEL: (BASE_COLOUR, "circle")} | looks


def curve_figure(data: pd.DataFrame, task: str) -> alt.FacetChart | alt.LayerChart:
    """The figure of one task from `curve_data`. Raises ValueError where no point of the task has a value."""
    looks = colours(list(data["series"]))
    data = data[data["task"] == task]
    if not data["value"].notna().any():
        raise ValueError(f"no score of task {task!r} to draw")
    shown = [name for name in looks if name in set(data["series"])]
    relations = [name for name in RELATIONS if name in set(data["relation"])]
    click = alt.selection_point(fields=["series"], bind="legend")
    colour = alt.Scale(domain=shown, range=[looks[name][0] for name in shown])
    shape = alt.Scale(domain=shown, range=[looks[name][1] for name in shown])
    dash = alt.Scale(domain=relations, range=[RELATIONS[name][0] for name in relations])
    width = alt.Scale(domain=relations, range=[RELATIONS[name][1] for name in relations])
    by_series = {"title": "tuned on", "orient": "right", "symbolOpacity": 1}
    base = alt.Chart(data).encode(
        x=position(data),
        color=alt.Color("series:N", scale=colour, legend=alt.Legend(**by_series)),
        opacity=alt.condition(click, alt.value(1), alt.value(0.12)),
    )
    score = alt.Y("value:Q", title=" / ".join(TITLES.get(name, name) for name in data["metric"].unique()))
    score = score.scale(zero=False)
    line = base.mark_line(invalid="break-paths-show-domains").encode(
        y=score,
        strokeDash=alt.StrokeDash("relation:N", scale=dash, legend=alt.Legend(title="the task is")),
        strokeWidth=alt.StrokeWidth("relation:N", scale=width, legend=None),
    )
    bars = base.mark_rule(strokeWidth=1.4).encode(y=alt.Y("low:Q", title=""), y2="high:Q")
    dots = base.mark_point(filled=True, size=60).encode(
        y=score,
        shape=alt.Shape("series:N", scale=shape, legend=alt.Legend(**by_series)),
        tooltip=["checkpoint", "series", "relation", alt.Tooltip("value:Q", format=".3f"),
                 alt.Tooltip("interval:N", title="95 % interval"), "n:Q", "seeds:Q"],
    )  # fmt: skip
    # Every row of a panel carries the same chance level; `max` merely makes one line of them.
    level = alt.Chart(data).mark_rule(strokeDash=[4, 4], color=BASE_COLOUR, strokeWidth=1.2).encode(y="max(chance):Q")
    chart = alt.layer(level, line, bars, dots.add_params(click))
    title = alt.Title(task, subtitle="bars: 95 % intervals; dashed horizontal line: chance")
    many = data["panel"].nunique() > 1
    chart = chart.properties(width=250 if many else 460, height=200 if many else 260)
    if many:
        order = list(dict.fromkeys(data["panel"]))
        chart = chart.facet(facet=alt.Facet("panel:N", sort=order, header=alt.Header(title=None)), columns=2)
    return chart.properties(title=title).configure(**CONFIG)


def save(chart: alt.TopLevelMixin, path: str | Path) -> list[Path]:
    """Write a chart to `path` + .svg, .png and .pdf: drawn once, then converted. Returns the three paths."""
    svg = vl_convert.vegalite_to_svg(chart.to_dict())
    files = {
        ".svg": svg.encode(),
        ".png": vl_convert.svg_to_png(svg, scale=2),
        ".pdf": vl_convert.svg_to_pdf(svg),
    }
    paths = []
    for ending, content in files.items():
        paths.append(Path(f"{path}{ending}"))
        paths[-1].write_bytes(content)
    return paths
