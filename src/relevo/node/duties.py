"""What this node asks of its other daemons besides the steps of a service: short requests, never waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from relevo.base.control import acall
from relevo.base.errors import RelevoError
from relevo.base.paths import Paths

LIMIT_S = 5.0
_log = structlog.get_logger()


class Duties:
    """Sends requests; one that fails is asked for again by whoever wants it, as long as its cause lasts.

    Args:
        paths: where the daemons' control sockets lie.
    """

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._under_way: dict[tuple[str, str], asyncio.Task[None]] = {}

    def begin(self, daemon: str, request: str, *, done: Callable[[], None] | None = None, **arguments: object) -> None:
        """Ask a daemon (`mirror-r0`, `heartbeat`), unless that is under way already; `done` when it has obeyed."""
        key = (daemon, request)
        if key in self._under_way:
            return
        task = asyncio.create_task(self._ask(daemon, request, arguments, done))
        self._under_way[key] = task
        task.add_done_callback(lambda _: self._under_way.pop(key, None))

    async def _ask(
        self, daemon: str, request: str, arguments: dict[str, object], done: Callable[[], None] | None
    ) -> None:
        try:
            await acall(self._paths.socket(daemon), request, timeout_s=LIMIT_S, **arguments)
            _log.info("duty_done", duty=request, of=daemon)
        except RelevoError as error:
            _log.info("duty_refused", duty=request, of=daemon, why=str(error))
        else:
            if done is not None:
                done()
