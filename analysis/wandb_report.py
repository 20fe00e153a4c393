"""The report's story as a W&B report: what was learned where, curves over tokens, runs compared, tables of results.

    python -m analysis.wandb_report --entity E --project P                 of the project's own results
    python -m analysis.wandb_report --entity E --project P --runs runs     told from a local folder

Panels draw the project's runs, whose values are named as in `amuro/lineage.py`; verdicts and tables are those of
`python -m analysis.report`. A report of the same title is written anew, so that a repeat changes nothing else.
"""

import argparse
import re
import sys
from contextlib import nullcontext

import pandas as pd

from amuro.lineage import key_of
from amuro.tasks import RELATIONS
from analysis.command import finish
from analysis.contents import Report, build
from analysis.findings import Finding, findings
from analysis.source import KIND, runs_of
from analysis.usual import at_usual
from analysis.words import coverage_line, interval_text, setting_text

TITLE = "Amuro: fine-tuning seen over pre-training"
WIDTH, HEIGHT = 8, 7  # of a panel, in W&B's grid of 24 columns
GROUP = "Group"  # of runs: one curve over the checkpoints (amuro/run_config.py)
INTRO = """How a model's pre-training shows after fine-tuning: every checkpoint is scored as it is (**BASE**) and tuned.
Each curve is a group of runs, one run per checkpoint; several seeds are averaged. Written by
`python -m analysis.wandb_report`, which writes it anew when it is called again: edit a copy."""


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.wandb_report",
        description="Write a W&B report on a project's runs: verdicts, curves over tokens, runs compared, tables.",
        epilog="example: python -m analysis.wandb_report --entity me --project amuro",
    )
    parser.add_argument("--entity", required=True, help="the user or team that the project belongs to")
    parser.add_argument("--project", required=True, help="the project with the runs; the report is written there")
    parser.add_argument("--source", help="wandb:entity/project with the results (default: the same project)")
    parser.add_argument("--runs", help="take the results from this runs folder instead")
    parser.add_argument("--title", default=TITLE, help="one report per title and project (default: %(default)s)")
    return parser


def write(report: Report, found: list[Finding], entity: str, project: str, title: str) -> str:
    """Save the report in the project, over one of the same title, and return its address. ValueError where W&B does
    not take it."""
    import wandb
    import wandb_workspaces.reports.v2 as wr

    content = blocks(report, found, entity, project)
    try:
        same = [each for each in wandb.Api().reports(f"{entity}/{project}") if each.display_name == title]
        made = wr.Report(entity=entity, project=project, title=title, width="fluid")
        made.description = f"Coverage: {coverage_line(report.table)}"
        made.blocks = content
        made.id = same[0].id if same else ""
        return made.save().url
    except (wandb.Error, ValueError) as error:
        raise ValueError(f"--entity {entity} --project {project}: {' '.join(str(error).split())}") from None


def blocks(report: Report, found: list[Finding], entity: str, project: str) -> list:
    """The report's content: findings, verdicts, then BASE and every dataset with its curves, runs and results."""
    import wandb_workspaces.reports.v2 as wr

    warnings = [*report.notes, *report.doubts]
    out = [wr.MarkdownBlock(INTRO), wr.TableOfContents(), wr.H1("Findings")]
    out += [wr.CalloutBlock("\n".join(map(md, warnings)))] if warnings else []
    out += [wr.MarkdownBlock("\n".join(map(markdown_finding, found))), wr.H1("Verdicts")]
    setting = md(setting_text(report.setting))
    out += [wr.MarkdownBlock(f"At {setting}, or a task's own setting.\n\n{verdict_table(report)}")]
    curves = report.usual[report.usual["task"].isin(report.table["task"])]
    alone = curves[~curves["relation"].isin(RELATIONS)]
    out += section(report, "BASE", alone, [("base", "")], entity, project)
    tuned = report.table.loc[report.table["stage"] != "base", ["stage", "dataset"]].drop_duplicates()
    for stage, dataset in tuned.itertuples(index=False, name=None):
        own = report.table[(report.table["stage"] == stage) & (report.table["dataset"] == dataset)]
        tasks = curves.merge(own[["family", "task", "relation"]].drop_duplicates())
        name = f"Tuned on {dataset}" + (" (conversations)" if stage == "instruct" else "")
        out += section(report, name, tasks, [("base", ""), (stage, dataset)], entity, project)
        out.append(wr.MarkdownBlock(result_table(report, stage, dataset)))
    return out


def section(report: Report, name: str, tasks: pd.DataFrame, sets: list[tuple], entity: str, project: str) -> list:
    """A heading and a grid: a curve per task over tokens, and the runs compared, of the run sets (stage, dataset)."""
    import wandb_workspaces.reports.v2 as wr

    rank = {relation: at for at, relation in enumerate(RELATIONS)}
    tasks = tasks.sort_values("relation", key=lambda column: column.map(rank), kind="stable").drop_duplicates("task")
    keys = [key_of(row) for row in tasks.to_dict("records")]
    logarithmic = bool((report.table["tokens_b"] > 0).all())
    panels = [
        wr.LinePlot(
            title=" · ".join(filter(None, [task.task, task.relation])),
            x="tokens_b",
            y=[key],
            log_x=logarithmic,
            groupby=GROUP,
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            title_x="pre-training tokens (billions)",
            title_y=task.metric,
            layout=wr.Layout(x=at % 3 * WIDTH, y=at // 3 * HEIGHT, w=WIDTH, h=HEIGHT),
        )
        for at, (task, key) in enumerate(zip(tasks.itertuples(), keys, strict=True))
    ]
    below = -(-len(panels) // 3) * HEIGHT
    panels.append(wr.RunComparer(diff_only="split", layout=wr.Layout(x=0, y=below, w=3 * WIDTH, h=HEIGHT + 2)))
    columns = [f"config:{column}.value" for column in ("checkpoint", "stage", "dataset", "learning_rate", "seed")]
    columns += [f"summary:{key}" for key in keys]
    runsets = [
        wr.Runset(
            entity=entity,
            project=project,
            name=" ".join(filter(None, [stage, dataset])),
            filters=f"Config('stage') = {quoted(stage)}"
            + (f" and Config('dataset') = {quoted(dataset)}" if dataset else ""),
            order=[wr.OrderBy(wr.Config("tokens_b"), ascending=True)],
            visible_columns=columns,
        )
        for stage, dataset in sets
    ]
    return [wr.H1(name), wr.PanelGrid(runsets=runsets, panels=panels)]


# ---- text


def md(text: object) -> str:
    """Text as one line of Markdown, or one cell of its table, that shows it as it is: no markup, link or picture."""
    line = re.sub(r"([\\`*|$~])", r"\\\1", " ".join(str(text).split()))
    return line.replace("](", "]\\(").replace("<", "&lt;").replace(">", "&gt;")


def quoted(text: str) -> str:
    """A text in a filter. W&B replaces signs of comparison in it before it is read as Python, so these are escaped."""
    return "'" + "".join(each if each.isalnum() or each in "_-. " else f"\\U{ord(each):08x}" for each in text) + "'"


def markdown_finding(finding: Finding) -> str:
    """A finding as a list item, its cases below it."""
    return "\n".join(
        [f"- **{md(finding.title)}**: {md(finding.answer)}", *(f"    - {md(each)}" for each in finding.cases)]
    )


def verdict_table(report: Report) -> str:
    """The verdicts at each task's setting, with what they rest on."""
    shown = at_usual(report.verdicts, report.usual)
    rows = [
        {
            "family": row["family"],
            "tuned on": row["dataset"] or "– (BASE alone)",
            "stage": row["stage"],
            "learning rate": "" if pd.isna(row["learning_rate"]) else f"{row['learning_rate']:g}",
            "task": row["task"],
            "verdict": row["verdict"] if not row["missing"] else f"none: {row['missing']}",
            "but": row["caveat"],
            "BASE rises": interval_text(row, "rise"),
            "tuning adds": interval_text(row, "gain"),
            "n": row["n"],
            "seeds": row["seeds"],
        }
        for _, row in shown.iterrows()
    ]
    return markdown_table(pd.DataFrame(rows))


def result_table(report: Report, stage: str, dataset: str) -> str:
    """BASE → tuned at every checkpoint (rows) on every task (columns), at each task's setting."""
    gains = report.gains[(report.gains["stage"] == stage) & (report.gains["dataset"] == dataset)]
    gains = at_usual(gains, report.usual).astype({"base": float, "tuned": float})
    shown = gains.assign(both=[f"{base:.3f} → {tuned:.3f}" for base, tuned in gains[["base", "tuned"]].to_numpy()])
    rates = ["learning_rate"] if gains["learning_rate"].nunique() > 1 else []
    wide = shown.pivot_table(index=["checkpoint", *rates], columns="task", values="both", aggfunc="first", sort=False)
    return markdown_table(wide.fillna("–").replace(r"\bnan\b", "–", regex=True).reset_index())


def markdown_table(frame: pd.DataFrame) -> str:
    """A frame as a table of Markdown; a dash where it has no rows."""
    if frame.empty:
        return "–"
    line = lambda cells: "| " + " | ".join(map(md, cells)) + " |"  # noqa: E731
    return "\n".join([line(frame.columns), line(["---"] * frame.shape[1]), *map(line, frame.to_numpy())])


# ---- command


def run(arguments: argparse.Namespace) -> int:
    """Build, save and print the address."""
    if arguments.runs and arguments.source:
        raise ValueError("--runs and --source: both say where the results are; give one of them")
    source = arguments.source or f"{KIND}{arguments.entity}/{arguments.project}"
    with nullcontext(arguments.runs) if arguments.runs else runs_of(source) as runs:
        report = build(runs, source="" if arguments.runs else source)
    address = write(report, findings(report), arguments.entity, arguments.project, arguments.title)
    print(f"report: {address}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Write the report; returns the exit code. A mistake ends in one line on stderr and code 2 (AMURO_DEBUG=1 shows
    the traceback)."""
    return finish(run, make_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
