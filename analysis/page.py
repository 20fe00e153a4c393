"""The report's page: one HTML file with its tables, figures and the library that draws them; it requests nothing."""

import json
from html import escape

import pandas as pd
import vl_convert

from amuro import results
from analysis import stats, tables
from analysis.findings import Finding, Report, coverage_line, interval_text, setting_text

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5b616b; --line: #d9dce1; --paper: #fff; --tint: #f4f6f8;
  --accent: #0072b2 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e7e9; --soft: #a2a8b2; --line: #3a3e45; --paper: #16181b;
  --tint: #1f2227; --accent: #56b4e9 } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, "DejaVu Sans", sans-serif }
main { max-width: 84rem; margin: 0 auto; padding: 2rem 1.25rem 4rem }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem } h2 { font-size: 1.3rem; margin: 2.5rem 0 .5rem }
p, li { max-width: 46rem }
li li { max-width: 60rem } li ul { font-size: .9rem } .soft { color: var(--soft); font-size: .9rem }
.note { border-left: 4px solid var(--accent); background: var(--tint); padding: .6rem 1rem; max-width: 44rem }
.table { overflow-x: auto; margin: .75rem 0 } table { border-collapse: collapse; font-size: .875rem }
tbody tr:nth-child(even) { background: var(--tint) }
th, td { padding: .3rem .7rem; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--line) }
th { font-weight: 600; vertical-align: bottom } td.number { text-align: right; font-variant-numeric: tabular-nums }
td.wide { white-space: normal; min-width: 14rem } figure { margin: 1.5rem 0; overflow-x: auto }
summary { cursor: pointer; margin: .5rem 0; color: var(--accent) }
"""
SCRIPT = """
const dark = matchMedia("(prefers-color-scheme: dark)");
async function draw() {
  for (const figure of document.querySelectorAll("figure[data-spec]")) {
    const spec = JSON.parse(document.getElementById(figure.dataset.spec).textContent);
    await vegaEmbed(figure.querySelector("div"), spec, {renderer: "svg", theme: dark.matches ? "dark" : undefined,
      config: {background: "transparent"}, actions: {export: true, source: false, compiled: false, editor: false}});
  }
  document.body.dataset.ready = "yes";
}
dark.addEventListener("change", draw);
draw();
"""
# The browser itself refuses any request; eval is what Vega compiles its expressions with.
POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:"
HOW_TO_READ = f"""
<p><b>BASE</b> is a pre-trained checkpoint as it is; <b>tuned</b> is the same checkpoint after training on a dataset.
To a dataset a task is <b>id</b> (its own kind of data), <b>ood</b> (the same task on other data), <b>cross_task</b>
(another dataset's task) or <b>benchmark</b> (multiple choice, no dataset's task). Scores lie between 0 and 1: accuracy
for labels and choices, ROUGE-L for text. Brackets hold 95 % intervals over examples; n counts examples; every
comparison pairs the same examples. A choice is also read with its likelihood divided by its length
(<b>accuracy_norm</b>). That is a second reading of the same answers, so curves show it beside accuracy, and no verdict,
mean or correction counts it.</p>
<p><b>Chance</b> is the rate of the most frequent label, the mean of 1 / number of choices, or the ROUGE-L of each
reference against another one.
<b>Gain</b> is (tuned − BASE) / (1 − chance): the share of the room above chance that tuning adds.
A task is <b>learned in pre-training</b> if the last BASE beats the first BASE and chance by more than {stats.MARGIN:g},
<b>learned in fine-tuning</b> if the last tuned beats the last BASE by more than {stats.MARGIN:g}, <b>not learned</b> if
the intervals exclude both (or exclude that much above chance), else <b>undecided</b> (one-sided tests, Holm's
correction over tasks, α = {stats.ALPHA:g}). A task that nothing was tuned for is judged by BASE alone: learned in
pre-training, not learned or undecided.
<b>Latent</b>: from the first to the last checkpoint tuned scores rise by more than {stats.MARGIN:g}, also beyond BASE's
rise, while a rise of BASE is not shown. <b>MRC</b> is the mean over tasks of (tuned − BASE) / BASE, which explodes
where BASE is near 0; the median is beside it.</p>"""
LIMITS = """
<p>Intervals and tests are over examples, as if these were independent and the seeds given: they say what other examples
would change, not what other training runs would. A verdict that rests on one seed says so. Chance levels are taken
as known. Verdicts compare the first and the last checkpoint only. A range over prompt formats is never negative, so
noise alone makes it positive, and its interval with it. MRC averages the tasks with a BASE above 0 and names the
others. Means over tasks use the tasks that are there; the tables name those that are not. Rows that differ in dtype,
shots or chat template are never compared.</p>"""
NURSERY = """
<p class="note"><b>This is a positive control.</b> The family <i>nursery</i> is a very small model raised on a little
invented world in which it is known what can be learned. It shows that the instruments work, and it says nothing about
real models.</p>"""


def html_table(frame: pd.DataFrame, columns: dict[str, str], caption: str) -> str:
    """A table of the given columns (name -> heading), text escaped; a name with a `_low` column shows its interval.
    A family or rate that all rows share is said in the caption instead."""
    shared = [name for name in ("family", "learning_rate") if name in columns and frame[name].nunique() == 1]
    same = ", ".join(f"{columns[name]} {frame[name].dropna().iloc[0]}" for name in shared)
    caption += f" In every row: {same}." if shared else ""
    columns = {name: heading for name, heading in columns.items() if name not in shared}
    heads = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in columns.values())
    lines = []
    for _, row in frame.iterrows():
        lines.append("<tr>" + "".join(html_cell(row, name) for name in columns) + "</tr>")
    body = "".join(lines) or f'<tr><td colspan="{len(columns)}">nothing measured</td></tr>'
    return (
        f'<p class="soft">{escape(caption)}</p><div class="table" tabindex="0"><table>'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def html_cell(row: pd.Series, name: str) -> str:
    """One cell of a table; a dash where there is no number."""
    value = row[name]
    if f"{name}_low" in row:
        return f'<td class="number">{escape(interval_text(row, name))}</td>'
    if isinstance(value, str):
        return f'<td class="wide">{escape(value)}</td>' if len(value) > 40 else f"<td>{escape(value)}</td>"
    if pd.isna(value):
        return '<td class="number">–</td>'
    if pd.api.types.is_bool(value):
        return f"<td>{'yes' if value else ''}</td>"
    return f'<td class="number">{escape(number_text(value, name))}</td>'


def number_text(value: float, name: str) -> str:
    """Counts as they are, scores with three digits, small p-values as such."""
    if not isinstance(value, float):
        return str(value)
    if name in P_VALUES and value < 0.001:
        return "< 0.001"
    return f"{value:g}" if name == "learning_rate" else f"{value:.3f}"


P_VALUES = ("p_pretraining", "p_finetuning", "p_latent", "mrc_p")
WHO = {"family": "family", "dataset": "tuned on", "learning_rate": "learning rate"}
TABLES = {  # attribute of Report -> (heading, columns, caption)
    "overview": ("What there is", {"family": "family", "stage": "stage", "dataset": "dataset",
        "learning_rate": "learning rate", "checkpoints": "checkpoints", "checkpoints_expected": "of",
        "seeds": "seeds", "tasks": "tasks", "points": "points", "missing": "with gaps"},
        "A point is one task in one setting, method and metric at one checkpoint, averaged over seeds."),
    "verdicts": ("Verdicts", {**WHO, "task": "task", "relation": "relation", "verdict": "verdict", "latent": "latent",
        "rise": "BASE rise", "above_chance": "BASE − chance", "gain": "tuned − BASE",
        "tuned_above_chance": "tuned − chance", "gain_detectable": "detectable",
        "tuned_rise": "tuned rise", "p_pretraining": "p pre-training", "p_finetuning": "p fine-tuning",
        "p_latent": "p latent", "n": "n", "seeds": "seeds", "one_seed": "rests on one seed", "missing": "missing"},
        "Rises are from the first to the last checkpoint; p-values are one-sided against the margin and Holm-adjusted. "
        "Detectable: how far beyond the margin a difference must be to be found with 80 % power. A row with nothing in "
        "`tuned on` judges BASE alone."),
    "forgetting": ("Forgetting", {**WHO, "relation": "on", "checkpoint": "checkpoint", "change": "tuned − BASE",
        "tasks": "tasks", "tasks_expected": "of", "n": "n", "seeds": "seeds", "mrc": "MRC", "mrc_p": "p (MRC ≠ 0)",
        "median_ratio": "median ratio", "base_zero": "BASE is 0 (no ratio)", "missing": "missing"},
        "Change on the tasks of the other datasets (cross_task) and on the benchmarks, mean over tasks."),
    "format_means": ("Prompt formats", {"checkpoint": "checkpoint", "num_shots": "shots", "base": "BASE",
        "tuned": "tuned", "tasks": "tasks", "tasks_expected": "of", "n": "n"},
        "Best minus worst prompt format, mean over the id and ood tasks of the tuned models; per task in formats.csv."),
    "methods": ("Ways of reading an answer", {"family": "family", "checkpoint": "checkpoint", "stage": "stage",
        "dataset": "dataset", "learning_rate": "learning rate", "task": "task", "prompt_format": "prompt",
        "num_shots": "shots", "apply_chat_template": "chat template", "method": "method", "value": "score",
        "chance": "chance", "n": "n", "n_unparsable": "unparsable", "seeds": "seeds"},
        "Scores at the last checkpoint, of the tasks whose answers were read in more than one way. Unparsable: answers "
        "without a label, of all seeds; they count as wrong."),
    "gains": ("Gains", {**WHO, "task": "task", "relation": "relation", "checkpoint": "checkpoint", "base": "BASE",
        "tuned": "tuned", "difference": "tuned − BASE", "chance": "chance", "gain": "gain", "n": "n", "seeds": "seeds",
        "missing": "missing"},
        "Every tuned model against its own BASE."),
}  # fmt: skip


def html_finding(finding: Finding) -> str:
    """A finding as a list item, its cases below it."""
    cases = "".join(f"<li>{escape(case)}</li>" for case in finding.cases)
    inner = f"<ul>{cases}</ul>" if cases else ""
    return f"<li><b>{escape(finding.title)}</b>: {escape(finding.answer)}{inner}</li>"


def html_doubts(doubts: list[str]) -> str:
    """What is known against the checkpoints themselves, above all findings; nothing where that is nothing."""
    lines = "".join(f"<li>{escape(each)}</li>" for each in doubts)
    return f"<div class='note'><b>Checkpoints in doubt.</b><ul>{lines}</ul></div>" if doubts else ""


def section(report: Report, name: str) -> str:
    """One table of the page under its heading; those of one setting show the main one."""
    heading, columns, caption = TABLES[name]
    frame = getattr(report, name)
    main = name in ("verdicts", "forgetting", "gains")
    table = html_table(tables.at_setting(frame, report.setting) if main else frame, columns, caption)
    if name == "gains":
        table = f"<details><summary>all checkpoints and tasks</summary>{table}</details>"
    return f"<h2>{escape(heading)}</h2>{table}"


def page(report: Report, found: list[Finding], charts: dict[str, dict]) -> str:
    """The page as one HTML text: coverage, headlines, tables and the figures (task -> Vega-Lite specification)."""
    _, _, missing = results.coverage(report.table)
    gaps = "".join(f"<li>{escape(each)}</li>" for each in missing)
    drawn = []
    for number, (task, spec) in enumerate(charts.items()):
        inside = json.dumps(spec).replace("<", "\\u003c")  # no text of the data can end the element it stands in
        label = f"{task}: BASE and tuned scores over pre-training"
        drawn.append(
            f'<figure data-spec="spec{number}" role="group" aria-label="{escape(label)}"><div></div></figure>'
            f'<script type="application/json" id="spec{number}">{inside}</script>'
        )
    families = report.table["family"].unique()
    library = vl_convert.javascript_bundle().replace("</script", "<\\/script")
    title = f"Amuro: {', '.join(families)}"
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}"><style>{STYLE}</style></head><body><main>
<h1>{escape(title)}</h1><p class="soft">Fine-tuning seen over pre-training.
Coverage: {escape(coverage_line(report.table))}</p>
{f"<details><summary>all {len(missing)} missing units</summary><ul>{gaps}</ul></details>" if missing else ""}
{NURSERY if "nursery" in families else ""}{html_doubts(report.doubts)}
<h2>Findings</h2><ul>{"".join(map(html_finding, found))}</ul>
<p class="soft">Verdicts, forgetting and gains on this page are those at {escape(setting_text(report.setting))}; every
other setting is in the CSV files beside it.</p>
<h2>How to read</h2>{HOW_TO_READ}{section(report, "overview")}{section(report, "verdicts")}
<h2>Curves</h2><p class="soft">Click a name in a legend to single it out. Each figure is also in figures/ as SVG, PNG
and PDF.</p><noscript><p>Drawing the figures takes JavaScript.</p></noscript>{"".join(drawn)}
{section(report, "forgetting")}{section(report, "format_means")}
{section(report, "methods") if len(report.methods) else ""}{section(report, "gains")}<h2>Limits</h2>{LIMITS}</main>
<script type="module">{library}{SCRIPT}</script></body></html>
"""
