"""Who is connected, and which requests are under way: what an orderly hand-over has to end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Container, Iterator

from aiohttp import web

from relevo.files import limits

SAFE = frozenset({"GET", "HEAD", "OPTIONS", "PROPFIND"})
"""Methods that change nothing, and whose requests have no body to speak of."""
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with a time of 0: close() sends RST and forgets what was not sent


def reset(transport: asyncio.BaseTransport | None) -> None:
    """End a connection so that the other side knows at once that its answer is not whole."""
    if transport is None:
        return
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    if isinstance(transport, asyncio.Transport):
        transport.abort()


async def deliver(request: web.BaseRequest, response: web.StreamResponse, data: bytes) -> None:
    """Send a part of an answer, piece by piece.

    Raises:
        ConnectionResetError: the client takes nothing. The connection is reset: to close it would wait for them too.
    """
    whole = memoryview(data)
    for first in range(0, len(data), limits.CHUNK_BYTES):
        try:
            async with asyncio.timeout(limits.IDLE_SEND_S):
                await response.write(whole[first : first + limits.CHUNK_BYTES])
        except TimeoutError as error:
            reset(request.transport)
            raise ConnectionResetError("the client takes nothing") from error


class Server(web.Server):
    """aiohttp's protocol factory, with a bound on connections.

    Attributes:
        busy: the connections with a request under way.
    """

    busy: Callable[[], Container[web.RequestHandler]] = staticmethod(tuple)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Make room for one connection too many, or refuse it, without a word: it must cost nothing."""
        super().connection_made(handler, transport)
        if len(self.connections) <= limits.CONNECTIONS_MAX:
            return
        there = [one for one in self.connections if one.transport is not None and not one.transport.is_closing()]
        if len(there) > limits.CONNECTIONS_MAX:
            busy = self.busy()
            oldest = next((one.transport for one in there if one not in busy), transport)
            reset(oldest)


class Traffic:
    """The requests under way, and the connections they came by."""

    def __init__(self) -> None:
        self._active: dict[asyncio.Task[object], web.RequestHandler] = {}
        self._callers: dict[asyncio.Task[object], str] = {}
        self._quiet = asyncio.Event()
        self._quiet.set()
        self.server: Server | None = None
        self.served = 0
        self.changing = 0

    @property
    def active(self) -> int:
        """Requests under way."""
        return len(self._active)

    def busy(self) -> Container[web.RequestHandler]:
        """The connections that they came by."""
        return set(self._active.values())

    def crowded(self, method: str) -> bool:
        """Whether the newest request is one too many of its kind."""
        too_many = self.changing > limits.CHANGES_MAX and method not in SAFE
        return too_many or self.active > limits.REQUESTS_MAX

    @contextlib.contextmanager
    def request(self, request: web.BaseRequest) -> Iterator[None]:
        """The current task answers a request while the body runs."""
        task = asyncio.current_task()
        assert task is not None, "requests are answered by tasks"
        self._active[task] = request.protocol
        self._quiet.clear()
        self.served += 1
        changing = request.method not in SAFE
        self.changing += changing
        try:
            yield
        finally:
            self.changing -= changing
            del self._active[task]
            if not self._active:
                self._quiet.set()

    @contextlib.contextmanager
    def called(self, label: str) -> Iterator[None]:
        """The current task's request is somebody's, by the label that `end` knows, while the body runs."""
        task = asyncio.current_task()
        assert task is not None, "requests are answered by tasks"
        self._callers[task] = label
        try:
            yield
        finally:
            del self._callers[task]

    def end(self, label: str) -> None:
        """Break off every request of somebody who may not go on: a running download too."""
        for task, caller in list(self._callers.items()):
            if caller == label and task is not asyncio.current_task():
                reset(self._active[task].transport)
                task.cancel()

    async def settled(self, limit_s: float) -> bool:
        """Wait until no request is under way; whether that came to pass within the limit."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._quiet.wait()
        return self._quiet.is_set()

    def abort(self) -> None:
        """End everything: requests under way by reset, idle connections by an ordinary close."""
        for task, protocol in list(self._active.items()):
            reset(protocol.transport)
            task.cancel()
        busy = set(self._active.values())
        for protocol in self.server.connections if self.server is not None else ():
            if protocol not in busy and protocol.transport is not None:
                protocol.transport.close()
