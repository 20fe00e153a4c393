"""The workers of a run on Ray, and who does what: hired where the cluster has room, replaced when they die.

crew = Crew(todo, runs, board, retries=2, budget=Budget(runs, None), **sizing(None, 1, None))
crew.work()                  until no command is left; `crew.failed` are those that were set aside
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amuro.names import first_line
from amuro.programs import EVALUATE
from amuro.running import ledger
from amuro.running.board import Board
from amuro.running.disk import GB, Budget
from amuro.running.grids import PLACES, Command
from amuro.running.queueing import Queue, model_of

REST = 5.0  # seconds before a command is tried again whose cell another one has; twice as long each time, at most MOST
MOST = 60.0
LOOK = 5.0  # seconds between two looks at what the cluster has
STOP = 100.0  # seconds that workers have to save a checkpoint and end; SLURM gives 120 (sweeps/slurm)
LATE = 120.0  # seconds after which it is said that a worker has not started
STILLBORN = 5  # workers in a row that may die before they are ready
TAIL = 8  # lines of a failed command's log that are shown


@dataclass(frozen=True)
class Failure:
    """A command that was set aside: why, its log, and the log's last lines."""

    command: Command
    cause: str
    log: Path
    tail: str = ""

    def __str__(self) -> str:
        lines = "".join(f"\n  | {line}" for line in self.tail.splitlines())
        return f"{self.command.program} {' '.join(self.command.argv)}\n  {self.cause}\n  log: {self.log}{lines}"


@dataclass
class Slot:
    """A worker: what it is at, and the answer that is awaited of it. `place` (process, node) is None until it is ready;
    `model` is what it has in memory."""

    name: str
    actor: Any
    answer: Any
    place: tuple[int, str] | None = None
    command: Command | None = None
    model: str = ""
    since: float = field(default_factory=time.monotonic)  # it was hired, or got its command
    awaited: bool = False  # that it does not start has been said


class Crew:
    """The workers, and the commands that are left for them."""

    def __init__(
        self,
        todo: Sequence[Command],
        runs: Path,
        board: Board,
        retries: int,
        budget: Budget,
        takes: dict,
        room: Callable[[], int],
    ):
        self.todo, self.runs, self.board, self.retries, self.budget = todo, runs, board, retries, budget
        self.takes, self.room, self.looked, self.hired, self.stillborn = takes, room, 0.0, 0, 0
        self.waiting = False  # that there is no room for any worker has been said
        self.refused: list[Command] = []  # the disk budget had no room for them; they wait until a command is done
        self.queue, self.slots, self.failed, self.note = Queue(todo), [], [], ""
        self.checked: bool | None = None  # False while a worker checks the flags
        self.attempts: dict[str, int] = {}
        self.rests: dict[str, float] = {}  # commands whose cell another one has

    def work(self, until: Callable[[], bool] = lambda: False) -> None:
        """Run everything, or leave as soon as `until` is true. One answer is awaited of each worker: it is ready, its
        flags are checked, a command ended."""
        import ray

        while not until() and (len(self.queue) or any(slot.command for slot in self.slots)):
            self._hire()
            awaited = {slot.answer: slot for slot in self.slots if slot.answer is not None}
            if awaited:
                ended, _ = ray.wait(list(awaited), timeout=1.0)
                for answer in ended:
                    self._receive(awaited[answer])
            else:
                time.sleep(0.5)
            self.budget.look()
            self._say_who_is_late()
            for slot in [each for each in self.slots if each.place and each.answer is None]:
                self._hand_out(slot)
        if self.refused and not len(self.queue):
            self.note = (
                f"the disk budget is full: {self.budget.look() / GB:.2f} GB under {self.runs} are weights that are "
                "kept or not evaluated yet; raise --disk_budget_gb or remove some"
            )

    def stop(self) -> None:
        """Tell the workers to stop, and wait until those that train have saved a checkpoint."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        working = [slot for slot in self.slots if slot.command is not None]
        for slot in working:
            process, node = slot.place
            if node == ray.get_runtime_context().get_node_id():
                with contextlib.suppress(ProcessLookupError):  # it has died meanwhile
                    os.kill(process, signal.SIGTERM)
            else:
                there = NodeAffinitySchedulingStrategy(node, soft=False)
                ray.remote(os.kill).options(num_cpus=0, scheduling_strategy=there).remote(process, signal.SIGTERM)
        awaited = {slot.answer: slot for slot in working}
        ended, _ = ray.wait(list(awaited), num_returns=len(awaited), timeout=STOP) if awaited else ([], [])
        for answer in ended:
            self._receive(awaited[answer])

    # ---- hiring and handing out

    def _hire(self) -> None:
        """As many workers as the cluster has room for, and not more than there are commands."""
        from ray import remote

        from amuro.running.worker import Worker

        if time.monotonic() - self.looked < LOOK and self.slots:
            return
        self.looked = time.monotonic()
        room = self.room()
        self.board.slots = max(1, room)
        if not room and not self.waiting:
            self.waiting = True
            self.board.say("the cluster has no room for a worker yet: see `ray status`")
        busy = sum(slot.command is not None for slot in self.slots)
        while len(self.slots) < min(room, len(self.queue) + busy):
            actor: Any = (
                remote(Worker).options(max_restarts=0, **self.takes).remote(os.getcwd(), self.takes["num_gpus"])
            )
            self.hired += 1
            self.slots.append(Slot(f"{self.hired}", actor, actor.ready.remote()))

    def _say_who_is_late(self) -> None:
        """A worker that does not start is no error: a cluster may be busy. But it must not look like work."""
        for slot in self.slots:
            if slot.place is None and not slot.awaited and time.monotonic() - slot.since > LATE:
                slot.awaited = True
                self.board.say(
                    f"worker {slot.name} has not started for {LATE:.0f} s: the cluster is busy (`ray status`), or the "
                    "worker cannot start: session_latest/logs in Ray's folder says why (of a cluster of our own: "
                    "/tmp/amuro-*)"
                )

    def _hand_out(self, slot: Slot) -> None:
        """Give a ready worker its next command. The first one checks the flags of all before."""
        if self.checked is None:
            self.checked = False
            slot.answer = slot.actor.check.remote([(each.program, self._argv(each)) for each in covering(self.todo)])
        if not self.checked:
            return
        others = {each.model for each in self.slots if each is not slot}
        command = self.queue.next(slot.model, others)
        while command and self._complete(command):
            command = self.queue.next(slot.model, others)
        if command is None:
            return
        if not self._has_room(command):
            self.queue.put(command, rest=1.0)
            return
        slot.command, slot.model, slot.since = command, model_of(command), time.monotonic()
        slot.answer = slot.actor.work.remote(command.program, self._argv(command), str(self._log(command)))
        self.board.start(slot.name, command)

    def _complete(self, command: Command) -> bool:
        """Whether the one that had this command's cell has completed it."""
        key = command.key
        if key not in self.rests or not ledger.is_done(self.runs, ledger.entry(self.runs, key)):
            return False
        self._done(command, 0.0, "by another runner")
        return True

    def _has_room(self, command: Command) -> bool:
        training = sum(slot.command is not None and slot.command.program != EVALUATE for slot in self.slots)
        return command.program == EVALUATE or self.budget.admits(training)

    def _argv(self, command: Command) -> list[str]:
        """A command's flags, and where and how it runs here."""
        own = [f"--{name}={value}" for name, value in command.flags if name not in PLACES]
        return [*own, f"--runs={self.runs}", "--if_claimed=leave"]

    def _log(self, command: Command) -> Path:
        return log_of(self.runs, command.key)

    # ---- answers

    def _receive(self, slot: Slot) -> None:
        import ray

        try:
            answer, slot.answer = ray.get(slot.answer), None
        except ray.exceptions.RayTaskError as error:
            if slot.command is None:
                raise  # a mistake in the worker itself
            self._died(slot, ledger.cause(error.cause))  # its log cannot be written, say: the others go on
            return
        except ray.exceptions.RayError as error:
            self._died(slot, " ".join(first_line(error).split()).rstrip(".:"))
            return
        if slot.command is not None:
            self._ended(slot, answer)
        elif slot.place is None:
            slot.place = answer
        elif answer:
            shown = "; ".join(answer[:20]) + ("; ..." if len(answer) > 20 else "")
            raise ValueError(f"{len(answer)} problem(s) in the flags, nothing has run: {shown}")
        else:
            self.checked = True

    def _ended(self, slot: Slot, outcome) -> None:
        """A command has ended, well or not. One that another has, or that was told to stop, is no attempt."""
        command, slot.command = slot.command, None
        self.board.free(slot.name)
        self.stillborn = 0
        if outcome.state == "done":
            self._done(command, outcome.seconds)
        elif outcome.state == "failed":
            if self._failed(command, outcome.cause, outcome.seconds):
                noted = ledger.entry(self.runs, command.key)
                if noted is None or noted.state != "failed":  # launched processes may die without a word
                    self._note_failed(command, outcome.cause)
        elif outcome.state == "no room":
            self.refused.append(command)
        else:
            self.rests[command.key] = min(MOST, self.rests.get(command.key, REST / 2) * 2)
            self.queue.put(command, rest=self.rests[command.key])
        if outcome.worn:
            self._dismiss(slot)

    def _done(self, command: Command, seconds: float, note: str = "") -> None:
        """A command is done, and may have made room on the disk for others."""
        self.board.end(command, "done", seconds, note)
        for each in self.refused:
            self.queue.put(each)
        self.refused.clear()

    def _died(self, slot: Slot, cause: str) -> None:
        """A worker died, by itself or with its node: its command counts an attempt and goes to another one."""
        self._dismiss(slot)
        self.board.free(slot.name)
        if slot.command is None:
            self.checked, self.stillborn = self.checked or None, self.stillborn + 1
            if self.stillborn > STILLBORN:
                raise RuntimeError(f"workers do not start: {cause}")
            return
        cause = f"its worker died: {cause}"
        if self._failed(slot.command, cause, time.monotonic() - slot.since):
            self._note_failed(slot.command, cause)

    def _failed(self, command: Command, cause: str, seconds: float) -> bool:
        """Count a failed attempt; whether it was the last one, and the command is set aside."""
        key, log = command.key, self._log(command)
        self.attempts[key] = self.attempts.get(key, 0) + 1
        if self.attempts[key] <= self.retries:
            self.board.end(command, "again", seconds, cause)
            self.queue.put(command)
            return False
        self.failed.append(Failure(command, cause, log, tail(log)))
        self.board.end(command, "failed", seconds, f"{cause}; log: {log}")
        return True

    def _note_failed(self, command: Command, cause: str) -> None:
        """The entry of a command that could not write it itself."""
        ledger.write_failed(self.runs, command, cause, self.attempts[command.key], str(self._log(command)))

    def _dismiss(self, slot: Slot) -> None:
        import ray

        self.slots.remove(slot)
        self.looked = 0.0  # another one is hired at once
        ray.kill(slot.actor)


def log_of(runs: Path, key: str) -> Path:
    """Where the output of a command goes."""
    return runs / "logs" / f"{key}.log"


def covering(commands: Sequence[Command]) -> list[Command]:
    """Some of the commands in which every value of every flag of each program is there: enough to check the flags."""
    seen, chosen = set(), []
    for command in commands:
        values = {(command.program, *pair) for pair in command.flags}
        if not values <= seen:
            seen |= values
            chosen.append(command)
    return chosen


def tail(log: Path, lines: int = TAIL) -> str:
    """The last lines of a log, empty where there is none."""
    if not log.is_file():
        return ""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - 8192))
        text = file.read().decode("utf-8", "replace")
    return "\n".join(text.replace("\r", "\n").strip().splitlines()[-lines:])
