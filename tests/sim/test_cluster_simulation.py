"""Both managers, arbiters and memberships under lost messages, crashes, restarts, cuts and frozen processes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest
import structlog

from relevo.arbiter import rules, votes
from relevo.arbiter.ballot import Ballot
from relevo.arbiter.events import MirrorView, Verdict
from relevo.arbiter.register import Register
from relevo.heartbeat.membership import Membership
from relevo.manager import planner, reach, standing, steps
from relevo.manager.model import Reach, Record
from relevo.node.reach import Watch
from sim import cluster_loop
from sim.cluster_troubles import (
    Trouble,
    alone_by_goodbye,
    catch,
    crashes,
    cross_cable,
    cuts,
    everything,
    hand_overs,
    just_rejoined,
    leaves,
    orders,
    restarts,
    run_seed,
    targets,
)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """What hundreds of runs log says nothing to anybody."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


BATCH = 20


@pytest.mark.parametrize("batch", range(4))
def test_crashes_and_restarts_lose_nothing(batch: int) -> None:
    assert not catch(range(batch * BATCH, (batch + 1) * BATCH), crashes, strict=True)


@pytest.mark.parametrize("batch", range(4))
def test_cuts_and_standstills_end_with_one_active_node(batch: int) -> None:
    assert not catch(range(batch * BATCH, (batch + 1) * BATCH), cuts, strict=False)


@pytest.mark.parametrize("batch", range(2))
def test_resources_that_fail_by_chance_stop_nothing_for_good(batch: int) -> None:
    assert not catch(range(batch * BATCH, (batch + 1) * BATCH), crashes, strict=True, flakiness=0.02)


@pytest.mark.parametrize(
    ("trouble", "batch"),
    [*((everything, batch) for batch in range(4)), (hand_overs, 0), (just_rejoined, 0)],
)
def test_with_a_witness_nothing_is_lost_and_nothing_parts_whatever_happens(trouble: Trouble, batch: int) -> None:
    assert not catch(range(batch * BATCH, (batch + 1) * BATCH), trouble, strict=False, witness=True)


@pytest.mark.parametrize(
    ("trouble", "options", "batch"),
    [
        *((crashes, {"strict": True}, batch) for batch in range(2)),
        *((restarts, {"strict": True}, batch) for batch in range(2)),
        *((orders, {"strict": True}, batch) for batch in range(2)),
        *((cuts, {"strict": False}, batch) for batch in range(2)),
        *((everything, {"strict": False, "witness": True}, batch) for batch in range(2)),
        (cross_cable, {"strict": False, "fencing": True}, 0),
    ],
)
def test_a_second_service_without_a_mirror_that_needs_the_first_runs_once_and_at_home(
    trouble: Trouble, options: dict[str, bool], batch: int
) -> None:
    assert not catch(range(batch * BATCH, (batch + 1) * BATCH), trouble, two=True, **options)


def test_a_goodbye_while_something_runs_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Membership, "may_say_goodbye", True)
    assert catch(range(100), restarts, strict=True, two=True)


@pytest.mark.parametrize("careful", ["ask", "fencing"])
def test_whoever_asks_first_loses_nothing_when_the_cross_cable_breaks(careful: str) -> None:
    assert not catch(range(BATCH), cross_cable, strict=False, **{careful: True})


@pytest.mark.parametrize(
    "options",
    [
        {"strict": True},
        {"strict": False, "witness": True},
        {"strict": False, "fencing": True},
        {"strict": False, "ask": True, "two": True},
    ],
)
def test_whoever_is_switched_off_in_order_leaves_nothing_behind(options: dict[str, bool]) -> None:
    assert not catch(range(BATCH), leaves, **options)


@pytest.mark.parametrize("careful", ["ask", "fencing", "witness"])
def test_whoever_is_left_in_order_goes_on_although_nobody_can_be_asked(careful: str) -> None:
    assert not catch(range(BATCH), alone_by_goodbye, strict=False, **{careful: True})


@pytest.mark.parametrize("batch", range(2))
def test_people_may_order_what_they_like(batch: int) -> None:
    assert not catch(range(batch * BATCH, (batch + 1) * BATCH), orders, strict=True)


def test_a_ping_target_moves_the_service_for_good_reason_only_and_never_back_and_forth() -> None:
    assert not catch(range(BATCH), targets, strict=True, ping=True)
    assert sum(len(cluster_loop.run(run_seed(seed, targets, strict=True, ping=True)).moves) for seed in range(3)) > 2


def _the_other_node_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "gain", lambda here, _there: reach.listed(reach.lost(here)))


def _there_is_no_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Watch._word
    monkeypatch.setattr(
        Watch, "_word", lambda self, name: Reach.LOST if original(self, name) is Reach.LOST else Reach.REACHED
    )


@pytest.mark.parametrize("mutation", [_the_other_node_is_not_asked, _there_is_no_doubt])
def test_a_rule_about_ping_targets_left_out_is_caught(
    mutation: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutation(monkeypatch)
    assert catch(range(100), targets, strict=True, ping=True)


def _maintenance_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Record, "maintains", lambda _self, _service: False)


def _bans_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing.Standing, "ban", "")


@pytest.mark.parametrize("mutation", [_maintenance_is_forgotten, _bans_are_forgotten])
def test_an_order_that_is_forgotten_is_caught(
    mutation: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutation(monkeypatch)
    assert catch(range(100), orders, strict=True)


def _nobody_went_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "goes_alone", lambda _mirror: False)


def _fresh_secondaries_take_over(monkeypatch: pytest.MonkeyPatch) -> None:
    original = rules._peer_silent

    def careless(case: rules.Case, mine: MirrorView) -> rules.Answer:
        answer = original(case, mine)
        return rules.Answer(Verdict.YES, "take_over", "") if answer.rule == "fresh_secondary" else answer

    monkeypatch.setattr(rules, "_peer_silent", careless)


def _any_copy_is_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "derives_from", lambda _newer, _older: True)


def _nobody_waits_for_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "_running", lambda _case, _facts: [])

    def impatient(snapshot, service, standings, decision):
        told = standings[snapshot.me].told
        if told is None or not standings[snapshot.me].known:
            return steps.Work()
        return steps.steps_of(snapshot, service, told, here=decision.target == snapshot.me)

    monkeypatch.setattr(planner, "_work", impatient)


@pytest.mark.parametrize(
    ("mutation", "trouble"),
    [
        (_nobody_went_alone, cuts),
        (_fresh_secondaries_take_over, cuts),
        (_any_copy_is_the_newest, cuts),
        (_nobody_waits_for_stopped, crashes),
    ],
)
def test_a_rule_left_out_is_caught(
    mutation: Callable[[pytest.MonkeyPatch], None], trouble: Trouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutation(monkeypatch)
    assert catch(range(200), trouble, strict=trouble is crashes)


def _claims_count_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(votes, "has_claimed", lambda case: case.vote is not None and case.vote.included)


def _what_the_witness_said_once_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ballot, "doubt", lambda _self, _mirror: None)
    monkeypatch.setattr(Ballot, "_is_changing", lambda _self, _mirror: False)


def _a_hand_over_needs_no_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "BY_LINK", frozenset())


def _nobody_waits_for_a_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Register, "left_ms", lambda _self, _service, _now_ms: 0)


def _a_suspended_primary_serves_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "GIVES_UP", frozenset())


@pytest.mark.parametrize(
    ("mutation", "trouble", "first"),
    [
        (_claims_count_before_they_are_made, everything, 7),
        (_what_the_witness_said_once_counts, just_rejoined, 686),
        (_a_hand_over_needs_no_link, hand_overs, 5),
        (_nobody_waits_for_a_lease, everything, 14),
        (_a_suspended_primary_serves_on, everything, 14),
    ],
)
def test_a_rule_about_the_witness_left_out_is_caught(
    mutation: Callable[[pytest.MonkeyPatch], None], trouble: Trouble, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutation(monkeypatch)
    assert catch(range(first, first + 400), trouble, strict=False, witness=True)
