"""Asynchronous operations on a mirror's disks."""

from __future__ import annotations

import errno
from collections.abc import Callable

from relevo.device.aio import Aio
from relevo.device.buffers import Buffer
from relevo.mirror import events as ev
from relevo.mirror.flushes import Flushes


class Operation:
    """One asynchronous operation: what to do with its result."""

    __slots__ = ("buffer", "finish", "length", "token")

    def __init__(self, finish: Callable[[Operation, int], None], token: ev.Token, length: int, buffer: Buffer | None):
        self.finish = finish
        self.token = token
        self.length = length
        self.buffer = buffer

    @property
    def changes(self) -> bool:
        """Whether its end may leave something that is not stable yet."""
        return True


class Harmless(Operation):
    """An operation that changes nothing on the disk: a read, a flush."""

    __slots__ = ()

    @property
    def changes(self) -> bool:
        """Never."""
        return False


def flushes_of(aio: Aio[Operation], fd: int) -> Flushes:
    """The flushes of the disk behind a descriptor."""

    def start(then: Callable[[int], None]) -> None:
        aio.fdsync(fd, Harmless(lambda _, result: then(errno_of(result, 0)), None, 0, None))

    return Flushes(start)


def errno_of(result: int, expected: int) -> int:
    """0 when an operation did what it should, else what went wrong."""
    if result == expected:
        return 0
    return -result if result < 0 else errno.EIO
