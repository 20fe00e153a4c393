"""The figures as files: SVG, PNG and PDF from the definitions that the page draws too, rendered offline.

save_all(frames, axis, "report/figures")      every figure in each task's usual setting
save(chart, "report/figures/rte")             one chart as rte.svg, rte.png, rte.pdf
"""

import hashlib
import re
from pathlib import Path

import altair as alt
import numpy as np
import pandas as pd
import vl_convert
from tqdm import tqdm

from analysis.figures.catalogue import FIGURES, Figure, without
from analysis.figures.charts import CONFIG, Axis
from analysis.figures.data import MEAN

WIDTH, HEIGHT, COLUMNS = 260, 180, 3
MOST = 30  # panels in a file; the page has them all
ROWS, TOTAL = 400, 20_000  # rows in a file, where all files together would have more than TOTAL
LISTED = ".written"  # in the folder: the files that are ours to replace
OWN = ("formats", "shots", "transitions", "trajectories")  # a panel per task and model: of the models' own tasks alone


def save_all(frames: dict[str, pd.DataFrame], axis: Axis, folder: Path) -> list[Path]:
    """Write all figures that have data, the curves as one file per task, in place of those that an earlier call wrote
    to this folder. Returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = folder / LISTED
    for name in listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else []:
        (folder / Path(name).name).unlink(missing_ok=True)
    files = {}
    for figure in FIGURES:
        rows = usual_rows(figure, frames[figure.frame])
        parts = {figure.key: rows}
        if figure.key == "curves":
            parts = {file_name(task): rows[rows["task"] == task] for task in rows["task"].unique()}
        files |= {name: (figure, part) for name, part in parts.items() if figure.drawable(part)}
    most = ROWS if sum(len(rows) for _, rows in files.values()) > TOTAL else TOTAL
    paths = []
    for name, (figure, rows) in tqdm(files.items(), desc="figures", unit="figure"):
        paths += save(chart_of(figure, rows, axis, most), folder / name)
    listed.write_text("".join(f"{path.name}\n" for path in paths), encoding="utf-8")
    return paths


def file_name(task: str) -> str:
    """A task's name as that of its file; where it is not safe as such, or is a figure's own, with a digest of it."""
    plain = re.sub(r"[^\w-]", "-", task)[:80]
    if plain == task and task not in {figure.key for figure in FIGURES}:
        return task
    return f"{plain}-{hashlib.sha256(task.encode()).hexdigest()[:8]}"


def usual_rows(figure: Figure, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of a figure in each task's usual setting, as far as the figure follows it, and means over seeds."""
    for choice in figure.by:
        if f"usual_{choice}" in frame:
            frame = frame[frame[f"usual_{choice}"]]
    if "seed" in frame:
        frame = frame[frame["seed"].isin(("", MEAN))]
    if figure.key in OWN:
        frame = frame[(frame["stage"] == "base") | frame["relation"].isin(("id", "ood"))]
    return figure.rows(frame)


def chart_of(figure: Figure, rows: pd.DataFrame, axis: Axis, most: int = TOTAL) -> dict:
    """The figure of the given rows, about `most` of them, as a specification: its panels, of each family its own, side
    by side."""
    spec = without(figure.specification(rows, axis), "config", "tooltip", "transform")  # nothing to hover over
    top = {"$schema": spec.pop("$schema"), "params": spec.pop("params"), "config": {**CONFIG, "aria": False}}
    columns = ["family"] * (rows["family"].nunique() > 1) + list(figure.panel)
    every = rows.groupby(columns, sort=False, observed=True) if columns else [((), rows)]
    parts = {" · ".join(names): part for names, part in every if figure.drawable(part)}
    room = sum(np.cumsum([len(part) for part in parts.values()]) <= most)
    panels = [
        {**spec, "width": WIDTH, "height": HEIGHT, "title": name, "data": {"values": values(part)}}
        for name, part in list(parts.items())[: max(1, min(MOST, room))]
    ]
    if len(panels) == 1:
        alone = {"width": WIDTH * 1.7, "height": HEIGHT * 1.4, "title": panels[0]["title"] or figure.title}
        return {**top, **panels[0], **alone}
    left = f": {len(panels)} of {len(parts)} panels" if len(parts) > len(panels) else ""
    top["title"] = {"text": figure.title + left, "fontSize": 16, "offset": 14}
    resolved = {"resolve": {"scale": {"y": "shared"}}} if figure.shared else {}
    return {**top, **resolved, "concat": panels, "columns": COLUMNS}


def values(rows: pd.DataFrame) -> list[dict]:
    """The rows as a specification holds them, with nothing in the place of what is missing."""
    return rows.astype(object).where(rows.notna(), None).to_dict("records")


def save(chart: alt.TopLevelMixin | dict, path: str | Path) -> list[Path]:
    """Write a chart, or its specification, to `path` + .svg, .png and .pdf: drawn once, then converted. Returns the
    three paths."""
    svg = vl_convert.vegalite_to_svg(chart if isinstance(chart, dict) else chart.to_dict(validate=False))
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
