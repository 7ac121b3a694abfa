"""What is noted while the volume is open and written to it a while later: the task that does so, and its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from relevo.base.errors import RelevoError

_log = structlog.get_logger()


class Notes:
    """Writes what is new a while after it was noted: many notes become one write.

    Args:
        complaint: the event of the log when the volume does not take them.
        pause_s: how long after the first note they are written.
        again: what the volume did not take is tried again, after the same time.
    """

    def __init__(self, complaint: str, pause_s: float, *, again: bool) -> None:
        self._complaint = complaint
        self._pause_s = pause_s
        self._again = again
        self._noted = asyncio.Event()
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, write: Callable[[], Awaitable[object]]) -> None:
        """The volume is open; `write` writes what is new, or raises RelevoError."""
        assert self._task is None, "stopped before it is started again"
        self._noted.clear()
        self._ending.clear()
        self._task = asyncio.create_task(self._run(write))

    def noted(self) -> None:
        """There is something new."""
        self._noted.set()

    async def stop(self, limit_s: float) -> bool:
        """The volume is about to be closed: write what is left; whether that has ended within the limit.

        The task is not cancelled: what it has in its hands would be lost. On a volume that hangs it goes on hanging,
        and is waited for again by the next `stop`.
        """
        if self._task is None:
            return True
        self._ending.set()
        self._noted.set()
        ended, _ = await asyncio.wait({self._task}, timeout=limit_s)
        if ended:
            self._task = None
        return bool(ended)

    async def _run(self, write: Callable[[], Awaitable[object]]) -> None:
        while not self._ending.is_set():
            await self._noted.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s):
                    await self._ending.wait()
            self._noted.clear()
            try:
                await write()
            except RelevoError as error:
                _log.error(self._complaint, why=str(error))
                if self._again:
                    self._noted.set()
