"""Who works on a cell: a lease in its folder, so that two commands never train or evaluate the same cell at once.

    with claim(folder, "wait") as lease:       # "leave": raises Claimed where another one has it
        ...
        lease.check()                          # LostClaim where the lease went to another one meanwhile

The lease is the file `.claim` in the cell's folder, which its holder refreshes. One that a killed process of the same
host left behind is taken at once; any other after LEASE seconds without a sign of life. A lease saves work. That a
result is there once is not its doing: only one process can make `run.json` (amuro/cells.py).
"""

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import SoftFileLease, Timeout
from filelock._identity import host_name, owner_is_stale  # the lease's own test; the version is pinned

from amuro.programs import AGAIN

FILE = ".claim"
ASIDE = f"{FILE}.stale-"  # what a stale one is renamed to before it is removed
LEASE = 180.0  # seconds; file systems over a network show a change up to 60 s late
CHOICES = ("wait", "leave")

# The leases that this process waits for: only an object that has looked before knows for how long another host's file
# has not changed.
_tried: dict[str, "Lease"] = {}


class Claimed(SystemExit):
    """Another command has the cell, and this one was told not to wait."""

    def __init__(self, folder: Path):
        super().__init__(AGAIN)
        self.folder = folder


class LostClaim(RuntimeError):
    """The lease went to another command: nothing more may be written for the cell."""


@dataclass(frozen=True)
class Holder:
    """Who has a cell; `seen` is the last sign of life (seconds since 1970)."""

    host: str
    pid: int
    seen: float
    alive: bool

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Lease:
    """A cell's lease; in all of several processes but the main one an empty one."""

    def __init__(self, folder: Path, seconds: float):
        self.folder, self.lost, self.seconds = folder, threading.Event(), seconds
        self.seen: tuple[tuple[int, int], float] | None = None  # another's file (inode, time of change) and since when
        self.lock = SoftFileLease(
            folder / FILE,
            lease_duration=seconds,
            timeout=0,
            thread_local=False,
            on_compromise=lambda _: self.lost.set(),
        )

    def take(self) -> bool:
        """Take the lease if no one has it. ValueError where the folder cannot be written."""
        self.lost.clear()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.lock.acquire()
        except Timeout:
            self._remove_stale()
            return False
        except OSError as error:
            raise ValueError(f"{self.folder}: cannot be written ({error.strerror}); give another --runs") from None
        return True

    def _remove_stale(self) -> None:
        """Remove another's file that has not changed for as long as a lease lasts. filelock leaves two of this kind
        where they are: empty ones, whose owner was killed before it wrote a word, and any on a file system that cannot
        exchange two names in one step (NFS). One that is refreshed just now is put back."""
        path = self.folder / FILE
        with contextlib.suppress(FileNotFoundError):  # given back, or another one was quicker
            found, now = _identity(path), time.monotonic()
            if self.seen is None or self.seen[0] != found:
                self.seen = found, now
            elif now - self.seen[1] >= self.seconds:
                aside = self.folder / f"{ASIDE}{secrets.token_hex(4)}"
                os.rename(path, aside)
                if _identity(aside) != found:
                    with contextlib.suppress(FileExistsError):
                        os.link(aside, path)
                aside.unlink()

    def check(self) -> None:
        """LostClaim where the lease is no longer this process's."""
        if self.lost.is_set():
            raise LostClaim(f"{self.folder}: another command took the cell over, this one stops without writing")


def _identity(path: Path) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_ino, status.st_mtime_ns


@contextmanager
def claim(folder: Path, if_claimed: str = "wait", seconds: float = LEASE) -> Iterator[Lease]:
    """The lease of a cell's folder, for as long as the block runs. Raises Claimed where another one has it and
    `if_claimed` is "leave", ValueError where the folder cannot be written. Of the several processes of one accelerate
    launch the main one takes it, and the others wait for that."""
    from accelerate import PartialState

    state = PartialState()
    lease = _tried.setdefault(str(folder), Lease(folder, seconds))
    told, pause = False, 0.1
    while not _agreed(state, lease):
        if not told:
            told = True
            if state.is_main_process:
                wait = "left to it" if if_claimed == "leave" else "waiting for it"
                print(f"claimed: {holder(folder) or 'another process'} is at {folder.name}; {wait}", flush=True)
        if if_claimed == "leave":
            raise Claimed(folder)
        time.sleep(pause)
        pause = min(5.0, pause * 2)
    _tried.pop(str(folder))
    try:
        yield lease
    finally:
        if state.is_main_process:
            lease.lock.release()


def _agreed(state, lease: Lease) -> bool:
    """Whether the main process has taken the lease, in all processes; a problem of it is raised in all of them."""
    from accelerate.utils import broadcast_object_list

    said: list = [False]
    if state.is_main_process:
        try:
            said = [lease.take()]
        except ValueError as error:
            said = [error]
    if state.num_processes > 1:
        broadcast_object_list(said)
    if isinstance(said[0], ValueError):
        raise said[0]
    return said[0]


def holder(folder: Path) -> Holder | None:
    """Who has the lease of a cell's folder, None where no one has; takes nothing."""
    path = Path(folder) / FILE
    owner = SoftFileLease(path, lease_duration=LEASE).owner
    if owner is None:
        return None
    try:
        seen = path.stat().st_mtime
    except FileNotFoundError:  # given back just now
        return None
    if owner.hostname == host_name():
        alive = not owner_is_stale(owner.pid, owner.hostname, owner.start)
    else:
        alive = time.time() - seen < LEASE
    return Holder(owner.hostname.partition("?")[0], owner.pid, seen, alive)
