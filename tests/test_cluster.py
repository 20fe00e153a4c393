"""What a cluster has room for, told by a stand-in for Ray."""

import os
import sys
from types import SimpleNamespace

import pytest

from amuro.running.cluster import check_address, cluster, cores, sizing


@pytest.fixture
def ray(monkeypatch):
    """Two nodes with two GPUs each."""
    nodes = [{"Alive": True, "Resources": {"CPU": 8, "GPU": 2}} for _ in range(2)]
    there = SimpleNamespace(nodes=lambda: nodes, cluster_resources=lambda: {"GPU": 4})
    monkeypatch.setitem(sys.modules, "ray", there)


def test_a_cell_that_no_node_has_the_gpus_for_is_refused(ray):
    with pytest.raises(ValueError, match="--gpus_per_cell 4: a cell runs on one node.*give 2 at most"):
        sizing(4, 1, None)


@pytest.mark.parametrize(("gpus", "cells", "room"), [(2, 1, 2), (1, 1, 4), (1, 2, 8), (None, 1, 4), (0, 1, 16)])
def test_room_is_counted_node_by_node(ray, gpus, cells, room):
    assert sizing(gpus, cells, None)["room"]() == room


@pytest.mark.parametrize("end", [ConnectionError("no token"), SystemExit(15)])
def test_a_cluster_that_does_not_answer_is_one_line(end, monkeypatch):
    """Ray raises the one where it is refused, and ends the process where nobody listens."""

    def init(**_):
        raise end

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    with pytest.raises(ValueError, match="--address auto: no Ray cluster that takes us answers there"), cluster("auto"):
        pass


def test_a_job_on_a_shared_machine_has_its_own_cores_alone(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert cores() == 2


@pytest.mark.parametrize(
    ("address", "told"),
    [("bogus", "auto, or HOST:PORT"), ("a:b", "auto, or HOST:PORT"), ("127.0.0.1:1", "nobody answers")],
)
def test_an_address_where_nobody_listens_is_told_at_once(address, told):
    with pytest.raises(ValueError, match=told):
        check_address(address)
