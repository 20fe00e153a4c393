"""What the curves over pre-training say: where they turn, and which checkpoint is the best buy."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from analysis import stats
from analysis.study import CURVE, NOT_KNOWN, SETTING, SHOTS, TUNING, Study, headline, together
from analysis.tables.common import curve_rows, grouped, test_name

SIDES = ("base", "tuned")
MEAN = "mean of id tasks"


def drawn(study: Study, curves: list[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Blocks (which (j,), values (j, m), draws (SHARES, j, m)) of curves, each the positions of its points, of those
    with two points or more and examples in common. Draws of two curves of one task are paired by example, too."""
    sizes = np.array([len(curve) for curve in curves], dtype=int)
    values, errors = (study.points[name].to_numpy() for name in ("value", "stderr"))
    for size in np.unique(sizes[sizes > 1]):
        chosen = np.flatnonzero(sizes == size)
        wanted = np.array([curves[at] for at in chosen])
        if study.paired:
            for which, scores, _ in together(study, wanted):
                yield chosen[which], scores.mean(axis=-1), stats.curve_draws(scores)
        else:
            for part in stats.blocks(len(wanted), stats.SHARES * size):
                at = wanted[part]
                yield chosen[part], values[at], stats.normal_draws(values[at], errors[at], seed=int(at[0, 0]))


def picked(
    study: Study, curves: list[np.ndarray], pick: Callable[[np.ndarray], np.ndarray]
) -> dict[int, tuple[np.ndarray, int, np.ndarray]]:
    """Number of the curve -> (values (m,), the position that `pick` takes, its draws (SHARES,)); see `drawn`."""
    found = {}
    for which, values, draws in drawn(study, curves):
        places = zip(values, pick(values), pick(draws).T, strict=True)
        found |= dict(zip(which.tolist(), places, strict=True))
    return found


def turning(study: Study) -> pd.DataFrame:
    """A row per (tuning, setting), and per setting of BASE that nothing was tuned for: the turning points of BASE and
    of the tuned curve by the checkpoints that both have, each with the checkpoint before (together the interval in
    which the curve turns; none before: it never rises by more than the margin), the share of bootstrap draws that
    agree, and whether it is the last one (it has not turned yet); whether the two intervals overlap, in what share of
    the draws they do, and whether they are apart: more than 97.5 % of the draws have the same one turn before the
    other."""
    points, scored = study.points, study.points["n"].to_numpy() > 0
    is_base, spots = (points["stage"] == "base").to_numpy(), points[["family", *SETTING]]
    tuned_spots = pd.MultiIndex.from_frame(spots[~is_base & scored].drop_duplicates())
    wanted = ~is_base | ~pd.MultiIndex.from_frame(spots).isin(tuned_spots)
    every = [curve for curve in curve_rows(study, wanted) if scored[curve].any()]
    both = [curve[scored[curve] & (study.base[curve] >= 0)] for curve in every]
    base = picked(study, [study.base[curve] for curve in both], stats.turning_points)
    tuned = picked(study, [curve[~is_base[curve]] for curve in both], stats.turning_points)
    names = points["checkpoint"].to_numpy(object)
    found = [turn({"base": base.get(at), "tuned": tuned.get(at)}, names[curve]) for at, curve in enumerate(both)]
    heads = points.iloc[[curve[0] for curve in every]][[*CURVE, "relation"]].reset_index(drop=True)
    columns = list(turn({"base": None, "tuned": None}, names[:0]))
    table = pd.concat([heads, pd.DataFrame(found, columns=columns, index=heads.index)], axis=1)
    expected = table["family"].map({family: len(names) for family, names in study.checkpoints.items()})
    return table.assign(checkpoints_expected=expected.astype(int), test=test_name(study))


def turn(sides: dict[str, tuple | None], names: np.ndarray) -> dict:
    """The turning points of both sides, each (values, position, draws) or None, over the checkpoints `names`."""
    out = {}
    for side in SIDES:
        out |= {f"turning_{side}": "", f"before_{side}": "", f"share_{side}": NOT_KNOWN, f"still_rising_{side}": None}
        if sides[side] is not None:
            _, at, draws = sides[side]
            out |= {f"turning_{side}": names[at], f"before_{side}": names[at - 1] if at else ""}
            out |= {f"share_{side}": float(stats.agreement(at, draws)), f"still_rising_{side}": at == len(names) - 1}
    out |= {"overlap": None, "share_overlap": NOT_KNOWN, "apart": None, "checkpoints": len(names), "missing": ""}
    if sides["base"] and sides["tuned"]:
        # Both curves have the same checkpoints, so two intervals between neighbours overlap where they are the same.
        (_, base, base_draws), (_, tuned, tuned_draws) = sides["base"], sides["tuned"]
        later, sooner = (float((side < 0).mean()) for side in (base_draws - tuned_draws, tuned_draws - base_draws))
        out |= {"overlap": bool(base == tuned), "share_overlap": float((base_draws == tuned_draws).mean())}
        out |= {"apart": max(later, sooner) > 0.975}
    elif not sides["base"]:
        out["missing"] = "fewer than two checkpoints with scores of BASE and tuned"
    return out


def best_buy(study: Study) -> pd.DataFrame:
    """A row per (tuning, setting), and, as task "mean of id tasks", per tuning, shots and dtype: the earliest
    checkpoint whose tuned score is not worse than the best one's by more than the margin, the best, and the share of
    bootstrap draws in which this same checkpoint is chosen."""
    points, scored = study.points, study.points["n"].to_numpy() > 0
    curves = [curve[scored[curve]] for curve in curve_rows(study, (points["stage"] != "base").to_numpy())]
    curves = [curve for curve in curves if len(curve)]
    values, found = points["value"].to_numpy(), picked(study, curves, stats.best_buys)
    rows = [buy(curve, found.get(at) or (values[curve], 0, None)) for at, curve in enumerate(curves)]
    heads = points.iloc[[curve[0] for curve in curves]][[*CURVE, "relation"]].reset_index(drop=True)
    means, mean_rows = own_means(study, heads, curves)
    table = pd.DataFrame([*rows, *mean_rows], columns=["at", "best_at", "score", "best_score", "share", "checkpoints"])
    at, best = (points.iloc[table[name].astype(int)].reset_index(drop=True) for name in ("at", "best_at"))
    table = table.assign(best_checkpoint=best["checkpoint"], **at[["checkpoint", "step", "tokens_b"]])
    columns = ["checkpoint", "step", "tokens_b", "score", "best_checkpoint", "best_score", "share", "checkpoints"]
    heads = pd.concat([heads, means], ignore_index=True) if len(means) else heads
    expected = heads["family"].map({family: len(names) for family, names in study.checkpoints.items()})
    table = pd.concat([heads, table[columns]], axis=1)
    return table.assign(checkpoints_expected=expected.astype(int), test=test_name(study))


def buy(curve: np.ndarray, found: tuple[np.ndarray, int, np.ndarray | None]) -> tuple:
    """(position of the point to buy, of the best, both scores, share that agrees, checkpoints) of a curve. A curve of
    one checkpoint, or whose checkpoints share no examples, has no draws to tell a share."""
    values, at, draws = found
    at = at if draws is not None else int(stats.best_buys(values))
    share = NOT_KNOWN if draws is None else float(stats.agreement(at, draws))
    return curve[at], curve[values.argmax()], values[at], values.max(), share, len(curve)


def own_means(study: Study, heads: pd.DataFrame, curves: list[np.ndarray]) -> tuple[pd.DataFrame, list[tuple]]:
    """(heads, `buy`) of the means over the id tasks of each tuning that has several, all with the same checkpoints."""
    own = np.flatnonzero(headline(heads) & (heads["relation"] == "id"))
    keys, groups = grouped(heads.iloc[own], [*TUNING, *SHOTS, "dtype"])
    order, about, rows = study.points["order"].to_numpy(), [], []
    for number, group in enumerate(groups):
        some = [curves[own[at]] for at in group]
        blocks = list(drawn(study, some)) if len({tuple(order[curve]) for curve in some}) == 1 < len(some) else []
        if sum(len(which) for which, *_ in blocks) == len(some):
            values = np.concatenate([each for _, each, _ in blocks]).mean(axis=0)
            draws = np.concatenate([each for *_, each in blocks], axis=1).mean(axis=1)
            rows.append(buy(some[0], (values, int(stats.best_buys(values)), stats.best_buys(draws))))
            metrics = ", ".join(sorted(set(heads["metric"].iloc[own[group]])))
            texts = {"task": MEAN, "relation": "id", "method": "standard", "metric": metrics}
            about.append(keys.iloc[number].to_dict() | texts)
    return pd.DataFrame(about, columns=list(heads.columns)), rows
