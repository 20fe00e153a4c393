"""Where the numbers come from: the code, packages, machines, weights and data behind the cells of a runs folder.

provenance(records("runs").values())      a row per distinct value, with the number of cells that have it
"""

import hashlib
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from amuro.cells import read_record

COLUMNS = ["what", "value", "cells"]


def records(runs: str | Path) -> dict[Path, dict]:
    """{folder: record (`run.json`)} of all complete cells under a runs folder, in order."""
    return {path.parent: read_record(path.parent) for path in sorted(Path(runs).glob("*/run.json"))}


def provenance(found: Collection[dict]) -> pd.DataFrame:
    """What the records say: columns what, value, cells (how many share the value)."""
    counts = Counter(fact for record in found for fact in set(facts(record)))
    written = sorted(record["environment"]["written"] for record in found)
    rows = [("recorded", f"{written[0]} to {written[-1]}", len(written))] if written else []
    order = list(dict.fromkeys(what for record in found for what, _ in facts(record)))
    rows += [
        (what, value, counts[what, value])
        for what, value in sorted(counts, key=lambda fact: (order.index(fact[0]), fact[1]))
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def of_files(paths: list[Path]) -> pd.DataFrame:
    """The same of files that rows were read from: a digest of each, and no cells."""
    digests = [f"{path.name}, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in paths]
    return pd.DataFrame({"what": "file", "value": digests, "cells": pd.NA}, columns=COLUMNS)


def facts(record: dict) -> list[tuple[str, str]]:
    """(what, value) of one record."""
    cell, environment = record["cell"], record["environment"]
    changed = ", with uncommitted changes" if environment.get("git_dirty") else ""
    out = [("code", f"{environment.get('git_commit') or 'no git commit'}{changed}")]
    out += [
        (
            "machine",
            f"{environment.get('platform')}, {environment.get('cpus')} CPU cores, Python {environment.get('python')}",
        )
    ]
    if record.get("training", {}).get("device"):
        out.append(("trained on", record["training"]["device"]))
    out += [("package", f"{name} {version}") for name, version in sorted(environment.get("packages", {}).items())]
    out += [("pre-trained weights", f"{cell['checkpoint']}: {cell['base']}")]
    if cell["dataset"]:
        out += [
            ("dataset", f"{cell['dataset']}: {cell['dataset_digest']}"),
            ("prompts", f"version {cell['prompts_version']}"),
        ]
    return out
