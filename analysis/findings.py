"""What the results say: what was learned where, forgotten, how much the prompt matters, where the curves turn.

report = build("runs")            every table of a runs folder (analysis/contents.py)
for finding in findings(report): print(finding)
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd

from analysis import stats
from analysis.contents import Report
from analysis.usual import at_usual
from analysis.words import interval_text, who


@dataclass(frozen=True)
class Finding:
    """What is asked, the answer in short, and the cases behind it: their names, and each with its numbers."""

    title: str
    answer: str
    cases: list[str]
    names: list[str]

    def __str__(self) -> str:
        return "\n  ".join([f"{self.title}: {self.answer}", *self.cases])


def findings(report: Report) -> list[Finding]:
    """What was learned where, latent, not learned, forgotten; how much the prompt matters; where the curves turn and
    which checkpoint is the best buy; and what rests on the seed or the learning rate. The last ones only where they
    were measured."""
    every = at_usual(report.verdicts, report.usual)
    alone, judged = every[every["stage"] == "base"], every[every["stage"] != "base"]
    verdict = judged["verdict"]
    learned, not_learned = verdict.isin(("learned in pre-training", "both")), verdict == "not learned"
    counts = ", ".join(f"{name} {count}" for name, count in verdict.value_counts().items())
    below = judged[judged["caveat"] != ""]
    counts += f"; of {len(below)} tuned is not above chance: {', '.join(below['task'].unique())}" if len(below) else ""
    base, gain, tuned = ("BASE rises", "rise"), ("tuning adds", "gain"), ("tuned rises", "tuned_rise")
    pre_training = verdict_finding("learned in pre-training", judged, learned, base, gain)
    missing = verdict_finding("not learned", judged, not_learned, base, gain, note=f" (all verdicts: {counts})")
    more = (turning_finding(report), best_buy_finding(report), seed_finding(report), rate_finding(report))
    return [
        with_base_alone(pre_training, alone, "learned in pre-training"),
        verdict_finding("latent (BASE does not rise, tuned does)", judged, judged["latent"] == True, tuned, base),  # noqa: E712
        with_base_alone(missing, alone, "not learned"),
        forgetting_finding(report),
        format_finding(report),
        *(finding for finding in more if finding.cases),
    ]


def some(row: pd.Series) -> str:
    """Of a curve with gaps: how many of its checkpoints are compared."""
    gaps = row["checkpoints"] < row["checkpoints_expected"]
    return f"; {row['checkpoints']} of {row['checkpoints_expected']} checkpoints" if gaps else ""


def told(
    title: str, answer: str, frame: pd.DataFrame, numbers: Callable[[pd.Series], str], every: pd.DataFrame | None = None
) -> Finding:
    """The finding whose cases are the rows of `frame`, each with its numbers in words; `every` row that they are
    taken from says what their names must tell."""
    names = [who(row, frame if every is None else every) for _, row in frame.iterrows()]
    cases = [f"{name}{numbers(row)}" for name, (_, row) in zip(names, frame.iterrows(), strict=True)]
    return Finding(title, answer, cases, names)


def verdict_finding(
    title: str, judged: pd.DataFrame, chosen: pd.Series, *numbers: tuple[str, str], note: str = ""
) -> Finding:
    """How many of the judged tasks are chosen, and each with its numbers (words, column), n and seeds."""
    if judged.empty:
        return Finding(title, "none: no tuned model was scored on a task of its own domain", [], [])
    cases, names = [], []
    for _, row in judged[chosen].iterrows():
        values = ", ".join(f"{words} {interval_text(row, name)}" for words, name in numbers)
        seeds = "one seed" if row["one_seed"] else f"{row['seeds']} seeds"
        seeds += f"; {row['caveat']}" if row["caveat"] else ""
        names.append(who(row, judged))
        cases.append(f"{names[-1]} ({values}, n={row['n']}, {seeds})")
    lacking = int((judged["verdict"] == "no verdict").sum())
    without = f" with a verdict, {lacking} without" if lacking else ""
    return Finding(title, f"{len(cases) or 'none'} of {len(judged) - lacking} tasks{without}{note}", cases, names)


def with_base_alone(finding: Finding, alone: pd.DataFrame, verdict: str) -> Finding:
    """The finding and, of the tasks without a verdict on tuning, those with the verdict by BASE's curve alone."""
    if alone.empty:
        return finding
    chosen = alone[alone["verdict"] == verdict]
    answer = (
        f"{finding.answer}; by BASE alone, without a verdict on tuning: {len(chosen) or 'none'} of {len(alone)} tasks"
    )
    names = [who(row, alone) for _, row in chosen.iterrows()]
    cases = [
        f"{name} (BASE alone rises {interval_text(row, 'rise')}, "
        f"above chance {interval_text(row, 'above_chance')}, n={row['n']})"
        for name, (_, row) in zip(names, chosen.iterrows(), strict=True)
    ]
    return Finding(finding.title, answer, finding.cases + cases, finding.names + names)


def forgetting_finding(report: Report) -> Finding:
    """Tuned - BASE on the other datasets' tasks at the last checkpoint, per dataset."""
    lost = at_usual(report.forgetting, report.usual)
    lost = lost[lost["checkpoint"].isin(report.last) & (lost["relation"] == "cross_task") & (lost["tasks"] > 0)]
    title = "forgetting (tuned - BASE on other datasets' tasks, last checkpoint)"
    if lost.empty:
        none = "none measured: no tuned model of a last checkpoint was scored on another dataset's tasks"
        return Finding(title, none, [], [])

    def numbers(row: pd.Series) -> str:
        tasks = f"{row['tasks']} of {row['tasks_expected']} tasks, n={row['n']}, seeds={row['seeds']}"
        return f" {interval_text(row, 'change')} ({tasks})"

    worse = int((lost["change_high"] < 0).sum())
    return told(title, f"{worse or 'none'} of {len(lost)} with an interval below 0", lost, numbers)


def format_finding(report: Report) -> Finding:
    """Best minus worst prompt format, BASE and tuned, at the last checkpoint, mean over the same tasks."""
    own = report.usual[report.usual["relation"].isin(("id", "ood"))]
    means = at_usual(report.format_means, own)
    means = means[means["checkpoint"].isin(report.last) & (means["tasks"] > 0)]
    title = "prompt-format sensitivity (best - worst format, mean over tasks, last checkpoint)"
    if means.empty:
        return Finding(title, "none measured: it takes BASE and tuned in two prompt formats of a task", [], [])
    cases = [
        f"{row['checkpoint']} BASE {interval_text(row, 'base')}, tuned {interval_text(row, 'tuned')} "
        f"({row['tasks']} of {row['tasks_expected']} tasks, n={row['n']})"
        for _, row in means.iterrows()
    ]
    lower = int((means["tuned_high"] < means["base_low"]).sum())
    answer = f"tuned below BASE, intervals apart, in {lower or 'none'} of {len(means)}"
    return Finding(title, answer, cases, list(means["checkpoint"]))


def turning_finding(report: Report) -> Finding:
    """Whether BASE and tuned curves turn at the same checkpoints, on the datasets' own tasks."""
    own = at_usual(report.turning, report.usual)
    own = own[own["overlap"].notna() & own["relation"].isin(("id", "ood"))]
    same, apart = int((own["overlap"] == True).sum()), int((own["apart"] == True).sum())  # noqa: E712

    def numbers(row: pd.Series) -> str:
        turns = "; ".join(
            f"{words} {row[f'turning_{side}']} ({row[f'share_{side}']:.0%} of resamples)"
            for words, side in (("BASE turns at", "base"), ("tuned at", "tuned"))
        )
        return f": {turns}{some(row)}"

    title = "turning points (BASE and tuned, tasks of the datasets' own domain)"
    found = told(title, f"at the same checkpoint in {same} of {len(own)}; clearly apart in {apart}", own, numbers)
    return replace(found, names=[])  # all of them, which says nothing


def best_buy_finding(report: Report) -> Finding:
    """The earliest checkpoint that is as good as the best for what it was tuned for."""
    bought = at_usual(report.best_buy, report.usual)
    bought = bought[(bought["relation"] == "id") & bought["share"].notna()]
    title = f"best buy (earliest checkpoint not worse than the best by {stats.MARGIN:g}, own task)"
    early = int((bought["checkpoint"] != bought["best_checkpoint"]).sum())

    def numbers(row: pd.Series) -> str:
        best = f"best {row['best_score']:.3f} at {row['best_checkpoint']}"
        return f": {row['checkpoint']} with {row['score']:.3f} ({best}; {row['share']:.0%} of resamples{some(row)})"

    return told(title, f"before the best one in {early or 'none'} of {len(bought)}", bought, numbers)


def seed_finding(report: Report) -> Finding:
    """Verdicts that one of the seeds alone would not give."""
    seeds = at_usual(report.seed_variance, report.usual)
    seeds = seeds[seeds["checkpoint"].isin(report.last) & seeds["verdicts_agree"].notna()]
    split = seeds[seeds["verdicts_agree"] == False]  # noqa: E712
    title = "seeds (each alone would give)"
    answer = f"another verdict for {len(split) or 'none'} of {len(seeds)} tasks with several seeds"
    return told(title, answer, split, lambda row: f" ({row['verdict_on_one_seed']})", seeds)


def rate_finding(report: Report) -> Finding:
    """Conclusions of two learning rates that contradict each other, at the last checkpoint."""
    tried = at_usual(report.rates, report.usual)
    tried = tried[tried["checkpoint"].isin(report.last)].assign(learning_rate=float("nan"))
    flips = tried[tried["flips"] == True]  # noqa: E712
    answer = f"two contradict each other in {len(flips)} of {len(tried)} tasks tuned at several"
    return told("learning rates", answer, flips, lambda row: f" ({row['contradiction']})", tried)
