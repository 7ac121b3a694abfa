"""One writer for each resumable upload; the newest one wins.

A client whose connection died comes back before the server knows that the old connection is dead. Its new request
ends the old one, which brings what it has to stable storage and lets go.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from relevo.files.errors import unavailable
from relevo.files.limits import CLAIM_WAIT_S


class Claims:
    """Who holds which upload."""

    def __init__(self) -> None:
        self._holders: dict[str, asyncio.Task[object] | object] = {}
        self._released = asyncio.Condition()

    def held(self, upload_id: str) -> bool:
        """Whether a request works on it."""
        return upload_id in self._holders

    @contextlib.asynccontextmanager
    async def claim(
        self, upload_id: str, wait_s: float = CLAIM_WAIT_S, *, cancellable: bool = True
    ) -> AsyncIterator[None]:
        """Hold an upload while the body runs; whoever holds it now is cancelled, or awaited when not `cancellable`.

        Raises:
            FilesError: 503, the holder hangs in the volume.
        """
        task = asyncio.current_task() if cancellable else object()
        assert task is not None, "claims are made by tasks"
        try:
            async with asyncio.timeout(wait_s), self._released:
                while (holder := self._holders.get(upload_id)) is not None:
                    if isinstance(holder, asyncio.Task):
                        holder.cancel()
                    while self._holders.get(upload_id) is holder:
                        await self._released.wait()
                self._holders[upload_id] = task
        except TimeoutError as error:
            raise unavailable("tus_locked") from error
        try:
            yield
        finally:
            del self._holders[upload_id]
            async with self._released:
                self._released.notify_all()
