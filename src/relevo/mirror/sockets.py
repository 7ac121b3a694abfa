"""One socket of a mirror's link: a queue of packets out, a decoder in, never blocking.

Payloads are received straight into buffers of the pool. When the pool is used up the socket is not read until a buffer
comes back (`resume`), which makes the peer wait.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from relevo.base.errors import RelevoError
from relevo.device.buffers import Buffer, BufferPool
from relevo.mirror import wire
from relevo.mirror.digests import Digest
from relevo.mirror.loop import HANG_UP, READ, WRITE, Loop, Timer
from relevo.mirror.packets import Command, Packet

PIECES_MAX = 64
"""How many pieces one system call sends (the kernel takes up to 1024)."""
SOCKET_BUFFER_BYTES = 4 << 20
"""Asked of the kernel for either direction, so that large requests do not wait for the round trip."""
LATER_MS = 2
"""How long a packet that nobody waits for (`send_later`) may wait for company: it saves a system call and a wake-up."""
RECEIVES_MAX = 4
"""How often a socket is read in one round before the others get their turn."""

Receiver = Callable[[Packet, Buffer | None], None]
Failed = Callable[[str], None]


def configure(sock: socket.socket) -> None:
    """The options of every socket between mirrors."""
    sock.settimeout(0)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)


def resize(sock: socket.socket, send_bytes: int, receive_bytes: int) -> None:
    """Give a socket buffers of the configured sizes (sndbuf-size, rcvbuf-size); 0 leaves what `configure` asked for."""
    for option, size_bytes in ((socket.SO_SNDBUF, send_bytes), (socket.SO_RCVBUF, receive_bytes)):
        if size_bytes:
            sock.setsockopt(socket.SOL_SOCKET, option, size_bytes)


class DigestWrong(RelevoError):
    """A payload does not have the digest that came with it (data-integrity-alg)."""


class _Note:
    """Stands in the queue for whoever wants to know that what is before it was sent."""

    __slots__ = ("_list", "_what")

    def __init__(self, what: Callable[[], None], sent: list[Callable[[], None]]) -> None:
        self._what = what
        self._list = sent

    def release(self) -> None:
        """What is before it was sent, or the socket was closed."""
        self._list.append(self._what)


class Stream:
    """A connected socket that carries packets.

    Args:
        loop: the loop that serves it.
        sock: the socket; the stream owns it from now on.
        commands: which packets may come on it.
        pool: where payloads go.
        receiver: called with each packet and its payload (None: it has none).
        failed: called once when the peer closed, the socket broke, or what came is no packet.
    """

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        commands: frozenset[Command],
        pool: BufferPool,
        receiver: Receiver,
        failed: Failed,
    ) -> None:
        self.decoder = wire.Decoder(commands)
        self.receiver = receiver
        self.received = 0
        self.cork = False
        """Let the kernel fill its packets when more is queued than one system call takes (tcp-cork)."""
        self._digest: Digest | None = None
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._pool = pool
        self._failed = failed
        self._pieces: deque[bytes | memoryview] = deque()
        self._releases: deque[Buffer | _Note | None] = deque()
        self._sent: list[Callable[[], None]] = []
        self._packet: Packet | None = None
        self._buffer: Buffer | None = None
        self._rest: memoryview | None = None
        self._waiting_to_send = False
        self._only_later = False
        self._later: Timer | None = None
        self._stalled = False
        self._closed = False
        loop.add(self._fd, 0, self._ready)

    @property
    def closed(self) -> bool:
        """Whether it was closed, from this side or because it failed."""
        return self._closed

    @property
    def stalled(self) -> bool:
        """Whether it is not read because the pool is used up."""
        return self._stalled

    def start(self) -> None:
        """Begin to read."""
        self._wait_for()

    def protect(self, digest: Digest) -> None:
        """From now on every payload has its digest before it, both ways (data-integrity-alg)."""
        self._digest = digest
        self.decoder.digest_bytes = len(digest(b""))

    # ---- out ---------------------------------------------------------------------------------------------------

    def send(
        self, packet: Packet, header: wire.Header = wire.Header.H100, *, sent: Callable[[], None] | None = None
    ) -> None:
        """Queue a packet without payload; `flush` sends. `sent` is called when it is out of this process."""
        self._only_later = False
        self._pieces.append(wire.encode(packet, header))
        self._releases.append(None if sent is None else _Note(sent, self._sent))

    def send_later(self, packet: Packet) -> None:
        """Queue a packet that nobody waits for: it goes with the next one, or after `LATER_MS`."""
        self._only_later = self._only_later or not self._pieces
        self._pieces.append(wire.encode(packet))
        self._releases.append(None)
        if self._only_later and self._later is None:
            self._later = self._loop.call_in(LATER_MS, self._send_now)

    def _send_now(self) -> None:
        self._later = None
        self._only_later = False
        self.flush()

    def send_with_payload(
        self, packet: Packet, buffer: Buffer, *, release: bool, sent: Callable[[], None] | None = None
    ) -> None:
        """Queue a packet and its payload.

        Args:
            packet: what it is.
            buffer: the payload.
            release: the buffer is given back when it is sent.
            sent: called when it is out of this process (not together with `release`).
        """
        self._only_later = False
        digest = self._digest
        view = buffer.view
        self._pieces.append(wire.encode(packet) if digest is None else wire.encode(packet, digest=digest(view)))
        self._releases.append(None)
        self._pieces.append(view)
        self._releases.append(buffer if release else None if sent is None else _Note(sent, self._sent))

    def flush(self) -> None:
        """Send what is queued, as far as the socket takes it; the rest goes when it is writable."""
        if not self._pieces or self._only_later or self._waiting_to_send or self._closed:
            return
        self._send_pieces()

    def _send_pieces(self) -> None:
        pieces, releases = self._pieces, self._releases
        cork = self.cork and len(pieces) > PIECES_MAX
        if cork:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        try:
            while pieces:
                batch = list(pieces) if len(pieces) <= PIECES_MAX else [pieces[i] for i in range(PIECES_MAX)]
                sent = os.writev(self._fd, batch)
                while pieces and sent >= len(pieces[0]):
                    sent -= len(pieces.popleft())
                    done = releases.popleft()
                    if done is not None:
                        done.release()
                if sent:
                    pieces[0] = memoryview(pieces[0])[sent:]
        except BlockingIOError:
            pass  # the socket is full: the rest goes when it is writable
        except OSError as error:
            self._fail(f"The connection to the peer broke ({error.strerror}).")
            return
        if cork:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
        if bool(pieces) != self._waiting_to_send:
            self._waiting_to_send = bool(pieces)
            self._wait_for()
        if self._sent:
            calls = self._sent[:]
            self._sent.clear()
            for call in calls:
                call()

    def _wait_for(self) -> None:
        events = 0 if self._stalled else READ
        self._loop.change(self._fd, events | WRITE if self._waiting_to_send else events)

    # ---- in ----------------------------------------------------------------------------------------------------

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._send_pieces()
        if events & READ:
            for _ in range(RECEIVES_MAX):
                if self._closed or self._stalled or not self._receive():
                    return
        elif events & HANG_UP and not self._closed:
            self._fail("The connection to the peer was reset.")

    def _receive(self) -> bool:
        """Read once; True when there may be more at once."""
        decoder = self.decoder
        space = decoder.space()
        rest = self._rest
        try:
            if rest is None:
                wanted = len(space)
                count = self._sock.recv_into(space)
            else:
                wanted = len(rest) + len(space)
                count = os.readv(self._fd, (rest, space))
        except BlockingIOError:
            return False
        except OSError as error:
            self._fail(f"The connection to the peer broke ({error.strerror}).")
            return False
        if not count:
            self._fail("The peer closed the connection.")
            return False
        self.received += count
        if rest is not None:
            payload = min(count, len(rest))
            decoder.payload_came(payload)
            self._rest = rest[payload:]
            count -= payload
            more = wanted == payload + count
        else:
            more = wanted == count
        decoder.came(count)
        self._parse()
        return more

    def _parse(self) -> None:
        try:
            while not self._closed:
                if self._packet is None:
                    packet = self.decoder.next_packet()
                    if packet is None:
                        return
                    if not self.decoder.payload_left:
                        self.receiver(packet, None)
                        continue
                    self._packet = packet
                if not self._take_payload():
                    return
        except RelevoError as error:
            self._fail(str(error))

    def _take_payload(self) -> bool:
        """Go on with the payload of `_packet`; True when it is whole and was handed over."""
        decoder = self.decoder
        if self._buffer is None:
            buffer = self._pool.take(decoder.payload_left)
            if buffer is None:
                self._stalled = True
                self._wait_for()
                return False
            self._buffer, self._rest = buffer, buffer.view
        rest = self._rest
        assert rest is not None
        if decoder.payload_left:
            self._rest = rest = rest[decoder.take_payload(rest) :]
            if decoder.payload_left:
                return False
        packet, whole = self._packet, self._buffer
        assert packet is not None
        assert whole is not None
        if self._digest is not None and self._digest(whole.view) != decoder.digest:
            raise DigestWrong(
                f"The data of {type(packet).__name__} do not have the digest that the peer sent with them.",
                "They were changed on the way, or in the peer's memory: check network cards, cables and memory.",
            )
        self._packet = self._buffer = self._rest = None
        self.receiver(packet, whole)
        return True

    def resume(self) -> None:
        """Try again after buffers have come back."""
        if self._stalled and not self._closed:
            self._stalled = False
            self._parse()
            if not self._stalled and not self._closed:
                self._wait_for()

    # ---- end ---------------------------------------------------------------------------------------------------

    def _fail(self, reason: str) -> None:
        if not self._closed:
            self._failed(reason)

    def close(self) -> None:
        """Close the socket; what was queued is dropped, its buffers go back."""
        if self._closed:
            return
        self._closed = True
        if self._later is not None:
            self._later.cancel()
        self._loop.remove(self._fd)
        self._sock.close()
        held: list[Any] = [*self._releases, self._buffer]
        for buffer in held:
            if buffer is not None:
                buffer.release()
        self._pieces.clear()
        self._releases.clear()
        self._packet = self._buffer = self._rest = None
