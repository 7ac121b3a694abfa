"""Switches other nodes off when the arbiter, or a person, says so; remembers who is off until it is heard anew."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import structlog

from relevo.agents import fence
from relevo.agents.base import AgentFailed
from relevo.config.model import Config
from relevo.manager.model import Alive, NodeView
from relevo.node.history import History

_log = structlog.get_logger()


class Fencer:
    """The fencing of all other nodes.

    Args:
        config: their devices, and the pause after a failure.
        history: where it is noted.
        changed: called when something has come of it.

    Attributes:
        troubles: node -> why the last attempt failed.
    """

    def __init__(self, config: Config, history: History, changed: Callable[[], None]) -> None:
        self._config = config
        self._history = history
        self._changed = changed
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._boot_ids: dict[str, str] = {}
        self._fenced: dict[str, str] = {}
        self._waiting: set[str] = set()
        self._not_before_s: dict[str, float] = {}
        self.troubles: dict[str, str] = {}

    @property
    def fenced(self) -> frozenset[str]:
        """Nodes that were switched off and have not been heard with another boot since."""
        return frozenset(self._fenced)

    def look(self, nodes: Mapping[str, NodeView]) -> None:
        """Take in what is known of the nodes: who lives is not fenced for silence, who has booted is not off."""
        for name, view in nodes.items():
            if view.facts is not None:
                if self._fenced.get(name, view.facts.boot_id) != view.facts.boot_id and view.alive is Alive.ALIVE:
                    del self._fenced[name]
                self._boot_ids[name] = view.facts.boot_id
            if view.alive is Alive.ALIVE and name in self._waiting:
                self._tasks[name].cancel()

    def begin(self, node: str, delay_ms: int = 0, *, because: str) -> None:
        """Switch a node off, unless that is under way, done, or has just failed."""
        if node in self._tasks or node in self._fenced or time.monotonic() < self._not_before_s.get(node, 0.0):
            return
        task = asyncio.create_task(self._fence(node, delay_ms, because))
        self._tasks[node] = task
        task.add_done_callback(lambda _: self._ended(node))

    def confirm(self, node: str) -> None:
        """A person says that a node is off."""
        self._fenced[node] = self._boot_ids.get(node, "")
        self.troubles.pop(node, None)
        self._changed()

    def _ended(self, node: str) -> None:
        del self._tasks[node]
        self._waiting.discard(node)

    async def _fence(self, node: str, delay_ms: int, because: str) -> None:
        self._waiting.add(node)
        await asyncio.sleep(delay_ms / 1000)
        self._waiting.discard(node)
        self._history.add(f"{node} is being fenced: {because}")
        try:
            how = await fence.fence(node, self._config.nodes[node].fencing)
        except AgentFailed as error:
            self.troubles[node] = error.what
            self._not_before_s[node] = time.monotonic() + self._config.fencing.retry_ms / 1000
            self._history.add(str(error))
            _log.error("not_fenced", node=node, why=error.what)
        else:
            self._history.add(f"{node} was fenced ({how}).")
            self.confirm(node)
        self._changed()
