"""Two servers that can switch each other off, with real processes: whoever goes on alone has seen to it first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from labtools import is_off

from cluster_load import Cluster
from relevo.lab.lab import Lab, Options
from relevo.lab.process import wait_until
from relevo.lab.scene import MIRROR
from relevo.lab.story import Status

DISK_BYTES = 64 << 20
LIMIT_S = 60.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One lab for all tests of this file: each of them leaves both servers up, current, the service on nodo1."""
    lab = Lab(tmp_path_factory.mktemp("fencing") / "lab", Options(disk_bytes=DISK_BYTES, fencing=True))
    try:
        lab.up()
        yield Cluster(lab, lab.shared)
    finally:
        lab.erase()


@pytest.fixture
def cluster(running: Cluster) -> Cluster:
    running.recover()
    running.acknowledged.clear()
    return running


def test_without_the_cross_cable_the_other_copy_stands_back_and_nobody_is_switched_off(cluster: Cluster) -> None:
    """Asked over the other link: it marks itself Outdated first, and only then is anything written without it."""

    def sides(state: Status) -> dict[str, Any]:
        return dict(state["mirrors"][MIRROR])

    with cluster.one_address(), cluster.load():
        cluster.lab.cut("nodo1", "eth1")
        cluster.story.await_status(
            "An Outdated copy on nodo2",
            "nodo1",
            lambda state: sides(state)["nodo2"]["disk"] == "Outdated" and not sides(state)["nodo1"]["suspended"],
        )
        assert cluster.holders() == ["nodo1"]
        with cluster.load():
            pass  # it goes on: as many files again are acknowledged
        cluster.lab.heal("nodo1")
        cluster.story.await_service_on("nodo1")
    assert not is_off(cluster.lab, "nodo2")
    cluster.judge()


def test_after_a_cut_of_all_links_one_switches_the_other_off(cluster: Cluster) -> None:
    """Who wins is open; that there is one, that nothing is lost and that the other comes back is not."""
    with cluster.one_address(), cluster.load():
        cluster.lab.cut("nodo1")
        assert wait_until(lambda: is_off(cluster.lab, "nodo1") or is_off(cluster.lab, "nodo2"), LIMIT_S)
        (lost,) = (node for node in ("nodo1", "nodo2") if is_off(cluster.lab, node))
        cluster.lab.heal("nodo1")
        cluster.lab.boot(lost)
        cluster.story.await_service_on("nodo1")
    cluster.judge()


def test_a_server_that_dies_is_fenced_and_its_service_goes_on(cluster: Cluster) -> None:
    with cluster.one_address(), cluster.load():
        cluster.lab.crash("nodo1")
        cluster.story.await_service_away_from("nodo1")
        cluster.lab.boot("nodo1")
        cluster.story.await_service_on("nodo1")
    assert "nodo1 was fenced" in cluster.lab.logs("nodo2")
    cluster.judge()


def test_a_server_that_cannot_stop_its_service_is_fenced(cluster: Cluster) -> None:
    cluster.story.await_service_on("nodo1")
    with cluster.one_address(), cluster.load():
        # A file system mounted inside: no process holds it, and nothing that may be killed sets it free.
        inside = "/srv/relevo/held"
        cluster.lab.run("nodo1", ["mkdir", inside], check=True)
        cluster.lab.run("nodo1", ["mount", "-t", "tmpfs", "none", inside], check=True)
        cluster.lab.run("nodo2", ["relevo", "standby", "nodo1"], check=True, capture=True)
        cluster.story.await_service_away_from("nodo1")
        assert is_off(cluster.lab, "nodo1")
        cluster.lab.run("nodo2", ["relevo", "online", "nodo1"], check=True, capture=True)
        cluster.lab.boot("nodo1")
        cluster.story.await_service_on("nodo1")
    assert "could not be stopped there" in cluster.lab.logs("nodo2")
    cluster.judge()
