"""The report's page: one HTML file with its findings, figures, tables and the library that draws them; it requests
nothing.

    page(report, findings(report), frames, axis)      the page as one text

template.html has its parts in order, style.css its looks, script.js what follows the reader's choices.
"""

from html import escape
from pathlib import Path
from string import Template

import pandas as pd
import vl_convert

from amuro import results
from analysis.contents import Report
from analysis.figures.catalogue import FIGURES
from analysis.figures.charts import Axis
from analysis.findings import Finding
from analysis.page.embed import controls, embedded
from analysis.page.html import html_figure, html_findings, html_list, html_verdicts, section, table_of
from analysis.page.texts import HOW_TO_READ, LIMITS, NURSERY, ORIGINAL
from analysis.study import BESIDE
from analysis.words import coverage_line, setting_text

FOLDER = Path(__file__).parent
# The browser itself refuses any request; eval is what Vega compiles its expressions with.
POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:"
MEASURES = ("overview", "verdicts", "turning", "best_buy", "forgetting", "format_means", "format_trend", "shots")
MEASURES += ("transitions", "methods", "seed_variance", "rates")


def page(report: Report, found: list[Finding], frames: dict[str, pd.DataFrame], axis: Axis) -> str:
    """The page as one HTML text: `frames` are what its figures draw (`analysis.figures.figure_frames`)."""
    drawn = [figure for figure in FIGURES if figure.drawable(figure.rows(frames[figure.frame]))]
    families = report.table["family"].unique()
    parts = {
        "title": escape(f"Amuro: {', '.join(families)}"),
        "source": escape(report.source),
        "coverage_line": escape(coverage_line(report.table, shown=0)),
        "policy": POLICY,
        "style": read("style.css"),
        "script": read("script.js"),
        "library": vl_convert.javascript_bundle().replace("</script", "<\\/script"),
        "data": embedded(report, frames, axis, drawn),
        "controls": controls(report, frames["scores"], axis),
        "nursery": NURSERY if "nursery" in families else "",
        "notes": html_list("Before you read on.", report.notes),
        "doubts": html_list("Checkpoints in doubt.", report.doubts),
        "findings": html_findings(found),
        "verdict_cards": html_verdicts(report),
        "setting": escape(setting_text(report.setting)),
        "figures": "".join(html_figure(figure, figure in drawn) for figure in FIGURES),
        "measures": "".join(section(report, name) for name in MEASURES),
        "missing": missing(report),
        "audit": html_list("Of the checkpoints.", report.doubts)
        or "<p>No fault of these checkpoints is known. It takes an audit (amuro checkpoints audit) to find one.</p>",
        "warnings": warnings(report),
        "costs": table_of(report.costs, "costs"),
        "provenance": table_of(report.provenance, "provenance"),
        "how_to_read": HOW_TO_READ,
        "limits": LIMITS,
        "original": ORIGINAL,
    }
    return Template(read("template.html")).substitute(parts)


def read(name: str) -> str:
    """The text of a file beside this one."""
    return (FOLDER / name).read_text(encoding="utf-8")


def missing(report: Report) -> str:
    """What is missing and which command fills it."""
    there, expected, _ = results.coverage(report.table)
    if report.coverage.empty:
        return f"<p>Nothing is missing: all {expected} units that belong together are there.</p>"
    failed = int(report.coverage["why"].str.startswith("failed").sum())
    said = f"{there} of {expected} units are there" + f", {failed} command{'s' * (failed > 1)} failed" * (failed > 0)
    return f"<p>{said}.</p>{table_of(report.coverage, 'coverage')}"


def warnings(report: Report) -> str:
    """Which scores rest on shortened inputs or on answers without a label, as a table; a line where none does."""
    table = report.table[report.table["metric"] != BESIDE]  # which is read off the same answers
    table = table[(table["n_truncated"].fillna(0) > 0) | (table["n_unparsable"].fillna(0) > 0)]
    if table.empty:
        return "<p>No input was shortened to fit the model's context, and every answer had a label.</p>"
    keys = ["family", "stage", "dataset", "task", "prompt_format", "num_shots", "method"]
    counts = table.groupby(keys, dropna=False)[["n", "n_truncated", "n_unparsable"]].sum().reset_index()
    counts["cells"] = table.groupby(keys, dropna=False)["cell_id"].nunique().to_numpy()
    for name in ("truncated", "unparsable"):
        counts[f"share_{name}"] = (counts[f"n_{name}"] / counts["n"]).astype(float)
    return table_of(counts.sort_values(["share_truncated", "share_unparsable"], ascending=False), "warnings")
