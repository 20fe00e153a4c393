"""What only the weights tell: NaN and infinity, a vocabulary that does not fit, a checkpoint far out of order.

The norm of each matrix moves smoothly along a training. A checkpoint whose norms lie far outside of its neighbours' has
other weights than its step's: in https://github.com/EleutherAI/pythia/issues/206 embeddings fell from 1.517
to 1.306 for one step and were 1.513 at the next. Weights are read with numpy alone, a part at a time.
"""

import json
import re
from collections.abc import Iterable, Iterator
from math import log, log1p
from pathlib import Path

import numpy as np

from amuro.registry.intact import some, whole
from amuro.registry.snapshots import Header, Snapshot, read_header, weight_files

FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
PART = 2**24  # values in memory at once
EMBEDDING = re.compile(r"(?:.*\.)?(?:embed_in|embed_tokens|wte|word_embeddings)\.weight")
FEWEST = 5  # checkpoints below which neighbours tell too little
# Far is 5 % of a norm, and 10 % more for each factor e between the neighbours' steps: in that model the norm of the
# embeddings fell by 14 % from step 49,000 to 143,000, in a good course. A quarter: one bad shard has no more matrices.
FAR, TURN, TIMES, SHARE = 0.05, 0.1, 4.0, 0.25


def problems(fetched: Iterable[tuple[Snapshot, Path]]) -> Iterator[tuple[Snapshot, str, str, str]]:
    """(snapshot, kind, severity, what) of everything wrong with the weights of checkpoints in the history's order.

    One that is not whole is passed over: the audit without weights tells that.
    """
    norms = []
    for snapshot, folder in fetched:
        if not whole(snapshot):
            continue
        shapes, squares, bad = _read(folder)
        if bad:
            yield snapshot, "nan", "error", f"NaN or infinity in {some(bad)}"
        for what in _vocabulary(folder, shapes):
            yield snapshot, "vocabulary", "error", what
        if snapshot.step is not None and not bad:
            norms.append((snapshot, {name: log(value) / 2 for name, value in squares.items() if value > 0}))
    for stage in dict.fromkeys(snapshot.stage for snapshot, _ in norms):
        members = [(snapshot, values) for snapshot, values in norms if snapshot.stage == stage]
        yield from ((snapshot, "norms", "error", what) for snapshot, what in _out_of_order(members))


def _out_of_order(members: list[tuple[Snapshot, dict[str, float]]]) -> Iterator[tuple[Snapshot, str]]:
    """(snapshot, what) of checkpoints whose norms do not belong where they stand; `members` have log norms by tensor.

    The one that is furthest off is taken out and the rest judged again, since it spoils its neighbours' judgement.
    """
    if len(members) < FEWEST:
        return
    names = sorted(set.intersection(*(set(values) for _, values in members)))
    places = np.array([log1p(snapshot.step) for snapshot, _ in members])
    table = np.array([[values[name] for name in names] for _, values in members])  # (checkpoints, tensors)
    keep = list(range(len(members)))
    while len(keep) >= FEWEST - 1:
        off = {at: _off(places, table, keep, at) for at in range(1, len(keep) - 1)}
        at = max(off, key=lambda each: off[each][0])
        share, size = off[at]
        if share < SHARE:
            return
        far = f"norms of {share:.0%} of the matrices are {size:.0%} outside of its neighbours'"
        yield members[keep[at]][0], f"{far}: it, or one of them, is not what it is named"
        del keep[at]


def _off(places: np.ndarray, table: np.ndarray, keep: list[int], at: int) -> tuple[float, float]:
    """(share of the tensors that are far outside of the norms of keep[at]'s neighbours, their median distance).

    Far is further than a smooth course can turn between them, and than TIMES what is usual in the history without it.
    """
    rest = keep[:at] + keep[at + 1 :]
    usual = [_outside(table, *rest[each - 1 : each + 2]) for each in range(1, len(rest) - 1)]
    distance = _outside(table, *keep[at - 1 : at + 2])
    turn = FAR + TURN * (places[keep[at + 1]] - places[keep[at - 1]])
    far = distance > np.maximum(turn, TIMES * np.quantile(usual, 0.75, axis=0))
    return float(far.mean()), float(np.expm1(np.median(distance[far]))) if far.any() else 0.0


def _outside(table: np.ndarray, before: int, at: int, after: int) -> np.ndarray:
    """(tensors,) how far each log norm lies outside of the interval that its neighbours' span."""
    low, high = np.minimum(table[before], table[after]), np.maximum(table[before], table[after])
    return np.maximum(0, np.maximum(low - table[at], table[at] - high))


def _read(folder: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, float], list[str]]:
    """(shapes, mean square of each matrix, names with NaN or infinity) of a checkpoint's tensors."""
    shapes, squares, bad = {}, {}, []
    for name in weight_files(path.name for path in folder.iterdir()):
        path = folder / name
        header = _header(path)
        for tensor, (dtype, shape, (first, end)) in header.tensors.items():
            shapes[tensor] = shape
            if dtype not in FLOATS or first == end:
                continue
            values = np.memmap(path, FLOATS[dtype], "r", header.start + first, ((end - first) // _width(dtype),))
            square = _mean_square(values, dtype == "BF16")
            if not np.isfinite(square):
                bad.append(tensor)
            elif len(shape) > 1:
                squares[tensor] = square
    return shapes, squares, bad


def _header(path: Path) -> Header:
    with open(path, "rb") as file:
        start = file.read(8)
        return read_header(start, path.stat().st_size, lambda n: start + file.read(n - 8))


def _width(dtype: str) -> int:
    return np.dtype(FLOATS[dtype]).itemsize


def _mean_square(values: np.ndarray, bfloat16: bool) -> float:
    """Mean of the squares, NaN or infinite where a value is. numpy has no bfloat16: it is float32's upper half."""
    total = 0.0
    for first in range(0, len(values), PART):
        part = values[first : first + PART]
        part = (part.astype("<u4") << 16).view("<f4") if bfloat16 else part
        with np.errstate(invalid="ignore"):  # of an infinity
            part = part.astype(np.float64)
        total += float(part @ part)
    return total / len(values)


def _vocabulary(folder: Path, shapes: dict[str, tuple[int, ...]]) -> Iterator[str]:
    """Embeddings that do not fit the config or the tokenizer."""
    rows = next((shape[0] for name, shape in shapes.items() if EMBEDDING.fullmatch(name)), None)
    if rows is None:
        return
    size = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("vocab_size")
    if size not in (None, rows):
        yield f"the embeddings have {rows} rows, the config's vocab_size is {size}"
    try:
        largest = _largest_id(folder / "tokenizer.json")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        yield f"tokenizer.json cannot be read ({type(error).__name__}: {error})"
        return
    if largest is not None and largest >= rows:
        yield f"the embeddings have {rows} rows, the tokenizer has ids up to {largest}"


def _largest_id(path: Path) -> int | None:
    """The largest id of a tokenizer.json, None where there is none."""
    if not path.is_file():
        return None
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"].get("vocab", {})
    ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else [len(vocabulary) - 1]
    return max([*ids, *(each["id"] for each in tokenizer.get("added_tokens") or [])], default=None)
