"""Generations: one test per rule (both sides come to mirrored verdicts), and how they move."""

from __future__ import annotations

import pytest

from relevo.config.drbd_options import DrbdOptions
from relevo.mirror.handshake import Copy, Decision, Direction, decide
from relevo.mirror.packets import Feature
from relevo.mirror.states import Disk
from relevo.mirror.uuids import JUST_CREATED, SYNC_OFFSET, Generations, Side, Verdict, compare

A, B, C, D, E, F = (n << 8 for n in range(0x11, 0x17))


def _side(*uuids: int, primary: bool = False, crashed: bool = False) -> Side:
    return Side(Generations(*(uuids + (0,) * (4 - len(uuids)))), primary, crashed)


RULES = {
    "10 both just created": (_side(JUST_CREATED), _side(JUST_CREATED), Verdict.EQUAL, 10, 10),
    "20 I am new": (_side(JUST_CREATED), _side(A), Verdict.TARGET_FULL, 20, 30),
    "20 I have nothing": (_side(0), _side(A), Verdict.TARGET_FULL, 20, 30),
    "34 missed end of resync, seen by its history": (_side(A, B, C), _side(A, 0, B, C), Verdict.SOURCE, 34, 35),
    "36 missed end of resync": (_side(A, B), _side(A), Verdict.SOURCE, 36, 37),
    "40 a hiccup": (_side(A), _side(A), Verdict.EQUAL, 40, 40),
    "40 the lowest bit says only who is Primary": (_side(A | 1, primary=True), _side(A), Verdict.EQUAL, 40, 40),
    "41 I crashed as Primary": (_side(A, crashed=True), _side(A), Verdict.SOURCE, 41, 41),
    "41 one is Primary now": (_side(A, primary=True), _side(A, crashed=True), Verdict.SOURCE, 41, 41),
    "50 the peer went on without me": (_side(A), _side(B, A), Verdict.TARGET, 50, 70),
    "51 the peer's SYNC_UUID got lost": (_side(A), _side(B, A + SYNC_OFFSET, A), Verdict.TARGET, 51, 71),
    "60 I am in the peer's past": (_side(A), _side(B, C, A), Verdict.TARGET_FULL, 60, 80),
    "60 I am in the peer's deeper past": (_side(A), _side(B, C, D, A), Verdict.TARGET_FULL, 60, 80),
    "90 both went on": (_side(A, C), _side(B, C), Verdict.SPLIT_BRAIN, 90, 90),
    "91 a resolution was cut off": (_side(A, C), _side(B, C + SYNC_OFFSET, C), Verdict.SPLIT_BRAIN, 91, 91),
}


@pytest.mark.parametrize("name", RULES)
def test_each_rule_gives_mirrored_verdicts(name: str) -> None:
    me, peer, verdict, rule, mirrored_rule = RULES[name]
    found = compare(me, peer, features=Feature.WSAME, resolve_conflicts=False)
    mirrored = compare(peer, me, features=Feature.WSAME, resolve_conflicts=True)
    assert (found.verdict, found.rule) == (verdict, rule)
    assert (mirrored.verdict, mirrored.rule) == (verdict if verdict == 100 else -verdict, mirrored_rule)


def test_rule_41_both_crashed_the_tie_breaker_becomes_target() -> None:
    side = _side(A, crashed=True)
    assert compare(side, side, features=0, resolve_conflicts=True).verdict is Verdict.TARGET
    assert compare(side, side, features=0, resolve_conflicts=False).verdict is Verdict.SOURCE


def test_rule_41_two_primaries_are_a_split_brain() -> None:
    side = _side(A, primary=True, crashed=True)
    found = compare(side, side, features=Feature.WSAME, resolve_conflicts=True)
    assert found.verdict is Verdict.SPLIT_BRAIN_AMBIGUOUS


def test_rule_71_takes_back_the_start_of_the_resync() -> None:
    found = compare(_side(B, A + SYNC_OFFSET, A, C), _side(A), features=0, resolve_conflicts=False)
    assert found.corrected is not None
    assert (found.corrected.current, found.corrected.bitmap, found.corrected.history0) == (B, A, C)


def test_rules_80_and_91_take_back_the_start_of_a_resync_that_never_began() -> None:
    source = _side(B, D + SYNC_OFFSET, D, A)
    found = compare(source, _side(A), features=0, resolve_conflicts=False)
    assert (found.verdict, found.rule) == (Verdict.SOURCE_FULL, 80)
    assert found.corrected == Generations(B, D, A, 0), "or a third attempt would forget the target's generation"
    found = compare(source, _side(C, D), features=0, resolve_conflicts=False)
    assert (found.rule, found.corrected) == (91, Generations(B, D, A, 0))


def test_rule_100_a_common_past_is_a_split_brain_and_none_is_unrelated() -> None:
    found = compare(_side(A, B, E), _side(C, D, 0, E), features=0, resolve_conflicts=False)
    assert found.verdict is Verdict.SPLIT_BRAIN_AMBIGUOUS
    found = compare(_side(A, B, E), _side(C, D, F), features=0, resolve_conflicts=False)
    assert found.verdict is Verdict.UNRELATED
    found = compare(_side(A, B), _side(C, D), features=0, resolve_conflicts=False)
    assert found.verdict is Verdict.UNRELATED, "empty histories have nothing in common"


def test_a_resync_ends_with_equal_generations_on_both_sides() -> None:
    source, target = Generations(A | 1, B, C, 0), Generations(B, 0, C, 0)
    told = source.copy()
    sync_uuid = source.start_as_source()
    assert sync_uuid == B + SYNC_OFFSET
    target.start_as_target(sync_uuid)
    interrupted = compare(Side(target), Side(source), features=0, resolve_conflicts=False)
    assert (interrupted.verdict, interrupted.rule) == (Verdict.TARGET, 50), "it goes on with the bitmap"
    target.end_as_target(told)
    missed = compare(Side(source), Side(target), features=0, resolve_conflicts=False)
    assert (missed.verdict, missed.rule) == (Verdict.SOURCE, 34)
    source.end_as_source()
    assert (source.bitmap, source.history0, source.history1) == (target.bitmap, target.history0, target.history1)
    assert (target.current, target.bitmap, target.history0) == (A, 0, sync_uuid)


@pytest.mark.parametrize("bitmap", [0, JUST_CREATED])
def test_a_resync_without_a_bitmap_generation_takes_one_after_the_current(bitmap: int) -> None:
    source = Generations(A | 1, bitmap, C, 0)
    assert source.start_as_source() == A + SYNC_OFFSET
    assert source.peer_may_have_current


def test_whether_the_peer_may_have_reached_the_current_generation() -> None:
    assert Generations(A, 0, C, 0).peer_may_have_current
    alone = Generations(A, 0, C, 0)
    alone.new_current(0x7000, primary=True)
    assert not alone.peer_may_have_current
    alone.start_as_source()
    assert alone.peer_may_have_current, "the end of a resync may have been missed"
    alone.new_current(0x8000, primary=True)
    assert alone.bitmap == 0x7001, "a peer that has finished and went on itself is seen as a split brain"
    assert not alone.peer_may_have_current


def test_going_on_alone_makes_the_old_generation_the_bitmaps() -> None:
    uuids = Generations(A | 1, 0, C, 0)
    uuids.new_current(0x7001, primary=True)
    assert (uuids.current, uuids.bitmap, uuids.history0) == (0x7001, A | 1, C), "it was Primary then"
    uuids = Generations(A, B, C, 0)
    uuids.new_current(0x7001, primary=False)
    assert (uuids.current, uuids.bitmap, uuids.history0, uuids.history1) == (0x7000, A, B, C)


@pytest.mark.parametrize("random", [0, 1, JUST_CREATED, JUST_CREATED | 1])
def test_a_generation_is_never_zero_or_just_created(random: int) -> None:
    uuids = Generations(A, 0, 0, 0)
    uuids.new_current(random, primary=False)
    assert uuids.current not in {0, JUST_CREATED}


# ---------------------------------------------------------------- what both sides do then


def _decide(me: Copy, peer: Copy) -> Decision:
    return decide(me, peer, features=Feature.WSAME, resolve_conflicts=False, options=DrbdOptions())


def _copy(side: Side, disk: Disk = Disk.UP_TO_DATE, *, discard: bool = False) -> Copy:
    return Copy(side, disk, discard)


def test_an_inconsistent_copy_is_always_the_target() -> None:
    found = _decide(_copy(_side(B, A)), _copy(_side(A), Disk.INCONSISTENT))
    assert found.direction is Direction.SOURCE
    found = _decide(_copy(_side(B, A), Disk.INCONSISTENT), _copy(_side(A)))
    assert found.direction is Direction.TARGET


def test_an_inconsistent_copy_with_a_forgotten_generation_is_overwritten_as_a_whole() -> None:
    found = _decide(_copy(_side(A, B)), _copy(_side(C), Disk.INCONSISTENT))
    assert (found.direction, found.full) == (Direction.SOURCE, True)


def test_a_split_brain_is_refused_until_one_side_discards() -> None:
    a, b = _side(A, C), _side(B, C)
    refused = _decide(_copy(a), _copy(b))
    assert refused.direction is Direction.REFUSE
    assert refused.split_brain
    assert _decide(_copy(a, discard=True), _copy(b)).direction is Direction.TARGET
    assert _decide(_copy(a), _copy(b, discard=True)).direction is Direction.SOURCE
    assert _decide(_copy(a, discard=True), _copy(b, discard=True)).split_brain
    ambiguous = _decide(_copy(_side(A, B, E), discard=True), _copy(_side(C, D, E)))
    assert (ambiguous.direction, ambiguous.full) == (Direction.TARGET, True)


def test_a_primary_is_never_overwritten() -> None:
    found = _decide(_copy(_side(A, primary=True)), _copy(_side(B, A)))
    assert (found.direction, found.retry, found.split_brain) == (Direction.REFUSE, True, False)


def test_unrelated_copies_are_refused_even_when_one_discards() -> None:
    found = _decide(_copy(_side(A, B), discard=True), _copy(_side(C, D)))
    assert found.direction is Direction.REFUSE
    assert not found.split_brain


def test_without_a_disk_there_is_nothing_to_compare() -> None:
    assert _decide(_copy(_side(A), Disk.DISKLESS), _copy(_side(B))).direction is Direction.NONE
