"""`relevo leave` in the cluster simulation, as `node/requests.py` does it; then the power goes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from relevo.heartbeat import events as heartbeat_events
from relevo.manager import model
from relevo.manager.executor import Executor
from relevo.node import views

if TYPE_CHECKING:
    from sim.cluster_node import SimNode

LEAVE_LIMIT_S = 60.0


async def leave(node: SimNode, executor: Executor) -> None:
    try:
        async with asyncio.timeout(LEAVE_LIMIT_S):
            while not _is_free(node, executor):
                await asyncio.sleep(0.05)
                await node.thawed()
    except TimeoutError:
        node.leaving = False
        node._changed.set()
        return
    if node.executor is not executor:
        return  # the node daemon was killed, and the order with it
    replica = node.replica
    if replica is not None:
        told = replica.facts()
        if told.connection == "Connected" and told.peer_disk == "UpToDate":
            await asyncio.sleep(node.world.random.uniform(0.001, 0.2))
            if node.replica is not replica or not replica.outdate_to_leave():
                node.leaving = False
                node._changed.set()
                return
    marked = replica is not None and replica.disk.state == "Outdated"
    while not _has_told_all(node, outdated=marked):  # noqa: ASYNC110 - looked at in virtual time
        await asyncio.sleep(0.01)
    await asyncio.sleep(1.5 * node.world.config.heartbeat.keepalive_ms / 1000)
    if node.membership is not None:
        node._heartbeat(heartbeat_events.Leave(node.world.now_ms()))
    await asyncio.sleep(node.world.random.uniform(0.1, 2.0))
    node.world.spawn(_switch_off(node, node.boots))


def _has_told_all(node: SimNode, *, outdated: bool) -> bool:
    told = node._published or {"services": {}, "mirrors": {}}
    side = told["mirrors"].get("r0")
    stopped = all(service["state"] == model.ServiceState.STOPPED for service in told["services"].values())
    return stopped and (not outdated or side is None or bool(side.get("outdated")))


async def _switch_off(node: SimNode, boots: int) -> None:
    if node.boots == boots:
        node.crash()


def _is_free(node: SimNode, executor: Executor) -> bool:
    if any(told.state is not model.ServiceState.STOPPED for told in executor.facts().values()):
        return False
    heartbeat = node.membership.view(node.world.now_ms()) if node.membership is not None else None
    there = [
        view.facts.services
        for view in views.peer_views(node.world.config, node.name, heartbeat).values()
        if view.alive is model.Alive.ALIVE and view.facts is not None
    ]
    waited = [name for name, found in node.plan.decisions.items() if found.target not in {None, node.name}]
    return all(any(told[name].state is model.ServiceState.STARTED for told in there) for name in waited)
