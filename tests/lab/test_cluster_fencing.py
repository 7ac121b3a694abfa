"""Two servers that can switch each other off, with real processes: whoever goes on alone has seen to it first."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from labtools import is_off

from cluster_load import Cluster
from relevo.lab.lab import Lab, Options
from relevo.lab.process import wait_until

DISK_BYTES = 64 << 20
LIMIT_S = 60.0


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    lab = Lab(tmp_path_factory.mktemp("fencing") / "lab", Options(disk_bytes=DISK_BYTES, fencing=True))
    try:
        lab.up()
        yield Cluster(lab, lab.shared)
    finally:
        lab.erase()


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
