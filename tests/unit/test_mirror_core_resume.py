"""A new process takes over the device of a dead one: role, generation, and what is completed when."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from mirror_core_support import CURRENT, EXTENT, EXTENTS, GOOD, Bench
from relevo.mirror import events as e
from relevo.mirror.metadata import MetaFlag
from relevo.mirror.packets import PingAck, SyncUuid
from relevo.mirror.states import Connection, Disk, Role

SIZE = EXTENTS * EXTENT
PRIMARY = CURRENT | 1
IN_USE = int((MetaFlag(GOOD) | MetaFlag.PRIMARY_IND | MetaFlag.CONNECTED_IND) & ~MetaFlag.AL_CLEAN)
PEER_WAIT_MS = 500


def resumed(*, alone: str = "ask", al: tuple[int, ...] = (3,), bitmap_uuid: int = 0, flags: int = IN_USE) -> Bench:
    bench = Bench(alone=alone, resume_peer_ms=PEER_WAIT_MS, suspend_ms=5000)
    bench.attach(flags=flags, current=PRIMARY, al=al, bitmap_uuid=bitmap_uuid, resume_bytes=SIZE)
    return bench


def write(bench: Bench, block: int = 3 * 1024) -> Any:
    """A write whose local part is done."""
    token = bench.write(block)
    bench.meta_done()
    bench.done(bench.one(e.DiskWrite))
    return token


def to_sync_source(bench: Bench) -> None:
    """The peer returns with the same generation and marks itself Inconsistent."""
    bench.meet()
    bench.meta_done()
    bench.peer_bitmap()
    bench.meta_done()
    bench.peer_state(Role.SECONDARY, Disk.INCONSISTENT, Connection.SYNC_TARGET)


def test_the_role_is_kept_and_everything_in_the_activity_log_is_out_of_sync() -> None:
    bench = resumed()
    assert bench.one(e.Resumed).error is None
    assert not bench.take(e.DeviceUp), "the device has never been away"
    assert (bench.status["role"], bench.status["disk"]) == ("Primary", "UpToDate")
    assert bench.status["out_of_sync_bytes"] == EXTENT
    assert int(bench.status["current_uuid"], 16) == PRIMARY


def test_the_superblock_says_primary_before_the_device_is_served() -> None:
    bench = Bench()
    meta = e.MetaState(PRIMARY, 0, 0, 0, IN_USE, SIZE // 512)
    bench.give(e.Attach(bench.now, meta, SIZE, b"", (1,), 0, 0, tuple(range(8)), SIZE))
    bench.done(bench.one(e.WriteBitmap))
    superblock = bench.one(e.WriteSuperblock)
    flags = MetaFlag(superblock.meta.flags)
    assert MetaFlag.PRIMARY_IND in flags
    assert MetaFlag.CRASHED_PRIMARY in flags
    assert MetaFlag.AL_CLEAN not in flags
    assert not bench.take(e.Resumed)
    bench.done(superblock)
    assert bench.one(e.Resumed).error is None


def test_reads_are_answered_at_once_and_writes_when_the_peer_is_marked() -> None:
    bench = resumed()
    read = bench.token()
    bench.give(e.AppRead(bench.now, read, 0, 4096, None))
    bench.done(bench.one(e.DiskRead), 0, "data")
    assert bench.completed() == {read: 0}
    token, flush = write(bench), bench.flush()
    bench.all_done()
    assert bench.completed() == {}
    assert not bench.status["suspended"], "nobody is asked for permission yet"
    to_sync_source(bench)
    assert bench.completed() == {token: 0, flush: 0}
    assert int(bench.status["current_uuid"], 16) == PRIMARY, "the generation is the same"
    assert bench.status["problem"] == ""


def test_a_copy_that_was_alone_goes_on_at_once() -> None:
    bench = resumed(bitmap_uuid=0x77_0000, flags=IN_USE | int(MetaFlag.PEER_OUTDATED))
    assert bench.completed() == {}
    token = write(bench)
    assert bench.completed() == {token: 0}


def test_without_the_peer_permission_is_asked_after_a_while() -> None:
    bench = resumed()
    token = write(bench)
    bench.tick(PEER_WAIT_MS - 20)
    assert not bench.status["suspended"]
    bench.tick(40)
    assert bench.status["suspended"]
    command = bench.token()
    bench.give(e.AllowAlone(bench.now, command, 1))
    bench.meta_done()
    assert bench.completed() == {token: 0}
    assert int(bench.status["current_uuid"], 16) != PRIMARY, "a new generation"


def test_permission_may_come_before_that() -> None:
    bench = resumed()
    token = write(bench)
    bench.give(e.AllowAlone(bench.now, bench.token(), 1))
    bench.meta_done()
    assert bench.completed() == {token: 0}


def test_with_risk_it_goes_alone_after_a_while_in_a_new_generation() -> None:
    bench = resumed(alone="risk")
    token = write(bench)
    bench.tick(PEER_WAIT_MS + 20)
    assert bench.completed() == {}, "not before the new generation is stable"
    bench.meta_done()
    assert bench.completed() == {token: 0}
    assert int(bench.status["bitmap_uuid"], 16) & ~1 == CURRENT


def test_a_peer_that_is_just_connecting_gets_more_time_but_not_without_end() -> None:
    bench = resumed(alone="risk")
    token = write(bench)
    bench.meet()
    bench.meta_done()
    bench.tick(PEER_WAIT_MS + 20)
    assert bench.status["connection"] == "WFBitMapS"
    assert bench.completed() == {}
    for _ in range(60):
        bench.tick(100)
        if bench.take(e.SendMeta):
            bench.packet(_pong())
    bench.meta_done()
    assert bench.completed() == {token: 0}


def _pong() -> Any:

    return PingAck()


@pytest.mark.parametrize(
    ("role", "uuids"),
    [
        (Role.SECONDARY, (0x9999_0000, CURRENT, 0, 0)),
        (Role.PRIMARY, (0x9999_0001, CURRENT, 0, 0)),
        (Role.PRIMARY, (PRIMARY, 0, 0, 0)),
    ],
)
@pytest.mark.parametrize("alone", ["ask", "risk"])
def test_a_peer_that_has_gone_on_meanwhile_wins(alone: str, role: Role, uuids: tuple[int, int, int, int]) -> None:
    bench = resumed(alone=alone)
    token = write(bench)
    bench.meet(role=role, uuids=uuids)
    bench.meta_done()
    assert bench.completed() == {token: errno.EIO}, "its writes are on no other copy, and will be on none"
    bench.tick(PEER_WAIT_MS + 100)
    bench.meta_done()
    assert int(bench.status["current_uuid"], 16) == PRIMARY, "no new generation: that would be a split brain"
    refused = write(bench, 4 * 1024) if bench.core._local.gate.name == "OPEN" else bench.write(4 * 1024)
    assert bench.completed() == {refused: errno.EIO}


def test_demoted_before_the_peer_came_it_stays_a_crashed_primary() -> None:
    bench = resumed()
    token = write(bench)
    bench.give(e.Demote(bench.now, bench.token()))
    assert bench.completed() == {token: errno.EIO}
    bench.done(bench.one(e.DeviceDown))
    superblocks = bench.take(e.WriteSuperblock)
    while not superblocks:
        bench.done(bench.one(e.WriteBitmap))
        superblocks = bench.take(e.WriteSuperblock)
    flags = MetaFlag(superblocks[-1].meta.flags)
    assert MetaFlag.CRASHED_PRIMARY in flags
    assert MetaFlag.PRIMARY_IND not in flags


@pytest.mark.parametrize(
    ("flags", "size", "why"),
    [
        (GOOD, SIZE, "not Primary"),
        (IN_USE & ~int(MetaFlag.CONSISTENT), SIZE, "not up to date"),
        (IN_USE, SIZE - 4096, "another size"),
    ],
)
def test_what_cannot_be_taken_over_is_refused_by_name(flags: int, size: int, why: str) -> None:
    bench = Bench()
    bench.attach(flags=flags, current=PRIMARY, resume_bytes=size)
    assert why in str(bench.one(e.Resumed).error)
    assert bench.status["role"] == "Secondary"


def test_without_a_device_to_take_over_nothing_is_said() -> None:
    bench = Bench()
    bench.attach(flags=IN_USE, current=PRIMARY)
    assert not bench.take(e.Resumed)
    assert bench.status["role"] == "Secondary"


def test_a_stale_copy_that_is_whole_again_is_no_longer_noted_as_stale() -> None:
    """In the same generation: should the process die again, its good copy must not be taken for the old one."""
    bench = Bench()
    meta = e.MetaState(PRIMARY, 0, 0, 0, IN_USE, SIZE // 512)
    bench.give(e.Attach(bench.now, meta, SIZE, b"", (), 0, 0, tuple(range(0x10, 0x90, 0x10)), 0, stale=CURRENT))
    bench.meta_done()
    assert bench.status["disk"] == "Inconsistent"
    bench.meet(uuids=(CURRENT, 0, 0, 0))
    bench.meta_done()
    bench.peer_bitmap()
    bench.meta_done()
    bench.packet(SyncUuid(CURRENT + 0x2_0000))
    bench.meta_done()
    bench.take(e.WriteSuperblock)
    for _ in range(20):
        bench.tick(100)
        for effect in (*bench.take(e.WriteBitmap), *bench.take(e.DiskFlush)):
            bench.done(effect)
        bench.packet(_pong())
        if noted := bench.take(e.PersistStale):
            break
    assert [effect.generation for effect in noted] == [0]
    assert not bench.take(e.WriteSuperblock), "not before that is stable"
    bench.done(noted[0])
    assert MetaFlag.CONSISTENT in MetaFlag(bench.one(e.WriteSuperblock).meta.flags)
