"""Many small files as one: what was read of each is kept together, and only what is new or has changed is read again.

    table = gather(Path("runs/.results/results.parquet"), stamps(...), read, SCHEMA, ["task", "value"])

The kept file is never the truth: it follows the small ones by their names, sizes and times of change, and where it is
damaged, of another version or not there, it is made again from them.
"""

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from amuro.cells import write_atomic

STAMP = "stamp"  # the column that says which small file a row is from, and in which state
FEW, MANY = 64, 1000  # files that have changed: up to FEW are read each time, beyond MANY always kept anew


def stamp(name: str, seen: os.stat_result) -> str:
    """The name of a small file, and what changes when it does."""
    return f"{name}\t{seen.st_size} {seen.st_mtime_ns} {seen.st_ino}"


def gather(
    place: Path,
    files: dict[str, str],
    read: Callable[[dict[str, str]], pa.Table],
    schema: pa.Schema,
    columns: list[str],
) -> pa.Table:
    """The `columns` of the rows of `files` (stamp -> path): first the rows that were kept, then those of files that are
    new or have changed. `read` makes rows of `schema`, which has a column STAMP, of such files; what it raises is
    raised."""
    kept, known = _kept(place, files, schema, columns)
    fresh = {each: path for each, path in files.items() if each not in known}
    parts = [kept, *([read(fresh)] if fresh else [])]
    keep = _worth_keeping(files, known)
    table = pa.concat_tables([each.select(schema.names if keep else columns) for each in parts])
    if keep:
        _keep(place, table)
    return table.select(columns)


def _kept(place: Path, files: dict[str, str], schema: pa.Schema, columns: list[str]) -> tuple[pa.Table, set[str]]:
    """(kept rows whose file is still there as it was, the stamps of all kept rows). The rows have all columns of the
    schema if they will be written again, else `columns` and STAMP. Nothing where there is no kept file or it is of
    another schema; where it cannot be read, a note on stderr too."""
    nothing = schema.empty_table(), set()
    try:
        with pq.ParquetFile(place, page_checksum_verification=True) as file:
            if not file.schema_arrow.equals(schema):
                return nothing
            known = set(file.read([STAMP])[STAMP].to_pylist())
            kept = file.read(schema.names if _worth_keeping(files, known) else [*{*columns, STAMP}])
    except FileNotFoundError:
        return nothing
    except (pa.ArrowException, OSError) as error:
        print(f"note: {place} is damaged ({_line(error)}); it is made again from the cells' files", file=sys.stderr)
        return nothing
    if known <= files.keys():
        return kept, known
    return kept.filter(pc.is_in(kept[STAMP], pa.array(list(files), pa.string()))), known


def _worth_keeping(files: dict[str, str], known: set[str]) -> bool:
    changed = len(files.keys() ^ known)
    return changed > min(max(FEW, len(files) // 10), MANY)


def _keep(place: Path, table: pa.Table) -> None:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="lz4", write_page_checksum=True)  # read far oftener than written
    try:
        write_atomic(place, buffer.getbuffer())
    except OSError as error:  # another's folder, or a full disk: what was read is good all the same
        print(
            f"note: {place} cannot be written ({_line(error)}); the next start reads all files again", file=sys.stderr
        )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
