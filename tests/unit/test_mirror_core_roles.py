"""Roles, permissions, leave-taking, split brain, lost disks: what the core does when it is told or asked."""

from __future__ import annotations

from typing import Any

import pytest

from mirror_core_support import BLOCK, CURRENT, GOOD, Bench
from relevo.mirror import errors
from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.metadata import MetaFlag
from relevo.mirror.state import CLOSE_LIMIT_MS
from relevo.mirror.states import CONN_MASK, DISK_MASK, Connection, Disk, Role, State
from relevo.mirror.uuids import JUST_CREATED

GONE_ON = (0xABCD00, CURRENT, 0, 0)


def _command(bench: Bench, kind: Any) -> None:
    bench.give(kind(bench.now, bench.token()))


def _promote(bench: Bench, *, force: bool = False, epoch: int = 0) -> None:
    bench.give(e.Promote(bench.now, bench.token(), force, epoch))


def _error(bench: Bench) -> Any:
    return bench.one(e.CommandDone).error


# ---------------------------------------------------------------- who may become Primary


def test_the_peer_is_asked_before_a_promotion_and_may_refuse() -> None:
    bench = Bench().attach()
    bench.meet()
    bench.meta_done()
    bench.sent()
    _promote(bench)
    assert p.StateChangeRequest(3, 1) in bench.sent()
    assert not bench.take(e.DeviceUp)
    bench.packet(p.StateChangeReply(-1))
    assert isinstance(_error(bench), errors.PeerIsPrimary)
    assert bench.status["role"] == "Secondary"


def test_the_device_comes_when_being_primary_is_stable() -> None:
    bench = Bench().attach()
    bench.meet()
    bench.meta_done()
    _promote(bench)
    bench.packet(p.StateChangeReply(1))
    superblock = bench.one(e.WriteSuperblock)
    assert superblock.meta.flags & MetaFlag.PRIMARY_IND
    assert not superblock.meta.flags & MetaFlag.AL_CLEAN
    assert superblock.meta.current == CURRENT | 1
    assert not bench.take(e.DeviceUp)
    bench.sent()
    bench.done(superblock)
    assert State.unpack(bench.sent()[-1].word).role is Role.PRIMARY
    bench.done(bench.one(e.DeviceUp))
    assert _error(bench) is None


def test_a_live_primary_peer_forbids_a_promotion_and_a_dead_one_does_not() -> None:
    bench = Bench(ping_timeout_ms=100, alone="risk").attach()
    bench.meet(role=Role.PRIMARY)
    bench.meta_done()
    bench.meta_sent()
    _promote(bench)
    assert bench.meta_sent() == [p.Ping()]
    bench.packet(p.PingAck())
    assert isinstance(_error(bench), errors.PeerIsPrimary)
    _promote(bench)
    bench.tick(150)
    assert bench.one(e.DropConnection)
    superblock = bench.one(e.WriteSuperblock)
    assert superblock.meta.bitmap == CURRENT, "a new generation: the peer is left behind"
    assert bench.status["peer_lost_since_connect"]


@pytest.mark.parametrize("role", [Role.PRIMARY, Role.SECONDARY])
def test_a_permission_to_take_over_from_a_connected_peer_is_none_to_start_alone(role: Role) -> None:
    bench = Bench(ping_timeout_ms=100, alone="ask").attach()
    bench.meet(role=role)
    bench.meta_done()
    _promote(bench)
    bench.tick(150)
    assert isinstance(_error(bench), errors.PeerLost)
    _promote(bench)
    assert bench.one(e.WriteSuperblock).meta.bitmap == CURRENT, "asked again, it is one"


def test_a_freshly_booted_secondary_is_not_promoted_alone() -> None:
    bench = Bench().attach()
    assert bench.status["disk"] == "Consistent"
    _promote(bench)
    assert isinstance(_error(bench), errors.DataNotUpToDate)
    bench.promote(force=True)
    assert bench.status["disk"] == "UpToDate"


@pytest.mark.parametrize("flag", [MetaFlag.PRIMARY_IND, MetaFlag.CRASHED_PRIMARY, MetaFlag.PEER_OUTDATED])
def test_the_last_primary_may_start_alone(flag: MetaFlag) -> None:
    bench = Bench().attach(flags=GOOD | flag)
    assert bench.status["was_primary_at_start"]
    assert bench.status["disk"] == "UpToDate"
    bench.promote()


@pytest.mark.parametrize(("flags", "disk"), [(0, "Inconsistent"), (int(MetaFlag.CONSISTENT), "Outdated")])
def test_a_stale_copy_is_not_promoted(flags: int, disk: str) -> None:
    bench = Bench().attach(flags=flags | MetaFlag.AL_CLEAN)
    assert bench.status["disk"] == disk
    _promote(bench)
    assert isinstance(_error(bench), errors.DataNotUpToDate)


def test_the_target_of_a_resync_is_not_promoted_even_by_force() -> None:
    bench = Bench().attach()
    bench.meet(uuids=GONE_ON)
    bench.packet(p.OutOfSync(8, BLOCK))
    bench.peer_bitmap()
    bench.meta_done()
    bench.packet(p.SyncUuid(0x7700))
    bench.meta_done()
    assert bench.status["connection"] == "SyncTarget"
    _promote(bench, force=True)
    assert isinstance(_error(bench), errors.DataNotUpToDate)


def test_a_lower_epoch_is_refused_and_a_higher_one_stored_first() -> None:
    bench = Bench().attach(flags=GOOD | MetaFlag.PRIMARY_IND, epoch=5)
    _promote(bench, epoch=4)
    assert isinstance(_error(bench), errors.AlreadyDenied)
    _promote(bench, epoch=6)
    stored = bench.one(e.PersistEpoch)
    assert stored.epoch == 6
    assert not bench.take(e.WriteSuperblock)
    bench.done(stored)
    assert bench.one(e.WriteSuperblock)
    assert bench.status["epoch"] == 6


def test_new_copies_get_their_first_generation_together() -> None:
    bench = Bench().attach(current=JUST_CREATED)
    bench.meet(uuids=(JUST_CREATED, 0, 0, 0))
    assert bench.status["connection"] == "Connected"
    assert bench.status["disk"] == "UpToDate"
    bench.meta_done()
    _promote(bench)
    bench.packet(p.StateChangeReply(1))
    superblock = bench.one(e.WriteSuperblock)
    assert superblock.meta.current & ~1 not in {0, JUST_CREATED}
    assert superblock.meta.bitmap == 0
    bench.sent()
    bench.done(superblock)
    told = next(packet for packet in bench.sent() if isinstance(packet, p.Uuids))
    assert told.flags & p.UuidFlag.SKIP_INITIAL_SYNC

    peer = Bench().attach(current=JUST_CREATED)
    peer.meet(uuids=(JUST_CREATED, 0, 0, 0))
    peer.meta_done()
    peer.packet(told)
    assert peer.one(e.WriteSuperblock).meta.current == told.current & ~1


def test_a_new_copy_that_is_a_source_leaves_that_generation_when_it_comes_into_use() -> None:
    """Two new copies that lose their power are taken for equal: no data may ever be of that generation."""
    bench = Bench().attach(current=JUST_CREATED)
    bench.meet(uuids=(JUST_CREATED, 0, 0, 0))
    bench.meta_done()
    bench.give(e.Invalidate(bench.now, bench.token(), peer=True))
    bench.packet(p.StateChangeReply(1))
    bench.meta_done()
    assert bench.status["connection"] == "SyncSource"
    bench.peer_state(Role.SECONDARY, Disk.INCONSISTENT, Connection.SYNC_TARGET)
    bench.take(e.CommandDone)
    _promote(bench)
    bench.packet(p.StateChangeReply(1))
    superblock = bench.one(e.WriteSuperblock)
    assert superblock.meta.current & ~1 not in {0, JUST_CREATED}
    bench.done(superblock)
    assert "compared again" in bench.one(e.DropConnection).reason, "the target would end in the generation of before"
    bench.done(bench.one(e.DeviceUp))
    assert _error(bench) is None
    bench.sent()
    bench.meet(disk=Disk.INCONSISTENT, uuids=(JUST_CREATED, 0, 0, 0))
    bench.meta_done()
    assert bench.status["connection"] == "WFBitMapS"


def test_a_new_copy_is_not_promoted_alone() -> None:
    bench = Bench().attach(current=JUST_CREATED)
    bench.meet(uuids=(JUST_CREATED, 0, 0, 0))
    bench.meta_done()
    bench.give(e.Disconnected(bench.now))
    _promote(bench)
    assert isinstance(_error(bench), errors.NeverInUse)


def test_two_promotions_at_once_only_one_wins() -> None:
    for tie_breaker in (True, False):
        bench = Bench().attach()
        bench.meet(resolve_conflicts=tie_breaker)
        bench.meta_done()
        bench.meta_sent()
        _promote(bench)
        bench.packet(p.StateChangeRequest(3, 1))
        (reply,) = [packet for packet in bench.meta_sent() if isinstance(packet, p.StateChangeReply)]
        assert (reply.retcode == 1) is not tie_breaker
        bench.packet(p.StateChangeReply(1 if tie_breaker else -19))
        if tie_breaker:
            assert bench.one(e.WriteSuperblock).meta.flags & MetaFlag.PRIMARY_IND
        else:
            assert isinstance(_error(bench), errors.PeerIsPrimary)


# ---------------------------------------------------------------- becoming Secondary


def test_a_demotion_ends_when_everything_is_on_both_disks_and_written_down() -> None:
    bench = Bench().pair()
    bench.write_through(5)
    bench.sent()
    _command(bench, e.Demote)
    bench.done(bench.one(e.DeviceDown))
    assert any(isinstance(packet, p.UnplugRemote) for packet in bench.sent())
    assert not bench.take(e.WriteSuperblock)
    bench.packet(p.BarrierAck(1, 1))
    superblock = bench.one(e.WriteSuperblock)
    assert not superblock.meta.flags & MetaFlag.PRIMARY_IND
    assert superblock.meta.flags & MetaFlag.AL_CLEAN
    assert not bench.take(e.CommandDone)
    bench.done(superblock)
    assert _error(bench) is None
    assert bench.status["role"] == "Secondary"


def test_a_device_in_use_stays() -> None:
    bench = Bench().pair()
    _command(bench, e.Demote)
    bench.done(bench.one(e.DeviceDown), 16)
    assert isinstance(_error(bench), errors.DeviceBusy)
    assert bench.status["role"] == "Primary"


def test_a_suspended_primary_can_be_taken_down_and_is_remembered_as_crashed() -> None:
    bench = Bench(alone="ask").pair()
    token = bench.write(5)
    bench.meta_done()
    bench.done(bench.one(e.DiskWrite))
    bench.give(e.Disconnected(bench.now))
    _command(bench, e.Demote)
    assert bench.completed() == {token: 5}
    bench.done(bench.one(e.DeviceDown))
    bench.done(bench.one(e.WriteBitmap))
    superblock = bench.one(e.WriteSuperblock)
    assert superblock.meta.flags & MetaFlag.CRASHED_PRIMARY, "the next handshake has to make it the source"
    bench.done(superblock)
    assert _error(bench) is None


# ---------------------------------------------------------------- leave-taking


def test_a_secondary_leaves_in_order_and_outdated() -> None:
    bench = Bench().attach()
    bench.meet(role=Role.PRIMARY)
    bench.meta_done()
    bench.sent()
    _command(bench, e.Disconnect)
    superblock = bench.one(e.WriteSuperblock)
    assert not superblock.meta.flags & MetaFlag.WAS_UP_TO_DATE
    assert not bench.sent(), "first on the disk"
    bench.done(superblock)
    (request,) = bench.sent()
    assert request == p.ConnStateChangeRequest(CONN_MASK | DISK_MASK, 1 << 4 | Disk.OUTDATED << 9)
    bench.packet(p.ConnStateChangeReply(1))
    assert bench.one(e.DropConnection)
    assert not bench.one(e.WantConnection).wanted
    assert _error(bench) is None
    assert bench.status["outdated"]
    assert not bench.status["peer_lost_since_connect"]


def test_a_leave_that_its_link_did_not_outlive_is_not_taken_on_the_next_one() -> None:
    bench = Bench().attach()
    bench.meet(role=Role.PRIMARY)
    bench.meta_done()
    _command(bench, e.Disconnect)
    late = bench.one(e.WriteSuperblock)
    bench.give(e.Disconnected(bench.now, "cut"))
    assert _error(bench) is None, "whoever waited has been told"
    _command(bench, e.Connect)
    assert _error(bench) is None
    bench.sent()
    bench.meet(role=Role.PRIMARY)
    bench.done(late)
    bench.meta_done()
    assert not [packet for packet in bench.sent() if isinstance(packet, p.ConnStateChangeRequest)]


def test_a_peer_that_does_not_answer_is_left_anyway() -> None:
    bench = Bench(ping_timeout_ms=100).attach()
    bench.meet()
    bench.meta_done()
    _command(bench, e.Disconnect)
    bench.tick(450)
    assert _error(bench) is None
    assert bench.status["connection"] == "StandAlone"


def test_a_primary_that_leaves_makes_its_secondary_outdated_first() -> None:
    bench = Bench().attach()
    bench.meet(role=Role.PRIMARY)
    bench.meta_done()
    bench.packet(p.ConnStateChangeRequest(CONN_MASK, Connection.DISCONNECTING << 4))
    assert not [packet for packet in bench.meta_sent() if isinstance(packet, p.ConnStateChangeReply)]
    bench.done(bench.one(e.WriteSuperblock))
    assert p.ConnStateChangeReply(1) in bench.meta_sent()
    assert bench.status["outdated"]
    assert bench.status["connection"] == "WFConnection"
    assert not bench.status["peer_lost_since_connect"]
    bench.tick(1100)
    assert bench.one(e.DropConnection), "a peer that keeps the sockets open is cut off"


def test_down_is_refused_to_a_primary_and_writes_everything_down() -> None:
    bench = Bench().pair()
    _command(bench, e.Down)
    assert isinstance(_error(bench), errors.StillPrimary)
    bench = Bench().attach()
    _command(bench, e.Down)
    assert not bench.take(e.Stopped)
    bench.meta_done()
    assert bench.one(e.Stopped)


def test_outdate_is_stable_before_it_is_answered() -> None:
    bench = Bench().attach()
    _command(bench, e.Outdate)
    assert not bench.take(e.CommandDone)
    superblock = bench.one(e.WriteSuperblock)
    assert not superblock.meta.flags & MetaFlag.WAS_UP_TO_DATE
    bench.done(superblock)
    assert _error(bench) is None


def test_a_connected_copy_is_not_outdated_by_order() -> None:
    """SS_CONNECTED_OUTDATES: the peer replicates to it, so it is current."""
    for role in (Role.SECONDARY, Role.PRIMARY):
        bench = Bench().attach()
        bench.meet(role=role)
        bench.meta_done()
        _command(bench, e.Outdate)
        assert isinstance(_error(bench), errors.ConnectedOutdates)
        assert bench.status["disk"] == "UpToDate"
        assert not bench.take(e.WriteSuperblock)
        bench.give(e.Disconnected(bench.now, "cut"))
        _command(bench, e.Outdate)
        bench.meta_done()
        assert _error(bench) is None
    bench = Bench().pair()
    _command(bench, e.Outdate)
    assert isinstance(_error(bench), errors.ConnectedOutdates)


def test_the_only_primary_is_not_outdated() -> None:
    bench = Bench().attach(flags=GOOD | MetaFlag.PRIMARY_IND)
    bench.promote()
    _command(bench, e.Outdate)
    assert isinstance(_error(bench), errors.StillPrimary)


def test_an_inconsistent_copy_is_not_made_better_by_outdating_it() -> None:
    bench = Bench().attach(flags=int(MetaFlag.AL_CLEAN))
    _command(bench, e.Outdate)
    assert isinstance(_error(bench), errors.InconsistentAnyway)
    assert bench.status["disk"] == "Inconsistent"


# ---------------------------------------------------------------- leaving the cluster


def test_who_leaves_the_cluster_leaves_its_primary_as_outdated_and_comes_back() -> None:
    bench = Bench().attach()
    bench.meet(role=Role.PRIMARY)
    bench.meta_done()
    bench.sent()
    _command(bench, e.Leave)
    assert bench.status["left"]
    bench.done(bench.one(e.WriteSuperblock))
    assert p.ConnStateChangeRequest(CONN_MASK | DISK_MASK, 1 << 4 | Disk.OUTDATED << 9) in bench.sent()
    bench.packet(p.ConnStateChangeReply(1))
    bench.meta_done()
    assert _error(bench) is None
    assert (bench.status["connection"], bench.status["disk"]) == ("StandAlone", "Outdated")
    _command(bench, e.Connect)
    assert _error(bench) is None
    assert not bench.status["left"]
    bench.meet(role=Role.PRIMARY)
    bench.meta_done()
    assert (bench.status["connection"], bench.status["disk"]) == ("Connected", "UpToDate"), "nothing was written"


def test_who_leaves_a_secondary_is_outdated_on_the_disk_before_it_says_so() -> None:
    """Nobody serves: whoever stays may begin, and this copy must not when it comes back alone."""
    bench = Bench().attach()
    bench.meet()
    bench.meta_done()
    bench.sent()
    _command(bench, e.Leave)
    assert p.ConnStateChangeRequest(CONN_MASK, 1 << 4) in bench.sent()
    bench.packet(p.ConnStateChangeReply(1))
    assert not bench.take(e.CommandDone)
    superblock = bench.one(e.WriteSuperblock)
    assert not superblock.meta.flags & MetaFlag.WAS_UP_TO_DATE
    bench.done(superblock)
    assert _error(bench) is None
    assert (bench.status["connection"], bench.status["disk"]) == ("StandAlone", "Outdated")


def test_of_two_that_leave_each_other_at_once_none_is_outdated() -> None:
    """Nobody wrote since: both copies are as good as they were."""
    bench = Bench().attach()
    bench.meet()
    bench.meta_done()
    _command(bench, e.Leave)
    bench.packet(p.ConnStateChangeRequest(CONN_MASK, Connection.DISCONNECTING << 4))
    bench.meta_done()
    bench.give(e.Disconnected(bench.now, "gone"))
    bench.meta_done()
    assert _error(bench) is None
    assert bench.status["disk"] == "UpToDate"
    assert bench.status["left"]


def test_a_copy_without_a_good_peer_stays_what_it_is_when_its_node_leaves() -> None:
    bench = Bench().attach(flags=GOOD | MetaFlag.PRIMARY_IND)
    _command(bench, e.Leave)
    assert _error(bench) is None
    assert (bench.status["connection"], bench.status["disk"]) == ("WFConnection", "UpToDate")
    assert not bench.status["left"]


def test_a_primary_does_not_leave_the_cluster() -> None:
    bench = Bench().pair()
    _command(bench, e.Leave)
    assert isinstance(_error(bench), errors.StillPrimary)
    assert bench.status["connection"] == "Connected"


# ---------------------------------------------------------------- split brain


def test_a_split_brain_leaves_both_alone_until_one_discards() -> None:
    bench = Bench().attach(bitmap_uuid=0x9900)
    bench.meet(uuids=(0xABCD00, 0x9900, 0, 0))
    assert not bench.one(e.WantConnection).wanted
    assert not bench.take(e.DropConnection), "the peer has to find out by itself"
    bench.tick(CLOSE_LIMIT_MS)
    assert bench.one(e.DropConnection)
    assert bench.status["split_brain"]
    assert bench.status["connection"] == "StandAlone"
    assert bench.status["problem"]
    bench.give(e.Disconnected(bench.now))
    _command(bench, e.Discard)
    assert _error(bench) is None
    assert bench.one(e.WantConnection).wanted
    bench.sent()
    bench.meet(uuids=(0xABCD00, 0x9900, 0, 0))
    told = next(packet for packet in bench.sent() if isinstance(packet, p.Uuids))
    assert told.flags & p.UuidFlag.DISCARD_MY_DATA
    assert bench.status["connection"] == "WFBitMapT"
    assert not bench.status["split_brain"]


def test_the_side_that_keeps_its_data_is_the_source() -> None:
    bench = Bench().attach(bitmap_uuid=0x9900)
    bench.meet(uuids=(0xABCD00, 0x9900, 0, 0))
    bench.give(e.Disconnected(bench.now))
    _command(bench, e.Keep)
    bench.meet(uuids=(0xABCD00, 0x9900, 0, 0), flags=1)
    assert bench.status["connection"] == "WFBitMapS"


def test_a_primary_never_discards() -> None:
    bench = Bench().pair()
    _command(bench, e.Discard)
    assert isinstance(_error(bench), errors.StillPrimary)


# ---------------------------------------------------------------- resync


def test_a_target_is_inconsistent_on_disk_before_the_source_may_send_and_uptodate_after_a_flush() -> None:
    bench = Bench().attach()
    bench.meet(uuids=GONE_ON)
    bench.packet(p.OutOfSync(8, BLOCK))
    bench.sent()
    bench.peer_bitmap()
    assert not bench.take(e.WriteSuperblock), "a good copy is saved before it is given up"
    bench.done(bench.one(e.SaveTarget))
    bench.done(bench.one(e.WriteBitmap))
    superblock = bench.one(e.WriteSuperblock)
    assert not superblock.meta.flags & MetaFlag.CONSISTENT
    assert not bench.sent(), "my bitmap tells the source to begin"
    bench.done(superblock)
    assert bench.sent()
    bench.packet(p.SyncUuid(0x7700))
    assert not [packet for packet in bench.sent() if isinstance(packet, p.ResyncRequest)]
    superblock = bench.one(e.WriteSuperblock)
    assert superblock.meta.current == 0x7700
    bench.done(superblock)
    (request,) = [packet for packet in bench.sent() if isinstance(packet, p.ResyncRequest)]
    assert request == p.ResyncRequest(8, p.SYNCER_ID, BLOCK)
    bench.packet(p.ResyncReply(8, p.SYNCER_ID, 0, 0, BLOCK), "block")
    assert not [packet for packet in bench.meta_sent() if isinstance(packet, p.ResyncWriteAck)]
    bench.done(bench.one(e.DiskWrite))
    acks = bench.meta_sent()
    assert isinstance(acks[-2], p.ResyncWriteAck)
    assert acks[-1] == p.Ping(), "the source has seen every acknowledgement when it answers"
    assert bench.status["disk"] == "Inconsistent"
    bench.packet(p.PingAck())
    pages = bench.one(e.WriteBitmap)
    assert pages.preflush
    bench.done(pages)
    assert not bench.sent()
    superblock = bench.one(e.WriteSuperblock)
    assert superblock.meta.current == GONE_ON[0]
    assert superblock.meta.flags & MetaFlag.WAS_UP_TO_DATE
    bench.done(superblock)
    state = State.unpack(bench.sent()[-1].word)
    assert (state.conn, state.disk) == (Connection.CONNECTED, Disk.UP_TO_DATE)


def test_what_the_source_marked_between_the_bitmaps_is_stable_before_the_target_asks_for_it() -> None:
    bench = Bench().attach()
    bench.meet(uuids=GONE_ON)
    bench.peer_bitmap()
    bench.meta_done()
    bench.packet(p.OutOfSync(8, BLOCK))
    bench.packet(p.SyncUuid(0x7700))
    pages = bench.one(e.WriteBitmap)
    bench.sent()
    bench.done(pages)
    bench.done(bench.one(e.WriteSuperblock))
    assert [packet.sector for packet in bench.sent() if isinstance(packet, p.ResyncRequest)] == [8]


def _source() -> Bench:
    """A Primary that is the source of a resync of block 5."""
    bench = Bench(alone="risk").pair()
    bench.give(e.Disconnected(bench.now))
    bench.write(5)
    bench.all_done()
    bench.effects.clear()
    bench.meet()
    bench.peer_bitmap()
    assert not [packet for packet in bench.sent() if isinstance(packet, p.SyncUuid)], "not before it is stable"
    bench.meta_done()
    assert [packet for packet in bench.sent() if isinstance(packet, p.SyncUuid)]
    bench.peer_state(Role.SECONDARY, Disk.INCONSISTENT, Connection.SYNC_TARGET)
    bench.effects.clear()
    return bench


def test_a_write_waits_while_its_block_is_on_its_way_to_the_target() -> None:
    bench = _source()
    bench.packet(p.ResyncRequest(40, p.SYNCER_ID, BLOCK))
    read = bench.one(e.DiskRead)
    bench.write(5)
    assert not bench.take(e.DiskWrite)
    bench.done(read, 0, "old")
    (reply,) = bench.take(e.SendData)
    assert isinstance(reply.packet, p.ResyncReply)
    assert (reply.buffer, reply.release) == ("old", True)
    assert not bench.take(e.DiskWrite), "a kernel's target does not order a write behind a block of the resync"
    bench.packet(p.ResyncWriteAck(40, p.SYNCER_ID, BLOCK, 1))
    assert bench.one(e.DiskWrite)
    assert len(bench.sent_data()) == 1
    assert bench.status["out_of_sync_bytes"] == 0


def test_a_resync_read_waits_for_a_write_in_flight() -> None:
    bench = _source()
    bench.write(5)
    (data,) = bench.sent_data()
    bench.packet(p.ResyncRequest(40, p.SYNCER_ID, BLOCK))
    assert not bench.take(e.DiskRead)
    bench.done(bench.one(e.DiskWrite))
    assert not bench.take(e.DiskRead)
    bench.ack(data)
    assert bench.one(e.DiskRead)


def test_the_source_believes_in_the_end_only_when_the_target_says_so() -> None:
    bench = _source()
    bench.packet(p.ResyncRequest(40, p.SYNCER_ID, BLOCK))
    bench.done(bench.one(e.DiskRead), 0, "old")
    bench.packet(p.ResyncWriteAck(40, p.SYNCER_ID, BLOCK, 1))
    assert bench.status["connection"] == "SyncSource"
    assert bench.status["peer_disk"] == "Inconsistent"
    bench.peer_state(Role.SECONDARY, Disk.UP_TO_DATE, Connection.CONNECTED)
    assert bench.status["connection"] == "Connected"
    assert bench.status["peer_disk"] == "UpToDate"
    bench.meta_done()
    assert bench.status["bitmap_uuid"] == "0" * 16


def test_writes_between_the_bitmaps_are_marked_on_both_sides() -> None:
    bench = Bench(alone="risk").pair()
    bench.give(e.Disconnected(bench.now))
    bench.all_done()
    bench.meet()
    assert bench.status["connection"] == "WFBitMapS"
    bench.sent()
    bench.write(9)
    bench.meta_done()
    assert p.OutOfSync(72, BLOCK) in bench.sent()
    assert bench.status["out_of_sync_bytes"] == BLOCK


# ---------------------------------------------------------------- disks that fail, requests that cannot be


def test_a_failed_disk_is_not_used_any_more() -> None:
    bench = Bench(alone="risk").pair()
    bench.give(e.Disconnected(bench.now))
    bench.meta_done()
    token = bench.write(5)
    bench.meta_done()
    bench.done(bench.one(e.DiskWrite), 5)
    assert bench.completed() == {token: 5}, "there is no other copy"
    assert bench.status["disk"] == "Diskless"
    assert bench.status["problem"]
    assert bench.take(e.CloseDisk)
    late = bench.write(6)
    assert bench.completed() == {late: 5}
    assert not bench.take(e.DiskWrite)


def test_a_secondary_whose_disk_fails_says_so() -> None:
    bench = Bench().attach()
    bench.meet(role=Role.PRIMARY)
    bench.meta_done()
    bench.effects.clear()
    bench.packet(p.Data(40, 7, 1, 0x102, BLOCK), "payload")
    bench.done(bench.one(e.DiskWrite), 5)
    assert isinstance(bench.meta_sent()[0], p.NegAck)
    assert State.unpack(bench.sent()[0].word).disk is Disk.DISKLESS


@pytest.mark.parametrize(
    ("offset", "length"), [(-BLOCK, BLOCK), (16 << 22, BLOCK), ((16 << 22) - BLOCK, 2 * BLOCK), (0, 0)]
)
def test_requests_outside_of_the_device_fail(offset: int, length: int) -> None:
    bench = Bench().pair()
    for token, event in enumerate((e.AppWrite, e.AppRead)):
        bench.give(event(bench.now, token, offset, length, None))
    bench.give(e.AppDiscard(bench.now, 2, offset, length))
    assert bench.completed() == {0: 5, 1: 5, 2: 5}


def test_packets_outside_of_the_device_end_the_link() -> None:
    bench = Bench().attach()
    bench.meet(role=Role.PRIMARY)
    bench.packet(p.Data((16 << 22) // 512, 7, 1, 0x102, BLOCK), "payload")
    assert bench.one(e.DropConnection)
    assert bench.one(e.ReleaseBuffer).buffer == "payload"


def test_a_discard_is_cut_at_extents_and_replicated() -> None:
    bench = Bench().pair()
    bench.give(e.AppDiscard(bench.now, "d", 3 << 20, 6 << 20))
    bench.meta_done()
    trims = [packet for packet in bench.sent() if isinstance(packet, p.Trim)]
    assert [(trim.sector * 512, trim.size_bytes) for trim in trims] == [
        (3 << 20, 1 << 20),
        (4 << 20, 4 << 20),
        (8 << 20, 1 << 20),
    ]
    for effect in bench.take(e.DiskDiscard):
        bench.done(effect)
    for trim in trims[:2]:
        bench.ack(trim)
    assert bench.completed() == {}
    bench.ack(trims[2])
    assert bench.completed() == {"d": 0}


def test_a_peer_that_owes_answers_is_given_up() -> None:
    bench = Bench(timeout_ms=1000, ping_timeout_ms=100, alone="risk").pair()
    bench.write(5)
    bench.meta_done()
    for _ in range(12):
        bench.tick(100)
        if bench.take(e.DropConnection):
            break
        bench.packet(p.PingAck())
    assert bench.status["connection"] == "WFConnection"


def test_a_silent_peer_is_noticed_soon_where_one_side_is_primary() -> None:
    bench = Bench(ping_interval_ms=10_000, ping_timeout_ms=100).pair()
    bench.tick(450)
    assert bench.one(e.DropConnection)


def test_a_source_that_restarts_alone_begins_a_new_generation() -> None:
    """Its target may have finished the resync, become Primary and changed the same generation."""
    bench = Bench()
    flags = GOOD | MetaFlag.PRIMARY_IND
    bench.attach(flags=flags, current=CURRENT | 1, bitmap_uuid=CURRENT + (1 << 48))
    _promote(bench)
    superblock = bench.one(e.WriteSuperblock)
    assert superblock.meta.bitmap == CURRENT | 1
    assert superblock.meta.current & ~1 != CURRENT


def test_a_primary_that_restarts_alone_keeps_its_generation() -> None:
    bench = Bench()
    bench.attach(flags=GOOD | MetaFlag.PRIMARY_IND, current=CURRENT | 1, bitmap_uuid=0x7700)
    _promote(bench)
    superblock = bench.one(e.WriteSuperblock)
    assert (superblock.meta.current, superblock.meta.bitmap) == (CURRENT | 1, 0x7700)
