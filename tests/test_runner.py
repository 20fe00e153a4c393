"""Grids on real Ray: every cell once, warm workers give a fresh process's weights, whatever dies or fails is named."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from conftest import ROOT, run
from rich.console import Console

from amuro import results
from amuro.cells import read_record
from amuro.running import claims, crew, ledger, runner
from amuro.running.board import Board
from amuro.running.crew import covering
from amuro.running.disk import GB, VARIABLE, Budget, NoRoom, held, refuse
from amuro.running.grids import Command
from amuro.running.queueing import Queue

GRID = """
import json, sys
from pathlib import Path
from amuro.running import runner
from amuro.running.grids import Command
if __name__ == "__main__":
    commands = [Command(program, tuple(map(tuple, flags))) for program, flags in json.loads(sys.argv[1])]
    summary = runner.run(commands, Path(sys.argv[2]), **json.loads(sys.argv[3]))
    print(summary)
    sys.exit(summary.code)
"""

SCRIPTS = """
import json, sys
from amuro.programs import load_program

for program, argv in json.loads(sys.argv[1]):
    load_program(program).main(argv)
"""


def grid(family, mirror, datasets=("mnli", "paws"), steps=(10, 20), **more) -> list[Command]:
    """BASE and tuned cells of two checkpoints: seconds each."""
    common = {"data_dir": str(mirror), "num_shots": "0", "limit": "4", "report_to": "none"}
    base = [("eval/run.py", {"checkpoint": f"{family}@{step}", "tasks": "paws"}) for step in steps]
    tuned = [
        ("train_sft.py", {"checkpoint": f"{family}@{step}", "dataset": dataset, "tasks": "id", "seed": "1", **more})
        for dataset in datasets
        for step in steps
    ]
    return [Command(program, tuple({**flags, **common}.items())) for program, flags in base + tuned]


def driver(commands, runs, tmp_path, **options) -> list[str]:
    """The command line of a runner in a process of its own."""
    script = tmp_path / "grid.py"
    script.write_text(GRID)
    written = json.dumps([[command.program, command.flags] for command in commands])
    return [sys.executable, str(script), written, str(runs), json.dumps(options)]


def evaluations(runs) -> Counter:
    """How often each unit of each cell was evaluated."""
    lines = [(path.parent.name, line) for path in runs.glob("*/evaluations.jsonl") for line in path.open()]
    return Counter((folder, unit) for folder, line in lines for unit in json.loads(line)["units"])


def each_once(runs, cells: int) -> None:
    """All cells are complete, no unit was evaluated twice, and nothing is left over."""
    found = evaluations(runs)
    units = [path for path in runs.glob("*/units/*.parquet")]
    assert set(found.values()) == {1} and len(found) == len(units) and len(list(runs.glob("*/run.json"))) == cells
    assert not [path for path in runs.glob("*/.*")] and not list(runs.glob("*/weights*"))
    results.load(runs)


# ---- what needs no Ray


def some(*models) -> list[Command]:
    return [
        Command("train_sft.py", (("checkpoint", model), ("seed", str(number)))) for number, model in enumerate(models)
    ]


def test_a_worker_stays_with_its_checkpoint_and_others_take_the_largest_free_one():
    queue = Queue(some("a", "b", "b", "c", "c", "c"))
    assert len(queue) == 6 and queue.next().get("checkpoint") == "c"
    assert queue.next(last="a").get("checkpoint") == "a" and queue.next(last="a", others={"c"}).get("checkpoint") == "b"
    assert queue.next(others={"b", "c"}).get("checkpoint") == "c"  # no free one is left: the largest
    resting = queue.next(last="b")
    queue.put(resting, rest=0.2)
    assert queue.next(last="b").get("checkpoint") == "c" and queue.next() is None and len(queue) == 1
    time.sleep(0.25)
    assert queue.next() == resting and len(queue) == 0


def test_the_flags_are_checked_on_a_few_commands_that_have_every_value():
    values = [(f"m@{step}", str(seed)) for step in range(8) for seed in range(3)]
    commands = [Command("train_sft.py", (("checkpoint", step), ("seed", seed))) for step, seed in values]
    chosen = covering(commands)
    assert len(chosen) == 10 and {each.get("checkpoint") for each in chosen} == {step for step, _ in values}


def test_a_budget_lets_one_model_through_at_most(tmp_path, monkeypatch):
    def model(name: str) -> None:
        (tmp_path / name / "weights").mkdir(parents=True)
        (tmp_path / name / "weights" / "model.safetensors").write_bytes(bytes(2**20))

    assert Budget(tmp_path, None).admits(training=9)
    budget = Budget(tmp_path, 3 / 1024)
    assert budget.admits(training=0) and not budget.admits(training=1)  # the size of a cell is not known yet
    model("a")
    assert budget.admits(training=1) and not budget.admits(training=2)
    monkeypatch.setenv(VARIABLE, str(3 / 1024))
    refuse(tmp_path / "b")
    for name in ("b", "c"):
        model(name)
    refuse(tmp_path / "c")  # its own weights: it evaluates and removes them
    with pytest.raises(NoRoom):
        refuse(tmp_path / "d")
    for wrong in ("x", "nan", "-1"):
        monkeypatch.setenv(VARIABLE, wrong)
        with pytest.raises(ValueError, match=f"{VARIABLE}={wrong}: gigabytes are needed"):
            refuse(tmp_path / "d")


def test_weights_that_go_while_the_disk_is_looked_at_are_passed_over(tmp_path):
    def come_and_go() -> None:
        while not over.is_set():
            (tmp_path / "cell" / "weights" / "part").mkdir(parents=True)
            (tmp_path / "cell" / "weights" / "part" / "file").write_bytes(b"x" * 100)
            shutil.rmtree(tmp_path / "cell")

    over = threading.Event()
    worker = threading.Thread(target=come_and_go)
    worker.start()
    deadline, sizes = time.monotonic() + 1.0, set()
    while time.monotonic() < deadline:
        sizes.update(held(tmp_path).values())
    over.set()
    worker.join()
    assert sizes <= {0, 100} and len(sizes) > 0


def test_a_board_counts_and_says_how_long_it_takes(capsys):
    commands = some("path/to/family@10", "path/to/family@20")
    with Board(commands, skipped=3) as board:
        assert board.summary() == "0 done, 0 running, 2 left"
        board.start("1", commands[0])
        board.end(commands[0], "again", 3.0, "its worker died")
        board.end(commands[0], "done", 120.0)
        board.free("1")
        assert board.summary() == "1 done, 0 running, 1 left, about 2 min"
        board.end(commands[1], "failed", 7300.0, "why")
        assert board.summary() == "1 done, 0 running, 1 failed, 0 left"
        board.start("2", commands[1])
        console = Console(width=80)
        console.print(board._table())
    told = capsys.readouterr()
    assert "train_sft to/family@10 seed 0 3 s again: its worker died" in told.err
    assert "train_sft to/family@20 seed 1 2 h 02 min FAILED: why" in told.err
    assert "0 left, 3 complete before" in told.out and "worker 2  train_sft to/family@20 seed 1" in told.out


# ---- on Ray


@pytest.fixture(scope="module")
def address():
    """A cluster of two CPUs that is there already: what `--address` takes."""
    from ray.cluster_utils import Cluster

    there = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield there.address
    there.shutdown()


@pytest.mark.slow
def test_two_workers_do_a_grid_once_and_warm_ones_as_a_fresh_process_does(family, mirror, tmp_path, monkeypatch):
    """Each worker has cells of several kinds behind it; a fresh process gives the same weights and values. Python is
    in a folder whose name has a space, which Ray hands to a shell."""
    runs, fresh = tmp_path / "runs", tmp_path / "fresh"
    python = tmp_path / "a place" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    commands = grid(family, mirror, ("mnli", "xsum", "paws"))
    lora = dict(commands[2].flags) | {"use_peft": "true", "learning_rate": "1e-3"}
    chat = {name: value for name, value in commands[2].flags if name not in ("dataset", "tasks")}
    commands.insert(3, Command("train_sft.py", tuple(lora.items())))
    commands.insert(5, Command("train_instruct.py", tuple((chat | {"tasks": "openbookqa"}).items())))
    lora["seed"] = "2"
    commands.append(Command("train_sft.py", tuple(lora.items())))
    done = runner.run(commands, runs, processes=2)
    assert (done.done, done.failed, done.left, done.code) == (len(commands), [], 0, 0)
    each_once(runs, len(commands))
    assert len(set(re.findall(r"^== .* worker (\d+):", log_of(runs), re.MULTILINE))) == 2
    again = runner.run(commands, runs)  # needs no cluster
    assert (again.done, again.skipped, again.code) == (0, len(commands), 0) and again.seconds < 5
    for command in (commands[-1], commands[5]):
        alone = run(command.program, *command.argv, f"--runs={fresh}")
        assert alone.returncode == 0, alone.stderr[-2000:]
        (name,) = ledger.entry(fresh, command.key).folders
        assert read_record(fresh / name)["weights"] == read_record(runs / name)["weights"]
        for unit in (fresh / name).glob("units/*.parquet"):
            assert unit.read_bytes() == (runs / name / "units" / unit.name).read_bytes()


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_a_hopeless_cell_set_aside(
    address, family, mirror, tmp_path, capfd, monkeypatch
):
    monkeypatch.setattr(crew, "LATE", 0.2)  # any worker needs longer to start
    runs = tmp_path / "runs"
    commands = grid(family, mirror, num_train_epochs="20")
    hopeless = Command("train_sft.py", tuple((dict(commands[-1].flags) | {"checkpoint": f"{family}@15"}).items()))
    killed = []

    def kill() -> None:
        """SIGKILL to the first process that is seen at a tuned cell."""
        while not killed:
            for folder in runs.glob("*-sft-*"):
                if (found := claims.holder(folder)) and not killed:
                    killed.append(found.pid)
                    os.kill(found.pid, signal.SIGKILL)
            time.sleep(0.01)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    done = runner.run([*commands, hopeless], runs, address)
    killer.join(1)
    assert killed and (done.done, len(done.failed), done.left, done.code) == (len(commands), 1, 0, 1)
    each_once(runs, len(commands))
    (failure,) = done.failed
    assert failure.command == hopeless and "no step 15; nearest: 10, 20" in failure.cause
    assert "Traceback" in failure.log.read_text() and "no step 15" in failure.tail
    entry = ledger.entry(runs, hopeless.key)
    assert (entry.state, entry.attempts) == ("failed", 3) and entry.log == str(failure.log)
    told = capfd.readouterr().err
    assert all(f"worker {name} has not started for" in told for name in (1, 2))
    assert "its worker died" in told and told.count("again: ") == 3 and told.count("FAILED: ") == 1
    later = runner.run([*commands, hopeless], runs)
    assert (later.done, later.skipped, later.code) == (0, len(commands), 1)
    assert "failed before: --checkpoint" in str(later) and "--retry_failed" in str(later)


@pytest.mark.slow
def test_a_wrong_flag_stops_the_grid_before_any_cell(address, family, mirror, tmp_path):
    commands = grid(family, mirror, ("mnli", "xsam"))
    commands.append(Command("train_sft.py", (*commands[2].flags, ("learning_rat", "1e-3"))))
    with pytest.raises(ValueError, match="2 problem.*nothing has run: .*did you mean learning_rate") as told:
        runner.run(commands, tmp_path / "runs", address, processes=1)
    assert "--dataset 'xsam'" in str(told.value) and "did you mean xsum" in str(told.value)
    assert not list((tmp_path / "runs").glob("*/run.json"))


@pytest.mark.slow
def test_a_full_disk_budget_keeps_what_is_wanted_and_says_what_is_left(address, family, mirror, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, "")  # is set by the runner, and put back after the test
    runs, commands = tmp_path / "runs", grid(family, mirror, keep_weights="all")[2:]
    one = sum(path.stat().st_size for path in (family / "step-10").iterdir())
    done = runner.run(commands, runs, address, disk_budget_gb=1.5 * one / GB)
    assert (done.done, done.left, done.code) == (2, 2, 1) and "the disk budget is full" in str(done)
    assert len(held(runs)) == 2 and sum(held(runs).values()) < 2.1 * one
    assert all((runs / name / "run.json").is_file() for name in held(runs))


@pytest.mark.slow
def test_a_runner_and_two_scripts_at_the_same_cells_do_each_once(address, family, mirror, tmp_path):
    runs, commands = tmp_path / "runs", grid(family, mirror, steps=(10,), num_train_epochs="20")
    log = (tmp_path / "log").open("w")
    written = [[each.program, [*each.argv, f"--runs={runs}"]] for each in commands]
    plain = [[sys.executable, "-c", SCRIPTS, json.dumps(order)] for order in (written, written[::-1])]
    both = [driver(commands, runs, tmp_path, address=address), *plain]
    processes = [subprocess.Popen(each, cwd=ROOT, stdout=log, stderr=log) for each in both]
    codes = [process.wait(timeout=300) for process in processes]
    assert codes == [0, 0, 0], (tmp_path / "log").read_text()[-3000:]
    each_once(runs, len(commands))


@pytest.mark.slow
def test_signals_save_a_checkpoint_and_the_same_command_goes_on(family, mirror, tmp_path):
    """Ctrl-C, then SIGTERM to the command that goes on, then a third that ends it."""
    runs = tmp_path / "runs"
    commands = grid(family, mirror, ("mnli",), steps=(10,), num_train_epochs="200")[1:]
    command = driver(commands, runs, tmp_path, processes=1)
    at_step = [0]
    for turn, (number, code) in enumerate([(signal.SIGINT, 130), (signal.SIGTERM, 75)], 1):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.time() + 120
        while log_of(runs).count("| 0/600") < turn:  # the bar of a training that has begun
            assert time.time() < deadline and process.poll() is None
            time.sleep(0.1)
        time.sleep(0.5)
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
        assert process.returncode == code and "1 left" in out and "run the same command again" in out, err[-2000:]
        assert log_of(runs).count("SIGTERM: saved at step") == turn
        (folder,) = runs.glob("*-sft-*")
        at_step.append(max(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*")))
        assert claims.holder(folder) is None
    assert at_step == sorted(set(at_step))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert read_record(folder)["training"]["resumed_from"] == at_step[-1]
    each_once(runs, 1)


def log_of(runs: Path) -> str:
    return "".join(path.read_text() for path in (runs / "logs").glob("*.log"))


NODES = """
import json, sys, threading, time
from pathlib import Path
import psutil
from ray.cluster_utils import Cluster
from amuro.running import runner
from amuro.running.grids import Command
from amuro.running.status import claimed

if __name__ == "__main__":
    runs = Path(sys.argv[2])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    other = cluster.add_node(num_cpus=1)
    commands = [Command(program, tuple(map(tuple, flags))) for program, flags in json.loads(sys.argv[1])]

    raylet = other.all_processes["raylet"][0].process.pid  # the parent of the node's workers

    def remove() -> None:
        while not [who for who in claimed(runs).values() if psutil.Process(who.pid).ppid() == raylet]:
            time.sleep(0.01)
        cluster.remove_node(other, allow_graceful=False)
        print("removed", flush=True)

    threading.Thread(target=remove, daemon=True).start()
    print(runner.run(commands, runs, address=cluster.address))
"""


@pytest.mark.slow
def test_a_node_that_goes_away_takes_no_cell_along(family, mirror, tmp_path):
    runs, commands = tmp_path / "runs", grid(family, mirror, num_train_epochs="20")
    script = tmp_path / "nodes.py"
    script.write_text(NODES)
    written = json.dumps([[command.program, command.flags] for command in commands])
    done = subprocess.run(
        [sys.executable, str(script), written, str(runs), str(ROOT)],
        **{"cwd": ROOT, "capture_output": True, "text": True, "check": False, "timeout": 300},
    )
    assert "removed" in done.stdout and f"{len(commands)} done" in done.stdout, done.stderr[-3000:]
    assert "its worker died" in done.stderr
    each_once(runs, len(commands))
