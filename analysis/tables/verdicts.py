"""What was learned where: the verdict on every task, and whether it rests on one seed."""

from collections.abc import Iterator
from dataclasses import fields
from functools import lru_cache

import numpy as np
import pandas as pd

from analysis import stats
from analysis.study import BESIDE, CURVE, NOT_KNOWN, SHOTS, Study, together
from analysis.tables.common import curve_rows, grouped, nothing, readings, spread, test_name

JUDGED = ("rise", "above_chance", "gain", "tuned_above_chance", "tuned_rise", "extra_rise")
P_VALUES = ("p_pretraining", "p_finetuning", "p_latent", "p_above_chance")
BELOW = "tuned is not above chance"  # a model that answers by chance can still beat one that answers worse


def verdicts(study: Study) -> pd.DataFrame:
    """The verdict on each (tuning, setting) of an id or ood task (of conversations: a benchmark), and on BASE alone of
    each task without such a tuning at both ends of its family's history (stage `base`), with its evidence; Holm over
    the tasks of one family, stage, prompt, shots and dtype. No verdict where a score of the first or last checkpoint is
    missing.
    """
    return judged(study).copy()


@lru_cache(maxsize=1)
def judged(study: Study) -> pd.DataFrame:
    """`verdicts`, made once of a study."""
    rows, ends = judged_curves(study)
    cases = {}
    n, unpaired = np.zeros(len(rows), int), np.zeros(len(rows), int)
    for alone in (True, False):
        chosen = np.flatnonzero((rows["missing"] == "") & ((rows["stage"] == "base") == alone))
        wanted = ends[chosen][:, :2] if alone else ends[chosen]
        for which, evidence, shared, lost in evidences(study, wanted, rows["chance"].to_numpy()[chosen]):
            at = chosen[which]
            n[at], unpaired[at] = shared, lost
            cases |= dict(zip(at.tolist(), cases_of(evidence, len(at)), strict=True))
    rows = rows.assign(n=n, n_unpaired=unpaired, test=test_name(study))
    none = (rows["missing"] == "") & (rows["n"] == 0)
    rows["missing"] = rows["missing"].mask(none, "no example in common")
    return judge(rows, cases)


def judged_curves(study: Study) -> tuple[pd.DataFrame, np.ndarray]:
    """(a row per curve to judge, with what is missing for it; (rows, 4) positions of the first and last BASE, the first
    and last tuned)."""
    # Of a benchmark's two metrics one is judged: they read the same answers, and would count a task twice in Holm.
    points = study.points
    counted = points["metric"] != BESIDE
    own = points["relation"].isin(("id", "ood"))
    tuned = counted & (own | ((points["relation"] == "benchmark") & (points["stage"] == "instruct")))
    tasks = pd.MultiIndex.from_frame(points[["family", "task"]])
    last = points["family"].map({family: len(names) - 1 for family, names in study.checkpoints.items()})
    ends = (points["order"] == 0) | (points["order"] == last)
    whole = ((points["n"] > 0) | ~ends).groupby(points["curve"]).transform("all")
    alone = counted & (points["stage"] == "base") & ~tasks.isin(tasks[tuned & whole])
    curves = curve_rows(study, (tuned | alone).to_numpy())
    first, last = (np.array([curve[end] for curve in curves], dtype=int) for end in (0, -1))
    start, end = points.iloc[first].reset_index(drop=True), points.iloc[last].reset_index(drop=True)
    scored = points["n"].to_numpy() > 0
    ends = np.column_stack([study.base[first], study.base[last], first, last])
    rows = start[[*CURVE, "relation"]].assign(first=start["checkpoint"], last=end["checkpoint"], chance=end["chance"])
    seeds = np.minimum(start["seeds"], end["seeds"])
    rows = rows.assign(seeds=seeds, one_seed=seeds == 1, missing="")
    have = np.where(ends >= 0, scored[ends], False)
    rows["missing"] = [what_lacks(row, there) for row, there in zip(rows.itertuples(), have, strict=True)]
    return rows, ends


def what_lacks(row: tuple, there: np.ndarray) -> str:
    """Why a curve gives no verdict, by which of its four ends are there; empty where it does."""
    names = [f"BASE at {row.first}", f"BASE at {row.last}", f"tuned at {row.first}", f"tuned at {row.last}"]
    names = names[:2] if row.stage == "base" else names
    lacking = ["one checkpoint alone"] * (row.first == row.last)
    lacking += dict.fromkeys(f"no {name}" for name, known in zip(names, there, strict=False) if not known)
    if there[3] and np.isnan(row.chance):
        lacking.append("no chance level")
    return ", ".join(lacking)


def evidences(
    study: Study, wanted: np.ndarray, chance: np.ndarray, examples: dict[int, np.ndarray] | None = None
) -> Iterator[tuple[np.ndarray, stats.Evidence, np.ndarray | int, int]]:
    """Blocks (which (j,), Evidence of arrays (j,), n, unpaired) for positions `wanted` (k, 2 or 4) and levels (k,);
    `examples` as in `together`."""
    make = stats.base_evidence if wanted.shape[1] == 2 else stats.evidence
    if study.paired:
        for which, scores, unpaired in together(study, wanted, examples):
            yield which, make(*scores.swapaxes(0, 1), chance[which][:, None]), scores.shape[-1], unpaired
    elif len(wanted):
        values, errors, n = (study.points[name].to_numpy(float)[wanted] for name in ("value", "stderr", "n"))
        least = n.min(axis=1).astype(int)
        yield np.arange(len(wanted)), stats.evidence_of_means(values, errors, least, chance), least, 0


def cases_of(evidence: stats.Evidence, count: int) -> list[stats.Evidence]:
    """An Evidence of arrays (count,) as one for each."""
    parts = {}
    for name in JUDGED:
        found = getattr(evidence, name)
        if found is not None:
            columns = [np.broadcast_to(getattr(found, each.name), count).tolist() for each in fields(stats.Difference)]
            parts[name] = [stats.Difference(*numbers) for numbers in zip(*columns, strict=True)]
    return [stats.Evidence(**dict(zip(parts, each, strict=True))) for each in zip(*parts.values(), strict=True)]


def families(rows: pd.DataFrame, at: list[int]) -> list[list[int]]:
    """Of the rows at positions `at`, those that are judged together: the tasks of one family, stage, prompt, dtype."""
    groups = grouped(rows.assign(reading=readings(rows)).iloc[at], [*TOGETHER, "reading"])[1]
    return [[at[each] for each in group] for group in groups]


TOGETHER = ["family", "stage", *SHOTS, "dtype"]


def verdicts_of(rows: pd.DataFrame, cases: dict[int, stats.Evidence]) -> dict[int, stats.Verdict]:
    """The verdict on each case, by its row's position."""
    found = {}
    for group in families(rows, list(cases)):
        judge_all = stats.base_verdicts if rows["stage"].iloc[group[0]] == "base" else stats.verdicts
        found |= dict(zip(group, judge_all([cases[at] for at in group]), strict=True))
    return found


def judge(rows: pd.DataFrame, cases: dict[int, stats.Evidence]) -> pd.DataFrame:
    """The rows with verdict, latent, adjusted p-values and evidence; `cases` by row position, the others get none.

    `caveat`: that tuning adds something, while tuned is not shown to beat chance by more than the margin. `latent` and
    what is about tuning stay empty of BASE alone.
    """
    found, out = verdicts_of(rows, cases), []
    for at in range(len(rows)):
        line = {"verdict": "no verdict", "latent": False} | dict.fromkeys(P_VALUES, NOT_KNOWN)
        if at in found:
            line = {each.name: getattr(found[at], each.name) for each in fields(stats.Verdict)}
        tuned = line["latent"] is True or line["verdict"] in ("learned in fine-tuning", "both")
        line["caveat"] = BELOW if tuned and line["p_above_chance"] >= stats.ALPHA else ""
        for name in JUDGED:
            part = getattr(cases[at], name) if at in cases else None
            line |= nothing(name) if part is None else spread(name, part.mean, part.low, part.high)
            line[f"{name}_detectable"] = NOT_KNOWN if part is None else part.detectable
        out.append(line)
    empty = ["verdict", "latent", *P_VALUES, "caveat", *(f"{name}{end}" for name in JUDGED for end in ENDS)]
    return pd.concat([rows, pd.DataFrame(out, index=rows.index, columns=empty)], axis=1)


ENDS = ("", "_low", "_high", "_detectable")


def one_seed_verdicts(study: Study) -> dict[int, dict[int, str]]:
    """curve -> seed -> the verdict that the runs of this seed alone give, Holm over the tasks that have it; of the
    curves with several seeds at both ends."""
    rows, ends = judged_curves(study)
    curves, chance, found = study.points["curve"].to_numpy(), rows["chance"].to_numpy(), {}
    whole = np.flatnonzero(rows["missing"] == "")
    known = [at for at in whole if study.by_seed.keys() >= set(ends[at, 2:])]
    seeds = {seed for at in known for seed in study.by_seed[ends[at, 2]].keys() & study.by_seed[ends[at, 3]]}
    for seed in sorted(seeds):
        have = np.array([at for at in known if all(seed in study.by_seed[end] for end in ends[at, 2:])])
        scores = {end: study.by_seed[end][seed] for end in ends[have, 2:].ravel()}
        scores |= {end: study.examples[end] for end in ends[have, :2].ravel()}
        cases = {}
        for which, evidence, _, _ in evidences(study, ends[have], chance[have], scores):
            cases |= dict(zip(have[which].tolist(), cases_of(evidence, len(which)), strict=True))
        for at, verdict in verdicts_of(rows, cases).items():
            found.setdefault(int(curves[ends[at, 2]]), {})[seed] = verdict.verdict
    return found


def verdict_by_curve(study: Study) -> dict[int, str]:
    """curve -> its verdict, of the curves that have one."""
    _, ends = judged_curves(study)
    curves = study.points["curve"].to_numpy()[ends[:, 2]] if len(ends) else []
    said = judged(study)["verdict"]
    return {int(curve): verdict for curve, verdict in zip(curves, said, strict=True) if verdict != "no verdict"}
