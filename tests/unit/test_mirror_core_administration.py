"""The disk let go of and taken again, suspended I/O, new generations: order and refusals."""

from __future__ import annotations

from typing import Any

import pytest

from mirror_core_support import BLOCK, CURRENT, EXTENT, EXTENTS, GOOD, Bench
from relevo.mirror import errors
from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.metadata import MetaFlag
from relevo.mirror.states import Connection, Disk, Role
from relevo.mirror.uuids import JUST_CREATED

NUMBERS = tuple(range(0x9000, 0x9000 + 8 * 0x10, 0x10))


def give(bench: Bench, kind: Any, **fields: Any) -> None:
    bench.give(kind(bench.now, bench.token(), **fields))


def error_of(bench: Bench) -> Any:
    return bench.one(e.CommandDone).error


def met(**settings: Any) -> Bench:
    bench = Bench(**settings).attach()
    bench.meet()
    bench.meta_done()
    bench.effects.clear()
    return bench


def attach_again(bench: Bench, *, current: int = CURRENT, flags: int = GOOD) -> object:
    token = object()
    meta = e.MetaState(current, 0, 0, 0, flags, EXTENTS * EXTENT // 512)
    bench.give(e.Attach(bench.now, meta, EXTENTS * EXTENT, b"", (), 0, 0, NUMBERS, token=token))
    return token


def test_a_disk_is_let_go_of_after_the_peer_was_left_and_everything_is_stable() -> None:
    bench = met()
    give(bench, e.Detach)
    assert [type(packet) for packet in bench.sent()] == [p.ConnStateChangeRequest]
    assert not bench.take(e.CloseDisk)
    bench.packet(p.ConnStateChangeReply(1))
    assert bench.one(e.DropConnection)
    superblock = bench.one(e.WriteSuperblock)
    assert superblock.meta.flags & MetaFlag.AL_CLEAN
    assert not bench.take(e.CloseDisk), "not before that is stable"
    bench.done(superblock)
    assert bench.status["disk"] == "Diskless"
    assert not bench.take(e.CommandDone)
    bench.done(bench.one(e.CloseDisk))
    assert error_of(bench) is None
    assert bench.take(e.WantConnection)[-1].wanted, "without a disk the peer is looked for again"


def test_a_secondary_of_a_primary_is_outdated_on_its_disk_before_it_leaves() -> None:
    bench = met()
    bench.peer_state(Role.PRIMARY, Disk.UP_TO_DATE, Connection.CONNECTED)
    give(bench, e.Detach)
    assert not bench.sent()
    superblock = bench.one(e.WriteSuperblock)
    assert not superblock.meta.flags & MetaFlag.WAS_UP_TO_DATE
    bench.done(superblock)
    assert [type(packet) for packet in bench.sent()] == [p.ConnStateChangeRequest]


def test_who_stayed_alone_stays_so_without_a_disk() -> None:
    bench = Bench().attach()
    give(bench, e.Disconnect)
    bench.effects.clear()
    give(bench, e.Detach)
    bench.meta_done()
    bench.done(bench.one(e.CloseDisk))
    assert error_of(bench) is None
    assert not bench.take(e.WantConnection)
    assert (bench.status["connection"], bench.status["disk"]) == ("StandAlone", "Diskless")


def test_a_primary_without_a_peer_keeps_its_disk() -> None:
    bench = Bench(alone="risk").pair()
    bench.give(e.Disconnected(bench.now))
    bench.meta_done()
    bench.effects.clear()
    give(bench, e.Detach)
    assert isinstance(error_of(bench), errors.LastCopy)
    assert bench.status["disk"] == "UpToDate"


def test_a_disk_that_is_there_again_is_compared_with_the_peers() -> None:
    bench = met()
    give(bench, e.Detach)
    bench.packet(p.ConnStateChangeReply(1))
    bench.meta_done()
    bench.done(bench.one(e.CloseDisk))
    bench.give(e.Disconnected(bench.now))
    bench.meet()
    assert bench.status["connection"] == "Connected"
    bench.effects.clear()
    token = attach_again(bench)
    assert not bench.take(e.CommandDone)
    bench.meta_done()
    done = bench.one(e.CommandDone)
    assert (done.token, done.error) == (token, None)
    assert [type(packet) for packet in bench.sent()] == [p.Sizes, p.Uuids, p.StateWord], "the disk is offered"
    assert bench.status["disk"] == "Negotiating"
    bench.packet(p.Uuids(0xABCD00, CURRENT, 0, 0, 0, 0))
    bench.peer_state(Role.SECONDARY, Disk.UP_TO_DATE, Connection.CONNECTED)
    assert bench.status["connection"] == "WFBitMapT"
    assert bench.status["disk"] == "Consistent"


def test_without_a_disk_nothing_is_written_down_at_the_end() -> None:
    bench = met()
    give(bench, e.Detach)
    bench.packet(p.ConnStateChangeReply(1))
    bench.meta_done()
    bench.done(bench.one(e.CloseDisk))
    bench.effects.clear()
    give(bench, e.Down)
    assert not bench.take(e.WriteSuperblock)
    assert bench.take(e.Stopped)


def test_what_is_asked_for_is_held_and_goes_on_in_order() -> None:
    bench = Bench().pair()
    give(bench, e.SuspendIo)
    assert error_of(bench) is None
    assert bench.status["io_suspended"]
    tokens = [bench.write(0), bench.write(1), bench.flush()]
    assert not bench.take(e.DiskWrite)
    assert not bench.take(e.DiskFlush)
    give(bench, e.ResumeIo)
    assert error_of(bench) is None
    bench.meta_done()
    assert [effect.offset for effect in bench.take(e.DiskWrite)] == [0, BLOCK]
    assert bench.one(e.DiskFlush)
    bench.effects.clear()
    assert not bench.status["io_suspended"]
    assert tokens == sorted(tokens)


def test_a_device_goes_even_when_its_io_is_suspended() -> None:
    bench = Bench().pair()
    give(bench, e.SuspendIo)
    bench.flush()
    bench.effects.clear()
    give(bench, e.Demote)
    assert bench.one(e.DiskFlush)
    assert bench.one(e.DeviceDown)
    assert not bench.status["io_suspended"]


def test_resume_io_lets_a_primary_go_on_that_lost_its_peer() -> None:
    bench = Bench(alone="ask").pair()
    bench.write(0)
    bench.meta_done()
    bench.done(bench.one(e.DiskWrite))
    bench.give(e.Disconnected(bench.now, "cut"))
    assert bench.status["suspended"]
    assert not bench.completed()
    give(bench, e.ResumeIo)
    assert not bench.completed(), "not before the new generation is stable"
    bench.meta_done()
    assert list(bench.completed().values()) == [0]
    assert error_of(bench) is None


def test_two_new_copies_get_a_generation_without_a_resync() -> None:
    bench = Bench().attach(current=JUST_CREATED, flags=int(MetaFlag.AL_CLEAN))
    bench.meet(disk=Disk.INCONSISTENT, uuids=(JUST_CREATED, 0, 0, 0))
    bench.meta_done()
    bench.effects.clear()
    give(bench, e.NewGeneration)
    assert isinstance(error_of(bench), errors.NeedStandAlone)
    give(bench, e.NewGeneration, clear_bitmap=True)
    assert not bench.sent()
    bench.meta_done()
    (told,) = bench.sent()
    assert isinstance(told, p.Uuids)
    assert told.flags & p.UuidFlag.SKIP_INITIAL_SYNC
    assert (told.current, told.bitmap) != (JUST_CREATED, 0)
    assert error_of(bench) is None
    assert (bench.status["disk"], bench.status["peer_disk"]) == ("UpToDate", "UpToDate")


@pytest.mark.parametrize("clear", [False, True])
def test_a_copy_that_is_alone_begins_a_new_generation(clear: bool) -> None:
    bench = Bench().attach()
    give(bench, e.NewGeneration, clear_bitmap=clear)
    assert isinstance(error_of(bench), errors.NeedStandAlone)
    give(bench, e.Disconnect)
    bench.effects.clear()
    give(bench, e.NewGeneration, clear_bitmap=clear)
    superblock = bench.one(e.WriteSuperblock)
    assert superblock.meta.bitmap == CURRENT
    assert superblock.meta.current not in {CURRENT, 0}
    assert not bench.take(e.CommandDone)
    bench.done(superblock)
    assert error_of(bench) is None


def test_a_link_is_cut_by_force_without_asking() -> None:
    bench = met()
    give(bench, e.Disconnect, force=True)
    assert not bench.sent()
    assert bench.one(e.DropConnection)
    assert error_of(bench) is None
    assert bench.status["connection"] == "StandAlone"


@pytest.mark.parametrize(
    ("flags", "degraded"),
    [
        (GOOD, False),
        (GOOD | MetaFlag.PRIMARY_IND, True),
        (GOOD | MetaFlag.PRIMARY_IND | MetaFlag.CONNECTED_IND, False),
    ],
)
def test_a_cluster_was_degraded_when_its_primary_crashed_alone(flags: int, degraded: bool) -> None:
    assert Bench().attach(flags=int(flags)).status["degraded_at_start"] is degraded


def test_a_copy_is_given_up_without_the_peer() -> None:
    bench = Bench().attach()
    give(bench, e.Disconnect)
    bench.effects.clear()
    give(bench, e.Invalidate)
    pages = bench.one(e.WriteBitmap)
    assert not bench.take(e.WriteSuperblock), "first what has to come"
    bench.done(pages)
    superblock = bench.one(e.WriteSuperblock)
    assert not superblock.meta.flags & MetaFlag.CONSISTENT
    assert not bench.take(e.CommandDone)
    bench.done(superblock)
    assert error_of(bench) is None
    assert bench.status["out_of_sync_bytes"] == EXTENTS * EXTENT


def test_a_primary_gives_its_peers_copy_up_under_a_generation_of_its_own() -> None:
    bench = Bench(alone="risk").attach()
    give(bench, e.Disconnect)
    bench.effects.clear()
    give(bench, e.Invalidate, peer=True)
    assert isinstance(error_of(bench), errors.NotNow)
    bench = Bench(alone="risk").pair()
    give(bench, e.Disconnect)
    bench.packet(p.ConnStateChangeReply(1))
    bench.give(e.Disconnected(bench.now))
    bench.meta_done()
    bench.effects.clear()
    give(bench, e.Invalidate)
    assert isinstance(error_of(bench), errors.StillPrimary)
    give(bench, e.Invalidate, peer=True)
    bench.meta_done()
    assert error_of(bench) is None
    assert int(bench.status["bitmap_uuid"], 16) & ~1 == CURRENT
    assert bench.status["out_of_sync_bytes"] == EXTENTS * EXTENT
