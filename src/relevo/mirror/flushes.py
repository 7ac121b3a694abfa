"""The flushes of one disk: no more of them than needed, and for a writer who always flushes, one step ahead of him.

One flush is under way at a time. Who asks gets one that began after everything that was reported done when he asked:
the one under way if nothing was reported since it began, otherwise the next, which all share that ask meanwhile. When
nothing was reported done since the last one began, nothing is left to do.

A program that writes and waits for stable storage, again and again, waits for a write and then for a flush. After
`HABIT` single writes that were each followed by a request, the flush begins with the completion of the write: while
the answer travels up and the request down, the disk is at work already.

A flush that failed is never made good by a later one: the kernel reports the loss of data once.
"""

from __future__ import annotations

from collections.abc import Callable

HABIT = 4
"""So many times in a row a request has to follow a single write before one is expected."""
Then = Callable[[int], None]


class Flushes:
    """The flushes of one disk.

    Args:
        start: begins a flush of the disk, and calls what it is given with 0 or an errno when it has ended.
    """

    def __init__(self, start: Callable[[Then], None]) -> None:
        self._start_flush = start
        self._under_way = False
        self._dirty = True
        self._sharing: list[Then] = []
        self._waiting: list[Then] = []
        self._writes = 0
        self._habit = 0
        self._failed = 0

    def written(self) -> None:
        """A write was done, and nobody has been told yet: what asks from now on wants it stable."""
        self._dirty = True
        self._writes += 1
        if self._writes > 1:
            self._habit = 0
        elif self._habit >= HABIT and not self._under_way and not self._failed:
            self._start()

    def ask(self, then: Then) -> None:
        """Make everything that was reported done stable; `then` gets 0 or an errno (at once when nothing is left)."""
        if self._writes:
            self._habit += 1
            self._writes = 0
        if self._failed:
            then(self._failed)
        elif self._dirty:
            self._waiting.append(then)
            if not self._under_way:
                self._start()
        elif self._under_way:
            self._sharing.append(then)
        else:
            then(0)

    def _start(self) -> None:
        self._sharing, self._waiting = self._waiting, []
        self._under_way = True
        self._dirty = False
        self._start_flush(self._ended)

    def _ended(self, number: int) -> None:
        sharing, self._sharing = self._sharing, []
        self._under_way = False
        self._failed = number
        if number:
            sharing, self._waiting = sharing + self._waiting, []
        elif self._waiting:
            self._start()
        for then in sharing:
            then(number)
