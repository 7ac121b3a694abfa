"""The pair of mirrors under faults, and proof that the simulator notices what would lose data.

One seed again, with all that happened: python tests/sim/mirror_seed.py SEED --trace [--alone risk]; a short story with
one fault: with --strike KIND:NODE:STEP. Thousands of them: make torture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
from mirror_client import DataLost
from mirror_duties import DutyBroken
from mirror_faults import NotSettled
from mirror_steps import strikes, tell
from mirror_world import BAD_DISKS, FAULTS, HUNG_DISKS, Plan, run

from relevo.mirror import events as e
from relevo.mirror.core import Mirror, Settings
from relevo.mirror.ranges import Ranged

SEEDS_PER_TEST = 20
MUTATION_SEEDS = 60
STEPS_APART = 37


@pytest.mark.parametrize("first", range(0, 200, SEEDS_PER_TEST))
def test_nothing_acknowledged_is_lost_when_every_step_is_voted_for(first: int) -> None:
    for seed in range(first, first + SEEDS_PER_TEST):
        run(Plan(seed, alone="ask"))


@pytest.mark.parametrize("first", range(0, 80, SEEDS_PER_TEST))
def test_nothing_acknowledged_is_lost_when_only_complete_copies_take_over(first: int) -> None:
    for seed in range(first, first + SEEDS_PER_TEST):
        run(Plan(seed, alone="risk"))


@pytest.mark.parametrize("protocol", ["A", "B"])
@pytest.mark.parametrize("alone", ["ask", "risk"])
def test_protocols_a_and_b_lose_nothing_that_a_flush_covered(protocol: Literal["A", "B"], alone: str) -> None:
    for seed in range(SEEDS_PER_TEST):
        run(Plan(seed, alone=alone, protocol=protocol))


@pytest.mark.parametrize("alone", ["ask", "risk"])
@pytest.mark.parametrize("first", [1, 13, 25])
def test_a_fault_at_every_step_of_a_short_story(alone: str, first: int) -> None:
    """Some of the steps here; all of them in the torture."""
    plan = Plan(1, alone=alone)
    for strike in strikes(plan, every=STEPS_APART, first=first):
        try:
            tell(plan, strike)
        except Exception as error:
            error.add_note(f"python tests/sim/mirror_seed.py {plan.seed} --alone {alone} --strike {strike} --trace")
            raise


@pytest.mark.parametrize("alone", ["ask", "risk"])
@pytest.mark.parametrize("first", range(0, 60, SEEDS_PER_TEST))
def test_disks_that_fail_and_are_replaced_under_a_running_device_lose_nothing(first: int, alone: str) -> None:
    for seed in range(first, first + SEEDS_PER_TEST):
        run(Plan(seed, alone=alone, faults=BAD_DISKS))


@pytest.mark.parametrize("policy", ["pass_on", "call-local-io-error"])
def test_what_an_error_of_the_disk_leads_to_loses_nothing(policy: Literal["pass_on", "call-local-io-error"]) -> None:
    for seed in range(2 * SEEDS_PER_TEST):
        run(Plan(seed, faults=BAD_DISKS, on_io_error=policy))


@pytest.mark.parametrize("policy", ["detach", "pass_on"])
@pytest.mark.parametrize("protocol", ["A", "C"])
def test_disks_that_do_not_answer_and_land_writes_late_lose_nothing(
    protocol: Literal["A", "C"], policy: Literal["detach", "pass_on"]
) -> None:
    given_up = 0
    for seed in range(SEEDS_PER_TEST):
        plan = Plan(seed, protocol=protocol, faults=HUNG_DISKS, on_io_error=policy, trace=True)
        given_up += sum("the disk does not answer" in line for line in run(plan).lines)
    assert given_up


@pytest.mark.parametrize("protocol", ["A", "B"])
def test_failing_disks_with_protocols_a_and_b(protocol: Literal["A", "B"]) -> None:
    for seed in range(2 * SEEDS_PER_TEST):
        run(Plan(seed, faults=BAD_DISKS, protocol=protocol))


@pytest.mark.parametrize("alone", ["ask", "risk"])
@pytest.mark.parametrize("faults", [FAULTS, BAD_DISKS])
def test_a_primary_that_pulls_ahead_loses_nothing_that_a_flush_covered(faults: tuple[str, ...], alone: str) -> None:
    ahead = 0
    for seed in range(SEEDS_PER_TEST):
        plan = Plan(seed, alone=alone, protocol="A", on_congestion="pull-ahead", faults=faults, trace=True)
        ahead += sum("pulls_ahead" in line for line in run(plan).lines)
    assert ahead


def test_a_primary_that_leaves_a_slow_peer_loses_nothing_that_a_flush_covered() -> None:
    for seed in range(SEEDS_PER_TEST):
        run(Plan(seed, protocol="A", on_congestion="disconnect"))


def test_a_new_copy_promoted_while_it_is_a_source_is_not_taken_for_new_after_a_power_cut_of_both() -> None:
    """It stayed in the generation of new copies, and two of those are equal by definition: the copies differed."""
    run(Plan(3174))


def test_the_only_copy_writes_nothing_that_a_crash_would_leave_unmarked() -> None:
    """A Primary without a disk has no activity log: nobody knew what its peer had written before its superblock."""
    run(Plan(3690, alone="ask", protocol="C"))


def test_an_order_to_overwrite_the_peer_that_outlives_its_sender_loses_nothing_that_was_flushed() -> None:
    run(Plan(3873, alone="ask", protocol="C"))


def test_a_seed_always_gives_the_same_run() -> None:
    first, second = (run(Plan(7, trace=True)) for _ in range(2))
    assert [line[:40] for line in first.lines] == [line[:40] for line in second.lines]
    assert len(first.lines) > 1000


# ---------------------------------------------------------------- builds that lose data


class WithoutActivityLogAtTakeOver(Mirror):
    """A new process under a device in use believes that both copies are equal."""

    def step(self, event: e.Event) -> list[e.Effect]:
        if isinstance(event, e.Attach) and event.resume_bytes:
            event.al_extents = ()
        return super().step(event)


class WithoutFlushes(Mirror):
    """Says that everything is stable without asking the disk."""

    def step(self, event: e.Event) -> list[e.Effect]:
        effects = super().step(event)
        flushes = [effect for effect in effects if isinstance(effect, e.DiskFlush)]
        kept = [effect for effect in effects if not isinstance(effect, e.DiskFlush)]
        for flush in flushes:
            kept += self.step(e.DiskDone(event.now_ms, flush.token))
        return kept


class WithoutActivityLog(Mirror):
    """Forgets after a crash what was under way."""

    def step(self, event: e.Event) -> list[e.Effect]:
        if isinstance(event, e.Attach):
            event.al_extents = ()
        return super().step(event)


def _mutant(change: Callable[[Mirror], None]) -> Callable[[Settings], Mirror]:
    def make(settings: Settings) -> Mirror:
        mirror = Mirror(settings)
        change(mirror)
        return mirror

    return make


def _forget_lost_writes(mirror: Mirror) -> None:
    local, marked = mirror._local, mirror._local._mark
    inner = local.peer_lost

    def peer_lost(**arguments: bool) -> None:
        local._mark = lambda _: None
        inner(**arguments)
        local._mark = marked

    mirror._link._local.peer_lost = peer_lost


def _no_order_of_overlaps(mirror: Mirror) -> None:
    def enter(entry: Ranged) -> bool:
        return True

    ranges = mirror._local._ranges
    ranges.enter, ranges.leave = enter, lambda _: []


def _no_new_generation(mirror: Mirror) -> None:
    local = mirror._local
    local.go_alone = local.open_gate


def _complete_at_once_when_alone(mirror: Mirror) -> None:
    local = mirror._local
    local._ask = lambda: None


def _no_wait_for_the_peer(mirror: Mirror) -> None:
    mirror._local.wait_for_peer = lambda: None


def _target_up_to_date_too_early(mirror: Mirror) -> None:
    resync = mirror._resync
    resync._durable.superblock = lambda then: then()


MUTANTS: dict[str, tuple[Any, bool]] = {
    # what is left out, and whether the duties are watched (False: lost data alone must give it away)
    "flushes": (WithoutFlushes, False),
    "the activity log after a crash": (WithoutActivityLog, False),
    "marking what the peer did not acknowledge": (_mutant(_forget_lost_writes), False),
    "the order of overlapping writes": (_mutant(_no_order_of_overlaps), False),
    "the new generation": (_mutant(_no_new_generation), False),
    "permission to go on alone": (_mutant(_complete_at_once_when_alone), False),
    "waiting for the peer after a take-over": (_mutant(_no_wait_for_the_peer), True),
    "stable superblocks": (_mutant(_target_up_to_date_too_early), True),
}


@pytest.mark.parametrize("left_out", MUTANTS)
def test_a_build_that_leaves_something_out_is_found(left_out: str) -> None:
    mirror, watch = MUTANTS[left_out]
    for seed in range(MUTATION_SEEDS):
        try:
            run(Plan(seed, mirror=mirror, watch_duties=watch))
        except (DataLost, DutyBroken, NotSettled):
            return
    pytest.fail(f"{MUTATION_SEEDS} seeds did not show that {left_out} is missing")


def test_a_build_that_forgets_the_activity_log_at_a_take_over_is_found() -> None:
    """What a peer had in its cache when it lost its power at the same moment."""
    faults = ("worker and power",)
    for seed in range(MUTATION_SEEDS):
        try:
            run(Plan(seed, mirror=WithoutActivityLogAtTakeOver, watch_duties=False, faults=faults))
        except DataLost:
            return
    pytest.fail(f"{MUTATION_SEEDS} seeds did not show that the activity log is missing")


def test_a_disk_that_ignores_flushes_is_found() -> None:
    for seed in range(MUTATION_SEEDS):
        try:
            run(Plan(seed, honest=False, watch_duties=False))
        except DataLost:
            return
    pytest.fail("no seed showed that the disk lies")
