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

    @contextlib.asynccontextmanager
    async def claim(self, upload_id: str, wait_s: float = CLAIM_WAIT_S) -> AsyncIterator[None]:
        """Hold an upload for a request while the body runs.

        An earlier request that holds it is cancelled; housekeeping that holds it is awaited.

        Raises:
            FilesError: 503, the holder hangs in the volume.
        """
        task = asyncio.current_task()
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
            await self._release(upload_id)

    @contextlib.asynccontextmanager
    async def claim_idle(self, upload_id: str) -> AsyncIterator[bool]:
        """Hold an upload for housekeeping while the body runs, unless somebody holds it; whether it is held now.

        Housekeeping never ends a request: whoever is writing would lose the connection without an answer.
        """
        if upload_id in self._holders:
            yield False
            return
        self._holders[upload_id] = object()  # no task: whoever wants it next waits
        try:
            yield True
        finally:
            await self._release(upload_id)

    async def _release(self, upload_id: str) -> None:
        del self._holders[upload_id]
        async with self._released:
            self._released.notify_all()
