"""Is the peer still there? Pings when nothing is heard, and a bound on how long it may owe an answer."""

from __future__ import annotations

from collections.abc import Callable

from relevo.mirror.local_io import LocalIo
from relevo.mirror.resync import Resync
from relevo.mirror.state import Shared, Timer
from relevo.mirror.states import Role

LIVELY_PINGS = 2
"""A Primary and its peer ask for a sign of life after that many ping-timeouts of silence."""


class Vitality:
    """Watches one link after the other. `drop` is told why the peer is given up."""

    def __init__(self, shared: Shared, local: LocalIo, resync: Resync, drop: Callable[[str], None]) -> None:
        self._s = shared
        self._local = local
        self._resync = resync
        self._drop = drop
        self.verify_since: Callable[[], int | None] = _nothing_owed
        self._heard_ms = 0

    def begin(self) -> None:
        """A new link."""
        self._heard_ms = self._s.now
        self._s.set_timer(Timer.PING, LIVELY_PINGS * self._s.settings.ping_timeout_ms)

    def heard(self) -> None:
        """A packet came."""
        self._heard_ms = self._s.now

    def ping_timer(self) -> None:
        """Nothing may have come for long. Where one side is Primary, silence has to be noticed sooner."""
        s = self._s
        if not s.link:
            return
        look_ms = LIVELY_PINGS * s.settings.ping_timeout_ms
        interval_ms = s.settings.ping_interval_ms
        if Role.PRIMARY in {s.role, s.peer_role}:
            interval_ms = min(interval_ms, look_ms)
        if s.now - self._heard_ms >= interval_ms:
            self._ping()
        s.set_timer(Timer.PING, min(interval_ms, look_ms))

    def probe(self) -> int:
        """Ask for a sign of life; without one in time the link is dropped. Returns the number of the answer."""
        s = self._s
        s.send_ping()
        if not s.has_timer(Timer.PONG):
            s.set_timer(Timer.PONG, s.settings.ping_timeout_ms)
        return s.pings_sent

    def suspect(self) -> None:
        """Somebody believes the peer to be gone."""
        if self._s.link:
            self.probe()

    def _ping(self) -> None:
        if not self._s.has_timer(Timer.PONG):
            self.probe()

    def pong(self) -> None:
        """The peer answered."""
        s = self._s
        s.pings_answered += 1
        if s.pings_answered >= s.pings_sent:
            s.clear_timer(Timer.PONG)
        self._resync.pong()

    def pong_timer(self) -> None:
        """The answer to a ping is overdue."""
        s = self._s
        quiet_ms = s.now - self._heard_ms
        if s.link and quiet_ms >= s.settings.ping_timeout_ms:
            self._drop("the peer does not answer pings")
        elif s.link:
            s.set_timer(Timer.PONG, s.settings.ping_timeout_ms - quiet_ms)

    def late_timer(self) -> None:
        """Look whether the peer owes answers for too long; while it owes any, look again and ask for a sign of life."""
        s = self._s
        if not s.link:
            return
        since = (self._local.oldest_ms, self._resync.waiting_since_ms, self.verify_since())
        owed = [at for at in since if at is not None]
        if not owed:
            return
        limit_ms = s.settings.timeout_ms * s.settings.options.ko_count
        if limit_ms and s.now - min(owed) >= limit_ms:
            self._drop(f"the peer has not answered for {limit_ms} ms")
            return
        if s.now - self._heard_ms >= s.settings.ping_timeout_ms:
            self._ping()
        s.set_timer(Timer.LATE, s.settings.ping_timeout_ms)


def _nothing_owed() -> int | None:
    """Before the core has put its parts together."""
    return None
