"""fencing resource-only and resource-and-stonith: when fence-peer runs, and what its exit status leads to."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from mirror_core_support import CURRENT, GOOD, Bench
from relevo.config.drbd_options import DrbdOptions
from relevo.mirror import errors
from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.metadata import MetaFlag
from relevo.mirror.states import CONN_MASK, DISK_MASK, Connection, Disk

HOLDING = "resource-and-stonith"


def primary(fencing: str, **settings: Any) -> Bench:
    """A Primary with a good peer and one write under way that the peer has not acknowledged."""
    found = Bench(options=DrbdOptions(fencing=fencing), **settings).pair()
    found.write(1, token="write")
    found.meta_done()
    found.done(found.take(e.DiskWrite)[-1])
    found.take(e.RunHandler)
    return found


def lose(found: Bench) -> list[e.RunHandler]:
    found.give(e.Disconnected(found.now))
    return [effect for effect in found.take(e.RunHandler) if effect.name == "fence-peer"]


def answer(found: Bench, effect: e.RunHandler, status: int) -> None:
    found.give(e.HandlerDone(found.now, effect.token, status))
    found.meta_done()


def test_without_fencing_nobody_is_called() -> None:
    assert lose(primary("dont-care", alone="risk")) == []


def test_resource_only_writes_go_on_meanwhile() -> None:
    found = primary("resource-only", alone="risk")
    (fencing,) = lose(found)
    found.meta_done()
    assert found.completed() == {"write": 0}
    answer(found, fencing, 4)
    assert found.status["peer_disk"] == "Outdated"


@pytest.mark.parametrize("alone", ["risk", "ask"])
@pytest.mark.parametrize("status", [3, 4, 5, 7])
def test_and_stonith_writes_wait_until_the_peer_is_fenced(alone: str, status: int) -> None:
    found = primary(HOLDING, alone=alone)
    (fencing,) = lose(found)
    found.meta_done()
    assert found.completed() == {}
    assert found.status["suspended"]
    answer(found, fencing, status)
    assert found.completed() == {"write": 0}
    assert found.core._s.uuids.bitmap == CURRENT | 1, "a new generation was stable first"


@pytest.mark.parametrize("status", [0, 1, 6, 126, -1])
def test_a_failure_leaves_writes_suspended_within_the_bound(status: int) -> None:
    found = primary(HOLDING, alone="risk", suspend_ms=500)
    (fencing,) = lose(found)
    answer(found, fencing, status)
    assert found.completed() == {}
    assert "fence-peer" in found.status["problem"]
    assert found.status["role"] == "Primary"
    found.tick(600)
    assert found.completed() == {"write": errno.EIO}


def test_fencing_is_as_good_as_a_permission() -> None:
    found = primary("resource-only", alone="ask")
    (fencing,) = lose(found)
    assert found.completed() == {}
    answer(found, fencing, 7)
    assert found.completed() == {"write": 0}


@pytest.mark.parametrize("alone", ["risk", "ask"])
def test_no_vote_replaces_fencing_but_the_administrator_does(alone: str) -> None:
    found = primary(HOLDING, alone=alone)
    (fencing,) = lose(found)
    found.give(e.AllowAlone(found.now, "vote", 0))
    assert isinstance(found.one(e.CommandDone).error, errors.PeerNotFenced)
    answer(found, fencing, 1)
    assert found.completed() == {}
    found.give(e.ResumeIo(found.now, "resume"))
    found.meta_done()
    assert found.one(e.CommandDone).error is None
    assert found.completed() == {"write": 0}


def test_an_answer_that_comes_after_the_peer_is_not_obeyed() -> None:
    found = primary(HOLDING, alone="ask")
    (fencing,) = lose(found)
    found.meet()
    answer(found, fencing, 4)
    assert found.core._s.uuids.bitmap == 0
    assert found.status["peer_disk"] != "Outdated"


def test_a_peer_that_left_as_outdated_is_not_fenced() -> None:
    found = primary(HOLDING, alone="ask")
    mask, value = CONN_MASK | DISK_MASK, Connection.DISCONNECTING << 4 | Disk.OUTDATED << 9
    found.packet(p.ConnStateChangeRequest(mask, value))
    assert [effect.name for effect in found.take(e.RunHandler)] == []


# ---------------------------------------------------------------- becoming Primary


def secondary(flags: int = GOOD) -> Bench:
    return Bench(options=DrbdOptions(fencing="resource-only"), alone="risk").attach(flags=flags)


def promote(found: Bench, *, force: bool = False) -> e.RunHandler:
    found.give(e.Promote(found.now, "promote", force, 0))
    found.meta_done()
    effect: e.RunHandler = found.one(e.RunHandler)
    assert effect.name == "fence-peer"
    return effect


@pytest.mark.parametrize("status", [3, 4, 7])
def test_a_secondary_becomes_primary_when_its_peer_is_fenced(status: int) -> None:
    found = secondary()
    assert found.status["disk"] == "Consistent"
    answer(found, promote(found), status)
    found.done(found.one(e.DeviceUp))
    assert found.one(e.CommandDone).error is None
    assert found.status["disk"] == "UpToDate"


@pytest.mark.parametrize("status", [0, 1, 5])
def test_and_does_not_otherwise(status: int) -> None:
    """5 (the peer is down) is enough for a copy only that is known to be the newest."""
    found = secondary()
    answer(found, promote(found), status)
    assert isinstance(found.one(e.CommandDone).error, errors.PeerNotFenced)
    assert found.status["role"] == "Secondary"
    assert found.status["disk"] == "Consistent"


def test_a_secondary_whose_peer_is_primary_is_outdated() -> None:
    found = secondary()
    answer(found, promote(found), 6)
    assert isinstance(found.one(e.CommandDone).error, errors.PeerNotFenced)
    assert found.status["disk"] == "Outdated"


def test_force_goes_on_whatever_the_handler_says() -> None:
    found = secondary()
    answer(found, promote(found, force=True), 1)
    found.done(found.one(e.DeviceUp))
    assert found.one(e.CommandDone).error is None


def test_a_peer_that_is_outdated_already_is_not_fenced_again() -> None:
    found = secondary(GOOD | MetaFlag.PEER_OUTDATED)
    found.promote()


def test_after_a_resync_the_peer_is_unfenced() -> None:
    found = secondary()
    found.core._resync.guard.after(target=False)
    assert [effect.name for effect in found.core._s.out if isinstance(effect, e.RunHandler)] == [
        "after-resync-source",
        "unfence-peer",
    ]
