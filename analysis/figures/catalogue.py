"""Every figure of the report, in order: what it shows, of which frame, what it follows, and how it is drawn.

The page draws a figure for the choices of its reader, `analysis.figures.files` for the usual setting of every task.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import altair as alt
import pandas as pd

from analysis.figures.charts import Axis, dots, lines, spans


@dataclass(frozen=True)
class Figure:
    """A figure: its frame (`analysis.figures.data`), the choices `by` that narrow it, the columns that make a panel."""

    key: str
    title: str
    caption: str
    frame: str
    by: tuple[str, ...]
    panel: tuple[str, ...]
    draw: Callable[[pd.DataFrame, Axis], alt.LayerChart]
    relations: tuple[str, ...] = ()  # panels are made for tuned models' tasks of these relations only
    shared: bool = False  # whether the panels share their vertical axis
    value: str = "value"  # the column that is drawn
    several: str = ""  # a column without which's variation there is nothing to see

    def rows(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows that belong in the figure: of its relations, and BASE's of the same tasks."""
        if not self.relations:
            return frame
        tuned = frame["relation"].isin(self.relations)
        return frame[tuned | ((frame["stage"] == "base") & frame["task"].isin(frame.loc[tuned, "task"].unique()))]

    def drawable(self, rows: pd.DataFrame) -> bool:
        """Whether the rows have something to show."""
        if not len(rows) or not rows[self.value].notna().any():
            return False
        return not self.several or rows[rows[self.value].notna()][self.several].nunique() > 1

    def specification(self, rows: pd.DataFrame, axis: Axis) -> dict:
        """A panel's Vega-Lite specification without data: colours, ticks and legend are those of the rows, and of an
        empty frame those of the whole study."""
        return without(self.draw(rows, axis).to_dict(validate=False), "data")


def without(spec, *names: str):
    """A specification, or a part of one, without what has one of these names anywhere in it."""
    if isinstance(spec, list):
        return [without(each, *names) for each in spec]
    if isinstance(spec, dict):
        return {name: without(part, *names) for name, part in spec.items() if name not in names}
    return spec


SETTING = ("family", "prompt", "shots", "reading", "seed", "source")
CURVE = partial(lines, colour="series", y="score", dash=True)
FIGURES = (
    Figure(
        "curves", "Over pre-training",
        "BASE and the tuned models at every checkpoint; the dashed level is chance (the paper's figures 2, 6, 7, 10).",
        "scores", ("task", "dataset", *SETTING), ("task",), CURVE,
    ),
    Figure(
        "own_domain", "In its own domain",
        "Each dataset's own task (id) and the same task on other data (ood), with BASE (figures 4, 10 and 11).",
        "scores", ("dataset", *SETTING), ("task",), CURVE, ("id", "ood"),
    ),
    Figure(
        "cross_task", "On the other datasets' tasks",
        "What tuning on one dataset does to the tasks of the others (figures 12 and 13).",
        "scores", ("dataset", *SETTING), ("task",), CURVE, ("cross_task",),
    ),
    Figure(
        "benchmarks", "On the benchmarks",
        "Multiple-choice tasks that no dataset trains (figures 6 and 9).",
        "scores", ("dataset", *SETTING), ("task",), CURVE, ("benchmark",),
    ),
    Figure(
        "formats", "By prompt format",
        "The same examples in other words: one panel per model, one curve per prompt (figures 2, 3 and 14).",
        "scores", ("task", "dataset", "family", "shots", "reading", "seed", "source"), ("task", "series"),
        partial(lines, colour="prompt", y="score"), shared=True, several="prompt",
    ),
    Figure(
        "ranges", "How much the prompt matters",
        "Best minus worst prompt format, less what noise alone gives. At 0 the model does not mind how it is asked.",
        "ranges", ("task", "dataset", "family", "shots", "reading"), ("task",),
        partial(lines, colour="series", y="best − worst format"),
    ),
    Figure(
        "shots", "By number of shots",
        "Score against the number of examples in the prompt, one curve per checkpoint, early ones dark.",
        "scores", ("task", "dataset", "family", "prompt", "reading", "seed", "source"), ("task", "series"),
        partial(lines, colour="checkpoint", y="score", x="num_shots"), shared=True, several="num_shots",
    ),
    Figure(
        "groups", "Gains by group",
        "Mean of tuned − BASE over the tasks of each verdict (figure 8 and table 6).",
        "groups", ("family",), (),
        partial(lines, colour="verdict", y="tuned − BASE"),
    ),
    Figure(
        "ratios", "Ratio of change",
        "(tuned − BASE) / BASE per task, a dot per checkpoint from early (dark) to late; the scale is compressed "
        "towards its ends, since a small BASE makes any ratio large (figures 5 and 15).",
        "changes", ("dataset", "family", "prompt", "shots", "reading"), ("series",),
        partial(dots, value="ratio", x="(tuned − BASE) / BASE"), value="ratio",
    ),
    Figure(
        "turning", "Where the curves turn",
        "A turning point is the first checkpoint that no later one beats by more than the margin: the mark. The curve "
        "turns somewhere between the checkpoint before, where the bar begins, and the mark.",
        "turning", ("dataset", "family", "prompt", "shots", "reading"), ("series",), spans,
    ),
    Figure(
        "transitions", "Answers turned by tuning",
        "Shares of the examples that BASE has wrong and the tuned model right, and the reverse, beside what "
        "independent answers at the same rates would give.",
        "transitions", ("task", "dataset", "family", "prompt", "shots", "reading"), ("task", "series"),
        partial(lines, colour="what", y="share of examples", dash=True, bars=False),
    ),
    Figure(
        "trajectories", "Answers learned over pre-training",
        "An example counts as learned from the checkpoint on from which it stays right. Lost: BASE has it right there "
        "and the tuned model wrong.",
        "trajectories", ("task", "dataset", "family", "prompt", "shots", "reading"), ("task", "series"),
        partial(lines, colour="what", y="share of examples", dash=True, bars=False),
    ),
)  # fmt: skip
