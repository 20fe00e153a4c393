"""A training's own checkpoints: saved whole, told apart from damaged ones, and gone on from.

    keeper = Keeper(folder, cell.cell_id, keep=1)          # a callback of the trainer
    trainer.train(resume_from_checkpoint=keeper.newest())

A checkpoint counts once its marker, `complete.json`, is there: it is written last and holds the cell, the digest of
every file and the seconds so far. One without a marker was cut off while it was written, and is removed; one whose
files differ from its marker is set aside as `damaged-checkpoint-N`. SIGTERM (a cluster takes the machine back) saves a
checkpoint and ends the process with `AGAIN`; the same command goes on from there.
"""

import json
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from transformers import TrainerCallback

from amuro.cells import file_sha256, write_atomic
from amuro.programs import AGAIN

MARKER = "complete.json"


class Preempted(SystemExit):
    """SIGTERM came, and a checkpoint is saved, or the training is complete."""

    def __init__(self, step: int):
        super().__init__(AGAIN)
        self.step = step


class Keeper(TrainerCallback):
    """Marks what the trainer saves under `folder`, keeps the newest `keep`, and saves and stops on SIGTERM."""

    def __init__(self, folder: Path, cell_id: str, keep: int = 1):
        self.folder, self.cell_id, self.keep, self.terminated = folder, cell_id, keep, False
        self.before, self.started = 0.0, time.perf_counter()  # seconds up to the checkpoint that is gone on from

    def newest(self) -> str | None:
        """The newest complete checkpoint of this cell, None where there is none; what is not whole is put out of the
        way. ValueError where a checkpoint belongs to another cell.
        """
        state = PartialState()
        if state.is_main_process:
            for path in _by_step(self.folder):
                self._check(path)
        state.wait_for_everyone()
        path = next(iter(_by_step(self.folder)), None)
        self.before = json.loads((path / MARKER).read_text(encoding="utf-8"))["seconds"] if path else 0.0
        self.started = time.perf_counter()
        return str(path) if path else None

    @property
    def seconds(self) -> float:
        """What the training has taken, in all its parts, as far as their steps are in it."""
        return self.before + time.perf_counter() - self.started

    def told(self) -> bool:
        """Whether SIGTERM came to any of the processes; all call it."""
        state = PartialState()
        if state.num_processes > 1:
            said = torch.tensor(float(self.terminated), device=state.device)
            self.terminated = reduce(said, "sum").item() > 0
        return self.terminated

    def _check(self, path: Path) -> None:
        if not (path / MARKER).is_file():
            print(f"{path}: was not saved to its end, removed")
            shutil.rmtree(path)
            return
        try:
            marker = json.loads((path / MARKER).read_text(encoding="utf-8"))
            cell_id, digests, _ = marker["cell_id"], marker["sha256"], marker["seconds"]
        except (ValueError, KeyError):
            cell_id, digests = self.cell_id, {MARKER: "not a marker"}
        if cell_id != self.cell_id:
            raise ValueError(f"{path}: a checkpoint of the cell {cell_id}, not of {self.cell_id}; remove it")
        found = _digests(path)
        if wrong := sorted(name for name in digests if found.get(name) != digests[name]):
            aside = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            print(f"{path}: damaged ({', '.join(wrong)}), set aside as {aside.name}")

    def clear(self) -> None:
        """Remove the checkpoints of a training that is complete."""
        for path in _by_step(self.folder):
            shutil.rmtree(path)

    # ---- called by the trainer

    def on_train_begin(self, args, state, control, **kwargs):
        if threading.current_thread() is threading.main_thread():
            self.handler = signal.signal(signal.SIGTERM, self._terminate)

    def on_train_end(self, args, state, control, **kwargs):
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.handler)

    def _terminate(self, *_):
        self.terminated = True

    def on_step_end(self, args, state, control, **kwargs):
        # Processes get the signal at different moments: all stop after the same step.
        if self.told() and state.global_step < state.max_steps:
            control.should_save = control.should_training_stop = True

    def on_save(self, args, state, control, **kwargs):
        process = PartialState()
        process.wait_for_everyone()  # each writes its own files
        if process.is_main_process:
            path = self.folder / f"checkpoint-{state.global_step}"
            content = {"cell_id": self.cell_id, "step": state.global_step, "sha256": _digests(path)}
            content |= {"seconds": round(self.seconds, 3)}
            write_atomic(path / MARKER, json.dumps(content, indent=1).encode())
            for old in _by_step(self.folder)[self.keep :]:
                shutil.rmtree(old)
        process.wait_for_everyone()


def _by_step(folder: Path) -> list[Path]:
    """The checkpoint folders, the newest first."""
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]), reverse=True)


def _digests(folder: Path) -> dict[str, str]:
    """Path under the folder -> sha256 of every file but the marker; files side by side, for they are large."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MARKER]
    with ThreadPoolExecutor() as pool:
        return dict(zip((str(path.relative_to(folder)) for path in paths), pool.map(file_sha256, paths), strict=True))
