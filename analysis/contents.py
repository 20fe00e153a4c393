"""What a report is made of: every table of a runs folder, or of the authors' rows.

report = build("runs")
report = build_authors("results")
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from amuro import results
from amuro.cells import Cell
from amuro.registry.doubts import doubts
from analysis import tables
from analysis.costs import costs
from analysis.coverage import coverage, notes
from analysis.groups import group_gains
from analysis.paper import LEVELS
from analysis.paper import rows as paper_rows
from analysis.provenance import of_files, provenance, records
from analysis.study import Study, collect
from analysis.usual import at_usual, usual_settings

UNPAIRED = "these rows have no scores per example: comparisons are unpaired, from values and their standard errors"
AUTHORS = "these are the paper's own published numbers, with what is wrong in them (see The original)"


@dataclass(frozen=True)
class Report:
    """All that the page, the figures and the printed lines are made of."""

    source: str  # where the rows come from, in words
    table: pd.DataFrame
    points: pd.DataFrame
    overview: pd.DataFrame
    gains: pd.DataFrame
    groups: pd.DataFrame
    verdicts: pd.DataFrame
    forgetting: pd.DataFrame
    formats: pd.DataFrame
    format_means: pd.DataFrame
    format_trend: pd.DataFrame
    methods: pd.DataFrame
    turning: pd.DataFrame
    best_buy: pd.DataFrame
    shots: pd.DataFrame
    transitions: pd.DataFrame
    trajectories: pd.DataFrame
    seed_variance: pd.DataFrame
    rates: pd.DataFrame
    coverage: pd.DataFrame
    costs: pd.DataFrame
    provenance: pd.DataFrame
    authors: pd.DataFrame  # points of the authors' rows, of the families that are here too
    setting: dict  # the main one
    usual: pd.DataFrame  # the setting that each task is shown in
    checkpoints: dict[str, list[str]]  # family -> its checkpoints in order
    doubts: list[str]  # faults of the checkpoints, found by an audit or published
    notes: list[str]  # what a reader must know before the first number

    @property
    def last(self) -> list[str]:
        """The last checkpoint of every family."""
        return [names[-1] for names in self.checkpoints.values()]


TABLES = ("overview", "gains", "groups", "verdicts", "forgetting", "formats", "format_means", "format_trend", "methods")
TABLES += ("turning", "best_buy", "shots", "transitions", "trajectories", "seed_variance", "rates")
TABLES += ("coverage", "costs", "provenance")


def build(runs: str | Path, paper_results: str | Path | None = None, source: str = "") -> Report:
    """All tables of a runs folder, beside the authors' points of the same families where their results are given.
    `source`: where its cells were fetched from, for this report alone, so that no command names the folder.
    Raises ValueError where there is nothing to report or where results are unsound."""
    table = results.load(runs)
    if table.empty:
        raise ValueError(f"--runs {runs}: cells, but no result of an evaluation; make some with eval/run.py")
    found = records(runs)
    authors = None if paper_results is None else paper_rows(Path(paper_results))
    if authors is not None:
        authors = authors[authors["family"].isin(table["family"])]
    points = collect(authors, None, LEVELS).points if authors is not None and len(authors) else pd.DataFrame()
    return tell(
        collect(table, results.load_scores(runs, table)),
        table,
        source=source or f"runs folder {Path(runs).name}",
        authors=points,
        coverage=coverage(table, runs, named=not source),
        costs=costs(found),
        provenance=provenance(found.values()),
        doubts=doubts((Cell(**record["cell"]) for record in found.values()), runs),
    )


def build_authors(paper_results: str | Path) -> Report:
    """All tables that the authors' rows allow: they have a value and an error, and no examples to pair."""
    table = paper_rows(Path(paper_results))
    return tell(
        collect(table, None, LEVELS),
        table,
        source="the authors' tables",
        authors=pd.DataFrame(),
        coverage=coverage(table),
        costs=costs({}),
        provenance=of_files(sorted(Path(paper_results).glob("*.csv"))),
        doubts=[],
        said=[AUTHORS, UNPAIRED],
    )


def tell(study: Study, table: pd.DataFrame, source: str, said: list[str] | None = None, **known) -> Report:
    """The report of a study and its table; `known` are the parts that are not computed from the study, `said` what goes
    before the notes on it."""
    setting = tables.main_setting(study)
    usual = usual_settings(study.points, setting)
    made = {name: getattr(tables, name)(study) for name in TABLES if name not in ("groups", *known)}
    groups = group_gains(at_usual(made["gains"], usual), at_usual(made["verdicts"], usual))
    return Report(
        source=source,
        table=table,
        points=study.points,
        groups=groups,
        setting=setting,
        usual=usual,
        checkpoints=study.checkpoints,
        notes=[*(said or []), *notes(table)],
        **made,
        **known,
    )
