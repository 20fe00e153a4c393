"""The file of one evaluation unit: its examples as a Parquet table, its rows of the one table in the metadata.

write_unit(path, rows, examples, about)     examples as the file's table, rows and provenance in its metadata
read_unit(path)                             rows and provenance
read_scores(path)                           rows, each with the scores behind it, checked
read_examples(path)                         the table
"""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from amuro.cells import write_atomic

_METADATA = b"amuro"
_TEXTS = ("example_id", "target")


def write_unit(path: Path, rows: list[dict], examples: pd.DataFrame, about: dict) -> None:
    """Store one unit whole: `examples` (one line per scored example: example_id, target, prediction, truncated,
    unparsable, a column per metric, and for multiple choice `chance`, 1 / number of choices), its `rows` of the one
    table, one per metric, and `about` (what it was scored on)."""
    table = pa.Table.from_pandas(examples, preserve_index=False)
    header = json.dumps({"rows": rows, "about": about}).encode()
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({_METADATA: header}), buffer, write_page_checksum=True)
    write_atomic(path, buffer.getvalue())


def read_unit(path: Path) -> dict:
    """`rows` and `about` of a unit's file, without its examples. ValueError where it is no such file."""
    try:
        header = _header(pq.read_schema(path))
        if not isinstance(header["rows"], list) or not isinstance(header["about"].get("scored", {}), dict):
            raise ValueError("its rows are no list, or what they were scored on no mapping")
        return header
    except (pa.ArrowException, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from None


def _header(schema: pa.Schema) -> dict:
    return json.loads(schema.metadata[_METADATA])


def _damaged(path: Path, error: Exception) -> ValueError:
    what = " ".join(str(error).split())
    return ValueError(f"{path}: not a result of an evaluation unit ({what}); remove it to run it again")


def read_scores(path: Path) -> list[tuple[dict, str, np.ndarray]]:
    """A unit's rows, each with the digest of its examples and their scores in the order of their ids. ValueError where
    they are damaged, repeated, outside [0, 1], or where the row is not their mean."""
    try:
        return _scores(_open(path))
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from None


def _scores(file: pq.ParquetFile) -> list[tuple[dict, str, np.ndarray]]:
    rows = _header(file.schema_arrow)["rows"]
    if not rows or not file.metadata.num_rows:
        raise ValueError("it has no rows or no examples")
    content = file.read([*_TEXTS, "chance", *(row["metric"] for row in rows)], use_threads=False)
    about = [content[name].to_pylist() for name in _TEXTS]
    chance = content["chance"].to_pylist() if "chance" in content.column_names else []
    order = sorted(range(len(about[0])), key=about[0].__getitem__)
    if len(set(about[0])) < len(order):
        raise ValueError("examples share an id")
    parts = [[column[at] for at in order] for column in (*about, chance) if column]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    found = []
    for row in rows:
        scores, value = np.asarray(content[row["metric"]], np.float64), row["value"]
        if not ((scores >= 0) & (scores <= 1)).all():
            raise ValueError(f"scores of {row['metric']} outside [0, 1] or missing")
        # A value that is no score at all is refused with the whole table.
        if value is not None and 0 <= value <= 1 and not abs(scores.mean() - value) < 1e-6:
            raise ValueError(f"the value {value} is not the mean of its examples")
        found.append((row, digest, scores[order]))
    return found


def read_examples(path: Path) -> pd.DataFrame:
    """The examples of a unit; `chance` is NaN where they do not tell it."""
    examples = _open(path).read().to_pandas()
    return examples if "chance" in examples else examples.assign(chance=np.nan)


def _open(path: Path) -> pq.ParquetFile:
    """The file, read at once: small as it is, that is soonest."""
    return pq.ParquetFile(pa.BufferReader(path.read_bytes()), page_checksum_verification=True)
