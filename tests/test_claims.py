"""One command at a cell: who has it, who waits, what a killed one leaves behind, and a record that is made once."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial

import filelock
import pytest
from conftest import ROOT
from test_distributed import command, launch
from test_resume import arguments, train_sft

from amuro import cells, training
from amuro.cells import read_record
from amuro.running import claims
from amuro.running.claims import Claimed, LostClaim, claim, holder

HOLD = """
import sys, time
from pathlib import Path
from amuro.running.claims import Lease
lease = Lease(Path(sys.argv[1]), float(sys.argv[2]))
assert lease.take()
print("held", flush=True)
time.sleep(float(sys.argv[3]))
lease.lock.release()
"""


def holding(folder, seconds: float = claims.LEASE, hold: float = 600) -> subprocess.Popen:
    """Another process that has the claim of a folder."""
    argv = [sys.executable, "-c", HOLD, str(folder), str(seconds), str(hold)]
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def killed(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_claim_is_seen_left_and_given_back(tmp_path, capsys):
    assert holder(tmp_path) is None
    with claim(tmp_path) as lease:
        found = holder(tmp_path)
        assert (found.host, found.pid, found.alive) == (socket.gethostname(), os.getpid(), True)
        assert abs(found.seen - time.time()) < 60
        lease.check()
    assert holder(tmp_path) is None and not list(tmp_path.iterdir())
    other = holding(tmp_path)
    with pytest.raises(Claimed) as left, claim(tmp_path, "leave"):
        pass
    assert left.value.code == claims.AGAIN == 75
    assert f"process {other.pid} on {socket.gethostname()} is at" in capsys.readouterr().out
    killed(other)
    assert holder(tmp_path).alive is False
    started = time.monotonic()
    with claim(tmp_path, "leave"):  # what a killed process of this host had is free at once
        assert time.monotonic() - started < 30 and holder(tmp_path).pid == os.getpid()


def test_one_waits_for_the_other(tmp_path, capsys):
    other = holding(tmp_path, hold=1.0)
    with claim(tmp_path, "wait"):
        assert other.wait() == 0
    assert capsys.readouterr().out.count("waiting for it") == 1


def test_an_empty_claim_is_taken_after_its_time(tmp_path):
    """Its owner was killed before it wrote a word: filelock alone would wait for ever."""
    (tmp_path / claims.FILE).touch()
    lease = claims.Lease(tmp_path, 0.3)
    assert not lease.take() and not lease.take() and holder(tmp_path) is None
    time.sleep(0.35)
    assert not lease.take() and lease.take() and holder(tmp_path).pid == os.getpid()
    lease.lock.release()
    assert not list(tmp_path.iterdir())


def test_a_claim_that_is_refreshed_just_now_is_put_back(tmp_path, monkeypatch):
    (tmp_path / claims.FILE).touch()
    lease, rename = claims.Lease(tmp_path, 0.1), os.rename
    assert not lease.take()
    time.sleep(0.15)
    other = []

    def late(path, aside) -> None:
        """Between the look and the rename the path becomes another one's."""
        os.unlink(path)
        other.append(holding(tmp_path, 0.1))
        rename(path, aside)

    monkeypatch.setattr(claims.os, "rename", late)
    assert not lease.take() and holder(tmp_path).pid == other[0].pid and len(list(tmp_path.iterdir())) == 1
    killed(other[0])


@pytest.mark.parametrize("exchanges", [True, False], ids=["local", "like NFS"])
def test_a_claim_of_another_host_is_taken_after_its_time(tmp_path, monkeypatch, exchanges):
    """Also where the file system cannot exchange two names, on which filelock alone would wait for ever."""
    for module in (filelock._soft, filelock._util):
        monkeypatch.setattr(module, "exchange_supported", lambda: exchanges)
    with claim(tmp_path, seconds=1.0):
        marker = (tmp_path / claims.FILE).read_text()
    (tmp_path / claims.FILE).write_text(marker.replace("host=", "host=far-"))
    assert holder(tmp_path).host.startswith("far-") and holder(tmp_path).alive
    started = time.monotonic()
    for _ in range(2):  # what was seen before counts: a runner leaves the cell, and comes back
        with pytest.raises(Claimed), claim(tmp_path, "leave", seconds=1.0):
            pass
        time.sleep(0.4)
    with claim(tmp_path, "wait", seconds=1.0):
        assert 0.9 < time.monotonic() - started < 3
    assert holder(tmp_path) is None


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ValueError, match="file/cell: cannot be written .*give another --runs"),
        claim(tmp_path / "file" / "cell"),
    ):
        pass


def test_a_training_that_loses_its_claim_stops_before_it_writes(family, mirror, tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "claim", partial(claim, seconds=0.3))

    def lose(self, args, state, control, **kwargs):
        if state.global_step == 3:
            (marker,) = tmp_path.glob(f"*/{claims.FILE}")
            marker.unlink()
            time.sleep(1)

    monkeypatch.setattr(training.Guard, "on_step_end", lose, raising=False)
    with pytest.raises(LostClaim, match="another command took the cell over"):
        train_sft.main(arguments(family, mirror, tmp_path, saving=()))
    (folder,) = tmp_path.glob("toy-10-*")
    assert read_record(folder) is None and not list(folder.glob("weights*"))


def test_a_cell_is_left_to_the_one_that_has_it(family, mirror, tmp_path):
    argv = arguments(family, mirror, tmp_path, saving=())
    folder = train_sft.main([*argv, "--seed", "3"])
    assert not (folder / claims.FILE).exists()
    other = holding(folder)
    with pytest.raises(Claimed):
        train_sft.main([*argv, "--seed", "3", "--if_claimed", "leave"])
    killed(other)
    with pytest.raises(ValueError, match="--if_claimed 'go': allowed: wait, leave"):
        train_sft.main([*argv, "--if_claimed", "go"])


@pytest.mark.slow
def test_several_processes_of_one_launch_leave_together(family, mirror, tmp_path):
    folder = train_sft.main(arguments(family, mirror, tmp_path / "runs", saving=()))
    other = holding(folder)
    argv = [*arguments(family, mirror, tmp_path / "runs", saving=()), "--if_claimed", "leave"]
    done = launch(command("ddp.yaml", tmp_path, "train_sft.py", argv))
    assert done.returncode and done.stdout.count("left to it") == 1, done.stderr[-2000:]
    assert "exitcode  : 75" in done.stderr
    killed(other)


def make(path, number, start, queue) -> None:
    start.wait()
    queue.put((number, cells.write_once(path, str(number).encode())))


def test_only_one_of_many_makes_a_record(tmp_path):
    context = multiprocessing.get_context("fork")
    for turn in range(20):
        path, start, queue = tmp_path / f"run-{turn}.json", context.Event(), context.Queue()
        workers = [context.Process(target=make, args=(path, number, start, queue)) for number in range(8)]
        for worker in workers:
            worker.start()
        start.set()
        made = [number for number, first in (queue.get() for _ in workers) if first]
        for worker in workers:
            worker.join()
        assert path.read_text() == str(made[0]) and len(made) == 1
    assert len(list(tmp_path.iterdir())) == 20


def test_a_second_record_is_discarded_and_the_first_one_read(tmp_path):
    cell = cells.Cell("toy", "toy@1", 1, None, "sha256:x")
    folder = cell.folder(tmp_path)
    first = cells.write_record(folder, cell, weights="a")
    assert cells.write_record(folder, cell, weights="b") == first == read_record(folder)
    assert cells.write_record(folder, cell, again=True, weights="b")["weights"] == "b" == read_record(folder)["weights"]
    assert [path.name for path in folder.iterdir()] == ["run.json"]


def test_a_file_system_without_links_still_takes_a_record(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refused)
    assert cells.write_once(tmp_path / "run.json", b"1") and not cells.write_once(tmp_path / "run.json", b"2")
    assert (tmp_path / "run.json").read_text() == "1" and len(list(tmp_path.iterdir())) == 1


def test_a_claim_is_given_back_whatever_happens(tmp_path):
    with pytest.raises(KeyboardInterrupt), claim(tmp_path):
        raise KeyboardInterrupt
    assert holder(tmp_path) is None and not [each for each in threading.enumerate() if "filelock" in each.name]
