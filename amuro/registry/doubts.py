"""Which checkpoints' weights are in doubt: those that an audit kept under `runs` or a publication found a fault in.

doubts([cell, ...], runs)      a line each, for `amuro plan`, `amuro status` and the report; no network
"""

from collections.abc import Iterable
from pathlib import Path

from amuro.cells import Cell, read_record
from amuro.registry.families import published_defects
from amuro.registry.findings import audited


def doubts(cells: Iterable, runs: str | Path) -> list[str]:
    """`olmo-1b@1000: error: ...` for every fault of the checkpoints of cells (or of Checkpoints), each once."""
    found, lines = audited(Path(runs)), {}
    for cell in cells:
        name = getattr(cell, "checkpoint", None) or str(cell)
        faults = [f"{each.severity}: {each.what} (audit)" for each in found.get(cell.base, [])]
        faults += [f"published defect: {each}" for each in published_defects(cell)]
        lines |= dict.fromkeys(f"{name}: {fault}" for fault in faults)
    return list(lines)


def of_runs(runs: str | Path) -> list[str]:
    """The doubts about the complete cells under `runs`."""
    return doubts((Cell(**read_record(path.parent)["cell"]) for path in sorted(Path(runs).glob("*/run.json"))), runs)
