"""Ray as Amuro uses it: a quiet cluster of its own on this machine, or one that runs already.

    with cluster(address=None, processes=None):
        ...

A cluster of our own leaves nothing behind: its files are in a folder that goes with it. When this process is killed its
workers end within seconds, the last of Ray's own processes after a minute, and the folder stays. Ray has no part in
`train_sft.py` and `eval/run.py`.
"""

import os
import secrets
import shlex
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amuro.programs import ROOT

SOCKET_ROOM = 45  # characters of the temporary folder: a socket's path in it may have 107 in all
STORE = 100 * 2**20  # bytes for objects in shared memory: only small records pass between processes
# glibc gives large blocks back to the system at every free; keeping them saves a tenth of the time.
WORKER = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
}
# What a worker on another machine has to know; keys are not among it: each machine has its own login.
PASSED = "AMURO_DATA_DIR AMURO_NURSERY AMURO_DISK_BUDGET_GB HF_HOME HF_HUB_OFFLINE"
PASSED += " WANDB_MODE WANDB_PROJECT WANDB_ENTITY WANDB_BASE_URL"


@contextmanager
def cluster(address: str | None = None, processes: int | None = None) -> Iterator[None]:
    """Connect to the cluster at `address`, or start one here with a CPU per process, and end the connection after."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    shared: dict = {"env_vars": environment()}
    if shlex.quote(sys.executable) != sys.executable:
        shared["py_executable"] = shlex.quote(sys.executable)  # Ray hands it to a shell as it is
    common: dict = {"log_to_driver": False, "logging_level": "error", "runtime_env": shared}
    if address:
        try:
            ray.init(address=address, **common)
        except (ConnectionError, SystemExit) as error:  # Ray ends the process where nobody listens
            raise ValueError(f"--address {address}: no Ray cluster that takes us answers there ({error})") from None
        try:
            yield
        finally:
            ray.shutdown()
        return
    place = tempfile.mkdtemp(prefix="amuro-", dir=_short_folder())
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"} & set(os.environ):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # Ray would write one to the home folder
    try:
        ray.init(
            address="local",  # never join a cluster that happens to run
            num_cpus=max(processes or 0, cores()),
            include_dashboard=False,
            object_store_memory=STORE,
            _temp_dir=place,
            **common,
        )
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(place, ignore_errors=True)  # its last processes may still write there


def sizing(gpus_per_cell: float | None, cells_per_gpu: int, processes: int | None) -> dict:
    """`takes`, what a worker takes of the cluster, and `room`, a function that says for how many it has room now.
    ValueError where it has not what is asked for."""
    import ray

    gpus = ray.cluster_resources().get("GPU", 0)
    share = (1 if gpus else 0) if gpus_per_cell is None else gpus_per_cell
    if share and not gpus:
        raise ValueError(f"--gpus_per_cell {share:g}: the cluster has no GPU; leave the flag out to run on its CPUs")
    if share != int(share) or share < 0 or cells_per_gpu < 1 or (cells_per_gpu > 1 and share != 1):
        raise ValueError(
            f"--gpus_per_cell {share:g} --cells_per_gpu {cells_per_gpu}: give whole GPUs to a cell, or one to several"
        )
    takes = {"num_cpus": 1, "num_gpus": share / cells_per_gpu}

    def room() -> int:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        each = [min(has.get("CPU", 0), has.get("GPU", 0) / takes["num_gpus"] if share else 2**30) for has in nodes]
        total = sum(int(number + 1e-6) for number in each)  # node by node: a worker is on one of them
        return min(total, processes or total)

    if share and not room():
        most = max((node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
        raise ValueError(
            f"--gpus_per_cell {share:g}: a cell runs on one node, and none of the cluster has as many with a CPU; "
            f"give {most:g} at most"
        )
    return {"takes": takes, "room": room}


def check_address(address: str | None) -> None:
    """ValueError where nobody listens at HOST:PORT: Ray itself would try for minutes."""
    if address in (None, "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(
            f"--address {address!r}: auto, or HOST:PORT of a Ray cluster; leave it out to use this machine"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise ValueError(f"--address {address}: nobody answers there ({error}); is the cluster up?") from None


def cores() -> int:
    """The CPU cores that this process may use: in a job on a shared machine fewer than it has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def environment() -> dict[str, str]:
    """The environment variables of a worker."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    passed = {name: os.environ[name] for name in PASSED.split() if name in os.environ}
    return {**WORKER, **passed, "PYTHONPATH": path}


def _short_folder() -> str:
    """Where temporary files go, unless its name is too long for the sockets in it."""
    usual = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    return usual if len(str(Path(usual).resolve())) < SOCKET_ROOM - len("/amuro-12345678") else "/tmp"
