"""What a study has cost: hours of training and of evaluation per dataset, beside the paper's Table 4.

    costs(provenance.records("runs"))

Training tells its seconds and processes in run.json, every pass of an evaluation its seconds in evaluations.jsonl; that
of several units at once is shared out evenly. Hours are those of a device: wall-clock times processes in training; an
evaluation does not record its processes and counts once. What is not recorded any more (a cell's folder that was
removed) is not counted.
"""

import json
from collections import defaultdict
from pathlib import Path

import pandas as pd

from amuro.evaluation import TIMES
from amuro.running.costs import TABLE_4
from amuro.tasks import relation_of
from amuro.units import read_unit

COLUMNS = ["family", "dataset", "phase", "relation", "cells", "device", "gpu_hours", "cpu_hours", "paper_gpu_hours"]
PAPERS = "olmo-1b"  # the family of the paper's Table 4: 8 checkpoints on A100s, with the authors' evaluation
CPU = "cpu"


def costs(records: dict[Path, dict]) -> pd.DataFrame:
    """A row per (family, dataset, phase, relation, device) with its cells and hours; `phase` is train or evaluate,
    `relation` that of the tasks evaluated, `dataset` empty of BASE. `paper_gpu_hours` are the paper's own. `records`:
    those of the cells by their folders."""
    hours, cells, tasks = defaultdict(float), defaultdict(set), {}
    for folder, record in records.items():
        cell, training = record["cell"], record.get("training", {})
        spent = []
        if "seconds" in training:
            spent.append(("train", "", training["device"], training["seconds"] * training.get("processes", 1)))
        for seconds, name, device in _passes(folder / TIMES):
            tasks[name] = tasks.get(name) or _task(folder / "units" / name)
            relation = relation_of(tasks[name], cell["dataset"]) if cell["dataset"] else ""
            spent.append(("evaluate", relation, device, seconds))
        for phase, relation, device, seconds in spent:
            key = (cell["family"], cell["dataset"], phase, relation, device)
            hours[key] += seconds / 3600
            cells[key].add(folder)
    rows = []
    for key in sorted(hours):
        row = dict(zip(("family", "dataset", "phase", "relation", "device"), key, strict=True))
        kind = "cpu_hours" if row["device"] == CPU else "gpu_hours"
        rows.append(row | {"cells": len(cells[key]), kind: hours[key], "paper_gpu_hours": _papers(row)})
    return pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(COLUMNS[-3:], float))


def _passes(path: Path) -> list[tuple[float, str, str]]:
    """(seconds, file name, device) of every unit that the passes of a cell scored."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [
        (each["seconds"] / len(each["units"]), f"{name}.parquet", each["device"])
        for each in json.loads(f"[{','.join(lines)}]")
        for name in each["units"]
    ]


def _task(path: Path) -> str:
    """The task of a unit's file; empty where it is gone."""
    return read_unit(path)["rows"][0]["task"] if path.is_file() else ""


def _papers(row: dict) -> float | None:
    """The paper's hours of the same, where the family is the paper's."""
    phase = "training" if row["phase"] == "train" else row["relation"]
    return TABLE_4.get(row["dataset"], {}).get(phase) if row["family"] == PAPERS else None
