"""Epochs on both sides: the Primary's transfer log, and what the peer still has to put on stable storage.

A barrier closes an epoch; its acknowledgement says that all its writes are stable on the peer. An empty epoch is never
closed and never acknowledged.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import TYPE_CHECKING

from relevo.mirror.packets import ProtocolError

if TYPE_CHECKING:
    from relevo.mirror.requests import Flush, Write

_U32 = 0xFFFF_FFFF


class SentEpoch:
    """Writes sent between two barriers, and the flushes that wait for its acknowledgement."""

    __slots__ = ("closed_ms", "flushes", "number", "writes")

    def __init__(self, number: int) -> None:
        self.number = number
        self.writes: list[Write] = []
        self.flushes: list[Flush] = []
        self.closed_ms = 0


class TransferLog:
    """Every write sent and not yet known to be stable on the peer, by epochs."""

    def __init__(self) -> None:
        self._closed: collections.deque[SentEpoch] = collections.deque()
        self._number = 0
        self.current = self._next()

    def _next(self) -> SentEpoch:
        self._number = (self._number + 1) & _U32
        return SentEpoch(self._number)

    def __bool__(self) -> bool:
        return bool(self._closed) or bool(self.current.writes)

    def add(self, write: Write) -> None:
        """The write joins the open epoch."""
        write.epoch = self.current
        self.current.writes.append(write)

    def close(self, now_ms: int) -> SentEpoch | None:
        """Close the open epoch: a barrier with its number has to be sent. None: it is empty."""
        epoch = self.current
        if not epoch.writes:
            return None
        epoch.closed_ms = now_ms
        self._closed.append(epoch)
        self.current = self._next()
        return epoch

    @property
    def count(self) -> int:
        """How many there are, the open one included."""
        return len(self._closed) + 1

    @property
    def newest_closed(self) -> SentEpoch | None:
        """The youngest epoch that waits for its acknowledgement."""
        return self._closed[-1] if self._closed else None

    @property
    def oldest_closed_ms(self) -> int | None:
        """Since when the oldest unacknowledged epoch is closed."""
        return self._closed[0].closed_ms if self._closed else None

    def acknowledge(self, number: int, set_size: int) -> SentEpoch:
        """The oldest closed epoch is stable on the peer.

        Raises:
            ProtocolError: not that epoch, not that many writes, or a write in it is not acknowledged.
        """
        if not self._closed or self._closed[0].number != number or len(self._closed[0].writes) != set_size:
            raise ProtocolError(
                f"The peer acknowledged epoch {number} with {set_size} writes, which is not the oldest."
            )
        if any(write.remote for write in self._closed[0].writes):
            raise ProtocolError(f"The peer acknowledged epoch {number} before all its writes.")
        return self._closed.popleft()

    def epochs(self) -> list[SentEpoch]:
        """All of them, oldest first."""
        return [*self._closed, self.current]

    def drain(self) -> Iterator[SentEpoch]:
        """Take all epochs out, oldest first (the connection is lost)."""
        while self._closed:
            yield self._closed.popleft()
        epoch = self.current
        self.current = self._next()
        yield epoch


class ReceivedEpoch:
    """Writes received between two barriers. `failed`: the disk refused one: it is never acknowledged."""

    __slots__ = ("closed", "failed", "number", "pending", "size")

    def __init__(self) -> None:
        self.failed = False
        self.number = 0
        self.size = 0
        self.pending = 0
        self.closed = False


class ReceivedEpochs:
    """The peer's epochs that were not acknowledged yet, oldest first; the last one is open."""

    def __init__(self) -> None:
        self.current = ReceivedEpoch()
        self._closed: collections.deque[ReceivedEpoch] = collections.deque()

    def join(self) -> ReceivedEpoch:
        """A write has come; it is on the disk when `pending` of its epoch has been counted down."""
        epoch = self.current
        epoch.size += 1
        epoch.pending += 1
        return epoch

    def close(self, number: int) -> bool:
        """A barrier has come. False: the epoch is empty and gets no acknowledgement."""
        epoch = self.current
        if epoch.size == 0:
            return False
        epoch.number = number
        epoch.closed = True
        self._closed.append(epoch)
        self.current = ReceivedEpoch()
        return True

    def written(self) -> int:
        """How many of the oldest epochs are closed and wholly on the disk (stable after a flush that starts now)."""
        count = 0
        for epoch in self._closed:
            if epoch.pending or epoch.failed:
                break
            count += 1
        return count

    @property
    def any_written(self) -> bool:
        """Whether a flush would allow an acknowledgement."""
        return bool(self._closed) and not (self._closed[0].pending or self._closed[0].failed)

    @property
    def waiting(self) -> bool:
        """Whether a closed epoch is not acknowledged yet."""
        return bool(self._closed)

    def take(self, count: int) -> list[ReceivedEpoch]:
        """The oldest epochs, to be acknowledged in this order."""
        return [self._closed.popleft() for _ in range(count)]
