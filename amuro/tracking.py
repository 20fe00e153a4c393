"""Weights & Biases for one cell: our own run, opened before the trainer's callback, with everything under `--runs`.

    with tracking.run(cell, folder, enabled, parts=(arguments, sft, lora)) as opened:
        ...                                        train, evaluate; tracking.log_unit(opened, rows)

Local files are the truth; W&B gets the same values. Without a key, with a bad one, or where the server does not answer,
the run is recorded offline, one line says so, and `amuro sync` hands it over later. In a sweep the run is the one that
the agent was given; a cell that is complete already gives it its stored rows.
"""

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amuro import lineage
from amuro.cells import Cell, write_atomic
from amuro.names import first_line
from amuro.programs import AGAIN
from amuro.run_config import check_sweep, described, in_sweep, named

PROJECT = "amuro"
UNFINISHED = "wandb.json"  # in a cell's folder: the run that goes on when the cell does
OPEN = "open.json"  # in a run's folder, while it is written: whose it is
PATIENCE = {"none": 120, "reference": 120, "upload": 3600}  # seconds that the end of a run waits for the server
_said: set[str] = set()
_ours: dict[str, str] = {}  # the folders that an earlier cell of this process has set, maybe for another --runs


@dataclass(frozen=True)
class _Run:
    """A cell's run: `handle` is W&B's, `folder` the cell's, `files` where W&B writes the run."""

    handle: Any
    folder: Path
    files: Path
    job_type: str
    log_model: str


@contextmanager
def run(
    cell: Cell,
    folder: Path,
    enabled: bool,
    parts: tuple = (),
    log_model: str = "reference",
    job_type: str = "",
    **about,
) -> Iterator:
    """The W&B run of a cell, finished on leaving: with its artifacts, as failed on an exception, as preempted on
    SIGTERM. None where tracking is off, and in all of several processes but one.

    `parts` are the dataclasses of all flags: ValueError where a sweep has set one to something that was not used.
    """
    from accelerate import PartialState

    os.environ["WANDB_LOG_MODEL"] = "false"  # the callback's upload of weights: ours to decide, never by environment
    enabled = enabled and os.environ.get("WANDB_MODE") != "disabled"
    if not enabled or not PartialState().is_main_process:
        yield None
        return
    config = {**described(cell), **about, **check_sweep(parts)}
    tracked = _open(cell, folder, config, log_model, job_type or cell.stage)
    try:
        with _ending_on_sigterm():
            yield tracked.handle
            _hand_over(tracked)
    except BaseException as error:
        preempted = isinstance(error, SystemExit) and error.code == AGAIN
        if preempted:
            tracked.handle.mark_preempting()
        _finish(tracked, AGAIN if preempted else 1)
        raise


def repeat(cell: Cell, folder: Path, enabled: bool, **settings) -> None:
    """What a complete cell does: its run in a sweep, or one that was cut off, gets the stored rows. Else nothing."""
    if in_sweep() or (folder / UNFINISHED).is_file():
        with run(cell, folder, enabled, **settings):
            pass


def log_unit(opened, rows: list[dict]) -> None:
    """Log a unit's values as `eval/<task>/<format>/<k>shot/<method>/<metric>`, drawn over the checkpoint's tokens."""
    if opened is not None:
        lineage.log_rows(opened, rows)


def log_progress(opened, bar) -> None:
    """Log how far an evaluation is, as its progress bar shows it: examples done, examples per second, seconds left."""
    if opened is not None:
        rate = bar.format_dict["rate"] or bar.n / max(bar.format_dict["elapsed"], 1e-9)
        left = (bar.total - bar.n) / rate if rate else None
        opened.log(
            {
                "evaluation/examples": bar.n,
                "evaluation/examples_per_s": rate,
                "evaluation/seconds_left": left,
            }
        )


# ---- opening and finishing


def _open(cell: Cell, folder: Path, config: dict, log_model: str, job_type: str) -> _Run:
    os.environ.setdefault("WANDB_SILENT", "true")  # what matters is said here, in one line
    runs = folder.parent.resolve()
    place_files(runs)
    import wandb

    unfinished = folder / UNFINISHED
    previous = json.loads(unfinished.read_text(encoding="utf-8"))["run"] if unfinished.is_file() else None
    given = os.environ.get("WANDB_RUN_ID")  # an agent's, or the user's
    known = given or previous
    patience: dict = {} if "WANDB_FINISH_TIMEOUT" in os.environ else {"finish_timeout": PATIENCE[log_model]}
    settings = wandb.Settings(silent=True, console="off", finish_timeout_raises=True, **patience)
    asked = {
        **named(cell, job_type),
        "config": config,
        "dir": os.environ["WANDB_DIR"],  # the client may have read the environment before
        "settings": settings,
        "reinit": "finish_previous",
        "resume": "allow" if known else None,
    }
    if not in_sweep():  # there the agent has set these
        asked |= {"project": os.environ.get("WANDB_PROJECT", PROJECT), "id": known}
    handle = _init(wandb, asked, runs)
    tracked = _Run(handle, folder, Path(handle.dir).parent, job_type, log_model)
    write_atomic(unfinished, json.dumps({"run": handle.id}).encode())
    write_atomic(tracked.files / OPEN, json.dumps({"cell": str(folder.resolve())}).encode())
    return tracked


def place_files(runs: Path) -> None:
    """Have W&B write under `runs`; folders that the user has set stay. An agent sets WANDB_DIR to where it runs."""
    for name, place in (("WANDB_DIR", ""), ("WANDB_DATA_DIR", "wandb/data"), ("WANDB_CACHE_DIR", "wandb/cache")):
        path = runs / place
        path.mkdir(parents=True, exist_ok=True)
        agents = in_sweep() and name == "WANDB_DIR" and os.environ.get(name) == os.getcwd()
        if agents or os.environ.get(name, _ours.get(name)) == _ours.get(name):
            os.environ[name] = _ours[name] = str(path)


def _init(wandb, asked: dict, runs: Path):
    """Open the run, offline where that is asked for, or where it cannot be online."""
    if os.environ.get("WANDB_MODE", "online") != "online":
        return _begin(wandb, os.environ["WANDB_MODE"], asked)
    try:
        if wandb.login(prompt=False):  # asks the server, and gives up after seconds
            return wandb.init(mode="online", **asked)
    except wandb.Error as error:
        _say(f"{first_line(error)}; the run is recorded offline, `amuro sync --runs {runs}` hands it over")
    else:
        if "offline" not in _said:
            _said.add("offline")
            _say("no key is configured, runs are recorded offline (`wandb login` or WANDB_API_KEY changes that)")
    return _begin(wandb, "offline", asked)


def _begin(wandb, mode: str, asked: dict):
    """Open a run that asks no server. ValueError where W&B refuses what the environment says."""
    try:
        return wandb.init(mode=mode, **asked)
    except (wandb.Error, ValueError) as error:
        raise ValueError(f"W&B: {first_line(error)}; see the variables WANDB_* of the environment") from None


def _hand_over(tracked: _Run) -> None:
    """Give a complete cell's run its rows and artifacts and finish it; what does not arrive waits for `amuro sync`."""
    handle, parcel, problem = tracked.handle, None, ""
    try:
        parcel = lineage.pack(tracked.files, tracked.folder, handle, tracked.job_type, tracked.log_model)
        lineage.log_rows(handle, lineage.rows_of(parcel))
        if not handle.offline:
            lineage.attach(handle, parcel)
    except Exception as error:  # whatever W&B or the disk does, the cell is complete, and says so
        problem = first_line(error)
    problem = _finish(tracked, 0) or problem
    if not problem and not handle.offline:
        try:
            problem = ", ".join(lineage.missing(parcel))
        except Exception as error:
            problem = first_line(error)
        if not problem:
            lineage.discard(parcel)
    if problem:
        name, runs = tracked.folder.name, tracked.folder.parent
        _say(f"not all of {name} has arrived ({problem}); `amuro sync --runs {runs}` hands it over")


def _finish(tracked: _Run, exit_code: int) -> str:
    """End the run; returns what went wrong. After a complete cell nothing is left to go on with."""
    problem = ""
    try:
        tracked.handle.finish(exit_code=exit_code)
    except Exception as error:  # TimeoutError where the server is gone; W&B's files are on the disk
        problem = first_line(error)
    (tracked.files / OPEN).unlink(missing_ok=True)
    if exit_code == 0:
        (tracked.folder / UNFINISHED).unlink(missing_ok=True)
    return problem


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """SIGTERM ends the process as preempted where no training handles it: while loading, and in an evaluation, whose
    units are stored one by one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_):
        raise SystemExit(AGAIN)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(text: str) -> None:
    print(f"W&B: {text}", flush=True)
