"""What the results say, in five findings: learned in pre-training, latent, not learned, forgetting, prompt formats.

report = build("runs")            every table of a runs folder
for finding in findings(report): print(finding)
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from amuro import results
from amuro.registry.doubts import of_runs
from analysis import tables
from analysis.study import collect


@dataclass(frozen=True)
class Report:
    """All that the page and the printed lines are made of."""

    table: pd.DataFrame
    points: pd.DataFrame
    overview: pd.DataFrame
    gains: pd.DataFrame
    verdicts: pd.DataFrame
    forgetting: pd.DataFrame
    formats: pd.DataFrame
    format_means: pd.DataFrame
    methods: pd.DataFrame
    setting: dict
    last: list[str]  # the last checkpoint of every family
    doubts: list[str]  # faults of the checkpoints, found by an audit or published


def build(runs: str | Path) -> Report:
    """All tables of a runs folder. Raises ValueError where there is nothing to report or where results are unsound."""
    table = results.load(runs)
    if table.empty:
        raise ValueError(f"--runs {runs}: cells, but no result of an evaluation; make some with eval/run.py")
    study = collect(table, results.load_examples(runs))
    return Report(
        table=table,
        points=study.points,
        overview=tables.overview(study),
        gains=tables.gains(study),
        verdicts=tables.verdicts(study),
        forgetting=tables.forgetting(study),
        formats=tables.formats(study),
        format_means=tables.format_means(study),
        methods=tables.methods(study),
        setting=tables.main_setting(study),
        last=[names[-1] for names in study.checkpoints.values()],
        doubts=of_runs(runs),
    )


def coverage_line(table: pd.DataFrame, shown: int = 3) -> str:
    """`63 of 64 units, missing: ...`; of many missing ones the first `shown` by name."""
    there, expected, missing = results.coverage(table)
    more = f"; and {len(missing) - shown} more" if len(missing) > shown else ""
    return f"{there} of {expected} units" + (f", missing: {'; '.join(missing[:shown])}{more}" if missing else "")


def interval_text(row: pd.Series, name: str) -> str:
    """`+0.123 [0.101, 0.145]` from the columns name, name_low, name_high; a dash where there is no number."""
    if pd.isna(row[name]):
        return "–"
    return f"{row[name]:+.3f} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]"


def setting_text(setting: dict) -> str:
    """A main setting in words."""
    chat = " in the chat template" if setting["apply_chat_template"] else ""
    return f"{setting['prompt_format']} prompt{chat}, {setting['num_shots']} shots, {setting['dtype']}"


def who(row: pd.Series, frame: pd.DataFrame) -> str:
    """`mnli → rte`, `rte` of BASE, or `mnli`, with family, stage, rate where these vary among the rows of `frame`."""
    parts = [row["family"]] if frame["family"].nunique() > 1 else []
    parts += [row["stage"]] if frame["stage"].nunique() > 1 else []
    parts += [" → ".join(row[name] for name in ("dataset", "task") if name in frame and row[name])]
    several = frame.groupby("dataset")["learning_rate"].nunique().max() > 1
    return " ".join(parts + ([f"at rate {row['learning_rate']:g}"] if several else []))


@dataclass(frozen=True)
class Finding:
    """One of the five lines: what is asked, the answer in short, and the cases behind it with their numbers."""

    title: str
    answer: str
    cases: list[str]

    def __str__(self) -> str:
        return f"{self.title}: {self.answer}" + (f": {'; '.join(self.cases)}" if self.cases else "")


def findings(report: Report) -> list[Finding]:
    """The five: learned in pre-training, latent, not learned, forgetting, prompt-format sensitivity."""
    every = tables.at_setting(report.verdicts, report.setting)
    alone, judged = every[every["stage"] == "base"], every[every["stage"] != "base"]
    verdict = judged["verdict"]
    learned, not_learned = verdict.isin(("learned in pre-training", "both")), verdict == "not learned"
    counts = ", ".join(f"{name} {count}" for name, count in verdict.value_counts().items())
    base, gain, tuned = ("BASE rises", "rise"), ("tuning adds", "gain"), ("tuned rises", "tuned_rise")
    pre_training = verdict_finding("learned in pre-training", judged, learned, base, gain)
    missing = verdict_finding("not learned", judged, not_learned, base, gain, note=f" (all verdicts: {counts})")
    return [
        with_base_alone(pre_training, alone, "learned in pre-training"),
        verdict_finding("latent (BASE does not rise, tuned does)", judged, judged["latent"].astype(bool), tuned, base),
        with_base_alone(missing, alone, "not learned"),
        forgetting_finding(report),
        format_finding(report),
    ]


def verdict_finding(
    title: str, judged: pd.DataFrame, chosen: pd.Series, *numbers: tuple[str, str], note: str = ""
) -> Finding:
    """How many of the judged tasks are chosen, and each with its numbers (words, column), n and seeds."""
    if judged.empty:
        return Finding(title, "none: no tuned model was scored on a task of its own domain", [])
    cases = []
    for _, row in judged[chosen].iterrows():
        values = ", ".join(f"{words} {interval_text(row, name)}" for words, name in numbers)
        seeds = "one seed" if row["one_seed"] else f"{row['seeds']} seeds"
        cases.append(f"{who(row, judged)} ({values}, n={row['n']}, {seeds})")
    return Finding(title, f"{len(cases) or 'none'} of {len(judged)} tasks{note}", cases)


def with_base_alone(finding: Finding, alone: pd.DataFrame, verdict: str) -> Finding:
    """The finding and, of the tasks that nothing was tuned for, those with the verdict by BASE's curve alone."""
    if alone.empty:
        return finding
    chosen = alone[alone["verdict"] == verdict]
    answer = f"{finding.answer}; by BASE alone, nothing tuned for them: {len(chosen) or 'none'} of {len(alone)} tasks"
    cases = [
        f"{who(row, alone)} (BASE alone rises {interval_text(row, 'rise')}, "
        f"above chance {interval_text(row, 'above_chance')}, n={row['n']})"
        for _, row in chosen.iterrows()
    ]
    return Finding(finding.title, answer, finding.cases + cases)


def forgetting_finding(report: Report) -> Finding:
    """Tuned - BASE on the other datasets' tasks at the last checkpoint, per dataset."""
    lost = tables.at_setting(report.forgetting, report.setting)
    lost = lost[lost["checkpoint"].isin(report.last) & (lost["relation"] == "cross_task")]
    title = "forgetting (tuned - BASE on other datasets' tasks, last checkpoint)"
    if lost.empty:
        return Finding(title, "none measured: no tuned model was scored on the tasks of another dataset", [])
    cases = []
    for _, row in lost.iterrows():
        tasks = f"{row['tasks']} of {row['tasks_expected']} tasks, n={row['n']}, seeds={row['seeds']}"
        cases.append(f"{who(row, lost)} {interval_text(row, 'change')} ({tasks})")
    worse = int((lost["change_high"] < 0).sum())
    return Finding(title, f"{worse or 'none'} of {len(lost)} with an interval below 0", cases)


def format_finding(report: Report) -> Finding:
    """Best minus worst prompt format, BASE and tuned, at the last checkpoint, mean over the same tasks."""
    setting = {name: report.setting[name] for name in ("num_shots", "shot_seed", "apply_chat_template", "dtype")}
    means = tables.at_setting(report.format_means, setting)
    means = means[means["checkpoint"].isin(report.last) & (means["tasks"] > 0)]
    title = "prompt-format sensitivity (best - worst format, mean over tasks, last checkpoint)"
    if means.empty:
        return Finding(title, "none measured: it takes BASE and tuned in two prompt formats of a task", [])
    cases = [
        f"{row['checkpoint']} BASE {interval_text(row, 'base')}, tuned {interval_text(row, 'tuned')} "
        f"({row['tasks']} of {row['tasks_expected']} tasks, n={row['n']})"
        for _, row in means.iterrows()
    ]
    lower = int((means["tuned_high"] < means["base_low"]).sum())
    return Finding(title, f"tuned below BASE, intervals apart, in {lower or 'none'} of {len(means)}", cases)
