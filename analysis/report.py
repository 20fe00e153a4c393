"""The report: everything measured under one runs folder as tables, figures and one page that works offline.

    python -m analysis.report --runs runs --out report
    python -m analysis.report --source wandb:entity/project --out report

writes report/report.html (one file, no request to anywhere), report/*.csv and report/figures/<task>.svg, .png, .pdf;
prints how complete the runs are, five lines with the findings, and where the page is. Exit code 2 on a mistake.
"""

import argparse
import os
import sys
from pathlib import Path

from tqdm import tqdm

from analysis import figures
from analysis.findings import Finding, Report, build, coverage_line, findings
from analysis.page import page
from analysis.source import runs_of


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.report",
        description="Turn the results under a runs folder into tables (CSV), figures (SVG, PNG, PDF) and a page.",
        epilog="The runs folder is what train_sft.py and eval/run.py wrote with --runs. Nothing is trained or "
        "evaluated here, and a repeat writes the same files again. "
        "example: python -m analysis.report --runs runs --out report",
    )
    parser.add_argument("--runs", default="runs", help="folder with the cells to report on (default: %(default)s)")
    parser.add_argument("--source", help="wandb:entity/project: take the results from there instead of from --runs")
    parser.add_argument("--out", default="report", help="folder to write to, made if missing (default: %(default)s)")
    return parser


def write(report: Report, out: Path, found: list[Finding]) -> Path:
    """Write the CSV files, the figures and the page under `out`; returns the page's path."""
    (out / "figures").mkdir(parents=True, exist_ok=True)
    report.table.to_csv(out / "results.csv", index=False)
    for name in ("gains", "verdicts", "forgetting", "formats", "methods"):
        getattr(report, name).to_csv(out / f"{name}.csv", index=False)
    data, specs = figures.curve_data(report.points), {}
    tasks = [task for task in data["task"].unique() if data.loc[data["task"] == task, "value"].notna().any()]
    for task in tqdm(tasks, desc="figures", unit="task"):
        chart = figures.curve_figure(data, task)
        figures.save(chart, out / "figures" / task)
        specs[task] = chart.to_dict()
    path = out / "report.html"
    path.write_text(page(report, found, specs), encoding="utf-8")
    return path


def run(arguments: argparse.Namespace) -> int:
    """Build, write and print; returns the exit code."""
    out = Path(arguments.out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: a file; give a folder to write the report to")
    report = build(runs_of(arguments.source, out) if arguments.source else arguments.runs)
    found = findings(report)
    path = write(report, out, found)
    warnings = [f"warning: {each}" for each in report.doubts]
    print(f"coverage: {coverage_line(report.table)}", *warnings, *found, f"report: {path}", sep="\n")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Make the report; returns the exit code. Unsound results or an --out that cannot be written end in one line on
    stderr and code 2 (AMURO_DEBUG=1 shows the traceback)."""
    arguments = make_parser().parse_args(argv)
    try:
        return run(arguments)
    except (ValueError, OSError) as error:
        if os.environ.get("AMURO_DEBUG"):
            raise
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
