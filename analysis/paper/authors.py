"""The authors' published rows (arXiv 2408.06663) as rows of our table.

    table = rows("path/to/results")       the columns of amuro.results.COLUMNS, checked as our own rows are
    every = read("path/to/results")       every published row: what its id means, and why it is not in the table

The folder holds `all_perf_table.csv`, `official_eval_table.csv` and `it_perf_table.csv`, as published.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from amuro import results
from amuro.names import first_line
from amuro.registry.families import family
from amuro.tasks import DATASETS, relation_of
from analysis import stats
from analysis.paper.ids import read_model, read_task

FAMILY = "olmo-1b"
LAST_STEP = 738020  # `main` is taken to be the last of the 351 published checkpoints
PREDICTIONS, OFFICIAL, INSTRUCTIONS = "all_perf_table.csv", "official_eval_table.csv", "it_perf_table.csv"

# Rows of each evaluation set, as the authors' code loads them. Those of the classification sets agree with the
# published standard errors, those of the official table make every published accuracy a whole number of right answers.
SIZES = {"xsum": 11334, "xlsum": 11535, "cnn": 11490, "socialiqa": 1954, "sciq_qg": 1000, "tweetqa": 10692}
SIZES |= {"mnli_matched": 9815, "mnli_mismatched": 9832, "rte": 2490, "gpt3nli": 30000, "paws": 8000}
SIZES |= {"qqp": 390965, "stsb": 1379}
OFFICIAL_SIZES = {"arc_challenge": 299, "arc_easy": 570, "openbookqa": 500, "hellaswag": 10042, "boolq": 3270}
OFFICIAL_SIZES |= {"sciq": 1000, "rte": 277, "qqp": 40430}
GENERATED = ("xsum", "xlsum", "cnn", "socialiqa", "sciq_qg", "tweetqa")
# Chance levels, as no example was published: of labels `stats.majority_rate` of the whole public split (of RTE and
# GPT3NLI their training rows, which the authors score), of a choice 1 / choices, of text `stats.text_chance` of 382
# to 500 references of the public split.
LEVELS = {"mnli_matched": 0.354, "mnli_mismatched": 0.352, "rte": 1249 / 2490, "gpt3nli": 1 / 3, "paws": 0.558}
LEVELS |= {"qqp": 0.632, "boolq": 0.622, "arc_easy": 0.25, "arc_challenge": 0.25, "openbookqa": 0.25, "sciq": 0.25}
LEVELS |= {"hellaswag": 0.25, "xsum": 0.083, "xlsum": 0.095, "cnn": 0.076, "socialiqa": 0.249, "sciq_qg": 0.12}
LEVELS |= {"tweetqa": 0.092}
HIDDEN = ("qqp", "stsb")  # their splits have no labels, so that every right answer is "no"
OFFICIAL_SHOTS = 4  # by the authors' script; the ids of that table do not say it
SEED = 42  # draws the 6,000 training rows; the seed of the training itself is not told


def read(folder: str | Path, hidden_labels: bool = False) -> pd.DataFrame:
    """Every published row: table, model_id, eval_dataset, value, stderr, what they mean, and `left_out`, the reason why
    the row is not in our table (empty where it is).

    hidden_labels: with QQP and STS-B, whose "accuracies" are the rate of the answer "no" to unlabelled rows.
    ValueError where a table is missing or is not such a table.
    """
    every = pd.concat([_read_csv(Path(folder) / name) for name in (PREDICTIONS, OFFICIAL, INSTRUCTIONS)])
    every = every.reset_index(drop=True)
    models = [read_model(name) for name in every["model_id"]]
    tasks = [read_task(name) for name in every["eval_dataset"]]
    every["task"], every["prompt_format"] = [name for name, _ in tasks], [shown for _, shown in tasks]
    # One name stands for two things: a question to write in one table, multiple choice in the other.
    every.loc[(every["task"] == "sciq") & (every["table"] == PREDICTIONS), "task"] = "sciq_qg"
    for name in ("weights", "step", "dataset", "epochs", "learning_rate", "shots", "converted", "chat"):
        every[name] = [getattr(model, name, None) for model in models]
    every["left_out"] = [_reason(row, hidden_labels) for row in every.itertuples()]
    return every


def _read_csv(path: Path) -> pd.DataFrame:
    """One of the three tables: table, model_id, eval_dataset, value, stderr (NaN where it has none)."""
    if not path.is_file():
        raise ValueError(f"--results {path.parent}: no {path.name}; give the folder with the authors' three tables")
    try:
        frame = pd.read_csv(path, index_col=0, dtype={"model_id": str, "eval dataset": str})
    except ValueError as error:  # empty, ragged or not UTF-8
        raise ValueError(f"{path}: cannot be read ({first_line(error)}); is the file whole?") from None
    if missing := {"model_id", "eval dataset", "Performance"} - set(frame.columns):
        raise ValueError(f"{path}: no column {', '.join(sorted(missing))}; is it one of the authors' tables?")
    frame = frame.rename(columns={"eval dataset": "eval_dataset", "Performance": "value", "std": "stderr"})
    frame = frame.assign(table=path.name, stderr=frame.get("stderr", np.nan))
    if frame[["model_id", "eval_dataset"]].isna().any(axis=None):
        raise ValueError(f"{path}: a row without model_id or eval dataset; is the file whole?")
    for name in ("value", "stderr"):
        try:
            frame[name] = pd.to_numeric(frame[name])
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: a number is no number ({error}); is the file whole?") from None
    return frame[["table", "model_id", "eval_dataset", "value", "stderr"]]


def _reason(row, hidden_labels: bool) -> str:
    """Why a published row has no place in our table; empty where it has one."""
    sizes = OFFICIAL_SIZES if row.table == OFFICIAL else SIZES
    if pd.isna(row.weights):
        return "unknown model id"
    if row.dataset and row.dataset not in DATASETS:
        return f"unknown training set {row.dataset}"
    if row.table == INSTRUCTIONS:
        return "an evaluation that the paper does not use"
    if row.task not in sizes:
        return (
            "an evaluation that the paper does not use" if row.task.startswith("llmbar") else "unknown evaluation set"
        )
    if row.table == PREDICTIONS and not row.converted:
        return "from before the conversion of the weights was mended"
    if row.table == PREDICTIONS and row.task in HIDDEN and not hidden_labels:
        return "scored on rows without labels"
    return ""


def rows(folder: str | Path, hidden_labels: bool = False) -> pd.DataFrame:
    """The published rows in the columns of `amuro.results.COLUMNS`; the arguments are those of `read`.

    A value of the predictions' table is the middle of a bootstrap interval, not a mean: that cannot be undone.
    ValueError also where two rows share a key or a value is outside [0, 1].
    """
    every = read(folder, hidden_labels)
    every = every[every["left_out"] == ""]
    if every.empty:
        raise ValueError(f"--results {folder}: none of the rows is of a known model and evaluation set")
    return results.check(pd.DataFrame([_row(each) for each in every.itertuples()], columns=list(results.COLUMNS)))


def tokens_b(step: int) -> float:
    """Billions of tokens that the family has seen at a step."""
    return step * family(FAMILY).tokens_per_step / 1e9


def _row(row) -> dict:
    """One published row in our columns."""
    official, text = row.table == OFFICIAL, row.task in GENERATED
    n = (OFFICIAL_SIZES if official else SIZES)[row.task]
    stderr = (row.value * (1 - row.value) / n) ** 0.5 if official else row.stderr
    low, high = max(0.0, row.value - 1.96 * stderr), min(1.0, row.value + 1.96 * stderr)
    if not text and 0 <= row.value <= 1:
        low, high = stats.wilson(round(row.value * n), n)
    final = pd.isna(row.step)
    step = LAST_STEP if final else int(row.step)
    return {
        "family": FAMILY,
        "step": step,
        "tokens_b": tokens_b(step),
        "checkpoint": f"{FAMILY}@main" if final else f"{FAMILY}@{step}",
        "stage": DATASETS[row.dataset].stage if row.dataset else "base",
        "dataset": row.dataset,
        "task": row.task,
        "relation": relation_of(row.task, row.dataset) if row.dataset else "",
        "prompt_format": row.prompt_format,
        "num_shots": OFFICIAL_SHOTS if official else row.shots,
        "shot_seed": 0,  # nothing is drawn: the shots are the first rows of the scored file
        "apply_chat_template": False,
        # The paper's name for its reading of labels; its code takes all sub-tokens of a label for candidates.
        "method": "loglikelihood" if official else "generate" if text else "token_prob",
        "metric": "rouge_l" if text else "accuracy",
        "value": row.value,
        "stderr": stderr,
        "ci_low": low,
        "ci_high": high,
        "n": n,
        "learning_rate": row.learning_rate if row.dataset else None,
        "seed": SEED if row.dataset else None,
        "dtype": "unknown",
        "cell_id": row.weights,
        "task_version": 0,
    }
