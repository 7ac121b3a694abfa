"""A disk that fails under the Primary, under the peer, and the next one that is put in while the device stays."""

from __future__ import annotations

from typing import Any

import pytest

from mirror_core_support import BLOCK, CURRENT, EXTENT, EXTENTS, GOOD, Bench
from relevo.config.drbd_options import DrbdOptions
from relevo.mirror import errors
from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.metadata import MetaFlag
from relevo.mirror.states import Connection, Disk, Role, State
from relevo.mirror.uuids import JUST_CREATED

NEXT = 0x9999_0000_0000_0000
"""The generation that the peer gives its copy when it has become the only one."""
WRITE_ACK = int(p.DataFlag.SEND_WRITE_ACK)


def _states(bench: Bench) -> list[State]:
    return [State.unpack(packet.word) for packet in bench.sent() if isinstance(packet, p.StateWord)]


def _lost(bench: Bench, *, moved: bool = True) -> Any:
    """A write fails on the Primary's disk; returns its token. `moved`: the peer has taken over."""
    token = bench.write(5)
    bench.meta_done()
    data = bench.sent_data()[0]
    bench.done(bench.one(e.DiskWrite), 5)
    bench.ack(data)
    if moved:
        bench.done(bench.one(e.PersistStale))
        bench.packet(p.Uuids(NEXT, CURRENT, 0, 0, 1, 0))
        bench.completed()
        bench.effects.clear()
    return token


# ---------------------------------------------------------------- the Primary's disk


def test_nothing_that_only_the_peer_has_is_completed_before_both_sides_know_it_for_good() -> None:
    bench = Bench().pair()
    bench.take(e.SendData)
    token = _lost(bench, moved=False)
    assert bench.completed() == {}
    assert not _states(bench), "the peer learns of it when this side cannot forget it any more"
    stale = bench.one(e.PersistStale)
    assert stale.generation == CURRENT
    bench.done(stale)
    assert _states(bench)[-1].disk is Disk.DISKLESS
    assert bench.completed() == {}
    bench.packet(p.Uuids(NEXT, CURRENT, 0, 0, 1, 0))
    assert bench.completed() == {token: 0}
    assert bench.take(e.CloseDisk)


def test_new_writes_wait_until_the_peer_knows_that_it_has_to_mark_them() -> None:
    bench = Bench().pair()
    _lost(bench, moved=False)
    bench.take(e.SendData)
    bench.write(900)
    assert not bench.sent_data()
    bench.done(bench.one(e.PersistStale))
    kinds = [type(packet) for packet in bench.sent() if isinstance(packet, p.StateWord | p.Data)]
    assert kinds == [p.StateWord, p.Data]


def test_reads_writes_and_flushes_go_through_the_peer() -> None:
    bench = Bench().pair()
    _lost(bench)
    bench.give(e.AppRead(bench.now, "read", 8 * BLOCK, BLOCK, None))
    (request,) = bench.sent()
    assert isinstance(request, p.DataRequest)
    bench.packet(p.DataReply(request.sector, request.block_id, 0, 0, BLOCK), "what the peer has")
    (done,) = bench.take(e.CompleteRequest)
    assert (done.token, done.errno, done.buffer) == ("read", 0, "what the peer has")
    token = bench.write(9)
    data = bench.sent_data()[0]
    assert data.flags & WRITE_ACK
    bench.ack(data)
    assert bench.completed() == {token: 0}
    (barrier,) = (packet for packet in bench.sent() if isinstance(packet, p.Barrier))
    flush = bench.flush()
    assert bench.completed() == {}
    bench.packet(p.BarrierAck(barrier.number - 1, 1))
    bench.packet(p.BarrierAck(barrier.number, 1))
    assert bench.completed() == {flush: 0}
    kinds = (e.DiskRead, e.DiskWrite, e.DiskFlush, e.WriteSuperblock, e.WriteActivityLog, e.WriteBitmap)
    assert not [kind for kind in kinds if bench.take(kind)], "the disk is left alone"


def test_a_read_that_fails_is_answered_by_the_peer() -> None:
    bench = Bench().pair()
    bench.give(e.AppRead(bench.now, "read", 8 * BLOCK, BLOCK, None))
    bench.done(bench.one(e.DiskRead), 5)
    (request,) = (packet for packet in bench.sent() if isinstance(packet, p.DataRequest))
    bench.packet(p.DataReply(request.sector, request.block_id, 0, 0, BLOCK), "data")
    assert bench.completed() == {"read": 0}


def test_with_protocol_a_the_only_disk_left_is_waited_for() -> None:
    bench = Bench(options=DrbdOptions(protocol="A")).pair(protocol=1)
    bench.give(e.AppRead(bench.now, "read", 8 * BLOCK, BLOCK, None))
    bench.done(bench.one(e.DiskRead), 5)
    bench.meta_done()
    bench.packet(p.Uuids(NEXT, CURRENT, 0, 0, 1, 0))
    bench.take(e.SendData)
    bench.write(9)
    assert bench.sent_data()[0].flags & WRITE_ACK


def test_without_disk_and_peer_everything_fails_and_the_next_flush_says_that_writes_may_be_lost() -> None:
    bench = Bench().pair()
    _lost(bench)
    token = bench.write(9)
    bench.ack(bench.sent_data()[0])
    bench.give(e.AppRead(bench.now, "read", 8 * BLOCK, BLOCK, None))
    bench.completed()
    bench.give(e.Disconnected(bench.now))
    assert bench.completed() == {"read": 5}
    late = bench.write(10)
    assert bench.completed() == {late: 5}
    bench.give(e.AppRead(bench.now, "again", 8 * BLOCK, BLOCK, None))
    assert bench.completed() == {"again": 5}
    bench.meet(uuids=(NEXT, CURRENT, 0, 0))
    assert bench.status["connection"] == "Connected"
    flush = bench.flush()
    assert bench.completed() == {flush: 5}, f"write {token} was completed and may be gone"
    following = bench.flush()
    assert bench.completed() == {following: 0}


def test_a_primary_without_a_disk_takes_no_other_data_than_it_has_seen() -> None:
    bench = Bench().pair()
    _lost(bench)
    bench.give(e.Disconnected(bench.now))
    bench.meet(uuids=(0xABCD_0000, NEXT, CURRENT, 0))
    assert "not the one" in bench.status["problem"]
    assert bench.status["connection"] in {"WFConnection", "StandAlone"}
    late = bench.write(10)
    assert bench.completed()[late] == 5


def test_a_peer_that_does_not_take_over_is_given_up() -> None:
    bench = Bench(timeout_ms=400).pair()
    token = _lost(bench, moved=False)
    bench.done(bench.one(e.PersistStale))
    for _ in range(50):
        bench.tick(10)
        for packet in bench.meta_sent():
            if isinstance(packet, p.Ping):
                bench.packet(p.PingAck())
    assert bench.take(e.DropConnection)
    assert bench.completed() == {token: 5}


def test_the_administrators_command_is_asked_for_when_configured() -> None:
    bench = Bench(options=DrbdOptions(on_io_error="call-local-io-error")).pair()
    _lost(bench, moved=False)
    assert bench.one(e.RunHandler).name == "local-io-error"
    assert bench.status["disk"] == "Diskless"


def test_with_pass_on_the_disk_is_inconsistent_for_good_before_the_peers_copy_alone_counts() -> None:
    bench = Bench(options=DrbdOptions(on_io_error="pass_on")).pair()
    token = _lost(bench, moved=False)
    assert bench.status["disk"] == "Inconsistent"
    assert bench.completed() == {}
    superblock = bench.one(e.WriteSuperblock)
    assert not superblock.meta.flags & MetaFlag.CONSISTENT
    bench.done(superblock)
    assert bench.completed() == {token: 0}
    bench.give(e.AppRead(bench.now, "marked", 5 * BLOCK, BLOCK, None))
    assert any(isinstance(packet, p.DataRequest) for packet in bench.sent())
    bench.give(e.AppRead(bench.now, "whole", 6 * BLOCK, BLOCK, None))
    assert bench.take(e.DiskRead)


def test_with_pass_on_an_error_goes_up_when_there_is_no_other_copy() -> None:
    bench = Bench(alone="risk", options=DrbdOptions(on_io_error="pass_on")).pair()
    bench.give(e.Disconnected(bench.now))
    bench.meta_done()
    token = bench.write(5)
    bench.meta_done()
    bench.done(bench.one(e.DiskWrite), 5)
    bench.meta_done()
    assert bench.completed() == {token: 5}


def test_with_pass_on_a_disk_that_fails_while_writes_wait_is_not_kept_to_be_overwritten() -> None:
    bench = Bench(alone="ask", options=DrbdOptions(on_io_error="pass_on")).pair()
    bench.give(e.Disconnected(bench.now))
    bench.meta_done()
    first = bench.write(5)
    bench.meta_done()
    bench.done(bench.one(e.DiskWrite))
    assert bench.completed() == {}
    second = bench.write(6)
    bench.meta_done()
    bench.done(bench.one(e.DiskWrite), 5)
    bench.meta_done()
    assert bench.status["disk"] == "Diskless"
    assert bench.completed() == {first: 5, second: 5}


# ---------------------------------------------------------------- the copy that is left


def _serving() -> Bench:
    """A Secondary whose Primary has just lost its disk."""
    bench = Bench().attach()
    bench.meet(role=Role.PRIMARY)
    bench.meta_done()
    bench.effects.clear()
    word = State(role=Role.PRIMARY, conn=Connection.CONNECTED, disk=Disk.DISKLESS, pdsk=Disk.UP_TO_DATE)
    bench.packet(p.StateWord(word.pack()))
    return bench


def test_the_only_copy_becomes_a_generation_of_its_own_and_says_so_when_that_is_stable() -> None:
    bench = _serving()
    superblock = bench.one(e.WriteSuperblock)
    assert superblock.meta.bitmap == CURRENT
    assert superblock.meta.flags & MetaFlag.FULL_SYNC, "a crash would forget what is marked from now on"
    assert not [packet for packet in bench.sent() if isinstance(packet, p.Uuids)]
    bench.done(superblock)
    (uuids,) = (packet for packet in bench.sent() if isinstance(packet, p.Uuids))
    assert (uuids.current, uuids.bitmap) == (superblock.meta.current, CURRENT)


def test_the_only_copy_takes_no_write_before_its_disk_says_that_it_is_alone() -> None:
    """The Primary has no activity log any more: after a crash nobody would know of such a write."""
    bench = _serving()
    bench.packet(p.Data(40, 7, 1, WRITE_ACK, BLOCK), "payload")
    bench.packet(p.Trim(80, 8, 2, WRITE_ACK, BLOCK))
    assert not bench.take(e.DiskWrite)
    assert not bench.take(e.DiskDiscard)
    bench.done(bench.one(e.WriteSuperblock))
    assert bench.one(e.DiskWrite).offset == 40 * 512
    assert bench.one(e.DiskDiscard).offset == 80 * 512


@pytest.mark.parametrize("errno", [0, 5])
def test_what_was_held_comes_to_an_end_when_the_link_or_the_disk_is_lost(errno: int) -> None:
    bench = _serving()
    bench.packet(p.Data(40, 7, 1, WRITE_ACK, BLOCK), "payload")
    if not errno:
        bench.give(e.Disconnected(bench.now))
    bench.done(bench.one(e.WriteSuperblock), errno)
    if errno:
        assert not bench.take(e.DiskWrite)
        assert [effect.buffer for effect in bench.take(e.ReleaseBuffer)] == ["payload"]
    else:
        bench.done(bench.one(e.DiskWrite))
        bench.meta_done()
        assert bench.status["out_of_sync_bytes"] == BLOCK


def test_the_only_copy_marks_what_changes_and_writes_the_marks_down_when_the_link_is_lost() -> None:
    bench = _serving()
    bench.meta_done()
    bench.packet(p.Data(40, 7, 1, WRITE_ACK, BLOCK), "payload")
    bench.done(bench.one(e.DiskWrite))
    assert bench.status["out_of_sync_bytes"] == BLOCK
    bench.give(e.Disconnected(bench.now))
    bench.done(bench.one(e.WriteBitmap))
    assert not bench.one(e.WriteSuperblock).meta.flags & MetaFlag.FULL_SYNC
    assert bench.status["peer_lost_since_connect"]


def test_the_only_copy_is_not_outdated_when_it_leaves() -> None:
    bench = _serving()
    bench.meta_done()
    bench.give(e.Disconnect(bench.now, bench.token()))
    bench.meta_done()
    assert bench.status["disk"] == "UpToDate"


def test_a_read_of_a_primary_without_a_disk_sees_the_writes_before_it() -> None:
    bench = _serving()
    bench.meta_done()
    bench.packet(p.Data(40, 7, 1, 0, BLOCK), "payload")
    bench.packet(p.DataRequest(40, 8, BLOCK))
    assert not bench.take(e.DiskRead)
    bench.done(bench.one(e.DiskWrite))
    bench.done(bench.one(e.DiskRead), 0, "found")
    (reply,) = (effect for effect in bench.take(e.SendData) if isinstance(effect.packet, p.DataReply))
    assert (reply.packet.block_id, reply.buffer, reply.release) == (8, "found", True)


# ---------------------------------------------------------------- the next disk


def _attach(bench: Bench, *, current: int = JUST_CREATED, flags: int = int(MetaFlag.AL_CLEAN), stale: int = 0) -> Any:
    token = bench.token()
    size = 0 if current == JUST_CREATED else EXTENTS * EXTENT // 512
    meta = e.MetaState(current, 0, 0, 0, flags, size)
    numbers = tuple(range(0x7000, 0x7000 + 8 * 0x10, 0x10))
    bench.give(e.Attach(bench.now, meta, EXTENTS * EXTENT, b"", (), 0, 0, numbers, token=token, stale=stale))
    bench.meta_done()
    return token


def _as_target(bench: Bench) -> None:
    """The peer answers the offer and both exchange their bitmaps; the resync of everything begins."""
    bench.packet(p.Uuids(NEXT, CURRENT, 0, 0, 0, 0))
    bench.peer_state(Role.SECONDARY, Disk.UP_TO_DATE, Connection.CONNECTED)
    bench.peer_bitmap()
    bench.meta_done()
    bench.packet(p.SyncUuid(0x7700))
    bench.meta_done()


def test_a_new_disk_is_filled_while_the_device_stays() -> None:
    bench = Bench().pair()
    _lost(bench)
    token = _attach(bench)
    assert bench.one(e.CommandDone) == e.CommandDone(token, None)
    assert [type(packet) for packet in bench.sent()] == [p.Sizes, p.Uuids, p.StateWord]
    waiting = bench.write(9)
    assert not bench.sent_data(), "while the copies are compared it would be missed"
    _as_target(bench)
    assert bench.status["connection"] == "SyncTarget"
    sent = bench.sent()
    (data,) = (packet for packet in sent if isinstance(packet, p.Data))
    asked = [packet for packet in sent if isinstance(packet, p.ResyncRequest)]
    assert asked
    assert not any(packet.sector <= data.sector < packet.sector + packet.size_bytes // 512 for packet in asked)
    (written,) = (effect for effect in bench.take(e.DiskWrite) if effect.offset == 9 * BLOCK)
    bench.done(written)
    bench.ack(data)
    assert bench.completed()[waiting] == 0
    assert bench.status["role"] == "Primary"


def test_a_write_to_a_block_that_was_asked_for_waits_for_it() -> None:
    bench = Bench().pair()
    _lost(bench)
    _attach(bench)
    _as_target(bench)
    asked = next(packet for packet in bench.sent() if isinstance(packet, p.ResyncRequest))
    bench.write(asked.sector // 8)
    bench.meta_done()
    assert not bench.sent_data()
    bench.packet(p.ResyncReply(asked.sector, asked.block_id, 0, 0, asked.size_bytes), "block")
    (block,) = bench.take(e.DiskWrite)
    assert block.buffer == "block"
    bench.done(block)
    bench.meta_done()
    assert bench.sent_data()


def test_what_is_not_there_yet_is_read_from_the_peer() -> None:
    bench = Bench().pair()
    _lost(bench)
    _attach(bench)
    _as_target(bench)
    bench.effects.clear()
    bench.give(e.AppRead(bench.now, "read", 0, BLOCK, None))
    assert any(isinstance(packet, p.DataRequest) for packet in bench.sent())
    assert not bench.take(e.DiskRead)


def test_a_disk_of_other_data_is_given_up_again() -> None:
    bench = Bench().pair()
    _lost(bench)
    _attach(bench, current=0x4444_0000, flags=GOOD)
    bench.packet(p.Uuids(NEXT, CURRENT, 0, 0, 0, 0))
    bench.peer_state(Role.SECONDARY, Disk.UP_TO_DATE, Connection.CONNECTED)
    assert bench.status["disk"] == "Diskless"
    assert bench.take(e.CloseDisk)
    assert bench.status["role"] == "Primary"


def test_a_primary_without_data_takes_no_disk() -> None:
    bench = Bench().pair()
    _lost(bench)
    bench.give(e.Disconnected(bench.now))
    bench.effects.clear()
    _attach(bench)
    assert isinstance(bench.one(e.CommandDone).error, errors.NoDataToCompare)
    assert bench.take(e.CloseDisk)


def test_a_disk_that_is_too_small_is_refused() -> None:
    bench = Bench().pair()
    _lost(bench)
    token = bench.token()
    meta = e.MetaState(JUST_CREATED, 0, 0, 0, int(MetaFlag.AL_CLEAN), 0)
    bench.give(e.Attach(bench.now, meta, EXTENT, b"", (), 0, 0, tuple(range(8)), token=token))
    assert isinstance(bench.one(e.CommandDone).error, errors.DiskOfAnotherSize)
    assert bench.take(e.CloseDisk)


@pytest.mark.parametrize(("stale", "disk"), [(CURRENT, "Inconsistent"), (0x1234_0000, "UpToDate"), (0, "UpToDate")])
def test_a_copy_noted_as_stale_is_never_taken_for_a_crashed_primarys(stale: int, disk: str) -> None:
    bench = Bench()
    flags = GOOD | int(MetaFlag.PRIMARY_IND)
    meta = e.MetaState(CURRENT, 0, 0, 0, flags, EXTENTS * EXTENT // 512)
    bench.give(e.Attach(bench.now, meta, EXTENTS * EXTENT, b"", (), 0, 0, tuple(range(8)), stale=stale))
    bench.meta_done()
    assert bench.status["disk"] == disk
    assert bench.status["was_primary_at_start"] == (disk == "UpToDate")


def test_the_peer_answers_an_offer_and_becomes_the_source() -> None:
    bench = _serving()
    bench.meta_done()
    bench.packet(p.Data(40, 7, 1, WRITE_ACK, BLOCK), "payload")
    bench.done(bench.one(e.DiskWrite))
    bench.effects.clear()
    sectors = EXTENTS * EXTENT // 512
    bench.packet(p.Sizes(sectors, 0, sectors, 1 << 20, 0, 0))
    bench.packet(p.Uuids(CURRENT, 0, 0, 0, 0, 0))
    bench.peer_state(Role.PRIMARY, Disk.NEGOTIATING, Connection.CONNECTED)
    kinds = [type(packet) for packet in bench.sent()]
    assert kinds[:2] == [p.Uuids, p.StateWord]
    assert bench.status["connection"] == "WFBitMapS"


def test_with_al_updates_no_nothing_goes_to_the_activity_log_and_the_disk_says_so() -> None:
    bench = Bench(options=DrbdOptions(al_updates=False)).pair()
    bench.write(5)
    assert not bench.take(e.WriteActivityLog)
    assert bench.sent_data()
    bench.give(e.Disconnected(bench.now))
    bench.give(e.AllowAlone(bench.now, bench.token(), 1))
    bench.done(bench.one(e.PersistEpoch))
    assert bench.one(e.WriteSuperblock).meta.flags & MetaFlag.AL_DISABLED
