"""A split brain in the core: who is called, what is kept before anything is overwritten, who gives up which role."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from mirror_core_support import BLOCK, CURRENT, EXTENT, EXTENTS, GOOD, Bench
from relevo.config.drbd_options import DrbdOptions
from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.bitmap import Bitmap
from relevo.mirror.metadata import MetaFlag
from relevo.mirror.policies import WIRE_NUMBERS
from relevo.mirror.states import Role
from relevo.mirror.target_guard import changed_ranges

PARTED = 0x9900
OTHER = 0xABCD00
BITMAP = bytes([0b0000_0110, 0, 0b1000_0000]).ljust(4096, b"\0")
"""Blocks 1, 2 and 23."""
BITS = 3


def bench(**options: Any) -> Bench:
    """A copy that went on alone and changed three blocks; `options` as in drbd.conf."""
    flags = GOOD | MetaFlag.PEER_OUTDATED
    return Bench(options=DrbdOptions(**options)).attach(bitmap_uuid=PARTED, bitmap=BITMAP, flags=flags)


def meet(found: Bench, **how: Any) -> None:
    """The peer comes, that went on alone too."""
    found.sent()
    options = found.core._s.settings.options
    zero = {"discard-local": "discard-remote", "discard-remote": "discard-local"}
    names = (zero.get(options.after_sb_0pri, options.after_sb_0pri), options.after_sb_1pri, options.after_sb_2pri)
    found.meet(uuids=(OTHER, PARTED, 0, 0), after_sb=tuple(WIRE_NUMBERS[name] for name in names), **how)


def handlers(found: Bench) -> list[str]:
    return [effect.name for effect in found.take(e.RunHandler)]


def test_an_unresolved_split_brain_calls_both_handlers_and_says_how_much_each_side_wrote() -> None:
    found = bench()
    meet(found, bits=9)
    assert sorted(handlers(found)) == ["initial-split-brain", "split-brain"]
    status = found.status
    assert status["connection"] == "StandAlone"
    assert status["split_brain"]
    assert (status["split_brain_own_bytes"], status["split_brain_peer_bytes"]) == (BITS * BLOCK, 9 * BLOCK)


def test_without_a_split_brain_nothing_is_said_of_one() -> None:
    found = Bench().attach()
    found.meet()
    assert handlers(found) == []
    assert not found.status["split_brain"]
    assert (found.status["split_brain_own_bytes"], found.status["split_brain_peer_bytes"]) == (0, 0)


def test_the_loser_keeps_its_changes_before_it_is_made_inconsistent() -> None:
    found = bench(after_sb_0pri="discard-local")
    meet(found)
    assert handlers(found) == ["initial-split-brain"]
    assert found.status["connection"] == "WFBitMapT"
    found.peer_bitmap()
    assert not found.take(e.WriteSuperblock)
    assert found.status["disk"] == "UpToDate"
    saving = found.one(e.SaveTarget)
    assert saving.required
    assert saving.reason == "split-brain"
    assert saving.ranges == ((BLOCK, 2 * BLOCK), (23 * BLOCK, BLOCK))
    assert saving.generations == (CURRENT, PARTED, 0, 0)
    found.done(saving)
    assert found.status["disk"] == "Inconsistent"
    assert found.one(e.WriteSuperblock)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_what_cannot_be_kept_is_not_given_up(number: int) -> None:
    found = bench(after_sb_0pri="discard-local")
    meet(found)
    found.peer_bitmap()
    found.done(found.one(e.SaveTarget), number)
    assert found.status["connection"] == "StandAlone"
    assert found.status["disk"] == "UpToDate"
    assert "not given up" in found.status["problem"]
    assert ("no room" in found.status["problem"]) is (number == errno.ENOSPC)
    assert not found.one(e.WantConnection).wanted
    assert not found.take(e.WriteBitmap)


def test_the_wish_to_discard_keeps_the_changes_too() -> None:
    found = bench()
    found.give(e.Discard(found.now, found.token()))
    meet(found)
    found.peer_bitmap()
    assert found.one(e.SaveTarget).ranges


def test_a_link_lost_while_saving_leaves_the_copy_as_it_is() -> None:
    found = bench(after_sb_0pri="discard-local")
    meet(found)
    found.peer_bitmap()
    saving = found.one(e.SaveTarget)
    found.give(e.Disconnected(found.now))
    found.done(saving)
    assert found.status["disk"] == "UpToDate"
    assert not found.take(e.WriteSuperblock)
    meet(found)
    found.peer_bitmap()
    assert found.one(e.SaveTarget).ranges == saving.ranges, "the next link begins anew"


def test_a_plain_target_saves_no_changes() -> None:
    found = Bench().attach()
    found.meet(uuids=(OTHER, CURRENT, 0, 0))
    found.peer_bitmap()
    assert not found.take(e.SaveTarget)
    assert found.status["disk"] == "Inconsistent"


def test_the_winner_is_the_source_at_once() -> None:
    found = bench(after_sb_0pri="discard-remote")
    meet(found)
    assert found.status["connection"] == "WFBitMapS"
    assert not found.take(e.SaveTarget)


def test_the_policies_are_told_to_the_peer_and_have_to_fit() -> None:
    found = bench(after_sb_0pri="discard-local", after_sb_1pri="consensus", after_sb_2pri="violently-as0p")
    found.sent()
    found.meet(uuids=(OTHER, PARTED, 0, 0))
    told = next(packet for packet in found.sent() if isinstance(packet, p.Protocol))
    assert (told.after_sb_0p, told.after_sb_1p, told.after_sb_2p) == (5, 7, 10)
    assert "after-sb-0pri is disconnect, this side's is discard-local" in found.status["problem"]
    assert found.status["connection"] == "WFConnection"


def test_the_bits_that_were_told_decide() -> None:
    found = bench(after_sb_0pri="discard-least-changes")
    meet(found, bits=BITS + 1)
    assert found.status["connection"] == "WFBitMapT"
    found = bench(after_sb_0pri="discard-least-changes")
    meet(found, bits=BITS - 1)
    assert found.status["connection"] == "WFBitMapS"


# ---------------------------------------------------------------- the losing Primary


def losing_primary() -> Bench:
    found = bench(after_sb_0pri="discard-local", after_sb_1pri="call-pri-lost-after-sb")
    found.promote()
    meet(found)
    assert found.one(e.DropConnection)
    assert found.status["split_brain"] is False
    return found


def test_a_losing_primary_becomes_secondary_and_meets_again() -> None:
    found = losing_primary()
    found.done(found.one(e.DeviceDown))
    found.meta_done()
    assert found.status["role"] == "Secondary"
    assert not found.take(e.CommandDone), "nobody outside has asked"
    assert "pri-lost-after-sb" not in handlers(found)
    assert found.status["connection"] == "WFConnection"
    found.give(e.Disconnected(found.now))
    meet(found)
    assert found.status["connection"] == "WFBitMapT"


def test_a_losing_primary_whose_device_is_in_use_calls_its_administrator() -> None:
    found = losing_primary()
    found.take(e.RunHandler)
    found.done(found.one(e.DeviceDown), errno.EBUSY)
    assert handlers(found) == ["pri-lost-after-sb"]
    assert found.status["role"] == "Primary"
    assert found.status["split_brain"]
    assert "stays Primary" in found.status["problem"]
    assert found.status["connection"] == "StandAlone"


def test_a_primary_with_an_older_copy_calls_for_help() -> None:
    found = Bench(options=DrbdOptions(rr_conflict="call-pri-lost")).pair()
    found.give(e.Disconnected(found.now))
    found.meet(uuids=(OTHER, CURRENT, 0, 0))
    assert handlers(found) == ["pri-lost"]


def test_two_primaries_part_again_whoever_has_won() -> None:
    found = bench(after_sb_0pri="discard-remote", after_sb_2pri="violently-as0p")
    found.promote()
    meet(found, role=Role.PRIMARY)
    assert found.status["connection"] == "StandAlone"
    assert "Both servers are Primary" in found.status["problem"]


def test_a_primary_that_was_left_out_by_a_vote_is_waited_for() -> None:
    """It heals before it has stopped: that is no split brain, for it has completed nothing alone."""
    found = Bench(alone="ask").pair()
    found.give(e.Disconnected(found.now))
    found.give(e.AllowAlone(found.now, found.token(), 3))
    found.done(found.one(e.PersistEpoch))
    found.done(found.one(e.WriteSuperblock))
    assert not found.status["suspended"]
    found.meet(uuids=(CURRENT, 0, 0, 0), role=Role.PRIMARY)
    assert not found.status["split_brain"]
    assert "has to stop first" in found.status["problem"]
    assert found.status["connection"] != "StandAlone"
    assert e.WantConnection(wanted=False) not in found.take(e.WantConnection)


def test_a_primary_without_good_data_anywhere_calls_its_administrator_once() -> None:
    found = Bench().pair()
    found.give(e.Disconnected(found.now))
    assert handlers(found) == []
    found.write(1)
    found.meta_done()
    found.done(found.take(e.DiskWrite)[-1], errno.EIO)
    assert handlers(found).count("pri-on-incon-degr") == 1
    found.give(e.Tick(found.now))
    assert "pri-on-incon-degr" not in handlers(found)


# ---------------------------------------------------------------- handlers around a resync


def test_before_resync_target_may_refuse() -> None:
    for status, connection in ((0, "WFBitMapT"), (1, "StandAlone"), (-1, "StandAlone")):
        found = Bench(options=DrbdOptions(handlers={"before-resync-target": "true"})).attach()
        found.meet(uuids=(OTHER, CURRENT, 0, 0))
        found.peer_bitmap()
        assert found.status["disk"] == "Consistent"
        asked = found.one(e.RunHandler)
        assert asked.name == "before-resync-target"
        found.give(e.HandlerDone(found.now, asked.token, status))
        assert found.status["connection"] == connection
        assert found.status["disk"] == ("Consistent" if status else "Inconsistent")


@pytest.mark.parametrize(("status", "goes_on"), [(0, True), (3, True), (1, False)])
def test_before_resync_source_may_refuse_but_for_the_answer_of_old_tools(status: int, goes_on: bool) -> None:
    found = Bench(options=DrbdOptions(handlers={"before-resync-source": "true"})).attach(bitmap_uuid=PARTED)
    found.meet(uuids=(PARTED, 0, 0, 0))
    found.peer_bitmap()
    assert not found.take(e.WriteSuperblock)
    found.give(e.HandlerDone(found.now, found.one(e.RunHandler).token, status))
    assert bool(found.take(e.WriteSuperblock)) is goes_on
    assert (found.status["connection"] == "StandAlone") is not goes_on


def test_a_dry_run_says_what_would_be_and_leaves_the_peer() -> None:
    found = Bench().attach()
    found.give(e.Disconnect(found.now, found.token()))
    found.take(e.WantConnection)
    found.give(e.Connect(found.now, found.token(), dry_run=True))
    assert found.one(e.WantConnection).wanted
    found.meet(uuids=(OTHER, CURRENT, 0, 0))
    told = next(packet for packet in found.sent() if isinstance(packet, p.Protocol))
    assert told.conn_flags == 2
    assert "target of a resync of the blocks marked" in found.status["problem"]
    assert found.status["connection"] == "StandAlone"


def test_a_peers_dry_run_changes_nothing_and_the_next_link_is_awaited() -> None:
    found = Bench().attach()
    found.meet(uuids=(OTHER, CURRENT, 0, 0), conn_flags=2)
    assert not found.take(e.DropConnection), "the peer has something to read yet, and closes by itself"
    assert not found.take(e.WantConnection)
    assert found.status["connection"] == "WFConnection"


# ---------------------------------------------------------------- ranges


def test_ranges_end_with_the_device_and_join_when_there_are_too_many() -> None:
    bits = EXTENTS * EXTENT // BLOCK
    bitmap = Bitmap(bits)
    for bit in (0, 5, 7, bits - 1):
        bitmap.set_range(bit, bit + 1)
    size = bits * BLOCK - 512
    assert changed_ranges(bitmap, size) == (
        (0, BLOCK),
        (5 * BLOCK, BLOCK),
        (7 * BLOCK, BLOCK),
        ((bits - 1) * BLOCK, BLOCK - 512),
    )
    joined = changed_ranges(bitmap, size, limit=2)
    assert len(joined) == 2
    assert joined[0] == (0, 8 * BLOCK)
    assert joined[1][0] + joined[1][1] == size
    assert changed_ranges(Bitmap(bits), size) == ()
