"""Findings, verdicts and tables as HTML; all text is escaped."""

from html import escape

import pandas as pd

from analysis.contents import Report
from analysis.figures.catalogue import Figure
from analysis.findings import Finding
from analysis.page.columns import P_VALUES, SHARES, TABLES
from analysis.usual import at_usual
from analysis.words import interval_text, levels, verdict_sentence, who

FEW = 6  # cases of a finding that are shown without a click
SHOWN = 300  # rows of a table on the page; all of them are in its CSV file
MARKS = {  # verdict -> a sign that tells it apart without colour
    "learned in pre-training": "◆", "learned in fine-tuning": "▲", "both": "✚", "not learned": "○",
    "undecided": "?", "no verdict": "–",
}  # fmt: skip


def html_list(title: str, lines: list[str]) -> str:
    """A note with its lines; nothing where there are none."""
    items = "".join(f"<li>{escape(each)}</li>" for each in lines)
    return f"<div class='note'><b>{escape(title)}</b><ul>{items}</ul></div>" if lines else ""


def html_findings(found: list[Finding]) -> str:
    """The findings as a list; of many cases the names at once, the numbers folded in."""
    items = []
    for finding in found:
        cases = "".join(f"<li>{escape(case)}</li>" for case in finding.cases)
        below = f"<ul>{cases}</ul>" if cases else ""
        if len(finding.cases) > FEW:
            names = f"<p>{escape(', '.join(finding.names))}</p>" if finding.names else ""
            below = f"{names}<details><summary>with their numbers</summary>{below}</details>"
        items.append(f"<li><b>{escape(finding.title)}</b>: {escape(finding.answer)}{below}</li>")
    return f"<ul class='findings'>{''.join(items)}</ul>"


def html_verdicts(report: Report) -> str:
    """A card for every task that was judged in its usual setting, by verdict: its numbers in a sentence."""
    judged, scores, shown, out = at_usual(report.verdicts, report.usual), levels(report.points), 0, []
    for kind, mark in MARKS.items():
        rows = judged[judged["verdict"] == kind]
        if not len(rows):
            continue
        cards = "".join(html_card(row, judged, scores) for _, row in rows.head(max(0, SHOWN - shown)).iterrows())
        shown += len(rows)
        heading = f"<h3><span aria-hidden='true'>{mark}</span> {escape(kind)} ({len(rows)})</h3>"
        out.append(f"{heading}<ul class='cards'>{cards}</ul>")
    more = f"<p>The first {SHOWN} of {shown}; all are in tables/verdicts.csv.</p>" if shown > SHOWN else ""
    return "".join(out) + more if out else "<p>No task was judged.</p>"


def html_card(row: pd.Series, judged: pd.DataFrame, scores: dict) -> str:
    """One verdict."""
    latent = " <b class='latent'>latent</b>" if row["latent"] == True else ""  # noqa: E712  a missing one is not
    heading = f"<h4>{escape(who(row, judged))}{latent}</h4>"
    return f"<li class='card'>{heading}<p>{escape(verdict_sentence(row, scores))}</p></li>"


def html_figure(figure: Figure, drawn: bool) -> str:
    """The place that the script draws a figure in; a line that says so where the study has nothing for it."""
    heading = f"<h3>{escape(figure.title)}</h3><p class='soft'>{escape(figure.caption)}</p>"
    if not drawn:
        return f"<div class='figure'>{heading}<p class='empty'>Not measured in this study.</p></div>"
    numbers = "<summary>the numbers of this figure</summary><div class='table' tabindex='0'><table></table></div>"
    parts = "<p class='soft choice'></p><p class='soft axes'></p><div class='legend'></div><div class='panels'></div>"
    details = f"<details class='numbers'>{numbers}</details>"
    return f"<div class='figure' id='figure-{figure.key}'>{heading}{parts}{details}</div>"


def section(report: Report, name: str) -> str:
    """One table of a report under its heading; those of one setting show each task's usual one, those of the end of a
    history its last checkpoint."""
    frame = getattr(report, name)
    if not len(frame):
        return ""
    heading, *_ = TABLES[name]
    if name in (
        "verdicts",
        "forgetting",
        "turning",
        "best_buy",
        "seed_variance",
        "rates",
        "format_means",
        "format_trend",
    ):
        frame = pd.concat([means_over_tasks(frame, report), at_usual(frame, report.usual)])
    if name in ("shots", "transitions"):  # shots differ in what they compare
        frame = at_usual(frame, report.usual.drop(columns=["num_shots", "shot_seed"] if name == "shots" else []))
    if name in ("shots", "transitions", "seed_variance"):
        frame = frame[frame["checkpoint"].isin(report.last)]
    return f"<details class='measure'><summary><h3>{escape(heading)}</h3></summary>{table_of(frame, name)}</details>"


def means_over_tasks(frame: pd.DataFrame, report: Report) -> pd.DataFrame:
    """The rows of a table that are means over tasks, in the study's main setting: no task has them as its own."""
    if "method" not in frame:
        return frame.head(0)
    place = [name for name in report.setting if name in frame]
    return frame[(frame["method"] == "standard") & (frame[place] == pd.Series(report.setting)[place]).all(axis=1)]


def table_of(frame: pd.DataFrame, name: str) -> str:
    """A table as TABLES describes it: at most SHOWN rows, and where the others are."""
    _, columns, caption = TABLES[name]
    columns = {column: heading for column, heading in columns.items() if column in frame or not len(frame)}
    more = f" The first {SHOWN} of {len(frame)} rows; all are in tables/{name}.csv." if len(frame) > SHOWN else ""
    return html_table(frame.head(SHOWN), columns, caption + more)


def html_table(frame: pd.DataFrame, columns: dict[str, str], caption: str) -> str:
    """A table of the given columns (name -> heading), text escaped; a name with a `_low` column shows its interval.
    A family or rate that all rows share is said in the caption instead; a column with nothing in it is left out."""
    empty = [name for name in columns if name in frame and len(frame) and frame[name].isna().all()]
    columns = {name: heading for name, heading in columns.items() if name not in empty}
    shared = [name for name in ("family", "learning_rate") if name in frame and frame[name].nunique(dropna=False) == 1]
    shared = [name for name in shared if name in columns]
    same = ", ".join(f"{columns[name]} {frame[name].dropna().iloc[0]}" for name in shared)
    caption += f" In every row: {same}." if shared else ""
    columns = {name: heading for name, heading in columns.items() if name not in shared}
    kinds = {
        name: ' class="number"' if name in frame and pd.api.types.is_numeric_dtype(frame[name]) else ""
        for name in columns
    }
    heads = "".join(f'<th scope="col"{kinds[name]}>{escape(heading)}</th>' for name, heading in columns.items())
    lines = []
    for _, row in frame.iterrows():
        lines.append("<tr>" + "".join(html_cell(row, name) for name in columns) + "</tr>")
    body = "".join(lines) or f'<tr><td colspan="{len(columns)}">nothing measured</td></tr>'
    return (
        f'<p class="soft">{escape(caption)}</p><div class="table" tabindex="0" role="region" '
        f'aria-label="{escape(caption[:60])}"><table class="sortable">'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def html_cell(row: pd.Series, name: str) -> str:
    """One cell of a table; a dash where there is no number."""
    value = row[name]
    if f"{name}_low" in row:
        return f'<td class="number">{escape(interval_text(row, name))}</td>'
    if isinstance(value, str):
        kind = ' class="wide"' if len(value) > 40 else ""
        shown = f"<code>{escape(value)}</code>" if name == "command" else escape(value)
        return f"<td{kind}>{shown}</td>"
    if pd.isna(value):
        return '<td class="number">–</td>'
    if pd.api.types.is_bool(value):
        return f"<td>{'yes' if value else ''}</td>"
    return f'<td class="number">{escape(number_text(value, name))}</td>'


def number_text(value: float, name: str) -> str:
    """Counts as they are, scores with three digits, shares as percent, small p-values as such."""
    if name.startswith("share") or name in SHARES:
        return f"{value:.0%}"
    if not isinstance(value, float):
        return str(value)
    if name in P_VALUES and value < 0.001:
        return "< 0.001"
    return f"{value:g}" if name in ("learning_rate", "tokens_b") else f"{value:.3f}"
