"""Switches other nodes off when the arbiter, or a person, says so; remembers who is off until it is heard anew."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import msgspec
import structlog

from relevo.agents import fence
from relevo.agents.base import AgentFailed
from relevo.config.model import Config
from relevo.manager.model import Alive, NodeView
from relevo.node.history import History

ECHO_MARGIN_S = 3.0
"""A node that is off is heard for deadtime at most, and a little longer where this server was busy or stood still."""
_log = structlog.get_logger()


class _Off(msgspec.Struct, frozen=True):
    """A node that was switched off: the boot that ended (empty: not known), and when, in this server's clock."""

    boot_id: str
    at_s: float


class Fencer:
    """The fencing of all other nodes.

    Args:
        config: their devices, and the pause after a failure.
        history: where it is noted.
        changed: called when something has come of it.
        clock: seconds, only growing.

    Attributes:
        troubles: node -> why the last attempt failed.
    """

    def __init__(
        self,
        config: Config,
        history: History,
        changed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._config = config
        self._history = history
        self._changed = changed
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._boot_ids: dict[str, str] = {}
        self._fenced: dict[str, _Off] = {}
        self._alive: set[str] = set()
        self._failed_in_silence: set[str] = set()
        self._waiting: set[str] = set()
        self._not_before_s: dict[str, float] = {}
        self.troubles: dict[str, str] = {}

    @property
    def fenced(self) -> frozenset[str]:
        """Nodes that were switched off and have not been heard since, or only by what they had sent before."""
        return frozenset(self._fenced)

    def look(self, nodes: Mapping[str, NodeView]) -> None:
        """Take in what is known of the nodes: who lives is not fenced for silence, who is heard anew is not off."""
        self._alive = {name for name, view in nodes.items() if view.alive is Alive.ALIVE}
        for name, view in nodes.items():
            boot_id = view.facts.boot_id if view.facts is not None else None
            if name in self._alive:
                self._heard(name, boot_id)
            if boot_id is not None:
                self._boot_ids[name] = boot_id

    def _heard(self, name: str, boot_id: str | None) -> None:
        if name in self._waiting:
            self._tasks[name].cancel()
        if name in self._failed_in_silence:
            self._failed_in_silence.discard(name)
            self.troubles.pop(name, None)
        off = self._fenced.get(name)
        if off is None:
            return
        if boot_id is not None and boot_id != off.boot_id:
            del self._fenced[name]
            self.troubles.pop(name, None)
        elif self._clock() - off.at_s > self._config.heartbeat.deadtime_ms / 1000 + ECHO_MARGIN_S:
            # Whatever the device or a person said: it goes on, and its next silence proves nothing.
            del self._fenced[name]
            if boot_id == off.boot_id:
                self.troubles[name] = f"{name} was fenced, but is heard all the same: it was not switched off."
                self._history.add(self.troubles[name])
                _log.error("fenced_in_vain", node=name)

    def begin(self, node: str, delay_ms: int = 0, *, because: str) -> None:
        """Switch a node off, unless that is under way, done, or has just failed."""
        if node in self._tasks or node in self._fenced or self._clock() < self._not_before_s.get(node, 0.0):
            return
        task = asyncio.create_task(self._fence(node, delay_ms, because))
        self._tasks[node] = task
        task.add_done_callback(lambda _: self._ended(node))

    def confirm(self, node: str) -> None:
        """A person says that a node is off."""
        self._fenced[node] = _Off(self._boot_ids.get(node, ""), self._clock())
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
            if node not in self._alive:
                self._failed_in_silence.add(node)
            self._not_before_s[node] = self._clock() + self._config.fencing.retry_ms / 1000
            self._history.add(str(error))
            _log.error("not_fenced", node=node, why=error.what)
        else:
            self._history.add(f"{node} was fenced ({how}).")
            self.confirm(node)
        self._changed()
