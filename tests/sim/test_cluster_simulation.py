"""Both managers, arbiters and memberships under lost messages, crashes, restarts, cuts and frozen processes."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import structlog

from relevo.arbiter import rules
from relevo.arbiter.events import MirrorView, Verdict
from relevo.manager import planner, steps
from sim import cluster_loop
from sim.cluster_node import LINKS, NODES, SERVICE
from sim.cluster_world import Violation, World

Trouble = Callable[[World, random.Random], Coroutine[Any, Any, None]]

TROUBLE_S = 60.0
REPAIR_LIMIT_S = 90.0


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """What hundreds of runs log says nothing to anybody."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


async def _crashes(world: World, rng: random.Random) -> None:
    """One server at a time loses its power; daemons die at any moment; people say standby."""
    loop = asyncio.get_running_loop()
    end = loop.time() + TROUBLE_S
    while loop.time() < end:
        await asyncio.sleep(rng.choice([0.05, 0.3, 1.0, 4.0, 8.0]))
        node = world.nodes[rng.choice(NODES)]
        match rng.randrange(8):
            case 0 | 1:
                node.crash()
                await asyncio.sleep(rng.uniform(0.5, 15.0))
                node.boot()
            case 2 | 3:
                node.kill_daemon()
            case 4 | 5:
                node.kill_mirror()
            case 6:
                if node.up:
                    node.start_heartbeat()
            case 7:
                node.order(standby=rng.random() < 0.5)


async def _cuts(world: World, rng: random.Random) -> None:
    """Links are cut and healed, servers stand still, and lose their power on top of it."""
    loop = asyncio.get_running_loop()
    end = loop.time() + TROUBLE_S
    while loop.time() < end:
        await asyncio.sleep(rng.choice([0.1, 1.0, 3.0, 8.0]))
        node = world.nodes[rng.choice(NODES)]
        match rng.randrange(10):
            case 0 | 1 | 2:
                world.cut(rng.choice(LINKS))
            case 3 | 4:
                for link in list(world.cuts):
                    world.heal(link)
            case 5:
                for link in LINKS:
                    world.cut(link)
            case 6:
                node.freeze()
                await asyncio.sleep(rng.uniform(0.5, 6.0))
                node.thaw()
            case 7:
                node.crash()
            case 8:
                node.boot()
            case 9:
                node.kill_mirror()


async def _everything(world: World, rng: random.Random) -> None:
    """All of that, and the witness is cut off, restarted, away."""
    loop = asyncio.get_running_loop()
    end = loop.time() + TROUBLE_S
    while loop.time() < end:
        await asyncio.sleep(rng.choice([0.05, 0.3, 1.0, 3.0, 8.0]))
        node = world.nodes[rng.choice(NODES)]
        match rng.randrange(10):
            case 0:
                node.freeze()
                await asyncio.sleep(rng.uniform(0.5, 6.0))
                node.thaw()
            case 1:
                node.crash()
            case 2 | 3:
                node.boot()
            case 4:
                node.kill_mirror()
            case 5:
                node.kill_daemon()
            case 6:
                node.order(standby=rng.random() < 0.5)
            case _:
                await _networks(world, rng)


async def _networks(world: World, rng: random.Random) -> None:
    """Something happens to a link, or to the witness."""
    witness = world.witness
    assert witness is not None
    match rng.randrange(6):
        case 0:
            world.cut(rng.choice(LINKS))
        case 1:
            for link in LINKS:
                world.cut(link)
        case 2 | 3:
            for link in list(world.cuts):
                world.heal(link)
        case 4:
            witness.cuts ^= {rng.choice(NODES)}
        case 5:
            witness.stop()
            await asyncio.sleep(rng.uniform(0.0, 5.0))
            witness.start()


async def _run(seed: int, trouble: Trouble, *, strict: bool, flakiness: float = 0.0, witness: bool = False) -> World:
    rng = random.Random(seed ^ 0x5EED)
    loss = rng.choice([0.0, 0.05, 0.2])
    world = World(seed, strict=strict, flakiness=flakiness, loss=loss, witness=witness)
    for node in world.nodes.values():
        node.boot()
    world.spawn(world.pair.connect_for_ever())
    world.spawn(world.clients())
    world.spawn(world.watch_contact())
    await _watched(world, 20.0)
    troubles = world.spawn(trouble(world, rng))
    while not troubles.done():
        await _watched(world, 1.0)
    await _repair(world)
    await _settle(world)
    return world


async def _watched(world: World, seconds: float) -> None:
    await asyncio.sleep(seconds)
    if world.problem is not None:
        raise world.problem


async def _repair(world: World) -> None:
    world.flakiness = 0.0
    if world.witness is not None:
        world.witness.cuts.clear()
    for link in list(world.cuts):
        world.heal(link)
    for node in world.nodes.values():
        node.thaw()
        node.boot()
    await _watched(world, 5.0)
    for node in world.nodes.values():
        node.order(standby=False)
        if node.executor is not None:
            node.executor.clean_up(SERVICE)
        await _watched(world, 2.0)


async def _settle(world: World) -> None:
    """Look again and again; in the end the last look counts."""
    for _ in range(int(REPAIR_LIMIT_S / 5)):
        await _watched(world, 5.0)
        try:
            world.check_end()
        except Violation:
            world.problem = None
            continue
        return
    world.check_end()


def _catch(seeds: range, trouble: Trouble, *, strict: bool, flakiness: float = 0.0, witness: bool = False) -> str:
    """The first seed that breaks an invariant, and how; empty when none does."""
    for seed in seeds:
        try:
            cluster_loop.run(_run(seed, trouble, strict=strict, flakiness=flakiness, witness=witness))
        except Violation as violation:
            return f"seed {seed}: {violation}"
    return ""


BATCH = 20


@pytest.mark.parametrize("batch", range(4))
def test_crashes_and_restarts_lose_nothing(batch: int) -> None:
    assert not _catch(range(batch * BATCH, (batch + 1) * BATCH), _crashes, strict=True)


@pytest.mark.parametrize("batch", range(4))
def test_cuts_and_standstills_end_with_one_active_node(batch: int) -> None:
    assert not _catch(range(batch * BATCH, (batch + 1) * BATCH), _cuts, strict=False)


@pytest.mark.parametrize("batch", range(2))
def test_resources_that_fail_by_chance_stop_nothing_for_good(batch: int) -> None:
    assert not _catch(range(batch * BATCH, (batch + 1) * BATCH), _crashes, strict=True, flakiness=0.02)


@pytest.mark.parametrize("batch", range(4))
def test_with_a_witness_nothing_is_lost_and_nothing_parts_whatever_happens(batch: int) -> None:
    assert not _catch(range(batch * BATCH, (batch + 1) * BATCH), _everything, strict=False, witness=True)


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
        (_nobody_went_alone, _cuts),
        (_fresh_secondaries_take_over, _cuts),
        (_any_copy_is_the_newest, _cuts),
        (_nobody_waits_for_stopped, _crashes),
    ],
)
def test_a_rule_left_out_is_caught(
    mutation: Callable[[pytest.MonkeyPatch], None], trouble: Trouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutation(monkeypatch)
    assert _catch(range(200), trouble, strict=trouble is _crashes)
