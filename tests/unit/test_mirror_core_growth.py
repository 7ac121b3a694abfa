"""A mirror that grows: what is stable before what, what the peer is told, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from mirror_core_support import CURRENT, EXTENT, EXTENTS, GOOD, Bench
from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.growth import NO_RESYNC
from relevo.mirror.states import Role

OLD = EXTENTS * EXTENT
NEW = OLD + 4 * EXTENT
OLD_SECTORS, NEW_SECTORS = OLD // 512, NEW // 512
ADDED_BITS = (NEW - OLD) // 4096


def measured(bench: Bench, size: int = NEW) -> None:
    effect = bench.one(e.MeasureDisk)
    bench.give(e.DiskMeasured(bench.now, effect.token, 0, size))


def resize(bench: Bench, **arguments: Any) -> int:
    token = bench.token()
    bench.give(e.Resize(bench.now, token, **arguments))
    return token


def told_sizes(bench: Bench) -> p.Sizes:
    (packet,) = (packet for packet in bench.sent() if isinstance(packet, p.Sizes))
    return packet


def sizes(disk: int, current: int, flags: int = 0) -> p.Sizes:
    return p.Sizes(disk, 0, current, 1 << 20, 0, flags)


def grow_step_by_step(bench: Bench) -> None:
    """Bitmap, then superblock, then device: each asked for only when the one before is done."""
    bitmap = bench.one(e.WriteBitmap)
    assert not bench.take(e.WriteSuperblock)
    assert bench.status["size_bytes"] == OLD
    bench.done(bitmap)
    superblock = bench.one(e.WriteSuperblock)
    assert superblock.meta.size_sectors == NEW_SECTORS
    assert not bench.take(e.DeviceGrow)
    assert not bench.sent()
    bench.done(superblock)
    device = bench.one(e.DeviceGrow)
    assert device.size_bytes == NEW
    bench.done(device)
    assert bench.status["size_bytes"] == NEW


def test_the_primary_is_asked_and_becomes_the_source() -> None:
    bench = Bench().pair()
    token = resize(bench)
    measured(bench)
    offer = told_sizes(bench)
    assert (offer.disk_sectors, offer.current_sectors, offer.dds_flags) == (NEW_SECTORS, 0, 0)
    bench.packet(sizes(NEW_SECTORS, NEW_SECTORS))
    measured(bench)
    grow_step_by_step(bench)
    superblock = bench.one(e.WriteSuperblock)
    assert superblock.meta.bitmap, "its generation as the source is stable before the peer learns of it"
    assert not bench.sent()
    bench.done(superblock)
    assert [type(packet) for packet in bench.sent()] == [p.SyncUuid]
    assert bench.status["connection"] == "SyncSource"
    assert bench.status["out_of_sync_bytes"] == NEW - OLD
    (done,) = bench.take(e.CommandDone)
    assert (done.token, done.error) == (token, None)


def test_the_secondary_answers_and_becomes_the_target() -> None:
    bench = Bench().attach()
    bench.meet(role=Role.PRIMARY)
    bench.meta_done()
    bench.effects.clear()
    bench.packet(sizes(NEW_SECTORS, 0))
    measured(bench)
    grow_step_by_step(bench)
    answer = told_sizes(bench)
    assert (answer.disk_sectors, answer.current_sectors) == (NEW_SECTORS, NEW_SECTORS)
    superblock = bench.one(e.WriteSuperblock)
    assert not superblock.meta.flags & 1, "Inconsistent, before it says that it waits for the generation"
    bench.done(superblock)
    assert bench.status["connection"] == "WFSyncUUID"
    bench.packet(p.SyncUuid(0x7777_0000))
    bench.meta_done()
    assert bench.status["connection"] == "SyncTarget"
    asked = [packet for packet in bench.sent() if isinstance(packet, p.ResyncRequest)]
    assert min(packet.sector for packet in asked) == OLD_SECTORS


def test_the_primarys_answer_and_generation_come_before_this_side_has_grown() -> None:
    """The kernel grows and starts its resync at once; it may even write to what is new."""
    bench = Bench().attach()
    bench.meet(role=Role.PRIMARY)
    bench.meta_done()
    bench.effects.clear()
    token = resize(bench)
    measured(bench)
    bench.effects.clear()
    bench.packet(p.Data(NEW_SECTORS - 8, 77, 1, int(p.DataFlag.SEND_WRITE_ACK), 4096), object())
    write = bench.one(e.DiskWrite)
    assert write.offset == NEW - 4096
    bench.packet(sizes(NEW_SECTORS, NEW_SECTORS))
    bench.packet(p.SyncUuid(0x7777_0000))
    measured(bench)
    grow_step_by_step(bench)
    bench.meta_done()
    assert bench.status["connection"] == "SyncTarget"
    assert [done.token for done in bench.take(e.CommandDone)] == [token]


def test_what_is_equal_is_not_resynchronised() -> None:
    bench = Bench().pair()
    resize(bench, assume_clean=True)
    measured(bench)
    assert told_sizes(bench).dds_flags == NO_RESYNC
    bench.packet(sizes(NEW_SECTORS, NEW_SECTORS, NO_RESYNC))
    measured(bench)
    bench.meta_done()
    bench.done(bench.one(e.DeviceGrow))
    assert bench.status["connection"] == "Connected"
    assert bench.status["out_of_sync_bytes"] == 0
    assert bench.status["size_bytes"] == NEW


def test_the_peers_flag_counts_too() -> None:
    bench = Bench().pair()
    bench.packet(sizes(NEW_SECTORS, 0, NO_RESYNC))
    measured(bench)
    bench.meta_done()
    bench.done(bench.one(e.DeviceGrow))
    assert bench.status["connection"] == "Connected"


def test_a_peer_that_has_not_grown() -> None:
    bench = Bench().pair()
    resize(bench)
    measured(bench)
    bench.packet(sizes(OLD_SECTORS, OLD_SECTORS))
    measured(bench)
    (done,) = bench.take(e.CommandDone)
    assert "The disk of the peer has room for" in str(done.error)
    assert (bench.status["connection"], bench.status["size_bytes"]) == ("Connected", OLD)


def test_a_link_lost_meanwhile_ends_the_command() -> None:
    bench = Bench().pair()
    resize(bench)
    measured(bench)
    bench.give(e.Disconnected(bench.now, "cut"))
    (done,) = bench.take(e.CommandDone)
    assert "lost meanwhile" in str(done.error)
    bench.meta_done()
    resize(bench)
    (done,) = bench.take(e.CommandDone)
    assert "WFConnection" in str(done.error)


def test_alone_only_when_the_operator_vouches_for_the_peer() -> None:
    bench = Bench(alone="risk").pair()
    bench.give(e.Disconnected(bench.now, "cut"))
    bench.meta_done()
    bench.effects.clear()
    token = resize(bench, assume_peer_has_space=True)
    measured(bench)
    grow_step_by_step(bench)
    assert [(done.token, done.error) for done in bench.take(e.CommandDone)] == [(token, None)]
    assert bench.status["out_of_sync_bytes"] == NEW - OLD


@pytest.mark.parametrize("size", [OLD - 4096, 4096])
def test_a_mirror_never_shrinks(size: int) -> None:
    bench = Bench().pair()
    resize(bench, size_bytes=size)
    (done,) = bench.take(e.CommandDone)
    assert "cannot become smaller" in str(done.error)
    bench.packet(sizes(size // 512, size // 512))
    assert bench.one(e.DropConnection)
    assert bench.status["size_bytes"] == OLD


def test_a_size_may_be_asked_for() -> None:
    bench = Bench().pair()
    resize(bench, size_bytes=OLD + EXTENT)
    measured(bench)
    bench.packet(sizes(NEW_SECTORS, OLD_SECTORS + EXTENT // 512))
    measured(bench)
    bench.meta_done()
    assert bench.one(e.DeviceGrow).size_bytes == OLD + EXTENT


def test_a_disk_that_fails_on_the_way() -> None:
    bench = Bench().pair()
    resize(bench)
    measured(bench)
    bench.packet(sizes(NEW_SECTORS, NEW_SECTORS))
    measured(bench)
    bench.done(bench.one(e.WriteBitmap), errno=5)
    assert bench.status["disk"] == "Diskless"


def test_two_resizes_at_once() -> None:
    bench = Bench().pair()
    resize(bench)
    second = resize(bench)
    assert [done.token for done in bench.take(e.CommandDone)] == [second]


def test_two_that_meet_use_what_both_have_room_for() -> None:
    bench = Bench()
    meta = e.MetaState(CURRENT, 0, 0, 0, GOOD, OLD_SECTORS)
    bench.give(e.Attach(bench.now, meta, NEW, b"", (), 0, 0, tuple(range(16, 144, 16))))
    bench.meta_done()
    bench.give(e.Connected(bench.now, 0, resolve_conflicts=False))
    bench.packet(p.Protocol(3, 0, 0, 0, 0, 0, ""))
    bench.packet(sizes(NEW_SECTORS, OLD_SECTORS))
    bench.done(bench.one(e.WriteBitmap))
    assert bench.one(e.WriteSuperblock).meta.size_sectors == NEW_SECTORS
    assert bench.status["out_of_sync_bytes"] == ADDED_BITS * 4096
