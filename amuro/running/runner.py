"""Runs commands on Ray: each once, several at a time, in workers that stay warm; what fails is tried again.

    summary = run(commands, Path("runs"))                      # this machine: a worker per core, or per GPU
    summary = run(commands, Path("runs"), address="auto")      # a Ray cluster that runs already

The runner only hands out commands. Whether a cell has anything to do its script decides, under the cell's claim: other
runners, agents and scripts may be at the same cells. A worker that dies takes nothing along but its attempt.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from amuro.programs import AGAIN
from amuro.running import disk, ledger
from amuro.running.board import Board, duration
from amuro.running.cluster import check_address, cluster, sizing
from amuro.running.crew import Crew, Failure, log_of
from amuro.running.grids import Command


@dataclass(frozen=True)
class Summary:
    """How a run ended: numbers of commands, `skipped` being complete before and `left` not run. `stopped` is the
    signal's name where one ended it, `note` says why commands are left otherwise."""

    done: int = 0
    skipped: int = 0
    failed: list[Failure] = field(default_factory=list)
    left: int = 0
    seconds: float = 0.0
    stopped: str = ""
    note: str = ""

    @property
    def code(self) -> int:
        """The exit code: 0 where all is done, 1 where not, 130 after Ctrl-C, 75 ("again") after SIGTERM."""
        return {"SIGINT": 130, "SIGTERM": AGAIN}.get(self.stopped, int(bool(self.failed or self.left)))

    def __str__(self) -> str:
        counts = f"{self.done} done, {self.skipped} complete before, {len(self.failed)} failed, {self.left} left"
        lines = [*map(str, self.failed), f"{counts}; {duration(self.seconds)}"]
        lines += [self.note] * bool(self.note)
        lines += ["to go on, run the same command again"] * bool(self.left)
        lines += ["the failed ones: the same command with --retry_failed"] * bool(self.failed)
        return "\n".join(lines)


def run(
    commands: Sequence[Command],
    runs: Path,
    address: str | None = None,
    gpus_per_cell: float | None = None,
    cells_per_gpu: int = 1,
    retries: int = 2,
    retry_failed: bool = False,
    processes: int | None = None,
    disk_budget_gb: float | None = None,
) -> Summary:
    """Run commands to their end. One that fails is tried `retries` times more and then set aside; those that the ledger
    has as failed before are run with `retry_failed` only. Ctrl-C and SIGTERM let trainings save a checkpoint.

    ValueError, before anything runs, where a program's parser refuses a flag or the cluster lacks the GPUs.
    """
    runs, started = Path(runs).absolute(), time.monotonic()
    todo, skipped, aside = sort_out(commands, runs, retry_failed)
    if not todo:
        return Summary(skipped=skipped, failed=aside)
    check_address(address)
    try:
        runs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--runs {runs}: cannot be made ({error.strerror}); give another one") from None
    if disk_budget_gb is not None:
        os.environ[disk.VARIABLE] = str(disk_budget_gb)
    with cluster(address, processes), _signals() as signals, Board(todo, skipped) as board:  # Ray sets its own
        size = sizing(gpus_per_cell, cells_per_gpu, processes)
        crew = Crew(todo, runs, board, retries, disk.Budget(runs, disk_budget_gb), **size)
        with contextlib.suppress(KeyboardInterrupt):
            crew.work(until=lambda: bool(signals))
            if signals:
                board.say("stopping: a cell in training saves a checkpoint first (Ctrl-C again: at once)")
                crew.stop()
    seconds = round(time.monotonic() - started, 3)
    return Summary(board.done, skipped, aside + crew.failed, board.left, seconds, "".join(signals[:1]), crew.note)


def sort_out(
    commands: Sequence[Command], runs: Path, retry_failed: bool = False
) -> tuple[list[Command], int, list[Failure]]:
    """(commands to run, number of complete ones, those that failed before and are not tried again)."""
    entries, todo, aside, skipped = ledger.read(runs), {}, {}, set()
    for command in commands:
        key, state = command.key, ledger.state_of(command, entries, runs)
        if state == "complete":
            skipped.add(key)
        elif state == "failed" and not retry_failed:
            aside[key] = Failure(command, f"failed before: {entries[key].cause}", log_of(runs, key))
        else:
            todo.setdefault(key, command)
    return list(todo.values()), len(skipped), list(aside.values())


@contextmanager
def _signals() -> Iterator[list[str]]:
    """The names of the SIGINTs and SIGTERMs that have come. Only the second raises KeyboardInterrupt: an exception at
    the first would be lost where it comes within one of Ray's callbacks."""
    came: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def note(number: int, _) -> None:
        came.append(signal.Signals(number).name)
        if len(came) > 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
