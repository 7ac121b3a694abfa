"""What a served block device asks of its server, whatever carries the requests.

FUSE under a loop device is the carrier today; kernel NBD or ublk fit behind the same `BlockFrontend`.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Protocol

from relevo.device.buffers import Buffer


class DiscardKind(enum.IntEnum):
    """What to do with the blocks of a discard. Both kinds must read back as zeros afterwards."""

    UNMAP = 1  # the space may be given back
    ZERO = 2  # the space stays allocated


class FuseRead:
    """Read `length` bytes at `offset`; answered with `reply_read`."""

    __slots__ = ("length", "offset", "unique")

    def __init__(self, unique: int, offset: int, length: int) -> None:
        self.unique = unique
        self.offset = offset
        self.length = length


class FuseWrite:
    """Write `payload` at `offset`; answered with `reply_written`.

    Attributes:
        payload: the data, page aligned in memory (usable for O_DIRECT as it is); valid until the reply.
        buffer: its handle: `buffer.hold()` before the reply keeps the payload valid until `buffer.release()`.
    """

    __slots__ = ("buffer", "length", "offset", "payload", "unique")

    def __init__(self, unique: int, offset: int, length: int, buffer: Buffer) -> None:
        self.unique = unique
        self.offset = offset
        self.length = length
        self.buffer = buffer
        self.payload = buffer.view


class FuseFlush:
    """Every write answered before this request came must be on stable storage before `reply_ok`."""

    __slots__ = ("unique",)

    def __init__(self, unique: int) -> None:
        self.unique = unique


class FuseDiscard:
    """The content of a range is given up: it must read as zeros after `reply_ok`."""

    __slots__ = ("kind", "length", "offset", "unique")

    def __init__(self, unique: int, offset: int, length: int, kind: DiscardKind) -> None:
        self.unique = unique
        self.offset = offset
        self.length = length
        self.kind = kind


Request = FuseRead | FuseWrite | FuseFlush | FuseDiscard


class BlockFrontend(Protocol):
    """The server's side of a block device: requests come in, each is answered exactly once, in any order.

    Nothing here blocks. `unique` names a request until it is answered.
    """

    @property
    def closed(self) -> bool:
        """The device is gone (unmounted or aborted): nothing will come any more, replies are ignored."""

    def fileno(self) -> int:
        """The descriptor that becomes readable when `receive` has something (level-triggered)."""

    def receive(self) -> list[Request]:
        """The requests that are waiting, up to a bound; empty when there is none."""

    def reply_read(self, unique: int, parts: Sequence[memoryview | bytes]) -> None:
        """Answer a read with its data, given in one or several parts."""

    def reply_written(self, unique: int, length: int) -> None:
        """Answer a write; its buffer goes back to the pool."""

    def reply_ok(self, unique: int) -> None:
        """Answer a flush or a discard."""

    def reply_error(self, unique: int, error: int) -> None:
        """Answer any request with a positive errno; a write's buffer goes back to the pool."""

    def close(self) -> None:
        """Give the descriptor back; the device fails from then on."""
