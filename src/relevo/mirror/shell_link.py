"""The link to the peer as the worker sees it: found by the connector, proven by the greeting, then two streams."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable

import structlog

from relevo.base.errors import RelevoError
from relevo.config.model import Mirror
from relevo.device.buffers import Buffer, BufferPool
from relevo.mirror import packets as p
from relevo.mirror import wire
from relevo.mirror.auth import Authentication
from relevo.mirror.connector import Address, Connector
from relevo.mirror.digests import digest
from relevo.mirror.greeting import Done, Greeting
from relevo.mirror.loop import Loop, Timer
from relevo.mirror.sockets import Receiver, Stream, resize

GREETING_TIMEOUT_MS = 4000
_log = structlog.get_logger()
_SECRET_REMEDY = "Compare this mirror's secret and hmac on both servers."  # noqa: S105 - advice, not a secret


class ShellLink:
    """Keeps a connection to the peer while one is wanted.

    Args:
        loop: the loop that serves it.
        mirror: the mirror's configuration.
        me: own address and port.
        peer: the peer's.
        pool: where payloads go.
        connected: called with the common features and whether this side breaks ties, when the peer is proven.
        disconnected: called with the reason when a link that was `connected` is gone.
        receiver: called with each packet and its payload while connected.
        knocked: called when the peer opens a connection although there is one: the old one may be dead.
    """

    def __init__(
        self,
        loop: Loop,
        mirror: Mirror,
        me: Address,
        peer: Address,
        pool: BufferPool,
        connected: Callable[[int, bool], None],
        disconnected: Callable[[str], None],
        receiver: Receiver,
        knocked: Callable[[], None],
    ) -> None:
        self.problem = ""
        self.problem_changed: Callable[[], None] = lambda: None
        self._loop = loop
        self._mirror = mirror
        self._pool = pool
        self._connected = connected
        self._disconnected = disconnected
        self._receiver = receiver
        self._knocked = knocked
        self._connector = self._new_connector(me, peer)
        self._wanted = False
        self._up = False
        self._resolve_conflicts = False
        self._greeting: Greeting | None = None
        self._timer: Timer | None = None
        self.data: Stream | None = None
        self.meta: Stream | None = None

    def _new_connector(self, me: Address, peer: Address) -> Connector:
        return Connector(self._loop, me, peer, self._mirror.connect_interval_ms, self._established, self._knocked)

    def configure(self, mirror: Mirror, me: Address, peer: Address) -> None:
        """Another configuration, from the next connection on; a search that is under way begins anew."""
        self._mirror = mirror
        self._connector.stop()
        self._connector = self._new_connector(me, peer)
        self._set_problem("")
        if self._up:
            self._connector.listen()
        elif self._wanted:
            self._close()
            self._connector.search()

    @property
    def up(self) -> bool:
        """Whether the peer is there and proven."""
        return self._up

    def want(self, wanted: bool) -> None:
        """Look for the peer from now on, or stop doing so; a link that is up stays."""
        if wanted == self._wanted:
            return
        self._wanted = wanted
        if not wanted:
            self._connector.stop()
            if not self._up:
                self._close()
        elif self.data is None:
            self._connector.search()
        else:
            self._connector.listen()

    def flush(self) -> None:
        """Send what was queued on both sockets, acknowledgements first."""
        if self.meta is not None:
            self.meta.flush()
        if self.data is not None:
            self.data.flush()

    def resume(self) -> None:
        """Buffers have come back: read on where the pool was used up."""
        if self.data is not None and self.data.stalled:
            self.data.resume()

    def drop(self, reason: str) -> None:
        """Close the link; `disconnected` is called when it was up."""
        self.flush()
        self._fail(reason)

    def close(self) -> None:
        """Close everything, for good."""
        self.want(wanted=False)
        self._up = False
        self._close()

    # ---- coming up ---------------------------------------------------------------------------------------------

    def _established(self, data: socket.socket, meta: socket.socket, resolve_conflicts: bool) -> None:
        self._resolve_conflicts = resolve_conflicts
        self._greeting = Greeting(self._authentication())
        options = self._mirror.options
        resize(data, options.sndbuf_bytes, options.rcvbuf_bytes)
        self.data = Stream(self._loop, data, wire.DATA_COMMANDS, self._pool, self._greet, self._fail)
        self.meta = Stream(self._loop, meta, wire.META_COMMANDS, self._pool, self._receiver, self._fail)
        self.meta.decoder.header = wire.Header.H100
        self.data.cork = options.tcp_cork
        for packet in self._greeting.opening():
            self.data.send(packet, wire.Header.H80)
        self.data.start()
        self.data.flush()
        self._timer = self._loop.call_in(
            max(GREETING_TIMEOUT_MS, 4 * self._mirror.ping_timeout_ms), lambda: self._fail("The peer does not answer.")
        )

    def _authentication(self) -> Authentication | None:
        if self._mirror.hmac == "none":
            return None
        return Authentication(self._mirror.secret, self._mirror.hmac, secrets.token_bytes(p.CHALLENGE_BYTES))

    def _greet(self, packet: p.Packet, buffer: Buffer | None) -> None:
        if buffer is not None:  # payload before the proof: refused below, and never kept
            buffer.release()
        greeting, data = self._greeting, self.data
        assert greeting is not None
        assert data is not None
        try:
            answers = greeting.take(packet)
        except RelevoError as error:
            self._refused(error)
            return
        if greeting.features_known:
            data.decoder.header = wire.Header.H100
        for answer in answers:
            if isinstance(answer, Done):
                self._done(answer.features)
            else:
                data.send(answer)
        data.flush()

    def _done(self, features: int) -> None:
        assert self.data is not None
        assert self.meta is not None
        if self._timer is not None:
            self._timer.cancel()
        self._greeting = None
        self._up = True
        self._set_problem("")
        self.data.receiver = self._receiver
        if self._mirror.options.data_integrity_alg:  # the core refuses a peer that has not the same
            self.data.protect(digest(self._mirror.options.data_integrity_alg))
        self.meta.start()
        self._connector.listen()
        self._connected(features, self._resolve_conflicts)

    def _refused(self, error: RelevoError) -> None:
        if self.problem != str(error):
            _log.error("peer_refused", problem=str(error))
        self._set_problem(str(error))
        self._fail(error.what)

    def _set_problem(self, problem: str) -> None:
        if problem != self.problem:
            self.problem = problem
            self.problem_changed()

    # ---- going down --------------------------------------------------------------------------------------------

    def _fail(self, reason: str) -> None:
        """Close the link, tell whoever has to know, and look for the peer again when that is wanted."""
        was_up, greeting = self._up, self._greeting
        self._up = False
        self._close()
        if greeting is not None and greeting.responded and not self.problem:
            self._set_problem(f"The peer closed the connection during the proof of the secret. {_SECRET_REMEDY}")
            _log.error("peer_left_during_authentication", problem=self.problem)
        if was_up:
            self._disconnected(reason)
        if self._wanted and self.data is None:
            self._connector.search_later()

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._greeting = None
        for stream in (self.data, self.meta):
            if stream is not None:
                stream.close()
        self.data = self.meta = None
