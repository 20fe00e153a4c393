"""The one table: a row per measured value, kept in one Parquet file per evaluation unit (units.py).

table = load("runs")                        all rows of all cells, checked
load_scores("runs", table)                  the scores of every example, in arrays, for paired comparisons
load_examples("runs", {"task": "rte"})      targets and predictions too, of the units whose examples are looked at
coverage(table)                             how many of the cells and units that belong together are there

What was read of the units is kept in one file under RUNS/.results (compaction.py).
"""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from amuro.cells import STAGES, read_record
from amuro.compaction import MANY, STAMP, gather, stamp
from amuro.units import read_examples, read_scores

MOST_TOKENS_B = 1e9  # billions
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
ORDER = ["family", "tokens_b", "step", "stage", "dataset", "seed", "task", "prompt_format"]
ORDER += [name for name in KEY if name not in ORDER]
UNIT = ["task", "prompt_format", "num_shots", "shot_seed", "apply_chat_template", "method", "dtype"]
CELL = ["family", "stage", "dataset", "learning_rate", "seed"]  # with a checkpoint
_PANDAS = {pa.string(): pd.StringDtype(), pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
_PANDAS |= {pa.float64(): pd.Float64Dtype()}
_TYPES = {"string": pa.string(), "Int64": pa.int64(), "Float64": pa.float64(), "boolean": pa.bool_()}
SCHEMA = pa.schema(  # of the kept file: the table, the unit's file, its examples by their digest, a score for each
    [(name, _TYPES[kind]) for name, kind in COLUMNS.items()]
    + [(STAMP, pa.string()), ("examples", pa.string()), ("scores", pa.large_list(pa.float64()))]
)
KEPT = Path(".results", "results.parquet")  # under RUNS
NO_NAME = re.compile(r"[/\\\x00-\x1f\x7f]|^\.")  # what the name of a task, which is a part of files' names, has not


@dataclass(frozen=True)
class Sheet:
    """Rows of a table that were scored on the same n examples of one task by one metric: `scores[i, j]` (m, n) is that
    of `table.iloc[rows[i]]` on example j. `chance` is NaN where the examples do not tell it."""

    task: str
    metric: str
    rows: np.ndarray  # (m,)
    scores: np.ndarray  # (m, n)
    example_id: np.ndarray  # (n,), sorted
    target: np.ndarray  # (n,)
    chance: np.ndarray  # (n,)


def _stamps(runs: Path) -> dict[str, str]:
    """Stamp -> path of every unit of the complete cells, in order. The stamp tells the states of both files, the unit's
    and its cell's record, as what is read of a unit depends on both. ValueError where there is no complete cell."""
    found, cells = {}, 0
    for cell in _listed(runs):
        try:
            record = stamp("", os.stat(f"{cell.path}/run.json"))
        except (FileNotFoundError, NotADirectoryError):
            continue
        cells += 1
        units = [each for each in _listed(f"{cell.path}/units") if each.name.endswith(".parquet")]
        if not units:
            read_record(Path(cell.path))
        found |= {stamp(f"{cell.name}/{each.name}", each.stat()) + record: each.path for each in units}
    if not cells:
        raise ValueError(f"--runs {runs}: no complete cell there; a cell is made by train_sft.py or eval/run.py")
    return found


def _listed(folder: str | Path) -> list[os.DirEntry]:
    """What is in a folder, by name; nothing where it is none."""
    return sorted(os.scandir(folder), key=lambda each: each.name) if os.path.isdir(folder) else []


def _gathered(runs: str | Path, columns: list[str]) -> tuple[pa.Table, dict[str, str]]:
    """Columns of SCHEMA, a row per row of all units under `runs`; and the units' files by their stamps."""
    files = _stamps(Path(runs))
    return gather(Path(runs) / KEPT, files, _read, SCHEMA, columns), files


def _read(files: dict[str, str]) -> pa.Table:
    """The rows of units by their stamps, as SCHEMA. ValueError with the path of one that is damaged."""
    for folder in {os.path.dirname(os.path.dirname(path)) for path in files.values()}:
        read_record(Path(folder))
    rows, scores = [], []
    with ThreadPoolExecutor(8) as pool:  # a network takes longer to find a file than to hand it over
        bar = {"desc": "reading results", "unit": "unit", "disable": len(files) < MANY, "leave": False}
        for each, found in zip(
            files, tqdm(pool.map(read_scores, map(Path, files.values())), total=len(files), **bar), strict=True
        ):
            rows += [row | {STAMP: each, "examples": digest} for row, digest, _ in found]
            scores += [values for *_, values in found]
    lengths = np.cumsum([0, *map(len, scores)])
    listed = pa.LargeListArray.from_arrays(pa.array(lengths), pa.array(np.concatenate(scores)))
    columns = {each.name: _column(each, rows, files) for each in SCHEMA if each.name != "scores"}
    return pa.table({**columns, "scores": listed}, schema=SCHEMA)


def _column(field: pa.Field, rows: list[dict], files: dict[str, str]) -> pa.Array:
    """A column of the rows; ValueError with the unit's path where a value is of another kind."""
    values = [row.get(field.name) for row in rows]
    try:
        return pa.array(values, field.type, from_pandas=True)
    except (pa.ArrowException, TypeError, OverflowError):
        kinds = {pa.string(): str, pa.bool_(): bool, pa.int64(): int}.get(field.type, (int, float))
        wrong = next(at for at, value in enumerate(values) if value is not None and not isinstance(value, kinds))
        where = f"{files[rows[wrong][STAMP]]}: {field.name} {values[wrong]!r}"
        raise ValueError(f"{where} is not {field.type}; remove the file to run the unit again") from None


def load(runs: str | Path) -> pd.DataFrame:
    """The table of all cells under `runs`, types set, key and ranges checked. Raises ValueError on what is unsound."""
    return check(_gathered(runs, list(COLUMNS))[0].to_pandas(types_mapper=_PANDAS.get))


def check(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its types set and in order; ValueError on a repeated key, a value outside [0, 1], one task in
    two versions or one whose name is a path."""
    table = table.astype(COLUMNS).sort_values(ORDER)
    texts = [name for name, kind in COLUMNS.items() if kind == "string"]
    lacking = table[table[[*texts, "n"]].isna().any(axis=1)]
    if len(lacking):
        raise ValueError(f"{len(lacking)} rows without a name or n, the first: {_said(lacking)}; run it again")
    sizes = (table["n"] < 1) | (table["num_shots"] < 0) | ~table["tokens_b"].between(0, MOST_TOKENS_B).fillna(True)
    odd = table[~table["stage"].isin(STAGES) | sizes]
    if len(odd):
        raise ValueError(
            f"{len(odd)} rows with a stage, n, num_shots or tokens that cannot be, the first: {_said(odd)}"
        )
    repeated = table[table.duplicated(KEY, keep=False)]
    if len(repeated):
        raise ValueError(f"{len(repeated)} rows share a key, the first: {_said(repeated)}; keep one of their files")
    wrong = table[~table["value"].between(0, 1).fillna(False)]
    if len(wrong):
        raise ValueError(f"{len(wrong)} values outside [0, 1] or missing, the first: {_said(wrong)}; run it again")
    unsafe = [name for name in table["task"].dropna().unique() if not name or NO_NAME.search(name)]
    if unsafe:
        raise ValueError(
            f"task {unsafe[0]!r}: a name has no slash, no control character and no dot in front; rename it"
        )
    versions = table.groupby("task")["task_version"].nunique()
    if (versions > 1).any():
        mixed = ", ".join(versions[versions > 1].index)
        raise ValueError(f"rows of two task versions ({mixed}) cannot be compared; evaluate the older cells again")
    return table.reset_index(drop=True)


def _said(rows: pd.DataFrame) -> str:
    return ", ".join(f"{name} {value}" for name, value in rows.iloc[0][KEY].items() if value != "")


def load_scores(runs: str | Path, table: pd.DataFrame) -> list[Sheet]:
    """The examples' scores of the rows of a `table` that `load` has made of `runs`, each row in one sheet."""
    units, files = _gathered(runs, [*KEY, STAMP, "examples", "scores"])
    keys = units.select([*KEY, STAMP, "examples"]).to_pandas(types_mapper=_PANDAS.get)
    keys = keys.astype({name: COLUMNS[name] for name in KEY}).assign(at=np.arange(len(keys)))
    rows = table[KEY].assign(row=np.arange(len(table))).merge(keys, on=KEY, validate="1:1")
    if len(rows) < len(table):
        raise ValueError(f"--runs {runs}: it has changed since its table was loaded; start again")
    scores, sheets = units["scores"], []
    for (task, metric, _), group in rows.groupby(["task", "metric", "examples"], sort=False):
        some = scores.take(pa.array(group["at"].to_numpy()))
        values = pa.concat_arrays([chunk.flatten() for chunk in some.chunks]).to_numpy().reshape(len(group), -1)
        about = read_examples(Path(files[group[STAMP].iloc[0]])).sort_values("example_id")
        ids, targets = (about[name].to_numpy(object) for name in ("example_id", "target"))
        sheets.append(
            Sheet(task, metric, group["row"].to_numpy(), values, ids, targets, about["chance"].to_numpy(float))
        )
    return sheets


def load_examples(runs: str | Path, where: dict | None = None) -> pd.DataFrame:
    """Scores per example and metric: example_id, target, prediction, score, chance (of multiple choice; else NaN), the
    key columns, step, tokens_b, relation, seed. `where` (column -> value or list of values) says of which rows."""
    units, files = _gathered(runs, [*COLUMNS, STAMP])
    rows = units.to_pandas(types_mapper=_PANDAS.get).astype(COLUMNS)
    for name, wanted in (where or {}).items():
        if name not in rows:
            raise ValueError(f"where {name!r}: no such column; there are {', '.join(COLUMNS)}")
        rows = rows[rows[name].isin(wanted if isinstance(wanted, list | tuple | set) else [wanted])]
    examples, lengths = [], []
    for each, group in rows.groupby(STAMP, sort=False):
        frame = read_examples(Path(files[each]))
        for metric in group["metric"]:
            examples.append(frame[["example_id", "target", "prediction", "chance"]].assign(score=frame[metric]))
            lengths.append(len(frame))
    rows = rows.sort_values(STAMP, kind="stable", key=lambda column: pd.factorize(column)[0])
    about = {name: _repeated(rows[name], lengths) for name in (*KEY, "step", "tokens_b", "relation", "seed")}
    empty = pd.DataFrame(columns=["example_id", "target", "prediction", "chance", "score"])
    return pd.concat(examples or [empty], ignore_index=True).assign(**about)


def units(runs: str | Path) -> pd.DataFrame:
    """A row per unit under `runs`: CELL, checkpoint, cell_id, UNIT, relation, `folder` and `file` (names)."""
    about = [*CELL, "checkpoint", "cell_id", *UNIT, "relation"]
    found = _gathered(runs, [*about, STAMP])[0].to_pandas(types_mapper=_PANDAS.get).drop_duplicates(STAMP)
    names = [each.split("\t")[0].split("/") for each in found[STAMP]]
    return found[about].assign(folder=[name[0] for name in names], file=[name[1] for name in names])


def _repeated(column: pd.Series, lengths: list[int]) -> pd.Series | pd.Categorical:
    """Each value as often as its length says; texts once, with a number for each repeat."""
    if column.dtype != "string":
        return column.repeat(lengths).reset_index(drop=True)
    texts = column.astype("category").cat
    return pd.Categorical.from_codes(np.repeat(texts.codes.to_numpy(), lengths), texts.categories)


def expected(table: pd.DataFrame) -> pd.DataFrame:
    """A row per unit that belongs to the grid (CELL, checkpoint, UNIT) and `there`: every unit that some cell of a CELL
    has is expected of each of the family's checkpoints. If, among all BASE models (or all tuned ones) of a family with
    three checkpoints or more, only the last checkpoint has a unit, it is expected of the last one only. (Seeds may be
    scored on different units.)"""
    have = table[[*CELL, "checkpoint", *UNIT]].drop_duplicates().assign(there=True)
    times = table[["family", "checkpoint", "tokens_b", "step"]].drop_duplicates()
    times = times.sort_values(["family", "tokens_b", "step"]).assign(time=range(len(times)))
    last, sizes = times.groupby("family")["checkpoint"].last(), times.groupby("family").size()
    few = have["family"].isin(sizes.index[sizes < 3])
    earlier = (have["checkpoint"] != have["family"].map(last)) | few
    alike = [have["stage"] == "base", have["family"], *(have[name] for name in UNIT)]
    asked = have.assign(throughout=earlier.groupby(alike).transform("any"))
    asked = asked[[*CELL, *UNIT, "throughout"]].drop_duplicates()
    grid = asked.merge(times[["family", "checkpoint", "time"]], on="family")
    grid = grid[grid["throughout"] | (grid["checkpoint"] == grid["family"].map(last))]
    grid = grid.merge(have, on=[*CELL, "checkpoint", *UNIT], how="left").sort_values([*CELL, "time"], kind="stable")
    return grid.assign(there=grid["there"].eq(True)).drop(columns=["throughout", "time"]).reset_index(drop=True)


def coverage(table: pd.DataFrame) -> tuple[int, int, list[str]]:
    """(there, expected, missing): of the units that belong to the grid. A cell that is missing whole is named once,
    else each unit as `checkpoint stage dataset seed task ...`."""
    grid, missing = expected(table), []
    whole = ~grid.groupby([*CELL, "checkpoint"], dropna=False)["there"].transform("any")
    shown = grid.assign(whole=whole)[~grid["there"]]
    for _, rows in shown.groupby([*CELL, "checkpoint"], dropna=False, sort=False):
        first = rows.iloc[0]
        cell = named(first)
        if first["whole"]:
            missing.append(f"{cell} (all {len(rows)} units)")
        else:
            missing += [f"{cell} {unit_named(row)}" for _, row in rows.iterrows()]
    return int(grid["there"].sum()), len(grid), missing


def named(row: pd.Series) -> str:
    """A cell for people: checkpoint, stage, dataset, rate, seed."""
    rate = "" if pd.isna(row["learning_rate"]) else f"rate {row['learning_rate']:g}"
    seed = "" if pd.isna(row["seed"]) else f"seed {row['seed']}"
    return " ".join(filter(None, [row["checkpoint"], row["stage"], row["dataset"], rate, seed]))


def unit_named(row: pd.Series) -> str:
    """A unit for people: its values in their order, `chat` where it is wrapped in the chat template."""
    about = row[UNIT].to_dict() | {"apply_chat_template": "chat" if row["apply_chat_template"] else ""}
    return " ".join(str(value) for value in about.values() if value != "")


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
