"""Is the application at work? What the pace of a resync or verify is told, on whichever side it is asked for."""

from __future__ import annotations

from collections.abc import Callable

from relevo.mirror.pace import Pace
from relevo.mirror.peer_io import PeerIo
from relevo.mirror.state import Shared

HARD_WRITES = 50
"""The peer's application is hard at work if it wrote so often between two looks …"""
HARD_BYTES = 4 << 20
"""… or so much: then others give way in their rate, else only by the size of their window."""
HARD_DEPTH = 4
"""This side's application is hard at work with so many writes in flight."""


class Activity:
    """Watches the application on both sides. `writes_in_flight`: how many of this side's there are."""

    def __init__(self, shared: Shared, peer_io: PeerIo, writes_in_flight: Callable[[], int]) -> None:
        self._s = shared
        self._peer_io = peer_io
        self._writes_in_flight = writes_in_flight
        self._peer_writes = 0
        self._peer_bytes = 0
        self._read = 0

    def look(self, pace: Pace) -> None:
        """Tell the pace what happened since the last look."""
        writes, written = self._peer_io.application_writes, self._peer_io.application_bytes
        new_writes, new_bytes = writes - self._peer_writes, written - self._peer_bytes
        self._peer_writes, self._peer_bytes = writes, written
        depth, read = self._writes_in_flight(), self._s.counters.application_read
        new_read, self._read = read - self._read, read
        if new_writes or depth or new_read:
            hard = new_writes >= HARD_WRITES or new_bytes >= HARD_BYTES or depth >= HARD_DEPTH
            pace.application(self._s.now, waits=hard)
