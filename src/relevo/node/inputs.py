"""What the other daemons of this server report: the latest word of each, and an event when any has changed."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib

import structlog

from relevo.base.control import Message, acall, awatch
from relevo.base.errors import RelevoError
from relevo.device.held import Pause

RECONNECT_MS = 100
COUNT_LIMIT_MS = 1000
"""So long a mirror may take to tell its count to whoever asks for the status: without it the last one is shown."""
_log = structlog.get_logger()


class Feed:
    """Follows the `watch` stream of one daemon, and joins it again when it was lost.

    Args:
        path: the daemon's control socket.
        changed: set at each new state, and when the daemon is lost.
        pause: of a mirror: whether its silence is one in which a new process takes over the device. Its last word
            counts as long as that lasts: it was Primary, and will be again.

    Attributes:
        latest: the last state; None while the daemon does not answer.
    """

    def __init__(self, path: pathlib.Path, changed: asyncio.Event, pause: Pause | None = None) -> None:
        self._path = path
        self._changed = changed
        self._pause = pause
        self._reported_lost = False
        self.latest: Message | None = None

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                async for state in awatch(self._path):
                    self._reported_lost = False
                    self.latest = state
                    if self._pause is not None:
                        self._pause.over()
                    self._changed.set()
            except RelevoError as error:
                if not self._reported_lost:
                    _log.warning("daemon_unreachable", socket=str(self._path), why=str(error))
                    self._reported_lost = True
            if self.latest is not None and not (self._pause is not None and self._pause.lasts()):
                self.latest = None
                self._changed.set()
            # A restarted daemon makes its socket anew: there is no event to wait for, only the next attempt.
            await asyncio.sleep(RECONNECT_MS / 1000)


async def recount(path: pathlib.Path, side: Message) -> None:
    """Bring `out_of_sync_bytes` of this server's side of a mirror up to date, for whoever asks for the status.

    A mirror tells its watchers of states, not of every write: what is written while the peer is away grows unheard.

    Args:
        path: the mirror's control socket.
        side: its entry in the status; unchanged when the mirror is connected or does not answer.
    """
    if side["connection"] == "Connected":
        return
    with contextlib.suppress(RelevoError):
        fresh = await acall(path, "status", timeout_s=COUNT_LIMIT_MS / 1000)
        side["out_of_sync_bytes"] = fresh.get("out_of_sync_bytes", side["out_of_sync_bytes"])
