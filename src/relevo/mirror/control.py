"""The mirror's control socket, served from the epoll loop: the line protocol of `relevo.base.control`."""

from __future__ import annotations

import contextlib
import pathlib
import socket
from collections.abc import Callable

import structlog

from relevo.base.control import MAX_LINE_BYTES, Message, decode, encode, error_answer
from relevo.base.errors import RelevoError
from relevo.mirror.loop import HANG_UP, READ, WRITE, Loop

BACKLOG = 16
MAX_CLIENTS = 128
"""One more is turned away: connections forgotten by others must not use up the descriptors of the data path."""
READ_BYTES = 64 << 10
MAX_UNSENT_BYTES = 1 << 20
"""A watcher that does not read is dropped when this much waits for it."""
_log = structlog.get_logger()


class Client:
    """One connection to the control socket."""

    def __init__(self, server: ControlEndpoint, sock: socket.socket) -> None:
        self._server = server
        self._sock = sock
        self._in = bytearray()
        self._out = bytearray()
        self.watching = False
        self.last: Message | None = None

    @property
    def gone(self) -> bool:
        """Whether the other side has left."""
        return self._sock.fileno() < 0

    def answer(self, fields: Message) -> None:
        """Say yes."""
        self._send({"ok": True, **fields})

    def refuse(self, error: Exception) -> None:
        """Say no, and why."""
        self._send(error_answer(error))

    def tell(self, fields: Message) -> None:
        """Give a watcher the state, when it differs from what it was given last."""
        if fields != self.last:
            self.last = fields
            self.answer(fields)

    def _send(self, message: Message) -> None:
        if self.gone:
            return
        self._out += encode(message)
        self._flush()

    def ready(self, events: int) -> None:
        """The loop saw something."""
        if events & WRITE:
            self._flush()
        if events & READ and not self.gone:
            self._receive()
        elif events & HANG_UP:
            self.close()

    def _flush(self) -> None:
        try:
            while self._out:
                del self._out[: self._sock.send(self._out)]
        except BlockingIOError:
            if len(self._out) > MAX_UNSENT_BYTES:
                self.close()
                return
        except OSError:
            self.close()
            return
        self._server.loop.change(self._sock.fileno(), READ | WRITE if self._out else READ)

    def _receive(self) -> None:
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or len(self._in) + len(data) > MAX_LINE_BYTES:
            self.close()
            return
        self._in += data
        while not self.gone and (end := self._in.find(b"\n")) >= 0:
            line = bytes(self._in[: end + 1])
            del self._in[: end + 1]
            self._server.request(self, line)

    def close(self) -> None:
        """Drop the connection."""
        if not self.gone:
            self._server.loop.remove(self._sock.fileno())
            self._sock.close()
        self._server.clients.discard(self)


Requester = Callable[[Client, str, Message], None]


class ControlEndpoint:
    """Listens at `path` and gives each request to `requests(client, name, arguments)`, which answers when it can.

    Args:
        loop: the loop that serves it.
        path: where the socket lies; a stale one is replaced.
        requests: carries out a request; a `RelevoError` that it raises is the answer.
        listening: from the beginning; otherwise from `listen` on.
    """

    def __init__(self, loop: Loop, path: pathlib.Path, requests: Requester, *, listening: bool = True) -> None:
        self.loop = loop
        self.clients: set[Client] = set()
        self._path = path
        self._requests = requests
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        if listening:
            self.listen()

    def listen(self) -> None:
        """Make the socket: whoever finds it gets answers."""
        path = self._path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._sock.bind(str(path))
        path.chmod(0o600)
        self._sock.listen(BACKLOG)
        self.loop.add(self._sock.fileno(), READ, self._accept)

    def hold(self) -> None:
        """Whoever connects waits, until `go_on`."""
        self.loop.remove(self._sock.fileno())

    def go_on(self) -> None:
        """Let in who waits; nothing is changed where nobody had to."""
        if self._sock.fileno() >= 0 and not self.loop.has(self._sock.fileno()):
            self.loop.add(self._sock.fileno(), READ, self._accept)

    def _accept(self, _events: int) -> None:
        with contextlib.suppress(OSError):  # nobody there any more, or no descriptor left: the mirror lives on
            sock, _ = self._sock.accept()
            if len(self.clients) >= MAX_CLIENTS:
                sock.close()
                return
            sock.settimeout(0)
            client = Client(self, sock)
            self.clients.add(client)
            self.loop.add(sock.fileno(), READ, client.ready)

    def request(self, client: Client, line: bytes) -> None:
        """One line came."""
        try:
            message = decode(line)
            name = str(message.pop("do", ""))
            self._requests(client, name, message)
        except RelevoError as error:
            client.refuse(error)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is answered; the mirror lives on
            _log.exception("request_failed", request=line[:200])
            client.refuse(error)

    def tell_watchers(self, status: Callable[[], Message]) -> None:
        """Give every watcher the present state."""
        watchers = [client for client in self.clients if client.watching]
        if watchers:
            fields = status()
            for client in watchers:
                client.tell(fields)

    def close(self) -> None:
        """Stop listening, drop everyone, take the socket away."""
        for client in tuple(self.clients):
            client.close()
        self.loop.remove(self._sock.fileno())
        self._sock.close()
        self._path.unlink(missing_ok=True)
