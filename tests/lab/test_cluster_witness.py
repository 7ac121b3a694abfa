"""Two servers and a witness with real processes: no split brain, no stale copy, and nothing risked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster_load import Cluster
from relevo.lab import poll
from relevo.lab.demo import polling
from relevo.lab.lab import Lab, Options
from relevo.lab.scene import URL

DISK_BYTES = 64 << 20
PROBE = "probe.txt"
PATIENT_MS = 20_000
WITNESS = ("client", "witness")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One lab for all tests of this file: each of them leaves both servers up, current, the service on nodo1."""
    lab = Lab(tmp_path_factory.mktemp("witness") / "lab", Options(disk_bytes=DISK_BYTES, witness=True))
    try:
        lab.up()
        (lab.shared / PROBE).write_text("Relevo\n")
        lab.run("client", ["curl", "-sf", "-T", str(lab.shared / PROBE), URL], check=True)
        yield Cluster(lab, lab.shared)
    finally:
        lab.erase()


@pytest.fixture
def cluster(running: Cluster) -> Cluster:
    running.recover()
    running.acknowledged.clear()
    return running


def await_reason(cluster: Cluster, node: str, sentence: str) -> None:
    cluster.story.await_status(sentence, node, lambda state: sentence in state["services"]["web"]["reason"])


def test_a_server_that_hears_nobody_stops_and_the_other_takes_over(cluster: Cluster) -> None:
    """Without a witness this is a split brain; with one nothing is lost, not even what was stored last."""
    with cluster.one_address(), cluster.load():
        cluster.lab.cut("nodo1")
        cluster.story.await_service_away_from("nodo1")
        assert cluster.holders() == ["nodo2"]
        cluster.lab.heal("nodo1")
        cluster.story.await_service_on("nodo1")
    cluster.judge()


def test_the_loss_of_the_witness_alone_changes_nothing(cluster: Cluster) -> None:
    log = cluster.scratch / "witness.jsonl"
    with polling(cluster.lab, log, URL + PROBE, limit_ms=PATIENT_MS), cluster.one_address(), cluster.load():
        cluster.lab.unit(*WITNESS, "stop")
        cluster.story.await_status(
            "The witness at", "nodo1", lambda state: any("The witness at" in alarm for alarm in state["alarms"])
        )
        cluster.lab.unit(*WITNESS, "start")
        cluster.story.await_status("no alarm", "nodo1", lambda state: not state["alarms"])
    polls = poll.read_polls(log)
    assert len(polls) > 0
    assert [found.why for found in polls if not found.good] == []
    cluster.judge()


def test_a_server_alone_waits_for_the_witness(cluster: Cluster) -> None:
    with cluster.load():
        pass
    cluster.lab.unit(*WITNESS, "stop")
    cluster.lab.crash("nodo1")
    await_reason(cluster, "nodo2", "Neither nodo1 nor the witness answers")
    assert cluster.holders() == []
    cluster.lab.unit(*WITNESS, "start")
    cluster.story.await_service_away_from("nodo1")
    with cluster.load():
        pass
    cluster.lab.boot("nodo1")
    cluster.story.await_service_on("nodo1")
    cluster.judge()


def test_a_server_that_was_away_does_not_serve_what_it_has(cluster: Cluster) -> None:
    with cluster.one_address():
        with cluster.load():
            cluster.lab.crash("nodo1")
            cluster.story.await_service_away_from("nodo1")
        cluster.lab.crash("nodo2")
        cluster.lab.boot("nodo1")
        await_reason(cluster, "nodo1", "The newest data of r0 is on nodo2, says the witness.")
        assert cluster.holders() == []
        cluster.lab.boot("nodo2")
        cluster.story.await_service_on("nodo1")
    cluster.judge()
