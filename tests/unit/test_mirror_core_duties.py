"""One test per order duty: each is a way to lose data when forgotten."""

from __future__ import annotations

import errno

from mirror_core_support import BLOCK, CURRENT, EXTENT, Bench
from relevo.mirror import errors
from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.states import Connection, Disk, Role

PER_EXTENT = EXTENT // BLOCK


def _barriers(packets: list[p.Packet]) -> list[p.Barrier]:
    return [packet for packet in packets if isinstance(packet, p.Barrier)]


# ---------------------------------------------------------------- writes, epochs, flushes


def test_a_write_is_complete_when_both_disks_have_it() -> None:
    bench = Bench().pair()
    token = bench.write(5)
    bench.meta_done()
    data = bench.sent_data()[0]
    assert (data.sector, data.size_bytes, data.flags) == (40, BLOCK, 0x102)
    bench.done(bench.one(e.DiskWrite))
    assert bench.completed() == {}
    bench.ack(data)
    assert bench.completed() == {token: 0}


def test_the_peers_answer_alone_does_not_complete_a_write() -> None:
    bench = Bench().pair()
    token = bench.write(5)
    bench.meta_done()
    bench.ack(bench.sent_data()[0])
    assert bench.completed() == {}
    bench.done(bench.one(e.DiskWrite))
    assert bench.completed() == {token: 0}


def test_an_epoch_is_closed_before_any_of_its_writes_is_completed() -> None:
    bench = Bench().pair()
    first, second = bench.write(5), bench.write(6)
    bench.meta_done()
    data = bench.sent_data()
    for effect in bench.take(e.DiskWrite):
        bench.done(effect)
    assert not _barriers(bench.sent())
    effects = bench.ack(data[0])
    assert [type(effect) for effect in effects if isinstance(effect, e.SendData | e.CompleteRequest)] == [
        e.SendData,
        e.CompleteRequest,
    ]
    assert len(_barriers(bench.sent())) == 1
    bench.ack(data[1])
    assert bench.completed() == {first: 0, second: 0}
    assert not _barriers(bench.sent()), "the second write was in the same epoch: no barrier for an empty one"


def test_a_flush_waits_for_the_local_disk_and_every_earlier_epoch() -> None:
    bench = Bench().pair()
    bench.write_through(5)
    bench.write_through(6)
    bench.completed()
    barriers = _barriers(bench.sent())
    assert len(barriers) == 1  # the other was taken with the data of the second write
    token = bench.flush()
    assert any(isinstance(packet, p.UnplugRemote) for packet in bench.sent())
    bench.done(bench.one(e.DiskFlush))
    assert bench.completed() == {}
    bench.packet(p.BarrierAck(barriers[0].number - 1, 1))
    assert bench.completed() == {}
    bench.packet(p.BarrierAck(barriers[0].number, 1))
    assert bench.completed() == {token: 0}


def test_a_flush_waits_for_the_local_disk_even_when_the_peer_is_first() -> None:
    bench = Bench().pair()
    bench.write_through(5)
    barrier = _barriers(bench.sent())[0]
    bench.completed()
    token = bench.flush()
    bench.packet(p.BarrierAck(barrier.number, 1))
    assert bench.completed() == {}
    bench.done(bench.one(e.DiskFlush))
    assert bench.completed() == {token: 0}


def test_no_barrier_is_sent_or_awaited_for_an_empty_epoch() -> None:
    bench = Bench().pair()
    token = bench.flush()
    assert not bench.sent()
    bench.done(bench.one(e.DiskFlush))
    assert bench.completed() == {token: 0}


def test_a_wrong_barrier_acknowledgement_ends_the_link() -> None:
    bench = Bench().pair()
    bench.write_through(5)
    number = _barriers(bench.sent())[0].number
    bench.packet(p.BarrierAck(number, 2))
    assert bench.one(e.DropConnection)


def test_writes_of_unacknowledged_epochs_are_out_of_sync_when_the_link_is_lost() -> None:
    bench = Bench(alone="risk").pair()
    bench.write_through(5)
    bench.packet(p.BarrierAck(_barriers(bench.sent())[0].number, 1))
    bench.write_through(7)
    bench.write(9)
    assert bench.status["out_of_sync_bytes"] == 0
    bench.give(e.Disconnected(bench.now))
    assert bench.status["out_of_sync_bytes"] == 2 * BLOCK


# ---------------------------------------------------------------- the peer's side


def _secondary() -> Bench:
    bench = Bench().attach()
    bench.meet(role=Role.PRIMARY)
    bench.meta_done()
    bench.effects.clear()
    return bench


def _peer_write(bench: Bench, block: int, block_id: int, count: int = 1) -> None:
    bench.packet(p.Data(block * 8, block_id, 1, 0x102, count * BLOCK), f"payload{block_id}")


def test_the_write_acknowledgement_never_waits_for_a_flush() -> None:
    bench = _secondary()
    _peer_write(bench, 5, 77)
    assert not bench.meta_sent()
    bench.done(bench.one(e.DiskWrite))
    (ack,) = bench.meta_sent()
    assert isinstance(ack, p.WriteAck)
    assert (ack.sector, ack.block_id, ack.size_bytes) == (40, 77, BLOCK)
    assert bench.one(e.ReleaseBuffer).buffer == "payload77"
    assert not bench.take(e.DiskFlush)


def test_the_barrier_acknowledgement_follows_a_flush() -> None:
    bench = _secondary()
    _peer_write(bench, 5, 77)
    bench.packet(p.Barrier(9))
    bench.tick(200)
    assert not bench.take(e.DiskFlush), "the write is not on the disk yet"
    bench.done(bench.one(e.DiskWrite))
    bench.meta_sent()
    assert not bench.take(e.DiskFlush)
    bench.tick(60)
    flush = bench.one(e.DiskFlush)
    assert not [packet for packet in bench.meta_sent() if isinstance(packet, p.BarrierAck)]
    bench.done(flush)
    assert [packet for packet in bench.meta_sent() if isinstance(packet, p.BarrierAck)] == [p.BarrierAck(9, 1)]


def test_one_flush_covers_several_epochs_and_only_those_written_before_it() -> None:
    bench = _secondary()
    for number in (1, 2):
        _peer_write(bench, number, number)
        bench.packet(p.Barrier(number))
        bench.done(bench.one(e.DiskWrite))
    bench.tick(60)
    flush = bench.one(e.DiskFlush)
    _peer_write(bench, 3, 3)
    bench.packet(p.Barrier(3))
    bench.done(bench.one(e.DiskWrite))
    bench.meta_sent()
    bench.done(flush)
    assert bench.meta_sent() == [p.BarrierAck(1, 1), p.BarrierAck(2, 1)]
    bench.tick(60)
    bench.done(bench.one(e.DiskFlush))
    assert p.BarrierAck(3, 1) in bench.meta_sent()


def test_a_peer_that_waits_in_a_flush_does_not_wait_for_the_delay() -> None:
    bench = _secondary()
    _peer_write(bench, 5, 77)
    bench.packet(p.Barrier(9))
    bench.packet(p.UnplugRemote())
    assert not bench.take(e.DiskFlush)
    bench.done(bench.one(e.DiskWrite))
    assert bench.one(e.DiskFlush)


def test_an_unplug_after_data_is_no_reason_to_flush() -> None:
    bench = _secondary()
    _peer_write(bench, 5, 77)
    bench.packet(p.Barrier(9))
    _peer_write(bench, 6, 78)
    bench.packet(p.UnplugRemote())
    for effect in bench.take(e.DiskWrite):
        bench.done(effect)
    assert not bench.take(e.DiskFlush)


def test_a_barrier_for_an_empty_epoch_gets_no_acknowledgement() -> None:
    bench = _secondary()
    bench.packet(p.Barrier(9))
    bench.tick(100)
    assert not bench.take(e.DiskFlush)


def test_overlapping_writes_reach_the_disk_in_order_on_both_sides() -> None:
    bench = _secondary()
    _peer_write(bench, 5, 1, count=2)
    _peer_write(bench, 6, 2)
    _peer_write(bench, 7, 3)
    first, third = bench.take(e.DiskWrite)
    assert (first.buffer, third.buffer) == ("payload1", "payload3")
    bench.done(first)
    assert bench.one(e.DiskWrite).buffer == "payload2"

    bench = Bench().pair()
    bench.write(5, 2, token="a")
    bench.write(6, 1, token="b")
    bench.meta_done()
    (data,) = bench.sent_data()
    bench.done(bench.one(e.DiskWrite))
    assert not bench.sent_data()
    bench.ack(data)
    assert len(bench.sent_data()) == 1


# ---------------------------------------------------------------- activity log and bitmap


def test_the_activity_log_is_stable_before_the_first_write_goes_to_disk_or_peer() -> None:
    bench = Bench().pair()
    bench.write(PER_EXTENT * 3)
    log = bench.one(e.WriteActivityLog)
    assert log.transaction.updates == ((0, 3),)
    assert not bench.sent_data()
    assert not bench.take(e.DiskWrite)
    bench.done(log)
    assert len(bench.sent_data()) == 1
    assert bench.one(e.DiskWrite)
    bench.write(PER_EXTENT * 3 + 1)
    assert not bench.take(e.WriteActivityLog), "the extent is in the log already"


def test_a_write_across_two_extents_needs_both_in_the_log() -> None:
    bench = Bench().pair()
    bench.write_through(0)
    bench.write(PER_EXTENT - 1, 2)
    log = bench.one(e.WriteActivityLog)
    assert [extent for _, extent in log.transaction.updates] == [1]
    assert not bench.take(e.DiskWrite)
    bench.done(log)
    assert bench.one(e.DiskWrite)


def _fill_log(bench: Bench, *, acknowledge: bool) -> None:
    for extent in range(7):
        bench.write(extent * PER_EXTENT)
        bench.meta_done()
        packets = bench.sent()
        data = next(packet for packet in packets if isinstance(packet, p.Data))
        bench.done(bench.one(e.DiskWrite))
        bench.ack(data)
        if acknowledge:
            bench.packet(p.BarrierAck(_barriers(bench.sent())[0].number, 1))


def test_an_extent_stays_in_the_log_until_the_barrier_acknowledgement() -> None:
    bench = Bench().pair()
    _fill_log(bench, acknowledge=False)
    newest = _barriers(bench.sent())[-1].number
    bench.write(7 * PER_EXTENT)
    assert not bench.take(e.WriteActivityLog), "acknowledged, but not stable on the peer: nothing may be evicted"
    assert any(isinstance(packet, p.UnplugRemote) for packet in bench.sent()), "the peer is asked to hurry"
    bench.packet(p.BarrierAck(newest - 6, 1))
    log = bench.one(e.WriteActivityLog)
    assert log.transaction.updates == ((0, 7),)


def test_the_bitmap_of_an_evicted_extent_is_stable_before_the_log_block_that_evicts_it() -> None:
    bench = Bench(alone="risk").pair()
    bench.give(e.Disconnected(bench.now))
    bench.meta_done()
    for extent in range(7):
        bench.write(extent * PER_EXTENT)
        bench.meta_done()
        bench.done(bench.one(e.DiskWrite))
    bench.write(7 * PER_EXTENT)
    assert not bench.take(e.WriteActivityLog)
    pages = bench.one(e.WriteBitmap)
    assert pages.pages[0][0] == 0
    bench.done(pages)
    log = bench.one(e.WriteActivityLog)
    assert log.preflush, "what was written to the evicted extent has to be stable as well"


def test_with_external_metadata_the_data_disk_is_flushed_before_an_eviction() -> None:
    bench = Bench(external_meta=True).pair()
    _fill_log(bench, acknowledge=True)
    bench.write(7 * PER_EXTENT)
    assert not bench.take(e.WriteActivityLog)
    bench.done(bench.one(e.DiskFlush))
    assert bench.one(e.WriteActivityLog)


def test_after_a_crash_of_a_primary_everything_in_the_log_is_out_of_sync_before_the_peer_is_met() -> None:
    bench = Bench()
    flags = 1 | 2 | 16
    meta = e.MetaState(CURRENT | 1, 0, 0, 0, flags, 16 * EXTENT // 512)
    bench.give(e.Attach(bench.now, meta, 16 * EXTENT, b"", (2, 5), 9, 0, tuple(range(8, 16))))
    pages = bench.one(e.WriteBitmap)
    assert bench.status["out_of_sync_bytes"] == 2 * EXTENT
    assert not bench.take(e.WantConnection)
    bench.done(pages)
    superblock = bench.one(e.WriteSuperblock)
    assert superblock.meta.flags & 64, "crashed Primary"
    assert not bench.take(e.WantConnection)
    bench.done(superblock)
    assert bench.one(e.WantConnection).wanted
    assert bench.status["was_primary_at_start"]


def test_a_clean_log_marks_nothing() -> None:
    bench = Bench().attach(al=(2, 5))
    assert bench.status["out_of_sync_bytes"] == 0


# ---------------------------------------------------------------- without the peer


def test_a_primary_that_loses_its_peer_completes_nothing_before_its_new_generation_is_stable() -> None:
    bench = Bench(alone="risk").pair()
    token = bench.write(5)
    bench.meta_done()
    bench.done(bench.one(e.DiskWrite))
    bench.give(e.Disconnected(bench.now))
    late = bench.write(6)
    bench.done(bench.one(e.DiskWrite))
    flush = bench.flush()
    bench.done(bench.one(e.DiskFlush))
    superblock = bench.one(e.WriteSuperblock)
    assert bench.completed() == {}
    assert superblock.meta.bitmap == CURRENT | 1
    assert superblock.meta.current not in {CURRENT, CURRENT | 1}
    bench.done(superblock)
    assert bench.completed() == {token: 0, late: 0, flush: 0}


def test_with_ask_nothing_is_completed_without_permission() -> None:
    bench = Bench(alone="ask", suspend_ms=5000).pair()
    token = bench.write(5)
    bench.meta_done()
    bench.done(bench.one(e.DiskWrite))
    bench.give(e.Disconnected(bench.now))
    bench.tick(1000)
    assert bench.status["suspended"]
    assert not bench.take(e.WriteSuperblock)
    bench.give(e.AllowAlone(bench.now, bench.token(), 3))
    bench.done(bench.one(e.PersistEpoch))
    assert bench.completed() == {}
    bench.done(bench.one(e.WriteSuperblock))
    assert bench.completed() == {token: 0}
    assert not bench.status["suspended"]


def test_a_permission_that_was_given_for_an_earlier_link_is_refused() -> None:
    """The link came back and was lost again while it was on its way: the copies are equal again."""
    bench = Bench(alone="ask", suspend_ms=5000).pair()
    links = bench.status["links"]
    bench.give(e.Disconnected(bench.now))
    assert bench.status["suspended"]
    token = bench.token()
    bench.give(e.AllowAlone(bench.now, token, 0, links - 1))
    assert isinstance(bench.one(e.CommandDone).error, errors.LinkChanged)
    assert bench.status["suspended"]
    bench.give(e.AllowAlone(bench.now, token, 0, links))
    bench.done(bench.one(e.WriteSuperblock))
    assert not bench.status["suspended"]


def test_nobody_is_marked_outdated_for_a_link_that_is_back() -> None:
    bench = Bench().attach()
    bench.meet()
    bench.meta_done()
    bench.give(e.Outdate(bench.now, bench.token(), bench.status["links"]))
    assert isinstance(bench.one(e.CommandDone).error, errors.LinkChanged)
    assert bench.status["disk"] == "UpToDate"
    bench.give(e.Disconnected(bench.now))
    bench.meta_done()
    bench.give(e.Outdate(bench.now, bench.token(), bench.status["links"]))
    bench.done(bench.one(e.WriteSuperblock))
    assert bench.one(e.CommandDone).error is None
    assert bench.status["disk"] == "Outdated"


def test_a_refused_permission_ends_the_waiting_at_once() -> None:
    bench = Bench(alone="ask", suspend_ms=5000).pair()
    token = bench.write(5)
    bench.meta_done()
    bench.done(bench.one(e.DiskWrite))
    bench.give(e.Disconnected(bench.now))
    assert bench.completed() == {}
    bench.give(e.DenyAlone(bench.now, bench.token()))
    assert bench.completed() == {token: errno.EIO}
    assert not bench.status["suspended"]


def test_waiting_for_permission_has_a_bound_and_ends_in_errors() -> None:
    bench = Bench(alone="ask", suspend_ms=5000).pair()
    token = bench.write(5)
    bench.meta_done()
    bench.done(bench.one(e.DiskWrite))
    bench.give(e.Disconnected(bench.now))
    bench.tick(5100)
    assert bench.completed() == {token: 5}
    assert bench.write(6) in bench.completed()
    assert bench.status["problem"]


def test_reads_go_on_while_writes_wait_for_permission() -> None:
    bench = Bench(alone="ask").pair()
    bench.give(e.Disconnected(bench.now))
    bench.give(e.AppRead(bench.now, "r", 0, BLOCK, None))
    bench.done(bench.one(e.DiskRead), 0, "content")
    assert bench.take(e.CompleteRequest) == [e.CompleteRequest("r", 0, "content")]


def test_a_peer_that_left_as_outdated_needs_no_permission() -> None:
    bench = Bench(alone="ask").pair()
    bench.packet(p.ConnStateChangeRequest(0x1F0 | 0x1E00, Connection.DISCONNECTING << 4 | Disk.OUTDATED << 9))
    assert p.ConnStateChangeReply(1) in bench.meta_sent()
    token = bench.write(5)
    assert bench.completed() == {}
    bench.all_done()
    assert bench.completed() == {token: 0}
    assert bench.status["peer_disk"] == "Outdated"


def test_suspended_writes_reach_the_peer_when_it_returns_before_permission() -> None:
    bench = Bench(alone="ask").pair()
    token = bench.write(5)
    bench.meta_done()
    bench.done(bench.one(e.DiskWrite))
    bench.give(e.Disconnected(bench.now))
    bench.effects.clear()
    bench.meet()
    assert bench.status["connection"] == "WFBitMapS", "equal generations, but this side may have more"
    bench.peer_bitmap()
    bench.meta_done()
    assert bench.status["connection"] == "SyncSource"
    assert bench.completed() == {}, "the peer may still take itself for UpToDate"
    bench.peer_state(Role.SECONDARY, Disk.INCONSISTENT, Connection.SYNC_TARGET)
    assert bench.completed() == {token: 0}


# ---------------------------------------------------------------- a disk that fails


def test_nothing_is_written_that_rests_on_a_write_which_the_disk_refused() -> None:
    """The bitmap of an evicted extent is refused: the block that evicts it must not follow, even if it could."""
    bench = Bench(alone="risk").attach()
    bench.promote(force=True)
    for extent in range(7):
        bench.write(extent * 1024)
        bench.all_done()
    bench.effects.clear()
    token = bench.write(8 * 1024)
    bench.done(bench.one(e.WriteBitmap), errno=5)
    assert not bench.take(e.WriteActivityLog)
    assert bench.completed() == {token: 5}
    bench.give(e.Demote(bench.now, bench.token()))
    bench.done(bench.one(e.DeviceDown))
    assert not bench.take(e.WriteSuperblock), "what is on the disk still says that it is a crashed Primary's"
    assert bench.one(e.CommandDone).error is None


def test_a_disk_that_fails_during_a_resync_completes_each_write_once() -> None:
    """The failure drops the link, which ends the writes as well."""
    bench = Bench().attach(bitmap_uuid=CURRENT + 0x100)
    bench.meet(uuids=(CURRENT + 0x100, 0, 0, 0))
    bench.meta_done()
    bench.peer_bitmap()
    bench.meta_done()
    bench.peer_state(Role.SECONDARY, Disk.INCONSISTENT, Connection.SYNC_TARGET)
    bench.promote()
    tokens = [bench.write(0), bench.flush()]
    bench.meta_done()
    bench.done(bench.one(e.DiskWrite), errno=5)
    bench.done(bench.one(e.DiskFlush), errno=5)
    assert bench.completed() == dict.fromkeys(tokens, 5)


def test_a_primary_whose_disk_has_failed_does_not_complete_what_the_peer_has_not_confirmed() -> None:
    bench = Bench().pair()
    tokens = [bench.write(0), bench.write(1)]
    bench.meta_done()
    tokens.append(bench.flush())
    first, second = bench.take(e.DiskWrite)
    bench.done(first)
    bench.done(bench.one(e.DiskFlush))
    bench.done(second, errno=5)
    assert bench.completed() == {}
    bench.give(e.Disconnected(bench.now))
    assert bench.completed() == dict.fromkeys(tokens, 5)


def test_a_secondary_outlives_the_disk_of_its_primary_in_a_generation_of_its_own() -> None:
    """Else the disk, should it return as a crashed Primary's of the same generation, would overwrite this copy."""
    bench = Bench().attach()
    bench.meet(role=Role.PRIMARY)
    bench.meta_done()
    bench.sent()
    bench.peer_state(Role.PRIMARY, Disk.DISKLESS, Connection.CONNECTED)
    superblock = bench.one(e.WriteSuperblock)
    assert superblock.meta.current != CURRENT
    assert superblock.meta.bitmap & ~1 == CURRENT
    assert not bench.sent()
    bench.done(superblock)
    assert [packet.current for packet in bench.sent() if isinstance(packet, p.Uuids)] == [superblock.meta.current]


def test_a_peer_cannot_ask_for_more_at_once_than_a_packet_carries_nor_for_parts_of_sectors() -> None:
    for wrong in (
        p.DataRequest(0, 1, p.MAX_PAYLOAD_BYTES + 512),
        p.DataRequest(0, 1, 100),
        p.Trim(0, 1, 1, 0, 100),
        p.ResyncRequest(0, p.SYNCER_ID, p.MAX_PAYLOAD_BYTES + 512),
    ):
        bench = Bench().attach()
        bench.meet(role=Role.PRIMARY)
        bench.meta_done()
        bench.packet(wrong)
        assert bench.one(e.DropConnection)
        assert not bench.take(e.DiskRead) + bench.take(e.DiskDiscard)
