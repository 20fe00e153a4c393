"""Sensitivity to the prompt's format: best minus worst, its mean over tasks, and its trend over pre-training."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import pandas as pd

from analysis import stats
from analysis.study import NOT_KNOWN, SETTING, SHOTS, TUNING, Study, headline, of_shared_seeds, together
from analysis.tables.common import ABOUT, grouped, nothing, spread, test_name

POINT = [*TUNING, *ABOUT, *(name for name in SETTING if name != "prompt_format")]
ALIKE = ["family", "task", "method", "apply_chat_template"]  # what has the same prompt formats
ERRORS = ["range_observed", "range_bias", "range_most", "range_above", "range_below"]
PARTS = ("mean", "low", "high", "observed", "bias", "most", "above", "below")
RANGE = [*nothing("range"), *ERRORS]
PLACE = ["family", "checkpoint", "order", "step", "tokens_b", *SHOTS[1:], "dtype"]


def sets(study: Study) -> tuple[pd.DataFrame, list[np.ndarray], list[np.ndarray | None]]:
    """(a row per (tuning, task, checkpoint, shots, reading) whose task has several prompt formats in the family, with
    `formats` and what is `missing`; the positions of its points by format, empty where one is missing; the scores of
    the points, of the seeds that all formats have)."""
    points = study.points
    there = points[points["n"] > 0]
    names = there.groupby(ALIKE)["prompt_format"].agg(lambda each: sorted(set(each)))
    names = names[names.map(len) > 1]
    key = pd.MultiIndex.from_frame(points[ALIKE])
    some = points[key.isin(names.index)]
    heads, groups = grouped(some, POINT)
    formats, scored = some["prompt_format"].to_numpy(object), (some["n"] > 0).to_numpy()
    expected, wanted, missing = [], [], []
    for head, group in zip(heads[ALIKE].itertuples(index=False, name=None), groups, strict=True):
        have = {formats[at]: some.index[at] for at in group if scored[at]}
        expected.append(names.loc[head])
        lacking = [f"no {name}" for name in expected[-1] if name not in have]
        missing.append(", ".join(lacking))
        wanted.append(np.array([] if lacking else [have[name] for name in expected[-1]], dtype=int))
    examples = of_shared_seeds(study, [each for each in wanted if len(each)])
    for at, each in enumerate(wanted):
        if study.paired and any(examples[point] is None for point in each):
            wanted[at], missing[at] = np.array([], dtype=int), "no seed that all formats have"
    return heads.assign(formats=expected, missing=missing), wanted, examples


def formats(study: Study) -> pd.DataFrame:
    """A row per (BASE or tuning, task, checkpoint, shots) of the tasks with several formats: best minus worst format
    (corrected for its bias; `range_observed` as it is), which formats these are, n."""
    return measured(study).drop(columns=ERRORS[1:])


@lru_cache(maxsize=1)
def measured(study: Study) -> pd.DataFrame:
    """`formats` and what a mean of ranges needs, made once of a study."""
    heads, wanted, examples = sets(study)
    out = heads.assign(best="", worst="", n=0, **dict.fromkeys(RANGE, NOT_KNOWN))
    sizes = np.array([len(each) for each in wanted])
    values = {name: out[name].to_numpy().copy() for name in (*RANGE, "n")}
    means = [None] * len(out)
    for size in np.unique(sizes[sizes > 0]):
        chosen = np.flatnonzero(sizes == size)
        for which, mean, found in ranges(study, np.array([wanted[at] for at in chosen]), examples):
            at = chosen[which]
            for name, part in zip(RANGE, PARTS, strict=True):
                values[name][at] = getattr(found, part)
            values["n"][at] = found.n
            for place, each in zip(at, mean, strict=True):
                means[place] = each
    out = out.assign(**values)
    for name, pick in (("best", np.argmax), ("worst", np.argmin)):
        chosen = zip(out["formats"], means, strict=True)
        out[name] = [("" if mean is None else names[pick(mean)]) for names, mean in chosen]
    out = out.assign(formats=out["formats"].map(", ".join), test=test_name(study))
    return out[[*heads.columns, *RANGE, "best", "worst", "n", "test"]]


def ranges(
    study: Study, wanted: np.ndarray, examples: list[np.ndarray | None]
) -> Iterator[tuple[np.ndarray, np.ndarray, stats.Range]]:
    """Blocks (which (j,), means (j, formats), Range of arrays (j,)) of the points `wanted` (k, formats)."""
    if study.paired:
        for which, scores, _ in together(study, wanted, examples):
            yield which, scores.mean(axis=-1), stats.format_range(scores)
    else:
        means, errors, n = (study.points[name].to_numpy(float)[wanted] for name in ("value", "stderr", "n"))
        yield np.arange(len(wanted)), means, stats.range_of_means(means, errors, n.min(axis=1))


def format_means(study: Study) -> pd.DataFrame:
    """Mean range over tasks of BASE, and of the tuned on their id and ood tasks, per checkpoint, shots, chat template
    and dtype.

    Both sides average the same tasks: those for which, at this checkpoint, both ranges are known. A task that several
    tunings (datasets, learning rates) have counts once, as their mean.
    """
    table = measured(study)
    table = table[headline(table)]
    both_of = [*PLACE, "task", "metric"]
    base = table[table["stage"] == "base"][[*both_of, *ERRORS]]
    tuned = table[table["relation"].isin(("id", "ood"))]
    both = tuned.merge(base, how="left", on=both_of, suffixes=("_tuned", "_base"))
    heads, groups = grouped(both, PLACE)
    rows = []
    for group in groups:
        lines = both.iloc[group]
        every = lines[lines["range_observed_tuned"].notna() & lines["range_observed_base"].notna()]
        # Errors of one task's tunings go together, so that theirs is the mean too.
        there = every.groupby("task").mean(numeric_only=True)
        out = {"tasks": len(there), "tasks_expected": lines["task"].nunique()}
        out |= {"tunings": len(every), "tunings_expected": len(lines)}
        for side in ("base", "tuned"):
            errors = [there[f"{name}_{side}"].to_numpy() for name in ERRORS]
            out |= spread(side, *stats.mean_range(*errors)) if len(there) else nothing(side)
        rows.append(out | {"n": int(there["n"].sum())})
    columns = ["tasks", "tasks_expected", "tunings", "tunings_expected", *nothing("base"), *nothing("tuned"), "n"]
    return pd.concat([heads, pd.DataFrame(rows, columns=columns, index=heads.index)], axis=1)


TREND = [*TUNING, "task", "relation", *(name for name in SETTING if name not in ("task", "prompt_format"))]
MEAN = "mean of tasks"


def format_trend(study: Study) -> pd.DataFrame:
    """How much the range of formats grows with ten times the tokens (`slope`, by least squares over the checkpoints
    with all formats), per (BASE or tuning, task, shots, reading); and, as task "mean of tasks", over BASE's tasks and
    over the id and ood tasks of each tuning. `missing` names what has no place in it: checkpoints, or of a mean tasks.
    Empty without tokens."""
    heads, wanted, examples = sets(study)
    known = np.array([len(each) > 0 for each in wanted], dtype=bool) & (heads["tokens_b"] > 0).to_numpy(bool)
    rows, slopes = [], []
    names, tokens = heads["checkpoint"].to_numpy(object), heads["tokens_b"].to_numpy(float)
    curves, groups = grouped(heads, TREND)
    for at, group in enumerate(groups):
        whole = group[known[group]]
        found = (
            trend(study, [wanted[each] for each in whole], np.log10(tokens[whole]), examples) if len(whole) else None
        )
        lost = ", ".join(names[group[~known[group]]])
        about = {"checkpoints": len(whole), "checkpoints_expected": len(group), "tasks": 1, "tasks_expected": 1}
        alone = "fewer than two checkpoints" if found is None else ""
        about |= {
            "missing": f"without {lost}" if lost else alone,
            "n": found.n if found else 0,
            "test": test_name(study),
        }
        slope = spread("slope", found.mean, found.low, found.high) if found else nothing("slope")
        rows.append(curves.iloc[at].to_dict() | about | slope)
        slopes.append(found)
    columns = [*TREND, "checkpoints", "checkpoints_expected", "tasks", "tasks_expected", "n", *nothing("slope")]
    table = pd.DataFrame(rows, columns=[*columns, "missing", "test"])
    if all(each is None for each in slopes):
        return table.head(0)
    return pd.concat([table, trend_means(table, slopes)], ignore_index=True)


def trend(
    study: Study, points: list[np.ndarray], log_tokens: np.ndarray, examples: list[np.ndarray | None]
) -> stats.Estimate | None:
    """The slope of the range through the `points`, of each checkpoint (formats,); None where there is none."""
    if len(set(log_tokens)) < 2:
        return None
    wanted = np.array(points)
    if not study.paired:
        values, errors, n = (study.points[name].to_numpy(float)[wanted] for name in ("value", "stderr", "n"))
        return stats.trend_of_draws(values, stats.normal_noise(errors), log_tokens, int(n.min()))
    for _, scores, _ in together(study, wanted.reshape(1, -1), examples):
        return stats.range_trend(scores[0].reshape(*wanted.shape, -1), log_tokens)
    return None


def trend_means(table: pd.DataFrame, slopes: list[stats.Estimate | None]) -> pd.DataFrame:
    """The mean slopes over tasks, of those that have one, as rows of `format_trend`."""
    counted = headline(table) & ((table["stage"] == "base") | table["relation"].isin(("id", "ood")))
    there = np.flatnonzero(counted)
    keys = [*TUNING, *SHOTS[1:], "dtype"]
    heads, groups = grouped(table.iloc[there], keys)
    out = []
    for group in groups:
        every = table.iloc[there[group]]
        sloped = [each for each in there[group] if slopes[each] is not None]
        lines, lost = table.iloc[sloped], ", ".join(every.loc[every["slope"].isna(), "task"])
        about = {"task": MEAN, "relation": "", "method": "standard", "metric": ", ".join(sorted(set(every["metric"])))}
        about |= {"checkpoints": int(every["checkpoints"].min()), "tasks": len(lines), "tasks_expected": len(every)}
        about |= {"checkpoints_expected": int(every["checkpoints_expected"].max()), "n": int(lines["n"].sum())}
        about |= {"test": every["test"].iloc[0], "missing": f"without {lost}" if lost else ""}
        slope = spread("slope", *stats.mean_trend([slopes[each] for each in sloped])) if sloped else nothing("slope")
        out.append(about | slope)
    rest = [name for name in table.columns if name not in keys]
    return pd.concat([heads, pd.DataFrame(out, columns=rest, index=heads.index)], axis=1)[list(table.columns)]
