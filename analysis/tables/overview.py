"""What there is: a row per tuning."""

import pandas as pd

from analysis.study import SETTING, TUNING, Study


def overview(study: Study) -> pd.DataFrame:
    """What there is: a row per tuning with its checkpoints, seeds, tasks, points, and the number of points with gaps.
    As in `amuro.results.expected`, a setting that the last of three checkpoints or more alone has was asked of that
    one."""
    points, rows = study.points, []
    last = points["family"].map({family: len(names) - 1 for family, names in study.checkpoints.items()})
    earlier = ((points["order"] < last) | (last < 2)) & (points["n"] > 0)
    alike = [points["stage"] == "base", points["family"], *(points[name] for name in SETTING)]
    asked = earlier.groupby(alike).transform("any") | (points["order"] == last)
    gaps = (points["missing"] != "") & asked
    for key, some in points.groupby(TUNING, dropna=False):
        there = some[some["n"] > 0]
        out = dict(zip(TUNING, key, strict=True)) | {"checkpoints": there["checkpoint"].nunique()}
        out |= {"checkpoints_expected": some["checkpoint"].nunique(), "seeds": int(some["seeds_expected"].max())}
        out |= {"tasks": there["task"].nunique(), "points": len(there), "missing": int(gaps[some.index].sum())}
        rows.append(out)
    return pd.DataFrame(rows)
