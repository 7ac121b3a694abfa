"""How two mirrors get their two sockets: both listen and both connect, at the same time.

The first socket that a side opened successfully becomes the data socket, the second the meta socket; the first packet
says which. When both sides opened the same one at the same time, the one opened by the side with the lower address
stays. (The kernel's DRBD always keeps the one it accepted: with it the rule works out from the lower address, and after
another attempt from the higher one.) The side that accepted the meta socket breaks ties later.
"""

from __future__ import annotations

import contextlib
import errno
import random
import socket
from collections.abc import Callable

import structlog

from relevo.mirror import wire
from relevo.mirror.loop import READ, WRITE, Loop, Timer
from relevo.mirror.packets import Command, InitialData, InitialMeta, ProtocolError
from relevo.mirror.sockets import configure

BACKLOG = 8
FIRST_PACKET_BYTES = 8
FIRST_PACKET_TIMEOUT_MS = 2000
CONNECT_TIMEOUT_MS = 3000
JITTER = 0.285
"""An interval is made longer or shorter by up to this share, so that two sides do not stay in step."""
WAITING_MAX = 8
"""Accepted connections that have not said yet which they are."""
_log = structlog.get_logger()
_ORIGINS = {False: "opened", True: "accepted"}
Address = tuple[str, int]
Established = Callable[[socket.socket, socket.socket, bool], None]


class Connector:
    """Looks for the peer while it is switched on, and listens for it.

    Args:
        loop: the loop that serves it.
        me: own address and the port to listen on.
        peer: the peer's address and port.
        interval_ms: pause between attempts.
        established: called with data socket, meta socket and whether the meta socket was accepted.
        knocked: called when the peer opens a connection although there is one.
    """

    def __init__(
        self,
        loop: Loop,
        me: Address,
        peer: Address,
        interval_ms: int,
        established: Established,
        knocked: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._me = me
        self._peer = peer
        self._interval_ms = interval_ms
        self._established = established
        self._knocked = knocked
        self._keeps_own = _order(me) < _order(peer)
        self._random = random.Random()
        self._listener: socket.socket | None = None
        self._outgoing: socket.socket | None = None
        self._waiting: dict[socket.socket, bytearray] = {}
        self._held: dict[Command, tuple[socket.socket, bool]] = {}
        self._timer: Timer | None = None
        self._searching = False
        self._refusal: int | None = None

    # ---- switching ---------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Begin to listen; again and again while the address is not there yet."""
        if self._listener is not None:
            return
        sock = socket.socket(_family(self._me), socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(self._me)
            sock.listen(BACKLOG)
        except OSError as error:
            sock.close()
            if self._refusal != error.errno:
                _log.warning("cannot_listen", address=self._me[0], port=self._me[1], error=error.strerror)
            self._refusal = error.errno
            return
        self._refusal = None
        self._listener = sock
        self._loop.add(sock.fileno(), READ, self._accept)

    def search(self) -> None:
        """Listen, and connect at once and then at intervals, until the link is there."""
        self._searching = True
        self.listen()
        self._attempt()

    def search_later(self) -> None:
        """As `search`, but the first attempt comes after the interval."""
        self._searching = True
        self.listen()
        self._schedule()

    def stop(self) -> None:
        """Neither listen nor connect."""
        self._searching = False
        self._forget()
        if self._listener is not None:
            self._loop.remove(self._listener.fileno())
            self._listener.close()
            self._listener = None

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._drop_outgoing()
        for sock in tuple(self._waiting):
            self._drop_waiting(sock)
        for sock, _ in self._held.values():
            self._loop.remove(sock.fileno())
            sock.close()
        self._held.clear()

    # ---- connecting --------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay_ms = self._interval_ms * self._random.uniform(1 - JITTER, 1 + JITTER)
        self._timer = self._loop.call_in(max(1, int(delay_ms)), self._attempt)

    def _attempt(self) -> None:
        if not self._searching:
            return
        self.listen()
        self._drop_outgoing()
        sock = socket.socket(_family(self._me), socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        configure(sock)
        with contextlib.suppress(OSError):  # the address may be gone for a moment; connecting then says so
            sock.bind((self._me[0], 0))
        result = sock.connect_ex(self._peer)
        if result not in {0, errno.EINPROGRESS}:
            sock.close()
            self._schedule()
            return
        self._outgoing = sock
        self._loop.add(sock.fileno(), WRITE, self._connected)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_in(max(CONNECT_TIMEOUT_MS, self._interval_ms), self._attempt)

    def _drop_outgoing(self) -> None:
        if self._outgoing is not None:
            self._loop.remove(self._outgoing.fileno())
            self._outgoing.close()
            self._outgoing = None

    def _connected(self, _events: int) -> None:
        sock = self._outgoing
        assert sock is not None
        self._loop.remove(sock.fileno())
        self._outgoing = None
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            sock.close()
            self._schedule()
            return
        kind = Command.INITIAL_META if Command.INITIAL_DATA in self._held else Command.INITIAL_DATA
        packet = InitialMeta() if kind is Command.INITIAL_META else InitialData()
        try:
            sock.send(wire.encode(packet, wire.Header.H80))
        except OSError:
            sock.close()
            self._schedule()
            return
        self._hold(kind, sock, accepted=False)

    # ---- accepting ---------------------------------------------------------------------------------------------

    def _accept(self, _events: int) -> None:
        assert self._listener is not None
        try:
            sock, address = self._listener.accept()
        except OSError:
            return
        if _packed(address[0]) != _packed(self._peer[0]) or len(self._waiting) >= WAITING_MAX:
            sock.close()
            return
        configure(sock)
        self._waiting[sock] = bytearray()
        self._loop.add(sock.fileno(), READ, lambda _events, sock=sock: self._first_packet(sock))  # type: ignore[misc]
        self._loop.call_in(FIRST_PACKET_TIMEOUT_MS, lambda: self._drop_waiting(sock))

    def _drop_waiting(self, sock: socket.socket) -> None:
        if self._waiting.pop(sock, None) is not None:
            self._loop.remove(sock.fileno())
            sock.close()

    def _first_packet(self, sock: socket.socket) -> None:
        got = self._waiting[sock]
        try:
            data = sock.recv(FIRST_PACKET_BYTES - len(got))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        got += data
        if not data:
            self._drop_waiting(sock)
        if len(got) < FIRST_PACKET_BYTES:
            return
        kind = _kind(bytes(got))
        if kind is None or not self._searching:
            self._drop_waiting(sock)
            if kind is not None:
                self._knocked()
            return
        del self._waiting[sock]
        self._loop.remove(sock.fileno())
        held = self._held.get(kind)
        if held is not None and not held[1] and self._keeps_own:
            _log.info("connections_crossed", socket=kind.name, kept="own")
            sock.close()
            return
        if held is not None:
            _log.info("connections_crossed", socket=kind.name, kept="accepted")
            self._loop.remove(held[0].fileno())
            held[0].close()
        self._hold(kind, sock, accepted=True)

    # ---- both --------------------------------------------------------------------------------------------------

    def _hold(self, kind: Command, sock: socket.socket, *, accepted: bool) -> None:
        self._held[kind] = (sock, accepted)
        if len(self._held) == 2:
            self._hand_over()
            return
        self._loop.add(sock.fileno(), READ, lambda _events: self._held_readable(kind, sock))
        if accepted:
            self._attempt()  # the peer has opened the one, the other is ours to open
        else:
            self._schedule()  # the peer will open the other; if not, we do

    def _held_readable(self, kind: Command, sock: socket.socket) -> None:
        try:
            goes_on = bool(sock.recv(1, socket.MSG_PEEK))
        except BlockingIOError:  # what was seen was of another socket that had this number
            return
        except OSError:
            goes_on = False
        self._loop.remove(sock.fileno())
        if goes_on:
            return  # what the peer said is read once both sockets are there
        sock.close()
        if self._held.get(kind, (None, False))[0] is sock:
            del self._held[kind]
            self._schedule()

    def _hand_over(self) -> None:
        data, data_accepted = self._held.pop(Command.INITIAL_DATA)
        meta, accepted = self._held.pop(Command.INITIAL_META)
        _log.info("sockets", data=_ORIGINS[data_accepted], meta=_ORIGINS[accepted])
        for sock in (data, meta):
            self._loop.remove(sock.fileno())
        self._searching = False
        self._forget()
        self._established(data, meta, accepted)


def _kind(first: bytes) -> Command | None:
    try:
        command, length = wire.decode_header(first, 0, wire.Header.H80)
    except ProtocolError:
        return None
    if length == 0 and command in {Command.INITIAL_DATA, Command.INITIAL_META}:
        return Command(command)
    return None


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


def _packed(host: str) -> bytes:
    """The bytes of an address; the scope of a link-local one (`%eth0`) is not among them."""
    return socket.inet_pton(_family((host, 0)), host.partition("%")[0])


def _order(address: Address) -> tuple[bytes, int]:
    return _packed(address[0]), address[1]
