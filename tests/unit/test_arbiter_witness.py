"""The arbiter with a witness: what it asks and what answers permit. The sums are in the cluster simulation."""

from __future__ import annotations

from typing import Any

import pytest

from relevo.arbiter.ballot import PAUSE_MS, REFRESH_MS
from relevo.arbiter.desk import Desk, Request
from relevo.arbiter.events import AllowAlone, AskWitness, DenyAlone, Outdate, WitnessAnswered, WitnessSilent
from relevo.arbiter.register import Book, Entry, Hold, Read, Release, Swap
from relevo.config.model import Witness
from relevo.manager.model import MirrorFacts, NodeView, Permission
from unit.cluster_samples import configuration
from unit.test_arbiter_rules import CUT, GENERATION, LATER, LINKED, Bench, mirror, peer

WITNESS = Witness(address="witness", key="x")
BOTH = ("nodo1", "nodo2")
SERVING: dict[str, Any] = {"role": "Primary", "state": "started"}


class WitnessBench(Bench):
    """An arbiter of nodo2 with a real desk, which can be silent."""

    def __init__(self, *in_sync: str, generation: str = GENERATION) -> None:
        super().__init__(configuration("ask", WITNESS))
        book = Book()
        if in_sync:
            book.mirrors["r0"] = Entry(version=3, generation=generation, in_sync=in_sync, epoch=1)
        self.desk = Desk(book, "s", 0)
        self.silent = False
        self.asked: list[object] = []
        self._number = 0

    @property
    def entry(self) -> Entry:
        return self.desk.register.book.mirrors["r0"]

    def see(self, mine: MirrorFacts | None, other: NodeView, *, after_ms: int = 0, **more: Any) -> Permission:
        """The word when every question that came of it has been answered, or was not."""
        word = super().see(mine, other, after_ms=after_ms, **more)
        for _ in range(8):
            questions = [effect.question for effect in self.effects if isinstance(effect, AskWitness)]
            if not questions:
                break
            (question,) = questions
            self.asked += question.operations
            if self.silent:
                event: Any = WitnessSilent(number=question.number, now_ms=self.now_ms)
            else:
                self._number += 1
                request = Request(
                    cluster="sample",
                    node="nodo2",
                    session="s",
                    number=self._number,
                    nonce=str(self._number),
                    operations=question.operations,
                )
                reply = self.desk.serve(request, self.now_ms)
                event = WitnessAnswered(number=question.number, answers=reply.answers)
            self.effects = list(self.arbiter.step(event))
            word = self.arbiter.permissions["r0"]
        return word


def rules_of(word: Permission) -> tuple[str, str]:
    return word.verdict.value, word.rule


def test_who_has_everything_takes_over_after_the_witness_wrote_it_down() -> None:
    bench = WitnessBench(*BOTH)
    word = bench.see(mirror(CUT, peer_lost_since_connect=True), peer("dead"))
    assert rules_of(word) == ("yes", "witness")
    assert word.epoch > 0
    assert not word.linked
    assert bench.entry.in_sync == ("nodo2",)


def test_no_epoch_before_the_witness_has_answered() -> None:
    bench = WitnessBench(*BOTH)
    bench.silent = True
    word = bench.see(mirror(CUT, peer_lost_since_connect=True), peer("dead"))
    assert rules_of(word) == ("no", "witness_silent")
    assert word.epoch == 0
    bench.silent = False
    assert bench.see(mirror(CUT, peer_lost_since_connect=True), peer("dead"), after_ms=PAUSE_MS).epoch > 0


def test_nobody_is_asked_for_more_than_is_wanted() -> None:
    bench = WitnessBench(*BOTH)
    bench.see(mirror(CUT), peer("dead"), wanted=False)
    assert not any(isinstance(operation, Swap) for operation in bench.asked)


@pytest.mark.parametrize(
    ("in_sync", "generation", "rule"),
    [
        (("nodo1",), GENERATION, "not_in_sync"),
        (BOTH, LATER, "other_data"),
        ((), GENERATION, "witness_new"),
    ],
)
def test_a_stale_copy_never_becomes_active_by_itself(in_sync: tuple[str, ...], generation: str, rule: str) -> None:
    """A server that was off for a week and boots alone does not serve last week's files."""
    bench = WitnessBench(*in_sync, generation=generation)
    word = bench.see(mirror(CUT, was_primary_at_start=True), peer("dead"))
    assert rules_of(word) == ("no", rule)
    assert "relevo force web" in word.remedy


def test_a_copy_that_is_behind_is_marked() -> None:
    bench = WitnessBench("nodo1")
    bench.see(mirror(CUT), peer("dead"))
    assert Outdate(mirror="r0") in bench.effects


def test_a_person_who_forces_has_it_written_down_first() -> None:
    bench = WitnessBench("nodo1")
    word = bench.see(mirror(CUT), peer("dead"), forced=True)
    assert rules_of(word) == ("yes", "forced")
    assert word.epoch > 0
    assert bench.entry.in_sync == ("nodo2",)


def test_a_person_who_forces_needs_no_witness() -> None:
    bench = WitnessBench("nodo1")
    bench.silent = True
    assert bench.see(mirror(CUT), peer("dead"), forced=True).epoch > 0


def test_a_primary_completes_writes_alone_when_the_witness_has_written_it_down() -> None:
    bench = WitnessBench(*BOTH)
    bench.see(mirror(LINKED, role="Primary"), peer(theirs=mirror(LINKED, peer_role="Primary")))
    bench.see(mirror(CUT, role="Primary", suspended=True), peer("dead"))
    assert bench.entry.in_sync == ("nodo2",)
    assert [effect for effect in bench.effects if isinstance(effect, AllowAlone)]


def test_a_primary_that_lost_the_race_gives_up_at_once() -> None:
    bench = WitnessBench(*BOTH)
    bench.see(mirror(LINKED, role="Primary"), peer(theirs=mirror(LINKED, peer_role="Primary")))
    bench.desk.register.book.mirrors["r0"] = Entry(version=4, generation=GENERATION, in_sync=("nodo1",), epoch=2)
    word = bench.see(mirror(CUT, role="Primary", suspended=True), peer("dead"))
    assert rules_of(word) == ("no", "outvoted")
    assert DenyAlone(mirror="r0") in bench.effects
    assert not word.may_continue_alone


def test_a_primary_that_hears_nobody_stops_when_its_lease_is_over() -> None:
    bench = WitnessBench(*BOTH)
    bench.see(mirror(LINKED, role="Primary"), peer(theirs=mirror(LINKED, peer_role="Primary")))
    bench.silent = True
    cut = mirror(CUT, role="Primary", suspended=True)
    assert rules_of(bench.see(cut, peer("dead"))) == ("yes", "is_primary")
    assert bench.arbiter.wakes_ms is not None
    left_ms = bench.arbiter.wakes_ms - bench.now_ms
    assert 0 < left_ms < WITNESS.lease_ms
    assert rules_of(bench.see(cut, peer("dead"), after_ms=left_ms)) == ("no", "lease_over")


def test_the_loss_of_the_witness_alone_changes_nothing() -> None:
    bench = WitnessBench(*BOTH)
    bench.silent = True
    linked = mirror(LINKED, role="Primary")
    other = peer(theirs=mirror(LINKED, peer_role="Primary"))
    for _ in range(10):
        assert rules_of(bench.see(linked, other, after_ms=WITNESS.lease_ms)) == ("yes", "is_primary")
    word = bench.see(mirror(LINKED), peer(theirs=mirror(LINKED)), after_ms=1)
    assert rules_of(word) == ("yes", "hand_over")
    assert word.linked


def test_a_copy_that_is_whole_again_is_written_down() -> None:
    bench = WitnessBench("nodo2", generation=LATER)
    bench.see(mirror(LINKED, role="Primary"), peer(theirs=mirror(LINKED, peer_role="Primary")))
    assert bench.entry.in_sync == BOTH
    assert bench.entry.generation == GENERATION


def test_a_hand_over_waits_until_the_books_are_right() -> None:
    bench = WitnessBench("nodo1")
    word = bench.see(mirror(LINKED), peer(theirs=mirror(LINKED)))
    assert rules_of(word) == ("wait", "witness_told")
    bench.desk.register.book.mirrors["r0"] = Entry(version=4, generation=GENERATION, in_sync=BOTH, epoch=2)
    word = bench.see(mirror(LINKED), peer(theirs=mirror(LINKED)), after_ms=REFRESH_MS)
    assert rules_of(word) == ("yes", "hand_over")


def test_a_leader_holds_its_lease_and_gives_it_back() -> None:
    bench = WitnessBench(*BOTH)
    other = peer(theirs=mirror(LINKED, peer_role="Primary"))
    bench.see(mirror(LINKED, role="Primary"), other)
    assert bench.asked == [Read(mirror="r0"), Hold(service="web", lease_ms=WITNESS.lease_ms)]
    bench.asked.clear()
    bench.see(mirror(LINKED, role="Primary"), other, after_ms=WITNESS.lease_ms // 3 - 1)
    assert bench.asked == []
    bench.see(mirror(LINKED, role="Primary"), other, after_ms=1)
    assert bench.asked == [Hold(service="web", lease_ms=WITNESS.lease_ms)]
    bench.asked.clear()
    bench.see(mirror(LINKED), peer(theirs=mirror(LINKED)), after_ms=1, wanted=False)
    assert bench.asked == [Release(service="web")]


def test_what_was_asked_before_the_link_broke_is_asked_again() -> None:
    bench = WitnessBench("nodo2")
    bench.see(mirror(LINKED, role="Primary"), peer(theirs=mirror(LINKED, peer_role="Primary")))
    assert bench.entry.in_sync == BOTH
    bench.silent = True
    bench.see(mirror(CUT, role="Primary", suspended=True), peer("dead"), after_ms=1)
    assert not [effect for effect in bench.effects if isinstance(effect, AllowAlone)]
