"""What happens to the two servers of the cluster simulation, and one whole run: troubles, repairs, the last look."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

from sim import cluster_loop
from sim.cluster_config import LINKS, MIRROR_LINK, NODES
from sim.cluster_world import Violation, World

Trouble = Callable[[World, random.Random], Coroutine[Any, Any, None]]

TROUBLE_S = 60.0
REPAIR_LIMIT_S = 90.0


async def crashes(world: World, rng: random.Random) -> None:
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


async def leaves(world: World, rng: random.Random) -> None:
    """Servers are switched off in order, one or both, at any moment; some lose their power, or their link, instead."""
    loop = asyncio.get_running_loop()
    end = loop.time() + 1.5 * TROUBLE_S
    while loop.time() < end:
        await asyncio.sleep(rng.choice([0.05, 1.0, 3.0, 6.0]))
        node = world.nodes[rng.choice(NODES)]
        match rng.randrange(8):
            case 0 | 1 | 2:
                node.leave()
            case 3:
                for one in world.nodes.values():
                    one.leave()
                    await asyncio.sleep(rng.choice([0.0, 0.0, 0.5]))
                await asyncio.sleep(rng.uniform(1.0, 10.0))
            case 4:
                node.crash()
            case 5:
                node.kill_mirror()
            case 6 | 7:
                await asyncio.sleep(rng.uniform(0.0, 8.0))
                for one in world.nodes.values():
                    one.boot()


async def alone_by_goodbye(world: World, rng: random.Random) -> None:
    """The passive server is switched off in order, and nobody else can be asked: the active one goes on."""
    for _ in range(4):
        await asyncio.sleep(rng.uniform(8.0, 12.0))
        active, other = sorted(world.nodes.values(), key=lambda node: not node.serves)
        if world.witness is not None:
            world.witness.cuts = set(NODES)
        other.leave()
        async with asyncio.timeout(70.0):
            while other.up:  # noqa: ASYNC110 - looked at in virtual time
                await asyncio.sleep(0.1)
        await asyncio.sleep(15.0)
        if not active.serves or active.replica is None or active.replica.suspended:
            world.fail(f"{active.name} stopped although {other.name} has left in order: {active.plan.decisions}")
        if world.witness is not None:
            world.witness.cuts = set()
        other.boot()


async def restarts(world: World, rng: random.Random) -> None:
    """An upgrade that does not end: every daemon is restarted, in order or not, and a server loses its power."""
    loop = asyncio.get_running_loop()
    end = loop.time() + TROUBLE_S
    while loop.time() < end:
        await asyncio.sleep(rng.choice([0.05, 0.3, 1.0, 4.0]))
        node = world.nodes[rng.choice(NODES)]
        match rng.randrange(8):
            case 0 | 1 | 2:
                node.restart_heartbeat()
            case 3:
                node.start_heartbeat()
            case 4 | 5:
                node.kill_daemon()
            case 6:
                node.kill_mirror()
            case 7:
                node.crash()
                await asyncio.sleep(rng.uniform(0.5, 8.0))
                node.boot()


async def cuts(world: World, rng: random.Random) -> None:
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


async def everything(world: World, rng: random.Random) -> None:
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


async def hand_overs(world: World, rng: random.Random) -> None:
    """A service is handed over, and just then the link breaks, or its new server dies."""
    loop = asyncio.get_running_loop()
    end = loop.time() + TROUBLE_S
    while loop.time() < end:
        active = next((node for node in world.nodes.values() if node.serves), world.nodes[rng.choice(NODES)])
        active.order(standby=True)
        await asyncio.sleep(rng.uniform(0.1, 2.0))
        match rng.randrange(4):
            case 0 | 1:
                for link in LINKS:
                    world.cut(link)
            case 2:
                world.cut(MIRROR_LINK)
            case 3:
                rng.choice(list(world.nodes.values())).kill_mirror()
        await asyncio.sleep(rng.uniform(0.0, 6.0))
        active.order(standby=False)
        if rng.random() < 0.3:
            world.nodes[rng.choice(NODES)].crash()
        await asyncio.sleep(rng.uniform(0.0, 4.0))
        for link in list(world.cuts):
            world.heal(link)
        for node in world.nodes.values():
            node.boot()
        await asyncio.sleep(rng.uniform(3.0, 12.0))


async def cross_cable(world: World, rng: random.Random) -> None:
    """The mirror's own link breaks and heals, at times too briefly for a node to see it, and servers die meanwhile."""
    loop = asyncio.get_running_loop()
    end = loop.time() + TROUBLE_S
    while loop.time() < end:
        await asyncio.sleep(rng.choice([0.05, 0.3, 1.0, 3.0]))
        node = world.nodes[rng.choice(NODES)]
        match rng.randrange(12):
            case 0 | 1 | 2 | 3:
                world.cut(MIRROR_LINK)
            case 4 | 5 | 6:
                world.heal(MIRROR_LINK)
            case 7:
                world.cut("users")
                await asyncio.sleep(rng.uniform(0.1, 6.0))
                world.heal("users")
            case 8:
                node.kill_daemon()
            case 9:
                node.kill_mirror()
            case 10:
                node.crash()
                await asyncio.sleep(rng.uniform(0.5, 15.0))
                node.boot()
            case 11:
                node.freeze()
                await asyncio.sleep(rng.uniform(0.5, 6.0))
                node.thaw()


async def just_rejoined(world: World, rng: random.Random) -> None:
    """The moment in which a copy has become whole again is the one in which everything breaks."""
    loop = asyncio.get_running_loop()
    end = loop.time() + TROUBLE_S
    while loop.time() < end:
        world.cut(MIRROR_LINK)
        await asyncio.sleep(rng.uniform(7.0, 9.0))
        world.heal(MIRROR_LINK)
        async with asyncio.timeout(30.0):
            while not all(one.connection == "Connected" for one in world.pair.replicas.values()):
                await next(iter(world.pair.replicas.values())).changed.wait()
        active = next((node for node in world.nodes.values() if node.serves), world.nodes[rng.choice(NODES)])
        await asyncio.sleep(rng.uniform(0.0, 0.03))
        for link in LINKS:
            world.cut(link)
        world.nodes[world.pair.other(active.name)].kill_mirror()
        world.witness.cuts = {active.name}
        await asyncio.sleep(rng.uniform(0.3, 3.0))
        active.crash()
        await asyncio.sleep(rng.uniform(5.0, 15.0))
        for link in list(world.cuts):
            world.heal(link)
        world.witness.cuts = set()
        active.boot()
        await asyncio.sleep(rng.uniform(8.0, 15.0))


async def orders(world: World, rng: random.Random) -> None:
    """People move and ban the service and put it into maintenance, and take it back, while servers die."""
    loop = asyncio.get_running_loop()
    end = loop.time() + TROUBLE_S
    while loop.time() < end:
        await asyncio.sleep(rng.choice([0.05, 0.5, 2.0, 6.0, 10.0]))
        node = world.nodes[rng.choice(NODES)]
        match rng.randrange(10):
            case 0:
                node.order_service("move", rng.choice(NODES))
            case 1:
                node.order_service("ban", rng.choice(NODES))
            case 2 | 3:
                node.order_service("clear")
            case 4:
                await _left_alone(world, rng)
            case 5:
                node.order(standby=rng.random() < 0.5)
            case 6:
                node.crash()
                await asyncio.sleep(rng.uniform(0.5, 12.0))
                node.boot()
            case 7:
                node.kill_daemon()
            case 8:
                node.kill_mirror()
            case 9:
                node.start_heartbeat()


async def targets(world: World, rng: random.Random) -> None:
    """The ping target is out of reach for one node, for both, in short and in long breaks, while other things fail."""
    loop = asyncio.get_running_loop()
    end = loop.time() + 2 * TROUBLE_S
    while loop.time() < end:
        await asyncio.sleep(rng.choice([0.3, 1.0, 2.0, 6.0, 15.0]))
        node = world.nodes[rng.choice(NODES)]
        match rng.randrange(12):
            case 0 | 1 | 2:
                world.cut_target(node.name)
            case 3 | 4:
                world.cut_target(*NODES)
            case 5 | 6 | 7:
                world.cut_target()
            case 8:
                node.crash()
                await asyncio.sleep(rng.uniform(0.5, 12.0))
                node.boot()
            case 9:
                node.kill_daemon()
            case 10:
                node.kill_mirror()
            case 11:
                node.start_heartbeat()


async def _left_alone(world: World, rng: random.Random) -> None:
    """Maintenance: a program dies and is seen to by a person; nothing else may happen to the service."""
    active = next((node for node in world.nodes.values() if node.serves), None)
    if active is None or world.cuts or not active.order_service("maintain"):
        return
    await asyncio.sleep(3.0)  # both have it
    if not active.serves:
        return
    world.left_alone = active.name
    active.fail_resource("address")
    await asyncio.sleep(rng.uniform(1.0, 8.0))
    if rng.random() < 0.5:
        active.kill_daemon()
        await asyncio.sleep(3.0)
    active.start_by_hand("address")
    await asyncio.sleep(rng.uniform(0.0, 5.0))
    world.left_alone = None
    for node in (active, *world.nodes.values()):  # if nobody hears it, the repair ends it
        if node.order_service("work"):
            return


async def _networks(world: World, rng: random.Random) -> None:
    """Something happens to a link, or to the witness."""
    witness = world.witness
    assert witness is not None
    match rng.randrange(7):
        case 0:
            world.cut(rng.choice(LINKS))
        case 1 | 6 as how:
            for link in LINKS:
                world.cut(link)
            if how == 6:  # one server hears nobody at all
                witness.cuts = {rng.choice(NODES)}
        case 2 | 3:
            for link in list(world.cuts):
                world.heal(link)
        case 4:
            witness.cuts ^= {rng.choice(NODES)}
        case 5:
            witness.stop()
            await asyncio.sleep(rng.uniform(0.0, 5.0))
            witness.start()


async def run_seed(seed: int, trouble: Trouble, **options: Any) -> World:
    rng = random.Random(seed ^ 0x5EED)
    loss = rng.choice([0.0, 0.05, 0.2])
    world = World(seed, loss=loss, **options)
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
    world.cut_target()
    if world.witness is not None:
        world.witness.cuts.clear()
    for link in list(world.cuts):
        world.heal(link)
    for node in world.nodes.values():
        node.thaw()
    while any(node.up and node.leaving for node in world.nodes.values()):
        await _watched(world, 1.0)
    for node in world.nodes.values():
        node.boot()
    await _watched(world, 5.0)
    for node in world.nodes.values():
        node.order(standby=False)
        node.order_service("clear")
        node.order_service("work")
        if node.executor is not None:
            for service in world.config.services:
                node.executor.clean_up(service)
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


def catch(seeds: range, trouble: Trouble, *, strict: bool, **options: Any) -> str:
    """The first seed that breaks an invariant, and how; empty when none does."""
    for seed in seeds:
        try:
            cluster_loop.run(run_seed(seed, trouble, strict=strict, **options))
        except Violation as violation:
            return f"seed {seed}: {violation}"
    return ""
