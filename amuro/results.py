"""The one table: a row per measured value, kept in one Parquet file per evaluation unit.

write_unit(path, rows, examples, about)     examples as the file's table, rows and provenance in its metadata
load("runs")                                all rows of all cells, checked
load_examples("runs")                       the scores of every example, for paired comparisons
coverage(table)                             how many of the cells and units that belong together are there
"""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from amuro.cells import read_record, write_atomic

COLUMNS = {  # name -> pandas type; Int64 and string may be empty
    "family": "string",
    "step": "Int64",
    "tokens_b": "Float64",
    "checkpoint": "string",
    "stage": "string",
    "dataset": "string",
    "task": "string",
    "relation": "string",
    "prompt_format": "string",
    "num_shots": "Int64",
    "shot_seed": "Int64",
    "apply_chat_template": "boolean",
    "method": "string",
    "metric": "string",
    "value": "Float64",
    "stderr": "Float64",
    "ci_low": "Float64",
    "ci_high": "Float64",
    "n": "Int64",
    "n_truncated": "Int64",
    "n_unparsable": "Int64",
    "learning_rate": "Float64",
    "seed": "Int64",
    "dtype": "string",
    "cell_id": "string",
    "task_version": "Int64",
}
KEY = ["family", "checkpoint", "stage", "dataset", "task", "prompt_format", "num_shots", "shot_seed"]
KEY += ["apply_chat_template", "method", "metric", "dtype", "cell_id"]
TUNING = ["stage", "dataset", "learning_rate"]
_METADATA = b"amuro"


def write_unit(path: Path, rows: list[dict], examples: pd.DataFrame, about: dict) -> None:
    """Store one unit whole: `examples` (one line per scored example: example_id, target, prediction, truncated,
    unparsable, a column per metric, and for multiple choice `chance`, 1 / number of choices), its `rows` of the one
    table, one per metric, and `about` (what it was scored on)."""
    table = pa.Table.from_pandas(examples, preserve_index=False)
    header = json.dumps({"rows": rows, "about": about}).encode()
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({_METADATA: header}), buffer)
    write_atomic(path, buffer.getvalue())


def read_unit(path: Path) -> dict:
    """`rows` and `about` of a unit's file, without its examples. ValueError where it is no such file."""
    try:
        unit = json.loads(pq.read_schema(path).metadata[_METADATA])
        # Prompts of the units from before this column were plain.
        return unit | {"rows": [{"apply_chat_template": False} | row for row in unit["rows"]]}
    except (pa.ArrowInvalid, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a result of an evaluation unit ({error}); remove it to run it again") from None


def unit_files(runs: str | Path) -> list[Path]:
    """The result files of all complete cells under a runs folder, in order. ValueError where there is no cell."""
    runs = Path(runs)
    folders = sorted(path.parent for path in runs.glob("*/run.json"))
    if not folders:
        raise ValueError(f"--runs {runs}: no complete cell there; a cell is made by train_sft.py or eval/run.py")
    for folder in folders:
        read_record(folder)
    return [path for folder in folders for path in sorted(folder.glob("units/*.parquet"))]


def load(runs: str | Path) -> pd.DataFrame:
    """The table of all cells under `runs`, types set, key and ranges checked. Raises ValueError on what is unsound."""
    paths = unit_files(runs)
    rows = [row for path in paths for row in read_unit(path)["rows"]]
    return check(pd.DataFrame(rows, columns=list(COLUMNS)))


def check(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its types set and in order; ValueError on a repeated key, a value outside [0, 1] or one task in
    two versions."""
    table = table.astype(COLUMNS).sort_values(["family", "step", "stage", "dataset", "seed", "task", "prompt_format"])
    repeated = table[table.duplicated(KEY, keep=False)]
    if len(repeated):
        raise ValueError(f"{len(repeated)} rows share a key, the first: {repeated.iloc[0][KEY].to_dict()}")
    wrong = table[~table["value"].between(0, 1).fillna(False)]
    if len(wrong):
        raise ValueError(f"{len(wrong)} values outside [0, 1] or missing, the first: {wrong.iloc[0][KEY].to_dict()}")
    versions = table.groupby("task")["task_version"].nunique()
    if (versions > 1).any():
        mixed = ", ".join(versions[versions > 1].index)
        raise ValueError(f"rows of two task versions ({mixed}) cannot be compared; evaluate the older cells again")
    return table.reset_index(drop=True)


def load_examples(runs: str | Path) -> pd.DataFrame:
    """Scores per example and metric: example_id, target, prediction, score, chance (of multiple choice; else NaN), the
    key columns, step, tokens_b, relation, seed."""
    frames = []
    for path in unit_files(runs):
        examples = pq.read_table(path).to_pandas()
        chance = examples.get("chance", np.nan)
        for row in read_unit(path)["rows"]:
            frame = examples[["example_id", "target", "prediction"]]
            frame = frame.assign(score=examples[row["metric"]], chance=chance)
            about = {name: row[name] for name in (*KEY, "step", "tokens_b", "relation", "seed")}
            frames.append(frame.assign(**about))
    return pd.concat(frames, ignore_index=True)


def coverage(table: pd.DataFrame) -> tuple[int, int, list[str]]:
    """(there, expected, missing): every unit that some cell of a (family, stage, dataset, learning rate, seed) has is
    expected of each of the family's checkpoints. A cell that is missing whole is named once, else each unit as
    `checkpoint stage dataset seed task ...`. (Seeds may be scored on different units: not every question takes all.)"""
    there, expected, missing = 0, 0, []
    unit = ["task", "prompt_format", "num_shots", "shot_seed", "apply_chat_template", "method", "dtype"]
    table = table.assign(
        seed=table["seed"].astype(object).where(table["seed"].notna(), ""),
        apply_chat_template=np.where(table["apply_chat_template"], "chat", ""),  # as a missing unit is named
    )
    for _, rows in table.groupby("family"):
        checkpoints = rows.sort_values("step")["checkpoint"].unique()
        for (stage, dataset, rate, seed), group in rows.groupby([*TUNING, "seed"], dropna=False):
            units = list(group[unit].drop_duplicates().itertuples(index=False, name=None))
            have = set(group[["checkpoint", *unit]].itertuples(index=False, name=None))
            for checkpoint in checkpoints:
                lacking = [each for each in units if (checkpoint, *each) not in have]
                expected, there = expected + len(units), there + len(units) - len(lacking)
                cell = f"{checkpoint} {stage} {dataset}" + ("" if pd.isna(rate) else f" rate {rate:g}")
                cell += "" if seed == "" else f" seed {seed}"
                if len(lacking) == len(units):
                    missing.append(f"{cell.strip()} (all {len(units)} units)")
                else:
                    missing += [" ".join(f"{cell} {' '.join(map(str, each))}".split()) for each in lacking]
    return there, expected, missing


def interval(metric: str, scores: np.ndarray) -> tuple[float, float, float]:
    """(stderr, ci_low, ci_high) of the mean of `scores` (n,): Wilson for accuracies, seeded percentile bootstrap over
    examples otherwise (95 %, 2,000 resamples)."""
    from scipy import stats

    n, mean = len(scores), float(np.mean(scores))
    if metric.startswith("accuracy"):
        low, high = stats.binomtest(int(round(scores.sum())), n).proportion_ci(method="wilson")
        return (mean * (1 - mean) / n) ** 0.5, float(low), float(high)
    if n == 1 or np.ptp(scores) == 0:  # nothing to resample
        return 0.0, mean, mean
    done = stats.bootstrap((scores,), np.mean, n_resamples=2000, batch=100, method="percentile", rng=0)
    return float(done.standard_error), float(done.confidence_interval.low), float(done.confidence_interval.high)
