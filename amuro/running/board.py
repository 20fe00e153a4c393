"""What a runner shows: on a terminal a live table, else a line per command that has ended.

with Board(commands, skipped=12) as board:
    board.start("1", command)
    board.end(command, "done", seconds=4.2)
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amuro.running.grids import Command


def names(commands: Sequence[Command]) -> dict[str, str]:
    """Key of each command -> its name: the program, and the values of the flags in which its commands differ."""
    differ = {}
    for program in {command.program for command in commands}:
        flags = [dict(command.flags) for command in commands if command.program == program]
        known = {name for each in flags for name in each}
        differ[program] = {name for name in known if len({each.get(name) for each in flags}) > 1}
    return {command.key: _name(command, differ[command.program] or {"checkpoint", "dataset"}) for command in commands}


def _name(command: Command, differ: set[str]) -> str:
    program = Path(command.program)
    first = program.stem if program.stem != "run" else program.parent.name
    parts = [first] + [_short(name, value) for name, value in command.flags if name in differ]
    return " ".join(part if len(part) <= 40 else f"{part[:37]}..." for part in parts)


def _short(name: str, value: str) -> str:
    if name in ("checkpoint", "cell"):
        return "/".join(value.split("/")[-2:])
    return f"{name} {value}" if value[:1].isdigit() else value


def duration(seconds: float) -> str:
    """Seconds as `42 s`, `3 min`, `2 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


class Board:
    """Counts what a runner tells, and shows it on stderr."""

    def __init__(self, commands: Sequence[Command], skipped: int = 0):
        self.names, self.skipped, self.total = names(commands), skipped, len(commands)
        self.done = self.failed = 0
        self.seconds: list[float] = []  # of the commands that were done
        self.running: dict[str, tuple[str, float]] = {}  # worker -> (name, since)
        self.slots = 1
        self.live: Any = None  # rich's table, where someone looks on

    def __enter__(self) -> "Board":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self.live = Live(get_renderable=self._table, console=Console(stderr=True), refresh_per_second=2)
            self.live.start()
        return self

    def __exit__(self, *_) -> None:
        if self.live:
            self.live.stop()

    @property
    def left(self) -> int:
        return self.total - self.done - self.failed

    def start(self, worker: str, command: Command) -> None:
        self.running[worker] = (self.names[command.key], time.monotonic())

    def free(self, worker: str) -> None:
        self.running.pop(worker, None)

    def end(self, command: Command, state: str, seconds: float, note: str = "") -> None:
        """A command has ended: done, failed (for good) or again (it is tried once more)."""
        if state == "done":
            self.done += 1
            if seconds:  # none of ours, where another runner did it
                self.seconds.append(seconds)
        elif state == "failed":
            self.failed += 1
        shown = {"done": "", "failed": "FAILED: ", "again": "again: "}[state]
        if state != "done" or not self.live:
            self.say(f"{self.summary()} | {self.names[command.key]} {duration(seconds)} {shown}{note}".rstrip())

    def say(self, text: str) -> None:
        """A line above the table."""
        if self.live:
            self.live.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def time_left(self) -> float | None:
        """Seconds, from the mean of what was done; None before that."""
        if not self.seconds:
            return None
        return self.left * sum(self.seconds) / len(self.seconds) / min(self.slots, max(self.left, 1))

    def summary(self) -> str:
        left = self.time_left()
        parts = [f"{self.done} done", f"{len(self.running)} running"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        parts.append(f"{self.left} left")
        if left:
            parts.append(f"about {duration(left)}")
        return ", ".join(parts)

    def _table(self):
        from rich.console import Group
        from rich.table import Table

        skipped = f", {self.skipped} complete before" if self.skipped else ""
        table = Table(show_edge=False, show_header=False, box=None)
        now = time.monotonic()
        for worker, (name, since) in sorted(self.running.items(), key=lambda each: int(each[0])):
            table.add_row(f"worker {worker}", name, duration(now - since))
        return Group(self.summary() + skipped, table)
