"""The after-sb policies: one test per policy and combination, and both sides always come to mirrored verdicts."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import pytest

from relevo.config.drbd_options import AfterSb0, AfterSb1, AfterSb2, DrbdOptions
from relevo.mirror.agreement import DISCARD_FLAG, disagreement, told
from relevo.mirror.greeting import OUR_FEATURES
from relevo.mirror.handshake import Copy, Decision, Direction, decide
from relevo.mirror.packets import Feature
from relevo.mirror.states import Disk
from relevo.mirror.uuids import Generations, Side

A, B, C, D, E = (n << 8 for n in range(0x11, 0x16))
SOURCE, TARGET, REFUSE, ROLE = Direction.SOURCE, Direction.TARGET, Direction.REFUSE, Direction.GIVE_UP_ROLE
MIRRORED = {SOURCE: TARGET, TARGET: SOURCE, REFUSE: REFUSE}
LOCAL = {"discard-local": "discard-remote", "discard-remote": "discard-local"}


def copy(
    current: int, *, primary: bool = False, was_primary: bool = False, bits: int = 5, discard: bool = False
) -> Copy:
    """A side that parted from the other one in generation C."""
    return Copy(Side(Generations(current, C | was_primary, 0, 0), primary), Disk.UP_TO_DATE, discard, bits)


def both(
    me: Copy, peer: Copy, *, tie: bool = False, features: int = Feature.WSAME, **options: Any
) -> tuple[Decision, Decision]:
    """What each side decides; `tie`: it is me who breaks ties."""
    mine = DrbdOptions(**options)
    zero = LOCAL.get(mine.after_sb_0pri, mine.after_sb_0pri)
    theirs = DrbdOptions(**{**options, "after_sb_0pri": zero})
    return (
        decide(me, peer, features=features, resolve_conflicts=tie, options=mine),
        decide(peer, me, features=features, resolve_conflicts=not tie, options=theirs),
    )


def directions(
    me: Copy, peer: Copy, *, tie: bool = False, features: int = Feature.WSAME, **options: Any
) -> tuple[Direction, Direction]:
    mine, theirs = both(me, peer, tie=tie, features=features, **options)
    return mine.direction, theirs.direction


NOBODY: list[tuple[AfterSb0, dict[str, Any], dict[str, Any], Direction]] = [
    ("disconnect", {"bits": 0}, {"bits": 7}, REFUSE),
    ("discard-younger-primary", {"was_primary": True}, {}, SOURCE),
    ("discard-younger-primary", {}, {"was_primary": True}, TARGET),
    ("discard-younger-primary", {"bits": 3}, {"bits": 4}, TARGET),
    ("discard-younger-primary", {"bits": 0, "was_primary": True}, {"bits": 4, "was_primary": True}, TARGET),
    ("discard-older-primary", {"was_primary": True}, {}, TARGET),
    ("discard-older-primary", {}, {"was_primary": True}, SOURCE),
    ("discard-older-primary", {"bits": 4}, {"bits": 3}, SOURCE),
    ("discard-zero-changes", {"bits": 0}, {"bits": 7}, TARGET),
    ("discard-zero-changes", {"bits": 7}, {"bits": 0}, SOURCE),
    ("discard-zero-changes", {"bits": 7}, {"bits": 8}, REFUSE),
    ("discard-zero-changes", {"bits": 7}, {"bits": 7}, REFUSE),
    ("discard-least-changes", {"bits": 7}, {"bits": 8}, TARGET),
    ("discard-least-changes", {"bits": 8}, {"bits": 7}, SOURCE),
    ("discard-least-changes", {"bits": 0}, {"bits": 7}, TARGET),
    ("discard-local", {"bits": 8}, {"bits": 0}, TARGET),
    ("discard-remote", {"bits": 0}, {"bits": 8}, SOURCE),
]


@pytest.mark.parametrize(("policy", "mine", "theirs", "expected"), NOBODY)
def test_with_no_primary(policy: AfterSb0, mine: dict[str, Any], theirs: dict[str, Any], expected: Direction) -> None:
    found = directions(copy(A, **mine), copy(B, **theirs), after_sb_0pri=policy)
    assert found == (expected, MIRRORED[expected])


@pytest.mark.parametrize("policy", ["discard-zero-changes", "discard-least-changes", "discard-younger-primary"])
@pytest.mark.parametrize("tie", [True, False])
def test_a_tie_is_lost_by_whoever_breaks_ties(policy: AfterSb0, tie: bool) -> None:
    bits = 0 if policy == "discard-zero-changes" else 9
    found = directions(copy(A, bits=bits), copy(B, bits=bits), tie=tie, after_sb_0pri=policy)
    assert found == ((TARGET, SOURCE) if tie else (SOURCE, TARGET))


ONE: list[tuple[AfterSb1, AfterSb0, Direction]] = [
    # I am Primary; discard-remote says that I win, discard-local that I lose
    ("disconnect", "discard-remote", REFUSE),
    ("disconnect", "discard-local", REFUSE),
    ("consensus", "discard-remote", SOURCE),
    ("consensus", "discard-local", REFUSE),
    ("consensus", "disconnect", REFUSE),
    ("violently-as0p", "discard-remote", SOURCE),
    ("violently-as0p", "disconnect", REFUSE),
    ("discard-secondary", "discard-remote", SOURCE),
    ("discard-secondary", "discard-local", SOURCE),
    ("discard-secondary", "disconnect", SOURCE),
    ("call-pri-lost-after-sb", "discard-remote", SOURCE),
    ("call-pri-lost-after-sb", "disconnect", REFUSE),
]


@pytest.mark.parametrize(("policy", "zero", "expected"), ONE)
def test_with_one_primary(policy: AfterSb1, zero: AfterSb0, expected: Direction) -> None:
    found = directions(copy(A, primary=True), copy(B), after_sb_0pri=zero, after_sb_1pri=policy)
    assert found == (expected, MIRRORED[expected])


def test_a_primary_that_would_lose_violently_is_not_overwritten() -> None:
    mine, theirs = both(copy(A, primary=True), copy(B), after_sb_0pri="discard-local", after_sb_1pri="violently-as0p")
    assert (mine.direction, mine.split_brain, mine.retry, mine.handler) == (REFUSE, True, False, "")
    assert mine.sentence.startswith("An after-sb policy would give up what was changed here")
    assert theirs.direction is SOURCE, "the kernel's other side waits as the source, too"


def test_a_primary_that_loses_gives_up_its_role_first() -> None:
    options: dict[str, Any] = {"after_sb_0pri": "discard-local", "after_sb_1pri": "call-pri-lost-after-sb"}
    assert directions(copy(A, primary=True), copy(B), **options) == (ROLE, SOURCE)
    assert directions(copy(A), copy(B), **options) == (TARGET, SOURCE), "and then it is the target"


TWO: list[tuple[AfterSb2, AfterSb0, tuple[Direction, Direction]]] = [
    ("disconnect", "discard-remote", (REFUSE, REFUSE)),
    ("violently-as0p", "discard-remote", (SOURCE, REFUSE)),
    ("violently-as0p", "disconnect", (REFUSE, REFUSE)),
    ("call-pri-lost-after-sb", "discard-remote", (SOURCE, ROLE)),
    ("call-pri-lost-after-sb", "discard-local", (ROLE, SOURCE)),
    ("call-pri-lost-after-sb", "disconnect", (REFUSE, REFUSE)),
]


@pytest.mark.parametrize(("policy", "zero", "expected"), TWO)
def test_with_two_primaries(policy: AfterSb2, zero: AfterSb0, expected: tuple[Direction, Direction]) -> None:
    found = directions(copy(A, primary=True), copy(B, primary=True), after_sb_0pri=zero, after_sb_2pri=policy)
    assert found == expected


@pytest.mark.parametrize(
    ("zero", "one", "two"), list(itertools.product(get_args(AfterSb0), get_args(AfterSb1), get_args(AfterSb2)))
)
def test_both_sides_never_give_and_never_take(zero: AfterSb0, one: AfterSb1, two: AfterSb2) -> None:
    """All combinations, all roles, all counts: whatever one does, the other one's part fits."""
    options: dict[str, Any] = {"after_sb_0pri": zero, "after_sb_1pri": one, "after_sb_2pri": two}
    sides = [
        {"primary": primary, "was_primary": was, "bits": bits}
        for primary, was, bits in itertools.product((False, True), (False, True), (0, 4, 9))
    ]
    for mine, theirs, tie in itertools.product(sides, sides, (False, True)):
        found = directions(copy(A, **mine), copy(B, **theirs), tie=tie, **options)
        lost = {TARGET, ROLE} | ({REFUSE} if mine["primary"] or theirs["primary"] else set())
        assert found == (REFUSE, REFUSE) or (SOURCE in found and lost & set(found)), (mine, theirs, tie)
        assert found != (SOURCE, SOURCE)


def test_older_common_generations_need_always_asbp() -> None:
    me = Copy(Side(Generations(A, B, E, 0)), Disk.UP_TO_DATE, discard=False, changed_bits=3)
    peer = Copy(Side(Generations(C, D, E, 0)), Disk.UP_TO_DATE, discard=False, changed_bits=9)
    assert directions(me, peer, after_sb_0pri="discard-least-changes") == (REFUSE, REFUSE)
    mine, theirs = both(me, peer, after_sb_0pri="discard-least-changes", always_asbp=True)
    assert (mine.direction, theirs.direction) == (TARGET, SOURCE)
    assert mine.full
    assert theirs.full


@pytest.mark.parametrize(
    ("zero", "one", "two"), list(itertools.product(get_args(AfterSb0), get_args(AfterSb1), get_args(AfterSb2)))
)
def test_between_two_of_ours_an_order_goes_before_every_policy(zero: AfterSb0, one: AfterSb1, two: AfterSb2) -> None:
    """A person was told whose changes go. Policies that no Primary could obey would leave no way out at all."""
    options: dict[str, Any] = {"after_sb_0pri": zero, "after_sb_1pri": one, "after_sb_2pri": two}
    no_or_yes = (False, True)
    for primary, was, mine, theirs, tie in itertools.product(no_or_yes, no_or_yes, (0, 9), (0, 9), no_or_yes):
        gives = copy(A, discard=True, was_primary=was, bits=mine)
        keeps = copy(B, primary=primary, was_primary=not was, bits=theirs)
        found = directions(gives, keeps, tie=tie, features=OUR_FEATURES, **options)
        assert found == (TARGET, SOURCE), (primary, was, mine, theirs, tie)


def test_beside_a_kernel_a_policy_goes_before_the_wish_to_discard() -> None:
    """The kernel decides so: both sides have to come to the same verdict."""
    found = directions(copy(A, discard=True, bits=0), copy(B, bits=9), after_sb_0pri="discard-zero-changes")
    assert found == (TARGET, SOURCE)
    found = directions(copy(A, discard=True, bits=9), copy(B, bits=0), after_sb_0pri="discard-zero-changes")
    assert found == (SOURCE, TARGET)
    found = directions(copy(A, discard=True, bits=9), copy(B, bits=9), after_sb_0pri="discard-zero-changes")
    assert found == (TARGET, SOURCE), "undecided: then the wish counts"


def test_what_is_called_for() -> None:
    mine, theirs = both(copy(A), copy(B))
    assert (mine.handler, theirs.handler, mine.parted) == ("split-brain", "split-brain", True)
    resolved, _ = both(copy(A), copy(B), after_sb_0pri="discard-local")
    assert (resolved.parted, resolved.gives_up, resolved.handler) == (True, True, "")
    newer = Copy(Side(Generations(B, A, 0, 0)), Disk.UP_TO_DATE, discard=False)
    primary = Copy(Side(Generations(A, 0, 0, 0), primary=True), Disk.UP_TO_DATE, discard=False)
    lost, _ = both(primary, newer, rr_conflict="call-pri-lost")
    assert (lost.direction, lost.retry, lost.handler) == (REFUSE, True, "pri-lost")
    assert "violently" in both(primary, newer, rr_conflict="violently")[0].sentence
    assert not both(primary, newer)[0].parted


def test_a_dry_run_only_says() -> None:
    for me, peer, words in (
        (copy(A), copy(B), "Both servers went on alone"),
        (copy(A), Copy(Side(Generations(A, 0, 0, 0)), Disk.UP_TO_DATE, discard=False), "source of a resync"),
        (Copy(Side(Generations(A, 0, 0, 0)), Disk.UP_TO_DATE, discard=False), copy(A), "target of a resync"),
    ):
        found = decide(me, peer, features=0, resolve_conflicts=False, options=DrbdOptions(), dry_run=True)
        assert found.direction is REFUSE
        assert words in found.sentence


# ---------------------------------------------------------------- agreement


@pytest.mark.parametrize(
    ("mine", "theirs", "words"),
    [
        ({}, {}, ""),
        ({"after_sb_0pri": "discard-local"}, {"after_sb_0pri": "discard-remote"}, ""),
        (
            {"after_sb_0pri": "discard-local"},
            {"after_sb_0pri": "discard-local"},
            "after-sb-0pri is discard-local, this side's is discard-local: the peer's would have to be discard-remote",
        ),
        ({"after_sb_0pri": "discard-least-changes"}, {}, "after-sb-0pri is disconnect, this side's is discard-least"),
        ({}, {"after_sb_1pri": "consensus"}, "after-sb-1pri is consensus, this side's is disconnect"),
        ({"after_sb_2pri": "violently-as0p"}, {}, "after-sb-2pri is disconnect, this side's is violently-as0p"),
        ({"protocol": "A"}, {}, "protocol C, this side with protocol A"),
        ({"data_integrity_alg": "sha1"}, {}, "data-integrity-alg is none, this side's is sha1"),
        ({"rr_conflict": "call-pri-lost", "always_asbp": True}, {}, ""),
    ],
)
def test_settings_that_must_agree(mine: dict[str, Any], theirs: dict[str, Any], words: str) -> None:
    here = told(DrbdOptions(**mine), discard=False, dry_run=False)
    there = told(DrbdOptions(**theirs), discard=False, dry_run=False)
    found = disagreement(here, there)
    assert words in found
    assert bool(words) is bool(found)
    assert bool(disagreement(there, here)) is bool(found)


def test_both_sides_discarding_is_refused() -> None:
    one = told(DrbdOptions(), discard=True, dry_run=False)
    other = told(DrbdOptions(), discard=False, dry_run=False)
    assert one.conn_flags == DISCARD_FLAG
    assert "only one may" in disagreement(one, one)
    assert disagreement(one, other) == disagreement(other, one) == ""
