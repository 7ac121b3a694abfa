"""How far a resync or a verify is, how fast it goes, and when it will be done; judged by the last seconds only."""

from __future__ import annotations

from collections import deque

MARK_MS = 1000
"""The distance of the marks that the rate is computed from."""
MARKS = 20
"""How many marks are kept: the rate is that of the last 20 seconds."""


class Progress:
    """One run after the other. Amounts in blocks of the bitmap, `block_bytes` each."""

    def __init__(self, block_bytes: int) -> None:
        self._block_bytes = block_bytes
        self.total = 0
        self._marks: deque[tuple[int, int]] = deque(maxlen=MARKS)

    def begin(self, now_ms: int, total: int) -> None:
        """A run begins with so much to do."""
        self.total = total
        self._marks.clear()
        self._marks.append((now_ms, total))

    def note(self, now_ms: int, left: int) -> None:
        """So much is left now. Cheap: called for every block."""
        if now_ms - self._marks[-1][0] >= MARK_MS:
            self._marks.append((now_ms, left))

    def pause(self, now_ms: int, left: int) -> None:
        """Nothing goes on for a while: what came before says nothing about what will come after."""
        self._marks.clear()
        self._marks.append((now_ms, left))

    def rate_bytes(self, now_ms: int, left: int) -> int:
        """Bytes per second lately."""
        if not self._marks:
            return 0
        at, was = self._marks[0]
        return max(0, was - left) * self._block_bytes * 1000 // max(1, now_ms - at)

    def status(self, now_ms: int, left: int) -> dict[str, object]:
        """What the status shows; `eta_ms` is None as long as nobody can tell."""
        rate = self.rate_bytes(now_ms, left)
        return {
            "done_bytes": max(0, self.total - left) * self._block_bytes,
            "total_bytes": self.total * self._block_bytes,
            "rate_bytes": rate,
            "eta_ms": left * self._block_bytes * 1000 // rate if rate else None,
        }
