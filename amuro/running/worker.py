"""A worker of `amuro run`: a process that runs one command after the other and stays warm between them.

Imports stay, data stays read, and so do the weights of the last base model. Everything else is as in a process of its
own: the environment is put back after each command, the trainer seeds itself, and each command has its own log.
"""

import gc
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from amuro.cells import read_record
from amuro.programs import AGAIN, ROOT, load_program
from amuro.running import ledger

LAUNCH = ROOT / "sweeps" / "accelerate" / "ddp.yaml"
MARKS = "use_liger_kernel full_determinism tf32 torch_compile fsdp deepspeed".split()  # flags that change the process

STATES = {"Claimed": "claimed", "NoRoom": "no room"}  # of a command that may be run again, by what has ended it

program = cache(load_program)


class Stopped(SystemExit):
    """The runner stops; the command is not at fault."""

    def __init__(self):
        super().__init__(AGAIN)


@dataclass(frozen=True)
class Outcome:
    """How a command ended: `state` is done, failed, claimed (by another one), no room (on the disk) or stopped. `worn`
    says that the process should not run another one."""

    state: str
    seconds: float
    cause: str = ""
    worn: bool = False


class Worker:
    """One slot. `gpus` above 1: every command is launched over that many processes instead of in this one."""

    def __init__(self, folder: str, gpus: float):
        os.chdir(folder)  # relative paths in flags mean the same as where the command was typed
        self.gpus = int(gpus)
        if self.gpus < 2:
            from amuro.checkpoints import keep_base

            keep_base()

    def ready(self) -> tuple[int, str]:
        """(process id, node) once it is there."""
        import ray

        return os.getpid(), ray.get_runtime_context().get_node_id()

    def check(self, commands: list[tuple[str, list[str]]]) -> list[str]:
        """What the programs' own parsers refuse, each once."""
        problems = []
        for name, argv in commands:
            try:
                program(name).read(argv)
            except ValueError as error:
                problems.append(f"{name}: {' '.join(str(error).split())}")
        return list(dict.fromkeys(problems))

    def work(self, name: str, argv: list[str], log: str) -> Outcome:
        """Run a command to its end, its output in `log`."""
        before, started, cause, worn = dict(os.environ), time.monotonic(), "", False
        with output_to(Path(log)), stoppable():
            print(time.strftime("== %Y-%m-%d %H:%M:%S"), f"worker {os.getpid()}:", name, *argv, flush=True)
            try:
                if self.gpus > 1:
                    state, cause = self._launch(name, argv, log)
                else:
                    worn = any(map(marked, ledger.run(name, program(name).main, argv, log)))
                    state = "done"
            except SystemExit as end:
                again = STATES.get(type(end).__name__, "stopped")
                state, cause = (again, "") if end.code == AGAIN else ("failed", f"exit code {end.code}")
            except Exception as error:  # the runner tells; the other commands go on
                traceback.print_exc()
                state, cause = "failed", ledger.cause(error)
                worn = not isinstance(error, ValueError)  # a GPU's error stays with the process
        os.environ.clear()  # a trainer leaves its precision there, which the next one would take
        os.environ.update(before)
        gc.collect()  # a trainer and its model hold each other
        _free_gpu()
        return Outcome(state, round(time.monotonic() - started, 3), cause, worn)

    def _launch(self, name: str, argv: list[str], log: str) -> tuple[str, str]:
        """Run a command over several GPUs, and return (state, cause); the program writes its own entry in the ledger,
        and beside the log what has ended it early."""
        ended = Path(f"{log}{ledger.ENDED}")
        ended.unlink(missing_ok=True)
        launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(LAUNCH)]
        command = [*launcher, "--num_processes", str(self.gpus), "--main_process_port", "0", str(ROOT / name), *argv]
        with subprocess.Popen(command, env={**os.environ, ledger.LOG: log}) as process:
            try:
                code = process.wait()
            except Stopped:
                process.terminate()
                return ("stopped", "") if process.wait() else ("done", "")
        if code and ended.is_file():
            return STATES.get(ended.read_text(encoding="utf-8"), "stopped"), ""
        return ("failed", f"exit code {code}") if code else ("done", "")


def marked(folder: Path) -> bool:
    """Whether a cell's training was set to change its process for good."""
    settings = (read_record(folder) or {}).get("settings", {})
    return any(settings.get(name, {}).get("origin") in ("flag", "recipe") for name in MARKS)


@contextmanager
def output_to(log: Path) -> Iterator[None]:
    """Everything that is printed, by Python or by a library underneath, at the end of a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush(), sys.stderr.flush()
    before = os.dup(1), os.dup(2)
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        for place, saved in zip((1, 2), before, strict=True):
            os.dup2(saved, place)
            os.close(saved)


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM ends the command: a training saves a checkpoint first (amuro/resume.py), all else ends where it is."""

    def stop(*_):
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _free_gpu() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()  # for the other cells on it
