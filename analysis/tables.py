"""Tables of the report: a study in, tidy DataFrames out.

    study = collect(results.load("runs"), results.load_examples("runs"))
    gains(study), verdicts(study), forgetting(study), formats(study), format_means(study), methods(study)

What is missing stays as a row that says so in `missing`.
"""

from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import pandas as pd

from analysis import stats
from analysis.study import (
    BESIDE,
    NOT_KNOWN,
    SETTING,
    SHOTS,
    STANDARD,
    TUNING,
    Study,
    base_rows,
    headline,
    paired,
    pairs,
)


def spread(name: str, found: stats.Estimate | stats.Difference | None) -> dict[str, float]:
    """An estimate as the columns name, name_low, name_high; NaN for None."""
    values = (NOT_KNOWN,) * 3 if found is None else (found.mean, found.low, found.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), map(float, values), strict=True))


def gains(study: Study) -> pd.DataFrame:
    """Tuned against BASE: a row per (tuning, setting, checkpoint) with difference and gain, intervals, n and seeds."""
    rows = []
    for row, base, scores, unpaired, missing in pairs(study):
        out = {name: getattr(row, name) for name in ("family", "checkpoint", "step", "tokens_b", *TUNING[1:])}
        out |= {name: getattr(row, name) for name in ("task", "relation", *SETTING[1:], "chance")}
        out |= {"base": NOT_KNOWN if base is None else base["value"], "tuned": row.value}
        difference = gain = None
        if scores is not None:
            difference = stats.compare(scores[:, 1], scores[:, 0])
            if row.chance < 1:
                gain = stats.gain(difference, row.chance)
            else:  # also where chance is not known
                missing = ", ".join(filter(None, [missing, "no chance level below 1"]))
        out |= spread("difference", difference) | spread("gain", gain)
        out |= {"n": 0 if scores is None else len(scores), "n_unpaired": unpaired, "seeds": row.seeds}
        rows.append(out | {"seeds_expected": row.seeds_expected, "seed_spread": row.seed_spread, "missing": missing})
    return pd.DataFrame(rows, columns=None if rows else [*TUNING, *SETTING])


def verdicts(study: Study) -> pd.DataFrame:
    """The verdict on each (tuning, setting) of an id or ood task (of conversations: a benchmark), and on BASE alone of
    each task without such a tuning in its family (stage `base`), with its evidence; Holm over the tasks of one family,
    stage, prompt, shots and dtype. No verdict where a score of the first or last checkpoint is missing.
    """
    base, rows, cases = base_rows(study), [], {}
    # Of a benchmark's two metrics one is judged: they read the same answers, and would count a task twice in Holm.
    points = study.points[study.points["metric"] != BESIDE]
    own = points["relation"].isin(("id", "ood"))
    tuned = own | ((points["relation"] == "benchmark") & (points["stage"] == "instruct"))
    tasks = points.set_index(["family", "task"]).index
    alone = (points["stage"] == "base") & ~tasks.isin(tasks[tuned])
    for key, curve in points[tuned | alone].groupby([*TUNING, *SETTING], dropna=False):
        about = dict(zip([*TUNING, *SETTING], key, strict=True))
        first, last = curve.iloc[0], curve.iloc[-1]
        setting = tuple(about[name] for name in SETTING)
        ends = (first["checkpoint"], last["checkpoint"])
        at = {f"BASE at {end}": base.get((about["family"], end, *setting)) for end in ends}
        if about["stage"] != "base":
            at |= {f"tuned at {end['checkpoint']}": end.name for end in (first, last)}
        frames = {name: None if position is None else study.examples[position] for name, position in at.items()}
        missing = what_lacks(frames, ends[0] == ends[1], last)
        scores, unpaired = (np.empty((0, len(frames))), 0) if missing else paired(*frames.values())
        if not missing and not len(scores):
            missing = "no example in common"
        if not missing:
            evidence = stats.base_evidence if about["stage"] == "base" else stats.evidence
            cases[len(rows)] = evidence(*scores.T, last["chance"])
        seeds = int(min(first["seeds"], last["seeds"]))
        about |= {"relation": first["relation"], "first": ends[0], "last": ends[1]}
        about |= {"chance": last["chance"], "n": len(scores), "n_unpaired": unpaired}
        rows.append(about | {"seeds": seeds, "one_seed": seeds == 1, "missing": missing})
    return judge(pd.DataFrame(rows, columns=None if rows else [*TUNING, *SETTING]), cases)


def what_lacks(frames: dict[str, pd.DataFrame | None], one_checkpoint: bool, last: pd.Series) -> str:
    """Why the frames (by name) of a curve that ends in the point `last` give no verdict; empty where they do."""
    lacking = ["one checkpoint alone"] * one_checkpoint
    lacking += [f"no {name}" for name, frame in frames.items() if frame is None]
    if last["n"] and np.isnan(last["chance"]):
        lacking.append("no chance level")
    return ", ".join(lacking)


def judge(rows: pd.DataFrame, cases: dict[int, stats.Evidence]) -> pd.DataFrame:
    """The rows with verdict, latent, adjusted p-values and evidence; `cases` by row position, the others get none.

    `latent` and what is about tuning stay empty of BASE alone.
    """
    together = rows[["family", "stage", *SHOTS, "dtype"]].assign(
        reading=rows["method"].where(~rows["method"].isin(STANDARD), "standard")
    )
    found = {}
    for (_, stage, *_), group in together[together.index.isin(list(cases))].groupby(list(together.columns)):
        judge_all = stats.base_verdicts if stage == "base" else stats.verdicts
        judged = judge_all([cases[at] for at in group.index])
        found |= dict(zip(group.index, judged, strict=True))
    parts = ("rise", "above_chance", "gain", "tuned_above_chance", "tuned_rise", "extra_rise")
    nothing = asdict(stats.Verdict("no verdict", False, *[NOT_KNOWN] * 3))
    for part in parts:
        nothing |= spread(part, None) | {f"{part}_detectable": NOT_KNOWN}
    columns = []
    for at in rows.index:
        column = nothing | (asdict(found[at]) if at in found else {})
        for part in parts if at in cases else ():
            difference = getattr(cases[at], part)
            if difference is not None:
                column |= spread(part, difference) | {f"{part}_detectable": difference.detectable}
        columns.append(column)
    return pd.concat([rows, pd.DataFrame(columns, index=rows.index, columns=list(nothing))], axis=1)


def forgetting(study: Study) -> pd.DataFrame:
    """Tuned - BASE on the tasks of the other datasets, and on the benchmarks: a row per (tuning, prompt, shots, dtype,
    relation, checkpoint), tasks weighing the same, with MRC and median ratio; tasks that are missing or have a BASE of
    0 are named."""
    counted, found = headline(study.points), []
    for row, _, scores, _, missing in pairs(study):
        if row.relation in ("cross_task", "benchmark") and counted[row.Index]:
            found.append({**row._asdict(), "scores": scores, "lacking": missing})
    keys, rows = [*TUNING, *SHOTS, "dtype", "relation", "checkpoint"], []
    for key, group in pd.DataFrame(found, columns=None if found else keys).groupby(keys, dropna=False, sort=False):
        there = group[group["scores"].notna()]
        out = dict(zip(keys, key, strict=True)) | {"step": group["step"].iloc[0], "tokens_b": group["tokens_b"].iloc[0]}
        change = stats.mean_of_means([each[:, 1] - each[:, 0] for each in there["scores"]]) if len(there) else None
        means = np.array([each.mean(axis=0) for each in there["scores"]]).reshape(-1, 2)
        ratios = stats.ratios_of_change(means[:, 1], means[:, 0])
        out |= spread("change", change) | {"tasks": len(there), "tasks_expected": len(group)}
        out |= {"n": change.n if change else 0, "seeds": int(there["seeds"].min()) if len(there) else 0}
        out |= {"mrc": ratios.mrc, "mrc_p": ratios.p, "median_ratio": ratios.median, "mrc_tasks": ratios.n}
        out["base_zero"] = ", ".join(there["task"].iloc[at] for at in ratios.zero)
        gaps = group[group["lacking"] != ""]
        out["missing"] = "; ".join(f"{task}: {what}" for task, what in zip(gaps["task"], gaps["lacking"], strict=True))
        rows.append(out)
    return pd.DataFrame(rows, columns=None if rows else keys)


def ranges(study: Study) -> Iterator[tuple[dict, list[str], np.ndarray | None]]:
    """For each (tuning, task, checkpoint, shots, reading): what it is, its prompt formats, scores (n, formats) or None
    where a format that the family's table has for the task, method and chat template is missing."""
    keys = [*TUNING, "checkpoint", "step", "tokens_b", "relation", *(k for k in SETTING if k != "prompt_format")]
    there = study.points[study.points["n"] > 0]
    alike = ["family", "task", "method", "apply_chat_template"]
    expected = there.groupby(alike)["prompt_format"].agg(lambda names: sorted(set(names))).to_dict()
    for key, group in study.points.groupby(keys, dropna=False, sort=False):
        about = dict(zip(keys, key, strict=True))
        names = expected[tuple(about[name] for name in alike)]
        have = {row.prompt_format: row.Index for row in group[group["n"] > 0].itertuples()}
        missing = [name for name in names if name not in have]
        scores = None
        if not missing and len(names) > 1:
            scores, _ = paired(*(study.examples[have[name]] for name in names))
        alone = "one format alone" if len(names) == 1 else ""
        about["missing"] = ", ".join(f"no {name}" for name in missing) or alone
        yield about, names, scores if scores is not None and len(scores) else None


def formats(study: Study) -> pd.DataFrame:
    """Format sensitivity: a row per (BASE or tuning, task, checkpoint, shots) with the best minus the worst format."""
    rows = []
    for about, names, scores in ranges(study):
        means = None if scores is None else scores.mean(axis=0)
        out = about | spread("range", None if scores is None else stats.mean_of_ranges([scores]))
        out |= {"best": "" if means is None else names[means.argmax()], "formats": ", ".join(names)}
        out |= {"worst": "" if means is None else names[means.argmin()], "n": 0 if scores is None else len(scores)}
        rows.append(out)
    return pd.DataFrame(rows)


def format_means(study: Study) -> pd.DataFrame:
    """Mean range over tasks of BASE, and of the tuned on their id and ood tasks, per checkpoint, shots, chat template
    and dtype.

    Both sides average the same tasks: those for which, at this checkpoint, both ranges are known.
    """
    table = pd.DataFrame([about | {"scores": scores} for about, _, scores in ranges(study)])
    table = table[headline(table)]
    keys = ["family", "checkpoint", *(name for name in SHOTS if name != "prompt_format"), "dtype"]
    base = table[table["stage"] == "base"][[*keys, "task", "metric", "scores"]]
    tuned = table[table["relation"].isin(("id", "ood"))]
    both = tuned.merge(base, how="left", on=[*keys, "task", "metric"], suffixes=("_tuned", "_base"))
    rows = []
    for key, group in both.groupby(keys, sort=False):
        there = group[group["scores_tuned"].notna() & group["scores_base"].notna()]
        out = dict(zip(keys, key, strict=True)) | {"tasks": len(there), "tasks_expected": len(group)}
        for side in ("base", "tuned"):
            out |= spread(side, stats.mean_of_ranges(list(there[f"scores_{side}"])) if len(there) else None)
        rows.append(out | {"n": sum(map(len, there["scores_tuned"]))})
    columns = [*keys, "tasks", "tasks_expected", *spread("base", None), *spread("tuned", None), "n"]
    return pd.DataFrame(rows, columns=columns)


def methods(study: Study) -> pd.DataFrame:
    """Ways of reading the same task's answers: a row per (BASE or tuning, task, setting, method) at the last checkpoint
    of each family, of those with a score by more than one method (the paper's Table 3). `n_unparsable` counts the
    answers without a label of all seeds."""
    last = study.points["family"].map({family: names[-1] for family, names in study.checkpoints.items()})
    there = study.points[(study.points["n"] > 0) & (study.points["checkpoint"] == last)]
    keys = [*TUNING, *(name for name in SETTING if name != "method")]
    several = there[there.groupby(keys, dropna=False)["method"].transform("nunique") > 1]
    columns = ["family", "checkpoint", *TUNING[1:], "task", "relation", *SETTING[1:]]
    columns += ["value", "value_low", "value_high", "chance", "n", "n_unparsable", "seeds"]
    return several.rename(columns={"low": "value_low", "high": "value_high"})[columns].reset_index(drop=True)


def main_setting(study: Study) -> dict:
    """The prompt format, shots, shot seed, chat template and dtype that most points have, `default` before other
    formats. Where there is a tuned point on a dataset's task, only such points count: benchmarks may have other shots.
    """
    points = study.points
    there = points["n"] > 0
    related = points["relation"].isin(("id", "ood", "cross_task"))
    for wanted in (headline(points), related, points["prompt_format"] == "default"):
        there = there & wanted if (there & wanted).any() else there
    counts = points[there].groupby([*SHOTS, "dtype"]).size()
    return dict(zip([*SHOTS, "dtype"], counts.idxmax(), strict=True))


def at_setting(frame: pd.DataFrame, setting: dict) -> pd.DataFrame:
    """The rows of a table at the given values of its columns that tasks are judged by."""
    keep = headline(frame) if "method" in frame else pd.Series(True, index=frame.index)
    for name, value in setting.items():
        keep &= frame[name] == value if name in frame else True
    return frame[keep]


def overview(study: Study) -> pd.DataFrame:
    """What there is: a row per tuning with its checkpoints, seeds, tasks, points, and the number of missing points."""
    rows = []
    for key, points in study.points.groupby(TUNING, dropna=False):
        there = points[points["n"] > 0]
        out = dict(zip(TUNING, key, strict=True)) | {"checkpoints": there["checkpoint"].nunique()}
        out |= {"checkpoints_expected": points["checkpoint"].nunique(), "seeds": int(points["seeds_expected"].max())}
        out |= {"tasks": there["task"].nunique(), "points": len(there), "missing": int((points["missing"] != "").sum())}
        rows.append(out)
    return pd.DataFrame(rows)
