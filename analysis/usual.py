"""Which setting each task is shown and judged in, where a report has room for one.

    chosen = usual_settings(study.points, tables.main_setting(study))
    at_usual(verdicts, chosen)                                   the table's rows in those settings

A study has one main setting (prompt, shots, dtype). A task that was never scored in it, as the benchmarks where the
datasets' tasks take shots, is shown in the setting that most of its own points have.
"""

import pandas as pd

from analysis.study import SETTING, headline

OF = ["family", "task", "relation"]  # whose setting is told


def usual_settings(points: pd.DataFrame, main: dict) -> pd.DataFrame:
    """The chosen setting of every task: a row per (family, task, relation) with the columns of a setting.

    `main` maps the names of a main setting (`tables.main_setting`) to their values.
    """
    there = points[points["n"] > 0]
    usual = headline(there)
    there = there[usual | ~usual.groupby([there["family"], there["task"]]).transform("any")]
    of_task, setting = ["family", "task"], [name for name in SETTING if name != "task"]
    counts = there.groupby([*of_task, *setting], sort=False).size().reset_index(name="points")
    counts["main"] = (counts[list(main)] == pd.Series(main)).all(axis=1)
    counts["default"] = counts["prompt_format"] == "default"
    chosen = counts.sort_values(["main", "default", "points"], ascending=False, kind="stable").groupby(of_task).head(1)
    # An answer that is read in one usual way has one metric by which the task is judged.
    return points[OF].drop_duplicates().merge(chosen[[*of_task, *setting]], on=of_task)


def at_usual(frame: pd.DataFrame, chosen: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table whose setting is a chosen one, judged by the columns that both have."""
    shared = [name for name in chosen.columns if name in frame.columns]
    wanted = pd.MultiIndex.from_frame(chosen[shared])
    return frame[pd.MultiIndex.from_frame(frame[shared]).isin(wanted)]
