"""One server runs Relevo, the other one the real Heartbeat 3: each can be active, and nothing ever runs on both."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from heartbeat_scene import HEARTBEAT, MixedPair

from lab_maker import LabMaker
from relevo.lab.scene import SERVERS

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not HEARTBEAT.exists(), reason="cannot run: not installed: heartbeat"),
]
LIMIT_S = 280.0
HISTORY = 500
"""So many messages Heartbeat keeps."""
PairMaker = Callable[..., MixedPair]


@pytest.fixture
def make_mixed(make_lab: LabMaker, request: pytest.FixtureRequest) -> Iterator[PairMaker]:
    made = []

    def make(**options: str) -> MixedPair:
        lab = make_lab(limit_s=LIMIT_S, disk_bytes=64 << 20)
        lab.up(service=False)
        made.append(MixedPair(lab, **options))
        return made[0]

    yield make
    for pair in made:
        if getattr(request.node, "failed", False):
            print(pair.tell())
        pair.close()


@pytest.mark.parametrize("ours", SERVERS)
def test_orderly_stops_and_failback(make_mixed: PairMaker, ours: str) -> None:
    pair = make_mixed(ours=ours)
    pair.start(*SERVERS)
    pair.settled(uno="nodo1", dos="nodo2")
    assert f"{pair.original} runs an original Heartbeat 3" in " ".join(pair.status()["risks"])
    assert f"{pair.original} runs an original Heartbeat 3" in pair.shell(ours, "relevo check")
    pair.stop(pair.original)
    pair.settled(uno=ours, dos=ours)
    pair.start(pair.original)
    pair.settled(uno="nodo1", dos="nodo2")
    pair.stop(ours)
    pair.settled(uno=pair.original, dos=pair.original)
    pair.start(ours)
    pair.settled(uno="nodo1", dos="nodo2")


@pytest.mark.parametrize("ours", SERVERS)
def test_crashes_and_failback(make_mixed: PairMaker, ours: str) -> None:
    pair = make_mixed(ours=ours)
    pair.start(*SERVERS)
    pair.settled(uno="nodo1", dos="nodo2")
    pair.crash(pair.original)
    pair.settled(uno=ours, dos=ours)
    pair.boot(pair.original)
    pair.settled(uno="nodo1", dos="nodo2")
    pair.crash(ours)
    pair.settled(uno=pair.original, dos=pair.original)
    pair.boot(ours)
    pair.settled(uno="nodo1", dos="nodo2")


@pytest.mark.parametrize("ours", SERVERS)
def test_no_failback_and_moves_by_hand(make_mixed: PairMaker, ours: str) -> None:
    pair = make_mixed(ours=ours, failback="off")
    original = pair.original
    pair.start(*SERVERS)
    pair.settled(uno="nodo1", dos="nodo2")
    pair.stop(original)
    pair.settled(uno=ours, dos=ours)
    pair.start(original)
    pair.settled(uno=ours, dos=ours)
    pair.shell(ours, f"relevo standby {ours}")
    pair.settled(uno=original, dos=original)
    pair.shell(ours, f"relevo online {ours}")
    pair.settled(uno=original, dos=original)
    pair.shell(original, "/usr/share/heartbeat/hb_standby all")
    pair.settled(uno=ours, dos=ours)
    pair.crash(ours)
    pair.settled(uno=original, dos=original)
    pair.boot(ours)
    pair.settled(uno=original, dos=original)


@pytest.mark.parametrize("ours", SERVERS)
def test_legacy(make_mixed: PairMaker, ours: str) -> None:
    pair = make_mixed(ours=ours, failback="legacy")
    pair.start(*SERVERS)
    pair.settled(uno="nodo1", dos="nodo2")
    pair.stop(pair.original)
    pair.settled(uno=ours, dos=ours)
    pair.start(pair.original)
    pair.settled(uno="nodo1", dos="nodo2")
    pair.crash(ours)
    pair.settled(uno=pair.original, dos=pair.original)
    pair.boot(ours)
    pair.settled(uno="nodo1", dos="nodo2")


def test_over_multicast(make_mixed: PairMaker) -> None:
    pair = make_mixed(ours="nodo1", media="mcast eth0 225.0.0.1 694 1 0")
    pair.start(*SERVERS)
    pair.settled(uno="nodo1", dos="nodo2")
    assert pair.talk()["links"] == {"eth0": "up"}
    pair.stop("nodo1")
    pair.settled(uno="nodo2", dos="nodo2")
    pair.start("nodo1")
    pair.settled(uno="nodo1", dos="nodo2")


def test_its_history_does_not_fill(make_mixed: PairMaker) -> None:
    pair = make_mixed(ours="nodo1", keepalive="25ms")
    pair.start(*SERVERS)
    pair.settled(uno="nodo1", dos="nodo2")
    pair.wait(lambda: pair.sent() > 2 * HISTORY, "more messages than its history holds, twice")
    pair.settled(uno="nodo1", dos="nodo2")
    assert "hist queue is filling up" not in pair.log()
    assert "clients are now paused" not in pair.log()
    assert pair.shell("nodo2", "cl_status nodestatus nodo1").strip() == "active"


def test_one_server_after_the_other_is_replaced(make_mixed: PairMaker) -> None:
    pair = make_mixed(ours="nodo2")
    pair.start(*SERVERS)
    pair.settled(uno="nodo1", dos="nodo2")
    pair.stop("nodo1")
    pair.relevo.add("nodo1")
    pair.start("nodo1")
    pair.settled(uno="nodo1", dos="nodo2")
    pair.stop("nodo2")
    pair.settled(uno="nodo1", dos="nodo1")
    pair.relevo.remove("nodo2")
    pair.start("nodo2")
    pair.settled(uno="nodo1", dos="nodo2")
