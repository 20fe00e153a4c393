"""Hand over what W&B does not have yet: runs recorded offline, and what a server that was down has missed.

    amuro sync --runs runs          or          sync(Path("runs"))

`wandb sync` uploads the history of offline runs. Then every run that waits with a parcel (lineage.py) is resumed under
its id for its values and artifacts, the server is asked whether all of it is there, and only then is the parcel
removed: twice is once, and cut off anywhere it goes on. Staged files that are gone are a problem, where `wandb sync`
says "Finished syncing".
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from amuro import lineage, tracking
from amuro.names import first_line
from amuro.running import claims
from amuro.strict import read_json


@dataclass(frozen=True)
class Report:
    """Runs that were handed over now, how many were there before, those of commands that still run, and problems."""

    uploaded: tuple[str, ...]
    before: int
    running: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        return 1 if self.problems else 0

    def __str__(self) -> str:
        lines = [f"uploaded: {name}" for name in self.uploaded]
        lines += [f"still running, left: {name}" for name in self.running]
        lines += [f"problem: {text}" for text in self.problems]
        lines.append(f"{len(self.uploaded)} runs uploaded, {self.before} were there, {len(self.problems)} problems")
        return "\n".join(lines)


def sync(runs: Path) -> Report:
    """Hand over everything under `runs`. ValueError with one line where W&B cannot be reached or takes no key."""
    if not Path(runs).is_dir():
        raise ValueError(f"--runs {runs}: no such folder; give the one that cells are written under")
    folders = run_folders(runs)
    offline = [each for each in folders if each.name.startswith("offline-")]
    waiting = [each for each in folders if lineage.load(each) or (each in offline and not is_uploaded(each))]
    running = [each for each in waiting if is_written(each)]
    waiting = [each for each in waiting if each not in running]
    problems = {each: problem for each in waiting if (problem := lost_files(each))}
    sound = [each for each in waiting if each not in problems]
    if sound:
        tracking.place_files(Path(runs).resolve())
        log_in()
        upload([each for each in sound if each in offline and not is_uploaded(each)])
    for each in sound:
        if problem := hand_over(each):
            problems[each] = problem
    return Report(
        tuple(each.name for each in sound if each not in problems),
        len(offline) - len([each for each in waiting + running if each in offline]),
        tuple(each.name for each in running),
        tuple(f"{each.name}: {problem}" for each, problem in problems.items()),
    )


def run_folders(runs: Path) -> list[Path]:
    """The folders of W&B runs under RUNS/wandb, and under $WANDB_DIR/wandb where that is set; in order of start."""
    places = {Path(runs).resolve(), Path(os.environ.get("WANDB_DIR", runs)).resolve()}
    found = [path for place in places for path in place.glob("wandb/*run-*") if path.is_dir() and not path.is_symlink()]
    return sorted(found, key=lambda path: path.name.removeprefix("offline-"))


def is_uploaded(folder: Path) -> bool:
    """Whether `wandb sync` has uploaded a run's history: it leaves a marker beside it."""
    return any(folder.glob("*.wandb.synced"))


def is_written(folder: Path) -> bool:
    """Whether a command that lives still writes the run. One that was killed has left its mark, but not its claim."""
    mark = folder / tracking.OPEN
    if not mark.is_file():
        return False
    try:
        cell = Path(read_json(mark)["cell"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{mark}: does not say whose run it is ({error}); remove it") from None
    holder = claims.holder(cell)
    return holder is not None and holder.alive


def lost_files(folder: Path) -> str:
    """What a run should upload and is not there any more, as a problem; empty where all is there."""
    parcel = lineage.load(folder)
    gone = lineage.vanished(parcel) if parcel else [] if is_uploaded(folder) else staged_and_gone(folder)
    if not gone:
        return ""
    more = f" and {len(gone) - 3} more" if len(gone) > 3 else ""
    return f"files of its artifacts are gone: {', '.join(gone[:3])}{more}; put them back, or remove the folder"


def staged_and_gone(folder: Path) -> list[str]:
    """Of the artifacts in a run's own log, the files that `wandb sync` would leave out without a word."""
    gone = []
    for record in read_log(folder):
        for entry in record.get("artifact", {}).get("manifest", {}).get("contents", []):
            if "local_path" in entry and not Path(entry["local_path"]).exists():
                gone.append(f"{record['artifact']['name']}/{entry['path']}")
    return gone


def read_log(folder: Path) -> list[dict]:
    """The records of a run's log, read by W&B's own reader."""
    done = _wandb("leet", "inspect", "--json", str(folder))
    if done.returncode:
        raise ValueError(f"{folder}: its log cannot be read ({done.stderr.strip()})")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def log_in() -> None:
    """ValueError where there is no key, it is refused, or the server does not answer."""
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ["WANDB_MODE"] = "online"  # whatever the runs were recorded with
    import wandb

    try:
        there = wandb.login(prompt=False)
    except wandb.Error as error:
        raise ValueError(f"W&B: {first_line(error)}") from None
    if not there:
        raise ValueError("W&B: no key is configured; run `wandb login`, or set WANDB_API_KEY")


def upload(folders: list[Path]) -> None:
    """`wandb sync`. Which runs it has uploaded is told by their markers, not by its exit code."""
    if folders:
        print(f"uploading {len(folders)} runs", flush=True)
        done = _wandb("sync", "--yes", *map(str, folders))
        sys.stdout.write("".join(f"  {line}\n" for line in done.stderr.splitlines() if "ERROR" in line))


def hand_over(folder: Path) -> str:
    """Give the server's run its values and artifacts and see that all is there; returns the problem."""
    if folder.name.startswith("offline-") and not is_uploaded(folder):
        return "`wandb sync` has not uploaded it; see its own messages: wandb sync " + str(folder)
    parcel = lineage.load(folder)
    if parcel is None:
        return ""
    import wandb

    patience: dict = {"finish_timeout": tracking.PATIENCE[parcel.log_model], "finish_timeout_raises": True}
    settings = wandb.Settings(silent=True, console="off", x_disable_stats=True, **patience)
    where: dict = {"entity": parcel.entity or None, "project": parcel.project, "id": parcel.run_id}
    try:
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch,  # for what the client writes meanwhile
            wandb.init(mode="online", resume="allow", settings=settings, dir=scratch, **where) as run,
        ):
            lineage.log_rows(run, lineage.rows_of(parcel))
            lineage.attach(run, parcel)
        lacking = lineage.missing(parcel)
    except (wandb.Error, OSError, ValueError) as error:
        return first_line(error)
    if lacking:
        return f"has not arrived: {', '.join(lacking)}"
    lineage.discard(parcel)
    return ""


def _wandb(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "wandb", *arguments]
    env = {**os.environ, "WANDB_SILENT": "false"}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)
