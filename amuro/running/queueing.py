"""Which command a worker gets next: one of the checkpoint that it has in memory, else of one that no other is at.

queue = Queue(commands)
command = queue.next(last="olmo-1b@1000", others={"olmo-1b@2000"})
queue.put(command, rest=5.0)        back to the end, not to be had for five seconds
"""

import time
from collections import deque
from collections.abc import Collection, Iterable

from amuro.running.grids import Command


def model_of(command: Command) -> str:
    """What a command loads: its checkpoint, or the tuned cell that it evaluates."""
    return command.get("checkpoint") or command.get("cell") or ""


class Queue:
    """Commands in their order, by the model that they load."""

    def __init__(self, commands: Iterable[Command] = ()):
        self.waiting: dict[str, deque[Command]] = {}
        self.resting: list[tuple[float, Command]] = []  # (when it may be had again, command)
        for command in commands:
            self.put(command)

    def __len__(self) -> int:
        return sum(map(len, self.waiting.values())) + len(self.resting)

    def put(self, command: Command, rest: float = 0.0) -> None:
        """Add a command at the end, or once `rest` seconds are over."""
        if rest:
            self.resting.append((time.monotonic() + rest, command))
        else:
            self.waiting.setdefault(model_of(command), deque()).append(command)

    def next(self, last: str = "", others: Collection[str] = ()) -> Command | None:
        """The next command for a worker whose model is `last`, while other workers are at `others`; None where none is
        to be had now."""
        self._wake()
        models = [model for model, commands in self.waiting.items() if commands]
        if not models:
            return None
        free = [model for model in models if model not in others]
        model = last if last in models else max(free or models, key=lambda each: len(self.waiting[each]))
        return self.waiting[model].popleft()

    def _wake(self) -> None:
        now = time.monotonic()
        rested = [command for when, command in self.resting if when <= now]
        self.resting = [(when, command) for when, command in self.resting if when > now]
        for command in rested:
            self.put(command)
