"""What a peer says in the wrong place or in the wrong size: refused, and nothing here is worse for it."""

from __future__ import annotations

import pytest

from mirror_core_support import BLOCK, CURRENT, EXTENT, EXTENTS, Bench
from relevo.config.drbd_options import DrbdOptions
from relevo.mirror import errors
from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.states import CONN_MASK, Connection, Disk, Role

RUN = 16 * BLOCK


def source() -> Bench:
    """A Primary that was alone for one write, of which the peer is about to get that block."""
    bench = Bench(alone="risk").pair()
    bench.give(e.Disconnected(bench.now))
    bench.meta_done()
    bench.write(0)
    bench.all_done()
    bench.meet()
    bench.peer_bitmap()
    bench.meta_done()
    assert bench.status["connection"] == "SyncSource"
    bench.peer_state(Role.SECONDARY, Disk.INCONSISTENT, Connection.SYNC_TARGET)
    bench.effects.clear()
    return bench


def verified(*, primary: bool = True) -> Bench:
    """The peer compares."""
    bench = Bench(options=DrbdOptions(verify_alg="any", ko_count=1)).attach()
    bench.meet()
    bench.meta_done()
    if primary:
        bench.promote()
    bench.packet(p.StateChangeRequest(CONN_MASK, Connection.VERIFY_S << 4))
    assert bench.status["connection"] == "VerifyT"
    bench.effects.clear()
    return bench


def can_write(bench: Bench) -> bool:
    """A write of the first block gets as far as the disk."""
    bench.take(e.DiskWrite)
    bench.write(0)
    bench.meta_done()
    return bool(bench.take(e.DiskWrite))


def test_a_request_of_a_block_in_the_wrong_state_permits_nothing() -> None:
    bench = Bench(alone="ask").pair()
    bench.write(0)
    bench.all_done()
    bench.give(e.Disconnected(bench.now))
    bench.meet()
    assert bench.status["connection"] == "WFBitMapS"
    bench.packet(p.ResyncRequest(0, p.SYNCER_ID, BLOCK))
    assert bench.take(e.DropConnection)
    assert bench.status["suspended"], "the peer may be UpToDate on its disk"
    assert not bench.completed()


def test_a_part_of_a_block_that_the_target_has_clears_no_mark() -> None:
    bench = source()
    bench.packet(p.ResyncRequest(0, p.SYNCER_ID, 512))
    bench.all_done()
    bench.packet(p.ResyncWriteAck(0, p.SYNCER_ID, 512, 0))
    assert bench.status["out_of_sync_bytes"] == BLOCK


def test_a_block_acknowledged_in_another_size_does_not_keep_its_place() -> None:
    bench = source()
    bench.packet(p.ResyncRequest(0, p.SYNCER_ID, BLOCK))
    bench.all_done()
    bench.packet(p.ResyncWriteAck(0, p.SYNCER_ID, 2 * BLOCK, 0))
    assert bench.take(e.DropConnection)
    assert can_write(bench)


def test_a_result_of_another_size_does_not_keep_its_place() -> None:
    bench = verified()
    bench.packet(p.VerifyRequest(0, p.SYNCER_ID, RUN))
    bench.done(bench.one(e.DiskDigest), 0, b"x")
    bench.packet(p.VerifyResult(0, p.ID_IN_SYNC, BLOCK, 0))
    assert bench.take(e.DropConnection)
    assert can_write(bench)


def test_a_verify_that_is_over_before_all_is_answered_keeps_no_place() -> None:
    bench = verified()
    for sector in (0, RUN // 512):
        bench.packet(p.VerifyRequest(sector, p.SYNCER_ID, RUN))
    reading, other = bench.take(e.DiskDigest)
    bench.peer_state(Role.SECONDARY, Disk.UP_TO_DATE, Connection.CONNECTED)
    assert bench.status["connection"] == "Connected"
    assert not can_write(bench), "the peer may still be reading there"
    bench.done(reading, 0, b"x")
    assert p.VerifyReply(0, p.SYNCER_ID, RUN, b"x") in bench.sent(), "it counts the answers that it is owed"
    bench.done(other, 0, b"x")
    bench.packet(p.VerifyResult(0, p.ID_IN_SYNC, RUN, 0))
    bench.meta_done()
    assert bench.take(e.DiskWrite)
    bench.packet(p.VerifyResult(RUN // 512, p.ID_OUT_OF_SYNC, RUN, 0))
    assert not bench.take(e.DropConnection)
    assert bench.status["last_verify"]["bytes"] == RUN


def test_what_a_verify_still_owes_goes_with_the_link() -> None:
    bench = verified()
    bench.packet(p.VerifyRequest(0, p.SYNCER_ID, RUN))
    bench.done(bench.one(e.DiskDigest), 0, b"x")
    bench.peer_state(Role.SECONDARY, Disk.UP_TO_DATE, Connection.CONNECTED)
    bench.give(e.Disconnected(bench.now))
    assert can_write(bench)


def test_a_part_of_a_sector_is_not_compared() -> None:
    bench = verified(primary=False)
    bench.packet(p.VerifyRequest(0, p.SYNCER_ID, 100))
    assert not bench.take(e.DiskDigest), "the disk would refuse it, and would be taken for broken"
    assert bench.take(e.DropConnection)


@pytest.mark.parametrize("disk", [Disk.DISKLESS, Disk.INCONSISTENT])
def test_no_copy_is_given_up_for_a_peer_that_has_none(disk: Disk) -> None:
    bench = Bench().attach()
    bench.meet(disk=Disk.DISKLESS)
    bench.meta_done()
    bench.core._s.peer_disk = disk
    bench.meta_sent()
    bench.packet(p.StateChangeRequest(CONN_MASK, Connection.STARTING_SYNC_S << 4))
    (reply,) = bench.meta_sent()
    assert isinstance(reply, p.StateChangeReply)
    assert reply.retcode < 0
    assert bench.status["connection"] == "Connected"


def test_a_disk_lost_before_the_peer_agrees_is_no_source() -> None:
    bench = Bench().pair()
    bench.give(e.Invalidate(bench.now, bench.token(), peer=True))
    bench.give(e.Detach(bench.now, bench.token()))
    bench.take(e.CommandDone)
    bench.packet(p.StateChangeReply(1))
    assert bench.take(e.DropConnection), "the peer may not have made its copy Inconsistent yet"
    assert isinstance(bench.one(e.CommandDone).error, errors.MirrorRefused)


def test_a_primary_takes_no_writes_from_its_peer() -> None:
    bench = Bench().pair()
    bench.packet(p.Data(0, 1, 1, 256, BLOCK), object())
    assert not bench.take(e.DiskWrite)
    assert bench.take(e.DropConnection)
    assert bench.take(e.ReleaseBuffer)


@pytest.mark.parametrize("packet", [p.Data(0, 1, 1, 256, BLOCK), p.DataRequest(0, 1, BLOCK)])
def test_nothing_is_written_or_read_for_a_peer_before_the_copies_are_compared(packet: p.Packet) -> None:
    bench = Bench().attach()
    bench.give(e.Connected(bench.now, 0, resolve_conflicts=False))
    bench.packet(packet, object() if isinstance(packet, p.Data) else None)
    assert not bench.take(e.DiskWrite) + bench.take(e.DiskRead)
    assert bench.take(e.DropConnection)


def test_a_side_without_a_disk_is_not_made_up_to_date_by_the_first_generation() -> None:
    bench = Bench().attach(current=4)
    bench.meet(uuids=(4, 0, 0, 0))
    bench.meta_done()
    bench.core._s.disk = Disk.DISKLESS
    bench.packet(p.Uuids(CURRENT, 0, 4, 0, 0, int(p.UuidFlag.SKIP_INITIAL_SYNC)))
    assert bench.status["disk"] == "Diskless"


def test_a_mirror_does_not_grow_beside_a_peer_without_a_disk() -> None:
    bench = Bench().attach()
    bench.meet(role=Role.PRIMARY, disk=Disk.DISKLESS)
    bench.meta_done()
    bench.take(e.CommandDone)
    bench.give(e.Resize(bench.now, bench.token()))
    assert isinstance(bench.one(e.CommandDone).error, errors.NoDisk), "it would wait for its size for ever"


def test_a_discard_larger_than_any_peer_sends_is_refused() -> None:
    bench = Bench().attach()
    bench.meet(role=Role.PRIMARY)
    bench.meta_done()
    bench.core._s.size_sectors = 1 << 35
    bench.packet(p.Trim(0, 1, 1, 256, (128 << 20) + BLOCK))
    assert bench.take(e.DropConnection)
    assert not bench.take(e.DiskDiscard)
    assert EXTENTS * EXTENT < 128 << 20
