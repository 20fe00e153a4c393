"""Keeps what models take on the disk under a budget: no training begins while others hold that much.

    budget = Budget(runs, gigabytes=50)            in the runner: may one more command start beside those that run?
    refuse(folder)                                 in a script, before it trains: NoRoom where the budget is full

Nothing is deleted here: a script removes its weights once they are evaluated (unless --keep_weights all), and what a
killed one left behind. A model that is not evaluated yet stays, and the command that evaluates it is not refused.
"""

import contextlib
import glob
import os
from pathlib import Path

from amuro.programs import AGAIN

HELD = ("weights*", "adapter*", "checkpoint-*", "damaged-checkpoint-*")  # in a cell's folder
GB = 1e9  # bytes
SAVING = 7  # times the weights, where a training saves: they, a checkpoint with AdamW's two moments, the one before it
VARIABLE = "AMURO_DISK_BUDGET_GB"  # how the runner tells its workers


class NoRoom(SystemExit):
    """The budget is full. The exit code says that the command may be run again later."""

    def __init__(self):
        super().__init__(AGAIN)


def refuse(folder: Path) -> None:
    """NoRoom where the cells beside `folder` hold as much as the budget, if there is one, allows."""
    taken = sum(size for name, size in held(folder.parent).items() if name != folder.name)
    if VARIABLE not in os.environ:
        return
    try:
        limit = float(os.environ[VARIABLE])
    except ValueError:
        limit = -1.0
    if not limit >= 0:
        raise ValueError(f"{VARIABLE}={os.environ[VARIABLE]}: gigabytes are needed, a number from 0; or leave it unset")
    if taken >= limit * GB:
        print(f"{taken / GB:.2f} GB are held by other cells, the budget is {os.environ[VARIABLE]} GB: not now")
        raise NoRoom


def held(runs: str | Path) -> dict[str, int]:
    """Bytes of weights and trainer checkpoints per cell folder, of those that have any."""
    sizes: dict[str, int] = {}
    for pattern in HELD:
        for found in glob.glob(f"*/{pattern}", root_dir=runs):  # pathlib's stops where a folder goes meanwhile
            name = os.path.dirname(found)
            sizes[name] = sizes.get(name, 0) + _size(Path(runs) / found)
    return sizes


def _size(place: Path) -> int:
    total = 0
    for folder, _, names in os.walk(place):  # what is removed while we look is passed over
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


class Budget:
    """Says whether one more training may start. `gigabytes` None is no limit. Until a cell's size is known one trains
    at a time, so that the limit is never exceeded by more than one model."""

    def __init__(self, runs: str | Path, gigabytes: float | None):
        self.runs, self.limit, self.largest = Path(runs), None if gigabytes is None else gigabytes * GB, 0

    def look(self) -> int:
        """The bytes that are taken now; remembers the largest cell."""
        if self.limit is None:
            return 0
        sizes = held(self.runs)
        self.largest = max([self.largest, *sizes.values()])
        return sum(sizes.values())

    def admits(self, training: int) -> bool:
        """Whether there is room for one more beside `training` ones. Alone any may start: its script looks itself,
        for it may be the one that evaluates and removes what is there."""
        if self.limit is None or not training:
            return True
        taken = self.look()
        return self.largest > 0 and taken + training * self.largest < self.limit
