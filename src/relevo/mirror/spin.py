"""Looking again for a moment before going to sleep, when it is likely that something comes at once.

A process that sleeps costs its waker an interrupt and itself a wake-up, on a virtual machine tens of microseconds each;
a single write passes four of them. Who looks again instead, and yields the processor each time it finds nothing, is
there at once; whoever else wants to run runs. The rules that keep this from hurting, all decided from measured times:

- Only while it pays: as long as most waits end within the spin. One that did not costs `MISS` of the credit that
  one which did adds to.
- Not in a crowd: a yield that lasts longer than `CROWDED_NS` went to a program that computes. Such a program is not
  interrupted for one that yielded, but for one that slept. No spinning then for `REST` times what was lost, which
  bounds the loss to one part in `REST`.
"""

from __future__ import annotations

CREDIT_MAX = 16
MISS = 4
CROWDED_NS = 1_000_000
REST = 100


class Spin:
    """Whether to spin before the next wait. All times in nanoseconds of one clock that never goes back.

    Args:
        limit_ns: how long to look again; 0: never.
    """

    __slots__ = ("_credit", "_rests_until_ns", "limit_ns")

    def __init__(self, limit_ns: int) -> None:
        self.limit_ns = limit_ns
        self._credit = 0
        self._rests_until_ns = 0

    def wanted(self, now_ns: int) -> bool:
        """Spin before the wait that begins now?"""
        return self._credit > 0 and now_ns >= self._rests_until_ns

    def waited(self, wait_ns: int) -> None:
        """A wait ended with an event, however it was waited."""
        if wait_ns <= self.limit_ns:
            if self._credit < CREDIT_MAX:
                self._credit += 1
        elif self._credit > 0:
            self._credit = max(0, self._credit - MISS)

    def crowded(self, yield_ns: int, now_ns: int) -> bool:
        """Whether a yield took so long that somebody else computes; the rest begins now then."""
        if yield_ns < CROWDED_NS:
            return False
        self._rests_until_ns = now_ns + REST * yield_ns
        return True
