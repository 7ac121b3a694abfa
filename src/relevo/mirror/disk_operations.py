"""Asynchronous operations on a mirror's disks, and the flushes that those who ask for one at the same time share."""

from __future__ import annotations

import errno
from collections.abc import Callable

from relevo.device.aio import Aio
from relevo.device.buffers import Buffer
from relevo.mirror import events as ev


class Operation:
    """One asynchronous operation: what to do with its result."""

    __slots__ = ("buffer", "finish", "length", "token")

    def __init__(self, finish: Callable[[Operation, int], None], token: ev.Token, length: int, buffer: Buffer | None):
        self.finish = finish
        self.token = token
        self.length = length
        self.buffer = buffer


class Flushes:
    """The flushes of one disk: one is under way at a time; all that ask meanwhile share the next."""

    def __init__(self, aio: Aio[Operation], fd: int) -> None:
        self._aio = aio
        self._fd = fd
        self._under_way = False
        self._waiting: list[Callable[[int], None]] = []

    def ask(self, then: Callable[[int], None]) -> None:
        """Make everything that was reported done stable; `then` gets 0 or an errno."""
        self._waiting.append(then)
        if not self._under_way:
            self._start()

    def _start(self) -> None:
        sharing, self._waiting = self._waiting, []
        self._under_way = True

        def finish(_operation: Operation, result: int) -> None:
            self._under_way = False
            if self._waiting:
                self._start()
            for then in sharing:
                then(errno_of(result, 0))

        self._aio.fdsync(self._fd, Operation(finish, None, 0, None))


def errno_of(result: int, expected: int) -> int:
    """0 when an operation did what it should, else what went wrong."""
    if result == expected:
        return 0
    return -result if result < 0 else errno.EIO
