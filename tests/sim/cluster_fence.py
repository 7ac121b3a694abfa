"""Fencing in the cluster simulation: one server cuts another one's power, which comes back after a while.

What the real one (`node/fencer.py`) promises: whoever is heard is not fenced for silence, and whoever was fenced counts
as off until it is heard with another boot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from relevo.manager.model import Alive, NodeView

if TYPE_CHECKING:
    from sim.cluster_node import SimNode

ACTS_S = (0.05, 2.0)
OFF_S = (0.5, 10.0)


class SimFencer:
    """What one server's node daemon knows of those that it has switched off."""

    def __init__(self, node: SimNode) -> None:
        self._node = node
        self._boot_ids: dict[str, str] = {}
        self._alive: set[str] = set()
        self._under_way: set[str] = set()
        self.fenced: dict[str, str] = {}

    def look(self, nodes: Mapping[str, NodeView]) -> None:
        self._alive = {name for name, view in nodes.items() if view.alive is Alive.ALIVE}
        for name, view in nodes.items():
            if view.facts is not None:
                if self.fenced.get(name, view.facts.boot_id) != view.facts.boot_id and name in self._alive:
                    del self.fenced[name]
                self._boot_ids[name] = view.facts.boot_id

    def begin(self, name: str, delay_ms: int) -> None:
        if name not in self._under_way and name not in self.fenced:
            self._under_way.add(name)
            self._node.spawn(self._fence(name, delay_ms))

    async def _fence(self, name: str, delay_ms: int) -> None:
        world = self._node.world
        try:
            await asyncio.sleep(delay_ms / 1000)
            await self._node.thawed()
            if name in self._alive:
                return
            await asyncio.sleep(world.random.uniform(*ACTS_S))
            world.nodes[name].crash()
            world.spawn(self._return(name))
            await self._node.thawed()
            self.fenced[name] = self._boot_ids.get(name, "")
            self._node.mirror_changed()
        finally:
            self._under_way.discard(name)

    async def _return(self, name: str) -> None:
        world = self._node.world
        await asyncio.sleep(world.random.uniform(*OFF_S))
        world.nodes[name].boot()
