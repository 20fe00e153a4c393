"""The paper's tables, figures and claims from the authors' published rows.

    python -m analysis.paper --results path/to/results --out paper

writes table6.csv, table3.csv, mrc.csv, figure_NN.csv with its picture, claims.csv and findings.md (each claim beside
its numbers), verdicts.csv, turning.csv, ids.csv, unknown_ids.csv and rows.csv. Exit code 2 on a mistake.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from analysis.command import finish
from analysis.figures import save
from analysis.paper.findings import markdown
from analysis.paper.pictures import picture
from analysis.paper.reproduction import Reproduction, identities, reproduce, unknown


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.paper",
        description="Compute the tables and figures of the paper (arXiv 2408.06663) from the rows its authors "
        "published, and test its claims on them.",
        epilog="example: python -m analysis.paper --results results --out paper",
    )
    parser.add_argument(
        "--results",
        required=True,
        help="folder with all_perf_table.csv, official_eval_table.csv and it_perf_table.csv, as published",
    )
    parser.add_argument("--out", default="paper", help="folder to write to, made if missing (default: %(default)s)")
    return parser


def write(found: Reproduction, out: Path) -> None:
    """Write the tables, the figures and the page under `out`."""
    out.mkdir(parents=True, exist_ok=True)
    tables = {"table6": found.table6, "table3": found.table3, "mrc": found.mrc, "rows": found.table}
    tables |= {"verdicts": found.verdicts, "turning": found.turning, "ids": identities(found.every)}
    tables |= {"unknown_ids": unknown(found.every), "claims": pd.DataFrame(map(asdict, found.claims))}
    tables |= {f"figure_{number:02}": rows for number, rows in found.figures.items()}
    for name, frame in tables.items():
        frame.to_csv(out / f"{name}.csv", index=False)
    (out / "findings.md").write_text(markdown(found), encoding="utf-8")
    for number, rows in tqdm(found.figures.items(), desc="figures", unit="figure"):
        save(picture(rows), out / f"figure_{number:02}")


def run(arguments: argparse.Namespace) -> int:
    """Compute, write and print; returns the exit code."""
    out = Path(arguments.out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: a file; give a folder to write to")
    found = reproduce(arguments.results)
    write(found, out)
    for name, frame in (("Table 6", found.table6), ("Table 3, TokenProb", found.table3)):
        print(f"{name}: {frame['equal'].sum()} of {len(frame)} as printed")
    for row in found.mrc.itertuples():
        print(f"mean ratio of change, {row.direction}: {row.computed:+.3f} % (printed {row.published:g} %)")
    for row in unknown(found.every).itertuples():
        print(f"not understood: {row.model_id} {row.eval_dataset} in {row.table} ({row.left_out})")
    for claim in found.claims:
        print(f"{claim.verdict}: {claim.title}")
    print(f"findings: {out / 'findings.md'}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Reproduce the paper; returns the exit code. Tables that cannot be read, or an --out that cannot be written, end
    in one line on stderr and code 2 (AMURO_DEBUG=1 shows the traceback)."""
    return finish(run, make_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
