"""Watches the cluster's state for trouble, and has people told: the shell around `trouble.py`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from relevo.base.control import Handler, Message
from relevo.base.errors import RelevoError
from relevo.config.alerts import KINDS, AlertTarget
from relevo.config.model import Config
from relevo.manager.model import Alive, NodeView
from relevo.node.courier import Courier, NotDelivered, deliver
from relevo.node.history import History
from relevo.node.notice import text_of
from relevo.node.store import Store
from relevo.node.trouble import Alert, Memory, Movement, judge, movements, seen_in, split

RETRY_S = 5.0
"""Pause after what has been told could not be stored."""
_log = structlog.get_logger()


class NoAlerts(RelevoError):
    """There is nobody to be told, or nobody of that name."""


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What outlives a restart: what people know, and what waits for each target."""

    told: tuple[str, ...] = ()
    waiting: dict[str, list[dict[str, Any]]] = {}


class Alerts:
    """The alerts of this node; does nothing where none are configured.

    Args:
        config: the cluster.
        me: this node.
        store: where it is kept what people were told.
        history: where it is noted.
        changed: called when the status has news.
    """

    def __init__(self, config: Config, me: str, store: Store, history: History, changed: Callable[[], None]) -> None:
        self._config = config
        self._me = me
        self._store = store
        self._history = history
        self._changed = changed
        kept = store.load("alerts", _Kept, _Kept())
        known = frozenset(key for key in kept.told if split(key)[0] in KINDS)  # a newer program may have told of others
        self._memory = Memory(told=known if config.alerts else frozenset())
        self._moved: dict[str, Movement] = {}
        self._news = asyncio.Event()
        self._saving = threading.Lock()
        self._couriers = [
            Courier(target, config.cluster, me, kept.waiting.get(target.name, ()), self._note)
            for target in config.alerts
        ]

    def _note(self) -> None:
        self._news.set()
        self._changed()

    def look(self, state: Message, nodes: dict[str, NodeView], now_ms: int) -> dict[str, str]:
        """Judge a status; what is to be told is on its way when this returns.

        Args:
            state: what `relevo status` shows.
            nodes: every node as seen from here.
            now_ms: this node's clock.

        Returns:
            what this node publishes for the others.
        """
        if not self._couriers:
            return {}
        policy = self._config.alerts_policy
        self._moved = movements(state, self._moved, now_ms)
        seen = seen_in(state, self._moved, now_ms, policy)
        others = {
            name: view.facts.trouble
            for name, view in nodes.items()
            if name != self._me and view.alive is Alive.ALIVE and view.facts is not None
        }
        before = self._memory.told
        self._memory, alerts = judge(self._memory, seen, others, self._me, now_ms, policy)
        for alert in alerts:
            self._history.add(f"People are told: {text_of(alert, 'en')}")
            for courier in self._couriers:
                courier.add(alert)
        if alerts or self._memory.told != before:
            self._news.set()
        return self._memory.words()

    def state(self) -> Message:
        """Part of the status: `told`, and `targets` with what waits for each."""
        return {
            "told": [dict(zip(("kind", "subject"), split(key), strict=True)) for key in sorted(self._memory.told)],
            "targets": [
                {
                    "name": courier.target.name,
                    "type": str(courier.target.__struct_config__.tag),
                    "events": list(courier.target.events),
                    "waiting": [notice["text"] for notice in courier.waiting],
                    "dropped": courier.dropped,
                    "trouble": courier.trouble,
                }
                for courier in self._couriers
            ],
        }

    def alarms(self) -> list[str]:
        """What could not be told."""
        return [
            f"{courier.trouble} Waiting: {len(courier.waiting)}."
            for courier in self._couriers
            if courier.trouble and courier.waiting
        ]

    async def run(self) -> None:
        """Deliver, and keep what is told, until cancelled; then once more."""
        if not self._couriers:
            return
        try:
            async with asyncio.TaskGroup() as tasks:
                for courier in self._couriers:
                    tasks.create_task(courier.run())
                tasks.create_task(self._keep())
        finally:
            self._save(self._kept())

    async def _keep(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            if not await asyncio.to_thread(self._save, self._kept()):
                await asyncio.sleep(RETRY_S)  # no event tells that a disk has room again
                self._news.set()

    def _kept(self) -> _Kept:
        waiting = {courier.target.name: list(courier.waiting) for courier in self._couriers}
        return _Kept(told=tuple(sorted(self._memory.told)), waiting=waiting)

    def _save(self, kept: _Kept) -> bool:
        try:
            with self._saving:
                self._store.save("alerts", kept)
        except OSError as error:
            _log.warning("alerts_not_kept", why=str(error))
            return False
        return True

    def handlers(self) -> dict[str, Handler]:
        """What people ask."""
        return {"alerts_test": self._test}

    async def _test(self, request: Message) -> Message:
        name = request.get("name") or ""
        chosen = [courier for courier in self._couriers if name in {"", courier.target.name}]
        if not chosen:
            known = ", ".join(courier.target.name for courier in self._couriers)
            raise NoAlerts(
                f"There is no alert {name!r}." if name else "No alerts are configured.",
                f"Known: {known}." if known else "Write [[alerts]] in relevo.toml.",
            )
        alert = Alert(kind="test", subject="", change="test")
        results = await asyncio.gather(*(_tried(courier.target, courier.notice(alert)) for courier in chosen))
        return {"results": [{"name": c.target.name, "why": why} for c, why in zip(chosen, results, strict=True)]}


async def _tried(target: AlertTarget, notice: Message) -> str:
    try:
        await deliver(target, notice)
    except NotDelivered as error:
        return str(error)
    return ""
