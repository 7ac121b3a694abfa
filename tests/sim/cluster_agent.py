"""An agent of the cluster simulation: what it starts is a word in its node's memory, and time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from relevo.agents.base import RUNNING, STOPPED, Agent, AgentFailed, Health, StartContext, failed

if TYPE_CHECKING:
    from sim.cluster_node import SimNode


class SimAgent(Agent):
    """A resource that is only a word in its node's memory, and time."""

    def __init__(self, node: SimNode, resource: str) -> None:
        super().__init__(resource)
        self._node = node

    async def _work(self) -> None:
        await asyncio.sleep(self._node.world.random.uniform(0.005, 0.15))
        await self._node.thawed()

    def _needed(self) -> str:
        """What this needs and does not have."""
        node = self._node
        if self.id == "filesystem":
            replica = node.replica
            return "" if replica is not None and replica.role == "Primary" else "the device is gone"
        if self.id == "files":
            return "" if "filesystem" in node.running else "the file system is not mounted"
        if self.id == "app_address":
            return "" if "program" in node.running else "the program does not run"
        return ""

    async def start(self, context: StartContext) -> None:
        self._node.world.starts(self._node, self.id)
        if self.id == "mirror":
            self._node.promoting = self._node.permissions["r0"]
        await self._work()
        if self.id == "mirror":
            replica = self._node.replica
            if replica is None:
                raise AgentFailed("the mirror does not answer")
            await replica.primary(context.epoch, force=context.force, linked=context.linked)
            await self._node.thawed()
        if self._needed() or self._node.world.flaky():
            raise AgentFailed(self._needed() or "it failed by chance")
        self._node.running.add(self.id)
        self._node.world.started(self._node, self.id)

    async def stop(self) -> None:
        self._node.world.stops(self._node, self.id)
        await self._work()
        if self._node.world.flaky():
            raise AgentFailed("the stop failed by chance")
        if self.id == "mirror" and self._node.replica is not None:
            await self._node.replica.secondary()
        self._node.running.discard(self.id)

    async def monitor(self) -> Health:
        await asyncio.sleep(0.002)
        await self._node.thawed()
        if self.id == "mirror":
            replica = self._node.replica
            return RUNNING if replica is not None and replica.role == "Primary" else STOPPED
        if self.id not in self._node.running:
            return STOPPED
        if self._needed() or self._node.world.flaky():
            return failed(self._needed() or "it failed by chance")
        return RUNNING
