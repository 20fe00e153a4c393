"""Tables of the report: the one results table and its per-example scores in, tidy DataFrames out.

    study = collect(results.load("runs"), results.load_examples("runs"))
    gains(study), verdicts(study), forgetting(study), formats(study), format_means(study), overview(study)

Runs that differ in their seed alone are averaged per example; everything is paired by example. Rows are only ever
compared within one setting, which has one dtype. What is missing stays as a row that says so in `missing`.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache

import numpy as np
import pandas as pd

from amuro.results import KEY
from analysis import stats

TUNING = ["family", "stage", "dataset", "learning_rate"]  # one curve over the checkpoints of a family
READING = ["method", "metric", "dtype"]
SHOTS = ["prompt_format", "num_shots", "shot_seed"]
SETTING = ["task", *SHOTS, *READING]
STANDARD = ("token_prob", "generate", "loglikelihood")  # each task's usual way of reading an answer
NOT_KNOWN = float("nan")


@dataclass(frozen=True)
class Study:
    """`points`: a row per (tuning, setting, checkpoint), the missing ones too, with value, interval, n, seeds, chance.
    `examples[i]`: of row i, a frame over example_id with score (mean over seeds) and target; None where missing.
    `checkpoints`: family -> its checkpoints in order.
    """

    points: pd.DataFrame
    examples: list[pd.DataFrame | None]
    checkpoints: dict[str, list[str]]


def collect(table: pd.DataFrame, examples: pd.DataFrame) -> Study:
    """The study in a results table and its examples, as `amuro.results` loads them. ValueError where they disagree."""
    scores = {key: frame for key, frame in examples.groupby(KEY, sort=False)}
    plain = ("learning_rate", "tokens_b", "value", "ci_low", "ci_high")
    table = table.astype(dict.fromkeys(plain, "float64"))  # NaN for what is not known, as in all the tables here
    times = table[["family", "checkpoint", "step", "tokens_b"]].drop_duplicates()
    times = times.sort_values(["family", "tokens_b", "step", "checkpoint"])
    checkpoints = times.groupby("family")["checkpoint"].agg(list).to_dict()
    points, kept = [], []
    for key, rows in table.groupby([*TUNING, *SETTING], dropna=False):
        about = dict(zip([*TUNING, *SETTING], key, strict=True))
        seeds = sorted(rows["seed"].dropna().unique())
        for time in times[times["family"] == about["family"]].itertuples():
            here = rows[rows["checkpoint"] == time.checkpoint]
            point = about | {"checkpoint": time.checkpoint, "step": time.step, "tokens_b": time.tokens_b}
            point["relation"] = rows["relation"].iloc[0]
            frame = average_seeds(here, scores) if len(here) else None
            absent = [int(seed) for seed in seeds if seed not in set(here["seed"])]
            point |= describe(here, frame, absent) | {"seeds_expected": len(seeds)}
            points.append(point)
            kept.append(frame)
    return Study(pd.DataFrame(points).astype({"step": "Int64"}), kept, checkpoints)


def average_seeds(rows: pd.DataFrame, scores: dict[tuple, pd.DataFrame]) -> pd.DataFrame:
    """Score (mean over `rows`, one per seed) and target by example_id, of the examples that every seed has.

    Raises ValueError where two rows share their seed, or where a row is not the mean of its examples.
    """
    if rows["seed"].duplicated().any() or (len(rows) > 1 and rows["seed"].isna().any()):
        first = rows.iloc[0]
        what = f"{first['checkpoint']} {first['stage']} {first['dataset']} {first['task']}"
        cells = ", ".join(rows["cell_id"])
        raise ValueError(
            f"{what}: cells {cells} differ in more than seed and learning rate; report them from two folders"
        )
    frames = []
    for key, value in zip(rows[KEY].itertuples(index=False, name=None), rows["value"], strict=True):
        if key not in scores:
            raise ValueError(f"a row without examples: {dict(zip(KEY, key, strict=True))}")
        frame = scores[key].set_index("example_id")
        if frame.index.has_duplicates or not np.isclose(frame["score"].mean(), value, atol=1e-6):
            raise ValueError(
                f"the row's value {value} is not the mean of its examples: {dict(zip(KEY, key, strict=True))}"
            )
        frames.append(frame)
    every = pd.concat([frame["score"] for frame in frames], axis=1, join="inner").sort_index()
    return pd.DataFrame({"score": every.mean(axis=1).astype(float), "target": frames[0]["target"].reindex(every.index)})


def describe(rows: pd.DataFrame, frame: pd.DataFrame | None, absent: list[int]) -> dict:
    """Value, interval, n, chance and seeds of one point, and what is missing of it."""
    numbers = dict.fromkeys(("value", "low", "high", "chance", "seed_spread"), NOT_KNOWN) | {"n": 0, "seeds": 0}
    if frame is None:
        return numbers | {"missing": "no result"}
    metric, scores, values = rows["metric"].iloc[0], frame["score"].to_numpy(), rows["value"]
    found = stats.Estimate(scores.mean(), *rows[["ci_low", "ci_high"]].iloc[0], len(scores))
    if len(rows) > 1:  # else the row has its interval already
        found = stats.mean_interval(scores, metric)
    numbers = {"value": found.mean, "low": found.low, "high": found.high, "n": found.n}
    numbers |= {"chance": chance_of(tuple(frame["target"]), metric), "seed_spread": float(values.max() - values.min())}
    missing = [f"seed {seed}" for seed in absent]
    if rows["n"].max() > len(frame):
        missing.append(f"{rows['n'].max() - len(frame)} examples that not every seed has")
    return numbers | {"seeds": int(rows["seed"].notna().sum()), "missing": ", ".join(missing)}


@cache
def chance_of(targets: tuple[str, ...], metric: str) -> float:
    """The chance level of the scored examples; NaN for a text task with a single one."""
    if metric != "rouge_l":
        return stats.majority_rate(targets)
    return stats.text_chance(targets) if len(targets) > 1 else NOT_KNOWN


def paired(*frames: pd.DataFrame) -> tuple[np.ndarray, int]:
    """Scores (n, k) of the examples that all k frames have, and how many examples are not in all of them."""
    scores = pd.concat([frame["score"] for frame in frames], axis=1)
    both = scores.dropna()
    return both.to_numpy(), len(scores) - len(both)


def pairs(study: Study) -> Iterator[tuple[pd.Series, pd.Series | None, np.ndarray | None, int, str]]:
    """For each tuned point: its row, BASE's row of the same checkpoint and setting, their scores (n, 2) as (BASE,
    tuned), the number of unpaired examples, and what is missing."""
    base = base_rows(study)
    for row in study.points[study.points["stage"] != "base"].itertuples():
        at = base.get((row.family, row.checkpoint, *(getattr(row, name) for name in SETTING)))
        frames = [None if at is None else study.examples[at], study.examples[row.Index]]
        lacking = [name for name, frame in zip(("BASE", "tuned"), frames, strict=True) if frame is None]
        scores, unpaired = paired(*frames) if not lacking else (None, 0)
        missing = ", ".join([f"no {name}" for name in lacking] or [row.missing] * bool(row.missing))
        if scores is not None and not len(scores):
            scores, missing = None, "no example in common"
        yield row, None if at is None else study.points.loc[at], scores, unpaired, missing


def base_rows(study: Study) -> dict[tuple, int]:
    """(family, checkpoint, setting) -> position of BASE's point."""
    base = study.points[study.points["stage"] == "base"]
    return {tuple(key): at for at, *key in base[["family", "checkpoint", *SETTING]].itertuples()}


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
    """The verdict on each (tuning, setting) of an id or ood task, with its evidence; Holm over the tasks of one family,
    stage, prompt, shots and dtype. No verdict where a score of the first or last checkpoint is missing."""
    base, rows, cases = base_rows(study), [], {}
    tuned = study.points[study.points["relation"].isin(("id", "ood"))]
    for key, points in tuned.groupby([*TUNING, *SETTING], dropna=False):
        about = dict(zip([*TUNING, *SETTING], key, strict=True))
        first, last = points.iloc[0], points.iloc[-1]
        setting = tuple(about[name] for name in SETTING)
        at = [base.get((about["family"], end["checkpoint"], *setting)) for end in (first, last)] + [
            first.name,
            last.name,
        ]
        frames = [None if each is None else study.examples[each] for each in at]
        missing = what_lacks(frames, first["checkpoint"], last["checkpoint"], last["chance"])
        scores, unpaired = (np.empty((0, 4)), 0) if missing else paired(*frames)
        if not missing and not len(scores):
            missing = "no example in common"
        if not missing:
            cases[len(rows)] = stats.evidence(*scores.T, last["chance"])
        seeds = int(min(first["seeds"], last["seeds"]))
        about |= {"relation": first["relation"], "first": first["checkpoint"], "last": last["checkpoint"]}
        about |= {"chance": last["chance"], "n": len(scores), "n_unpaired": unpaired}
        rows.append(about | {"seeds": seeds, "one_seed": seeds == 1, "missing": missing})
    return judge(pd.DataFrame(rows, columns=None if rows else [*TUNING, *SETTING]), cases)


def what_lacks(frames: list[pd.DataFrame | None], first: str, last: str, chance: float) -> str:
    """Why the frames of BASE and tuned at the first and the last checkpoint give no verdict; empty where they do."""
    names = [f"{stage} at {checkpoint}" for stage in ("BASE", "tuned") for checkpoint in (first, last)]
    lacking = [f"no {name}" for name, frame in zip(names, frames, strict=True) if frame is None]
    if first == last:
        lacking = ["one checkpoint alone", *dict.fromkeys(lacking)]
    if frames[-1] is not None and np.isnan(chance):
        lacking.append("no chance level")
    return ", ".join(lacking)


def judge(rows: pd.DataFrame, cases: dict[int, stats.Evidence]) -> pd.DataFrame:
    """The rows with verdict, latent, adjusted p-values and evidence; `cases` by row position, the others get none."""
    together = rows[["family", "stage", *SHOTS, "dtype"]].assign(
        reading=rows["method"].where(~rows["method"].isin(STANDARD), "standard")
    )
    found = {}
    for _, group in together[together.index.isin(list(cases))].groupby(list(together.columns)):
        judged = stats.verdicts([cases[at] for at in group.index])
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
            column |= spread(part, difference) | {f"{part}_detectable": difference.detectable}
        columns.append(column)
    return pd.concat([rows, pd.DataFrame(columns, index=rows.index, columns=list(nothing))], axis=1)


def forgetting(study: Study) -> pd.DataFrame:
    """Tuned - BASE on the tasks of the other datasets: a row per (tuning, prompt, shots, dtype, checkpoint), tasks
    weighing the same, with MRC and median ratio; tasks that are missing or have a BASE of 0 are named."""
    found = []
    for row, _, scores, _, missing in pairs(study):
        if row.relation == "cross_task" and row.method in STANDARD:
            found.append({**row._asdict(), "scores": scores, "lacking": missing})
    keys, rows = [*TUNING, *SHOTS, "dtype", "checkpoint"], []
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
    where a format that the family's table has for the task is missing."""
    keys = [*TUNING, "checkpoint", "step", "tokens_b", "relation", *(k for k in SETTING if k != "prompt_format")]
    there = study.points[study.points["n"] > 0]
    expected = there.groupby(["family", "task"])["prompt_format"].agg(lambda names: sorted(set(names))).to_dict()
    for key, group in study.points.groupby(keys, dropna=False, sort=False):
        about = dict(zip(keys, key, strict=True))
        names = expected[about["family"], about["task"]]
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
    """Mean range over tasks of BASE, and of the tuned on their id and ood tasks, per checkpoint, shots and dtype.

    Both sides average the same tasks: those for which, at this checkpoint, both ranges are known.
    """
    found = [about | {"scores": scores} for about, _, scores in ranges(study) if about["method"] in STANDARD]
    table = pd.DataFrame(found)
    keys = ["family", "checkpoint", "num_shots", "shot_seed", "dtype"]
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


def main_setting(study: Study) -> dict:
    """The prompt format, shots, shot seed and dtype that most points have, `default` before other formats."""
    there = study.points[study.points["n"] > 0]
    default = there[there["prompt_format"] == "default"]
    counts = (default if len(default) else there).groupby([*SHOTS, "dtype"]).size()
    return dict(zip([*SHOTS, "dtype"], counts.idxmax(), strict=True))


def at_setting(frame: pd.DataFrame, setting: dict) -> pd.DataFrame:
    """The rows of a table at the given values of its columns, answers read off in the usual way."""
    keep = frame["method"].isin(STANDARD) if "method" in frame else pd.Series(True, index=frame.index)
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
