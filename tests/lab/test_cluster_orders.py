"""People's orders with real processes: what was shown first is what then happens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cluster_load import Cluster
from relevo.lab.lab import Lab, Options
from relevo.lab.scene import URL

DISK_BYTES = 64 << 20
ADDRESS = "192.168.0.29/24"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    lab = Lab(tmp_path_factory.mktemp("orders") / "lab", Options(disk_bytes=DISK_BYTES))
    try:
        lab.up()
        yield Cluster(lab, lab.shared)
    finally:
        lab.erase()


def _said(cluster: Cluster, node: str, *words: str, refused: bool = False) -> str:
    done = cluster.lab.run(node, ["relevo", *words], capture=True)
    assert done.returncode == (1 if refused else 0), done.stderr.decode()
    return (done.stderr if refused else done.stdout).decode()


def _explained(cluster: Cluster, node: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_said(cluster, node, "explain", "web", "--json"))
    return found


def test_a_move_is_shown_made_and_cleared(cluster: Cluster) -> None:
    cluster.story.await_service_on("nodo1")
    shown = _said(cluster, "nodo2", "move", "web", "--dry-run")
    assert "nodo1: stop address of web" in shown
    assert shown.index("nodo1: stop mirror") < shown.index("nodo2: start mirror")
    assert shown.endswith("web would then run on nodo2.\n")
    cluster.story.await_service_on("nodo1")  # nothing was done
    with cluster.one_address():
        _said(cluster, "nodo2", "move", "web")
        cluster.story.await_service_on("nodo2")
        assert "a person" not in _explained(cluster, "nodo2")["reason"]
        assert "nodo1: stop" not in _said(cluster, "nodo1", "clear", "web", "--dry-run")
        _said(cluster, "nodo1", "clear", "web")
        cluster.story.await_service_on("nodo1")


def test_a_ban_that_would_stop_the_service_is_refused(cluster: Cluster) -> None:
    cluster.story.await_service_on("nodo1")
    _said(cluster, "nodo1", "ban", "web", "nodo2")
    assert "web is banned from nodo2" in _explained(cluster, "nodo1")["elsewhere"]["nodo2"]
    assert "web would run nowhere" in _said(cluster, "nodo1", "ban", "web", "nodo1", refused=True)
    assert "To make it so" not in _said(cluster, "nodo1", "rebalance", "--apply")  # there is but one service
    assert "lift that first" in _said(cluster, "nodo1", "move", "web", "nodo2", refused=True).lower()
    assert _explained(cluster, "nodo2")["if_dies"]["nodo1"]["node"] is None
    _said(cluster, "nodo2", "clear", "web")


def test_in_maintenance_a_failure_is_only_reported(cluster: Cluster) -> None:
    cluster.story.await_service_on("nodo1")
    _said(cluster, "nodo2", "maintenance", "on", "web")
    cluster.story.await_status(
        "maintenance", "nodo1", lambda state: "In maintenance" in state["services"]["web"]["reason"]
    )
    cluster.lab.run("nodo1", ["ip", "address", "del", ADDRESS, "dev", "eth0"], check=True)
    state = cluster.story.await_status(
        "the address reported missing",
        "nodo1",
        lambda state: state["services"]["web"]["resource_states"]["nodo1"]["address"] != "started",
    )
    assert state["services"]["web"]["failures"]["nodo1"] == {}
    assert cluster.holders() == []
    assert "web" in " ".join(state["risks"])
    _said(cluster, "nodo2", "maintenance", "off", "web")
    cluster.story.await_service_on("nodo1")
    assert cluster.holders() == ["nodo1"]


def test_what_is_foretold_of_a_death_is_what_happens(cluster: Cluster) -> None:
    cluster.story.await_service_on("nodo1")
    foretold = _explained(cluster, "nodo2")["if_dies"]["nodo1"]
    assert foretold["node"] == "nodo2"
    cluster.lab.crash("nodo1")
    cluster.story.await_service_away_from("nodo1")
    # The same question again: now nobody is left, and the copy that comes back alone would not serve old files.
    assert _explained(cluster, "nodo2")["if_dies"]["nodo2"]["node"] is None
    told = [(event["node"], event["what"]) for event in json.loads(_said(cluster, "nodo2", "history", "--json"))]
    assert ("nodo1", "nodo1 is dead.") in told
    assert ("nodo2", "web is started on nodo2.") in told
    cluster.lab.crash("nodo2")
    cluster.lab.boot("nodo2")
    kept = [(event["node"], event["what"]) for event in json.loads(_said(cluster, "nodo2", "history", "--json"))]
    assert kept[: len(told)] == told
    cluster.lab.boot("nodo1")
    cluster.story.await_service_on("nodo1")


@pytest.mark.parametrize("order", [("heartbeat", "node"), ("node", "heartbeat")])
@pytest.mark.parametrize("node", ["nodo2", "nodo1"])
def test_who_left_is_current_again_when_heartbeat_and_node_are_started_anew(
    cluster: Cluster, node: str, order: tuple[str, str]
) -> None:
    """The mirror's process goes on meanwhile: nothing but the node's return makes it look for its peer."""
    cluster.story.await_service_on("nodo1")
    cluster.acknowledged.clear()
    other = "nodo1" if node == "nodo2" else "nodo2"
    _said(cluster, node, "leave")
    assert _said(cluster, node, "mirror", "dstate", "r0") == "Outdated/DUnknown\n"
    assert _said(cluster, other, "mirror", "dstate", "r0") == "UpToDate/Outdated\n", "it was Primary by then"
    with cluster.load():
        assert _said(cluster, node, "mirror", "cstate", "r0") == "StandAlone\n", (
            "what is written now is not served here"
        )
        for unit in order:
            cluster.lab.unit(node, unit, "restart")
        cluster.story.await_both_current(other)
    cluster.story.await_service_on("nodo1")
    cluster.judge()


def test_of_two_that_left_the_one_that_went_last_serves_alone(cluster: Cluster) -> None:
    cluster.story.await_service_on("nodo1")
    cluster.acknowledged.clear()
    with cluster.load():
        _said(cluster, "nodo2", "leave")
    _said(cluster, "nodo1", "leave")
    assert _said(cluster, "nodo2", "mirror", "dstate", "r0") == "Outdated/DUnknown\n"
    assert _said(cluster, "nodo1", "mirror", "dstate", "r0") == "UpToDate/Outdated\n"
    for node in ("nodo1", "nodo2"):
        for unit in ("heartbeat", "node"):
            cluster.lab.unit(node, unit, "restart")
    cluster.story.await_service_on("nodo1")
    cluster.judge()


def test_accounts_given_on_the_passive_server_survive_a_power_cut_after_the_answer(cluster: Cluster) -> None:
    """Users, permissions, a session and a link: each is there on the other server, the moment after its answer."""
    cluster.story.await_service_on("nodo1")
    password = b"correct horse\n"
    for words in (("root", "--admin"), ("ana",)):
        command = ["relevo", "user", "add", *words, "--password-stdin"]
        cluster.lab.run("nodo2", command, stdin=password, capture=True, check=True)
    _said(cluster, "nodo2", "share", "add", "docs", "/docs")
    _said(cluster, "nodo2", "share", "permit", "docs", "ana", "manage")
    assert "no user tom" in _said(cluster, "nodo2", "share", "permit", "docs", "tom", "read", refused=True)
    jar = str(cluster.scratch / "ana.cookies")
    form = ["-d", "name=ana", "-d", "password=correct horse"]
    assert _curl(cluster, "-c", jar, *form, URL + ".relevo/login") == 303
    assert _curl(cluster, "-b", jar, URL + "docs/") == 200
    link = _said(cluster, "nodo2", "share", "link", "/docs", "--as", "ana").split()[0]
    cluster.lab.crash("nodo1")
    cluster.story.await_service_away_from("nodo1")
    assert _curl(cluster, "-b", jar, URL + "docs/") == 200
    assert _curl(cluster, URL + "docs/") == 401
    assert _curl(cluster, link + "/") == 200
    _said(cluster, "nodo2", "user", "logout", "ana")
    assert _curl(cluster, "-b", jar, URL + "docs/") == 401
    assert _curl(cluster, "-u", "ana:correct horse", URL + "docs/") == 200


def _curl(cluster: Cluster, *words: str) -> int:
    """The status that the client gets."""
    done = cluster.lab.run("client", ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *words], capture=True)
    return int(done.stdout)
