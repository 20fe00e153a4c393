"""Loads the rows of a dataset or task, from a local mirror folder or from the hub, and refuses what is not sound.

    training_rows("mnli", data_dir="mirror")           6,000 rows by seed, and the digest of exactly these rows
    conversation_rows("tulu", data_dir="mirror")       sound conversations by seed, all of them or a share
    evaluation_rows("rte", data_dir="mirror")          scored rows and the shots, which are never scored rows
    read_all([], data_dir=None)                        every dataset and task once, a line on each (`amuro data`)

A mirror is a folder with `{source.folder}/{split}.jsonl` under the hub's field names. Without one (no `--data_dir`, no
`AMURO_DATA_DIR`) the hub's Parquet conversion of the split is downloaded at the commit the ref points to.
A row is a dict of the family's input fields, `target`, and `example_id`, a hash of the content; where one of several
choices is right, also `choices` and `gold`, the right one's place. A conversation is `messages`, `id` (the source's
own, else the row's number) and `example_id`.
"""

import hashlib
import json
import os
import random
import re
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from amuro.cells import SHOT_SEED
from amuro.conversations import counted, tidy
from amuro.hub import wanted
from amuro.names import unknown_of
from amuro.strict import parse_json
from amuro.tasks import DATASETS, HIDDEN, SFT, TASKS, Reading, Source, Task

SAMPLE_SEED = 42
TRAIN_ROWS = 6000
UNUSABLE = "without a gold label or without input"
SHOTS_KEPT = 8  # shots drawn per task; from the scored split (and taken out of it) where there is no train split


@dataclass(frozen=True)
class Rows:
    """Sound rows of one split: `origin` says where from (path, or hub id and commit), `refused` counts the rows of that
    split that are left out and `cut` those that are kept in part, by reason; `digest` is the sha256 of the rows in
    order."""

    rows: list[dict]
    origin: str
    refused: dict[str, int] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        lines = (json.dumps(row, sort_keys=True, ensure_ascii=False) for row in self.rows)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def split(self, n: int) -> tuple["Rows", list[dict]]:
        """(the rows without the last `n`, these `n` to measure on). ValueError where none is left to train on."""
        kept = len(self.rows) - n
        if kept < 1:
            raise ValueError(f"--held_out_rows {n}: there are {len(self.rows)} training rows; hold out fewer")
        return replace(self, rows=self.rows[:kept]), self.rows[kept:]

    def sample(self, n: int, seed: int) -> "Rows":
        """`n` rows drawn and ordered by `seed` (all where there are fewer)."""
        return replace(self, rows=random.Random(seed).sample(self.rows, min(n, len(self.rows))))


def resolve_data_dir(data_dir: str | None) -> str | None:
    """The mirror folder that applies: the given one, else `AMURO_DATA_DIR`, else None (the hub)."""
    if data_dir is not None and not data_dir.strip():
        raise ValueError(f"--data_dir {data_dir!r}: the name of a folder is needed, or leave it out")
    named = "--data_dir" if data_dir else "AMURO_DATA_DIR"
    data_dir = data_dir or os.environ.get("AMURO_DATA_DIR") or None
    if data_dir and not Path(data_dir).is_dir():
        raise ValueError(f"{named} {data_dir}: no such folder; give a mirror with <set>/<split>.jsonl, or leave it out")
    return data_dir


def training_rows(dataset: str, data_dir: str | None, n: int = TRAIN_ROWS, sample_seed: int = SAMPLE_SEED) -> Rows:
    """`n` rows of a training set, drawn and ordered by `sample_seed` (all rows where there are fewer)."""
    spec = DATASETS[dataset]
    return read_split(spec.source, spec.reading, spec.split, resolve_data_dir(data_dir)).sample(n, sample_seed)


def conversation_rows(
    dataset: str, data_dir: str | None, n: int | None = None, fraction: float = 1.0, sample_seed: int = SAMPLE_SEED
) -> Rows:
    """`n` sound conversations (else this fraction of them, at least one), drawn and ordered by `sample_seed`.

    `dataset` is one of stage `instruct`, or the path of a .jsonl file whose rows have `messages`. What is left out or
    cut is counted over the whole file and named. Raises ValueError with file, row, field and what is allowed.
    """
    if dataset.endswith(".jsonl"):
        name = Path(dataset).stem
        if name in DATASETS:
            raise ValueError(f"--dataset {dataset}: {name} is another dataset's name; rename the file")
        if not re.fullmatch(r"\w[\w.-]{0,63}", name, re.ASCII):  # it becomes a part of folders' names
            raise ValueError(
                f"--dataset {dataset!r}: the file's name becomes the dataset's: letters, digits, '.', '_' and '-' "
                "only, 64 at most; rename the file"
            )
        raw, origin = read_jsonl(Path(dataset)), dataset
    elif dataset in DATASETS and dataset not in SFT:
        spec = DATASETS[dataset]
        raw, origin = open_split(spec.source, spec.split, resolve_data_dir(data_dir))
    else:
        there = ", ".join(name for name in DATASETS if name not in SFT)
        raise ValueError(f"--dataset {dataset!r}: allowed: {there}, or the path of a .jsonl file of conversations")
    loaded = read_conversations(raw, origin)
    return loaded.sample(n if n is not None else max(1, round(fraction * len(loaded.rows))), sample_seed)


def read_all(names: Sequence[str], data_dir: str | None) -> Iterator[str]:
    """Read datasets and tasks once (all where none is named), which checks them and brings the hub's into its cache; a
    line on each. ValueError on a name that is none, before anything is read, or on rows that are not sound."""
    if unknown := [name for name in names if name not in (*DATASETS, *TASKS)]:
        raise ValueError(f"{unknown[0]!r}: {unknown_of(unknown[0], [*DATASETS, *TASKS])}")
    data_dir = resolve_data_dir(data_dir)
    for name in [name for name in DATASETS if name in names or not names]:
        read = training_rows if name in SFT else conversation_rows
        rows = read(name, data_dir, sys.maxsize)
        yield f"train {name:<16} {len(rows.rows):>9,} rows            {rows.origin}"
    for name in [name for name in TASKS if name in names or not names]:
        scored = evaluation_rows(name, data_dir)
        yield f"score {name:<16} {len(scored.test.rows):>9,} rows, {len(scored.shots)} shots   {scored.test.origin}"


@dataclass(frozen=True)
class Scored:
    """What one task evaluates: the scored rows, the shots in drawing order, and the digest of both."""

    test: Rows
    shots: list[dict]

    @property
    def digest(self) -> str:
        return hashlib.sha256((self.test.digest + Rows(self.shots, "").digest).encode()).hexdigest()


@lru_cache(maxsize=64)
def evaluation_rows(task: str, data_dir: str | None, shot_seed: int = SHOT_SEED) -> Scored:
    """The scored rows of a task and its shots: drawn once by `shot_seed`, nested (k shots = the first k), never scored.

    The pool is the train split, without rows that are scored too; where there is none, `SHOTS_KEPT` rows of the
    scored split, which are then taken out of it. Long rows of the summary family are not drawn (protocol: at most
    the pool's median length), since four of them overflow a context of 2,048 tokens.
    """
    spec = TASKS[task]
    test = read_split(spec.source, spec.reading, spec.split, data_dir)
    own_pool = spec.shots_split is not None and has_split(spec.source, spec.shots_split, data_dir)
    if own_pool:
        # One Parquet file of the hub's split is pool enough: the train split of cnn alone is 800 MB.
        train = read_split(spec.source, spec.reading, spec.shots_split, data_dir, first_file_only=True)
        scored = {content_id(row) for row in test.rows}
        pool = [row for row in train.rows if content_id(row) not in scored]
    else:
        pool = test.rows
    shots = draw_shots(spec, pool, shot_seed)
    if not own_pool:
        taken = {content_id(row) for row in shots}
        test = replace(test, rows=[row for row in test.rows if content_id(row) not in taken])
        if not test.rows:
            raise ValueError(f"{test.origin}: all {len(shots)} rows are needed as shots, none is left to score")
    return Scored(test, shots)


def draw_shots(task: Task, pool: list[dict], shot_seed: int) -> list[dict]:
    """At most `SHOTS_KEPT` distinct rows of the pool, in an order that depends on the seed and the content only."""
    rows = sorted({content_id(row): row for row in pool}.items())
    if task.family == "summary" and rows:
        median = statistics.median(len(row["document"]) + len(row["target"]) for _, row in rows)
        rows = [(key, row) for key, row in rows if len(row["document"]) + len(row["target"]) <= median]
    random.Random(shot_seed).shuffle(rows)
    return [row for _, row in rows[:SHOTS_KEPT]]


def content_id(row: dict) -> str:
    """16 hex digits of the sha256 of a row's fields and target: equal rows, equal ids."""
    content = {key: value for key, value in row.items() if key != "example_id"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def has_split(source: Source, split: str, data_dir: str | None) -> bool:
    """Whether the mirror has the split; the hub has every split that a specification names."""
    return data_dir is None or os.path.lexists(Path(data_dir) / source.folder / f"{split}.jsonl")


def open_split(
    source: Source, split: str, data_dir: str | None, first_file_only: bool = False
) -> tuple[Iterator[tuple[int, dict]], str]:
    """((row number, raw row), origin) of a split, from the mirror folder or from the hub."""
    if data_dir is None:
        return read_hub(source, split, first_file_only)
    path = Path(data_dir) / source.folder / f"{split}.jsonl"
    return read_jsonl(path), str(path)


def read_split(
    source: Source, reading: Reading, split: str, data_dir: str | None, first_file_only: bool = False
) -> Rows:
    """All sound rows of one split. Raises ValueError with file, row, field and what is allowed."""
    raw, origin = open_split(source, split, data_dir, first_file_only)
    rows, refused, seen = [], 0, Counter()
    for number, row in raw:
        try:
            ours = convert(reading, row)
        except ValueError as error:
            raise ValueError(f"{origin}, row {number}: {error}") from None
        if ours is None:
            refused += 1
            continue
        rows.append({**ours, "example_id": _unique(content_id(ours), seen)})
    if refused and rows:
        print(f"{origin}: {refused} rows {UNUSABLE} are left out")
    if not rows and refused:
        raise ValueError(f"{origin}: all {refused} rows lack a gold label (-1) or input; such a split cannot be used")
    if not rows:
        raise ValueError(f"{origin}: no rows")
    return Rows(rows, origin, {UNUSABLE: refused} if refused else {})


def _unique(example_id: str, seen: Counter) -> str:
    """A repeated row gets an id of its own, so that two runs still pair up one to one."""
    seen[example_id] += 1
    return example_id if seen[example_id] == 1 else f"{example_id}-{seen[example_id]}"


def read_conversations(raw: Iterator[tuple[int, dict]], origin: str) -> Rows:
    """All sound conversations. Raises ValueError with file, row, field and what is allowed, or where none is left."""
    rows, refused, cut, seen = [], {}, {}, Counter()
    for number, row in raw:
        try:
            turns, cuts, reason = tidy(row)
        except ValueError as error:
            raise ValueError(f"{origin}, row {number}: {error}") from None
        name = str(row.get("id", f"row {number}"))
        if reason:
            refused.setdefault(reason, []).append(name)
            continue
        for each in sorted(cuts):
            cut.setdefault(each, []).append(name)
        example_id = _unique(content_id({"messages": turns}), seen)
        rows.append({"messages": turns, "id": name, "example_id": example_id})
    left_out, kept_in_part = counted(refused, origin), counted(cut, origin)
    if not rows:
        raise ValueError(f"{origin}: no conversation to train on; {left_out or 'the file is empty'}")
    return Rows(rows, origin, left_out, kept_in_part)


def convert(reading: Reading, raw: dict) -> dict | None:
    """A raw row as the family's fields and `target`; None where the gold label is hidden (see `HIDDEN`) or the row has
    no input at all (the hub's XSum has a few). Raises ValueError with the field, its value and what is allowed.

    Where one of several choices is right, all text stays as it is, as in the harness; elsewhere it is stripped.
    """
    needed = [*reading.fields.values(), reading.target, *([reading.choices] if reading.choices else [])]
    if reading.labels and raw.get(reading.target) in HIDDEN:
        return None
    row = reading.adapt(raw) if reading.adapt else raw
    missing = [name for name in needed if name not in row]
    if missing:
        raise ValueError(f"field {', '.join(map(repr, missing))} is missing; it has: {', '.join(map(repr, raw))}")
    ours = {name: _text(row, theirs) for name, theirs in reading.fields.items()}
    if not any(text.strip() for text in ours.values()) or (reading.choices and row[reading.target] in HIDDEN):
        return None
    if reading.choices:
        return {**ours, **_choices(row, reading)}
    ours = {name: text.strip() for name, text in ours.items()}
    if not reading.labels:
        ours["target"] = _text(row, reading.target).strip()
        if not ours["target"]:
            raise ValueError(f"field {reading.target!r} is empty; a completion needs text")
        return ours
    label = row[reading.target]
    if type(label) not in (int, str) or label not in reading.labels:
        allowed = ", ".join(f"{key} ({word})" for key, word in reading.labels.items())
        raise ValueError(f"field {reading.target!r} is {label!r}; allowed: {allowed}")
    return {**ours, "target": reading.labels[label]}


def _text(row: dict, name: str) -> str:
    if not isinstance(row[name], str):
        raise ValueError(f"field {name!r} is {type(row[name]).__name__}; allowed: text")
    return row[name]


def _choices(row: dict, reading: Reading) -> dict:
    choices, gold = row[reading.choices], row[reading.target]
    texts = isinstance(choices, list) and all(isinstance(each, str) and each.strip() for each in choices)
    if not texts or len(choices) < 2:
        raise ValueError(f"field {reading.choices!r} is {choices!r}; allowed: a list of two texts or more, none empty")
    if type(gold) is not int or gold not in range(len(choices)):
        raise ValueError(f"field {reading.target!r} is {gold!r}; allowed: 0 to {len(choices) - 1}")
    return {"target": choices[gold], "choices": choices, "gold": gold}


def read_jsonl(path: Path) -> Iterator[tuple[int, dict]]:
    """(row number from 1, row) of a JSON-lines file; ValueError names the file and row that is not UTF-8 JSON."""
    if os.path.lexists(path) and not path.is_file():
        raise ValueError(f"{path}: is there, and no file; a file of JSON lines is needed")
    if not path.is_file():
        there = sorted(each.stem for each in path.parent.glob("*.jsonl")) if path.parent.is_dir() else []
        raise ValueError(f"{path}: no such file; splits there: {', '.join(there) or 'none'}")
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line.decode("utf-8"), constants=True)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}, row {number}: not UTF-8 at byte {error.start} of the line") from None
        except ValueError as error:
            raise ValueError(f"{path}, row {number}: {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}, row {number}: {type(row).__name__}; allowed: a JSON object")
        yield number, row


def read_hub(source: Source, split: str, first_file_only: bool) -> tuple[Iterator[tuple[int, dict]], str]:
    """(rows, origin) of a split from the hub's Parquet files at the commit that the source's ref points to."""
    from datasets import load_dataset
    from huggingface_hub import snapshot_download

    files = "0000.parquet" if first_file_only else "*.parquet"
    pattern = f"{source.config}/{split}/{files}"
    with wanted(f"dataset {source.hub_id}", "give a local copy with --data_dir or AMURO_DATA_DIR"):
        folder = Path(
            snapshot_download(source.hub_id, repo_type="dataset", revision=source.revision, allow_patterns=[pattern])
        )
    found = sorted(map(str, folder.glob(pattern)))
    origin = f"{source.hub_id}@{folder.name}/{source.config}/{split}"  # a snapshot's folder is named by its commit
    if not found:
        raise ValueError(f"{origin}: no file matches {pattern} at {source.revision}; give a local copy with --data_dir")
    table = load_dataset("parquet", data_files=found, split="train")
    return enumerate(table, 1), origin
