"""The part of the published rows that the paper draws on: four shots, the published rates, eight checkpoints.

paper = grid(rows(folder, hidden_labels=True))
pair(paper, "rte", "mnli")       BASE and tuned scores of one evaluation set over the checkpoints
"""

import pandas as pd

from analysis.paper.authors import LAST_STEP, tokens_b

CHECKPOINTS = ("1000", "18000", "342000", "424000", "505000", "592000", "738000", "main")
RATES = {"xsum": 2e-7, "socialiqa": 2e-6, "mnli": 2e-6, "paws": 2e-6, "tulu": 2e-6}
NUMBERS = ["value", "stderr", "n"]
NOTHING = pd.DataFrame(float("nan"), index=pd.Index(CHECKPOINTS, name="checkpoint"), columns=NUMBERS)
Grid = dict[tuple[str, str, str], pd.DataFrame]
BENCHMARKED = ("rte", "qqp")  # the official table has these too, with labels, but the paper does not show them


def tokens() -> pd.Series:
    """Billions of tokens by checkpoint."""
    times = [tokens_b(LAST_STEP if name == "main" else int(name)) for name in CHECKPOINTS]
    return pd.Series(times, index=CHECKPOINTS)


def grid(table: pd.DataFrame) -> Grid:
    """Rows of our table -> the paper's curves: value, stderr and n at the eight checkpoints (as the paper names them,
    NaN where nothing was published) by task, dataset (empty of BASE) and prompt_format."""
    rate = table["dataset"].astype(object).map(RATES).astype("Float64")
    wanted = (table["num_shots"] == 4) & ((table["stage"] == "base") | (table["learning_rate"] == rate).fillna(False))
    wanted &= ~(table["task"].isin(BENCHMARKED) & (table["method"] == "loglikelihood"))
    cells = table[wanted].assign(checkpoint=table["checkpoint"].str.split("@").str[1].astype(object))
    cells = cells.astype(dict.fromkeys(NUMBERS, float))
    curves = cells.groupby(["task", "dataset", "prompt_format"])
    return {key: rows.set_index("checkpoint")[NUMBERS].reindex(CHECKPOINTS) for key, rows in curves}


def pair(paper: Grid, task: str, dataset: str = "", prompt_format: str = "default") -> pd.DataFrame:
    """base, base_stderr, tuned, tuned_stderr and n of one evaluation set, one row for each of the eight checkpoints;
    NaN where nothing was published. Without a dataset nothing is tuned."""
    base = paper.get((task, "", prompt_format), NOTHING)
    tuned = paper.get((task, dataset, prompt_format), NOTHING) if dataset else NOTHING
    columns = {"base": base["value"], "base_stderr": base["stderr"], "tuned": tuned["value"]}
    return pd.DataFrame(columns | {"tuned_stderr": tuned["stderr"], "n": tuned["n"].combine_first(base["n"])})


def changes(paper: Grid, pairs: list[tuple[str, str]]) -> pd.DataFrame:
    """Tuned - BASE: a row for each checkpoint, a column for each (task, dataset) in the order given, repeats kept."""
    columns = []
    for task, dataset in pairs:
        found = pair(paper, task, dataset)
        columns.append((found["tuned"] - found["base"]).rename(f"{task} <- {dataset}"))
    return pd.concat(columns, axis=1)
