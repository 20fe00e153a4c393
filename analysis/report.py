"""The report: everything measured under one runs folder as tables, figures and one page that works offline.

    python -m analysis.report --runs runs --out report
    python -m analysis.report --source wandb:entity/project --out report
    python -m analysis.report --paper_results results --out report

writes report/index.html (one file, no request to anywhere), report/tables/*.csv, report/figures/*.svg, .png, .pdf, and
all rows as report/results.csv and results.parquet; prints how complete the runs are, a line per finding, and where the
page is. Exit code 2 on a mistake.
"""

import argparse
import sys
from pathlib import Path

from analysis.command import finish
from analysis.contents import TABLES, Report, build, build_authors
from analysis.figures import axis_of, figure_frames, save_all
from analysis.findings import Finding, findings
from analysis.page import page
from analysis.source import runs_of
from analysis.words import coverage_line


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.report",
        description="Turn the results under a runs folder into tables (CSV), figures (SVG, PNG, PDF) and a page.",
        epilog="The runs folder is what train_sft.py and eval/run.py wrote with --runs. Nothing is trained or "
        "evaluated here, and a repeat writes the same files again. "
        "example: python -m analysis.report --runs runs --out report",
    )
    parser.add_argument("--runs", help="folder with the cells to report on (default: runs)")
    parser.add_argument("--source", help="wandb:entity/project: take the results from there instead of from --runs")
    parser.add_argument(
        "--paper_results",
        help="folder with the authors' CSV files: their curves beside those of the same family; without --runs and "
        "--source, a report of their rows",
    )
    parser.add_argument("--out", default="report", help="folder to write to, made if missing (default: %(default)s)")
    return parser


def write(report: Report, out: Path, found: list[Finding]) -> Path:
    """Write the tables, the figures and the page under `out`; returns the page's path."""
    (out / "tables").mkdir(parents=True, exist_ok=True)
    report.table.to_csv(out / "results.csv", index=False)
    report.table.to_parquet(out / "results.parquet", index=False)
    for name in TABLES:
        getattr(report, name).to_csv(out / "tables" / f"{name}.csv", index=False)
    frames, axis = figure_frames(report), axis_of(report.points, report.checkpoints)
    path = out / "index.html"
    path.write_text(page(report, found, frames, axis), encoding="utf-8")
    save_all(frames, axis, out / "figures")
    return path


def asked(arguments: argparse.Namespace) -> Report:
    """The report of the source that the arguments name."""
    if arguments.source and arguments.runs:
        raise ValueError("--runs and --source: both say where the results are; give one of them")
    if arguments.source:
        with runs_of(arguments.source) as runs:
            return build(runs, arguments.paper_results, arguments.source)
    if arguments.paper_results and not arguments.runs:
        return build_authors(arguments.paper_results)
    return build(arguments.runs or "runs", arguments.paper_results)


def run(arguments: argparse.Namespace) -> int:
    """Build, write and print; returns the exit code."""
    out = Path(arguments.out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: a file; give a folder to write the report to")
    report = asked(arguments)
    found = findings(report)
    path = write(report, out, found)
    warnings = [f"warning: {each}" for each in (*report.notes, *report.doubts)]
    print(f"coverage: {coverage_line(report.table)}", *warnings, *found, f"report: {path}", sep="\n")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Make the report; returns the exit code. Unsound results or an --out that cannot be written end in one line on
    stderr and code 2 (AMURO_DEBUG=1 shows the traceback)."""
    return finish(run, make_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
