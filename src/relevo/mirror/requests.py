"""What is in flight: the application's requests on this side, the peer's writes and reads on the other.

Each is the token of its own disk I/O: the shell gives it back in `DiskDone`, and `done` takes it on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from relevo.mirror.activity_log import EXTENT_SHIFT
from relevo.mirror.bitmap import BLOCK_BYTES
from relevo.mirror.events import Buffer, Token
from relevo.mirror.ranges import Ranged
from relevo.mirror.state import SECTOR_BYTES

if TYPE_CHECKING:
    from relevo.mirror.epochs import ReceivedEpoch, ReceivedEpochs, SentEpoch


class WriteOwner(Protocol):
    """Who started writes (`local_io`)."""

    def write_done(self, write: Write, errno: int) -> None:
        """The local disk is done with it."""

    def flush_done(self, flush: Flush, errno: int) -> None:
        """The local disk is done with it."""

    def read_done(self, reading: Reading, errno: int, buffer: Buffer) -> None:
        """The local disk is done with it."""


class PeerOwner(Protocol):
    """Who carries out what the peer sends (`peer_io`)."""

    def write_done(self, write: PeerWrite, errno: int) -> None:
        """The local disk is done with it."""


class Discard:
    """An application's discard, carried out in pieces within one extent each; `offset` is where the next one begins.

    `unmap`: the space may be given back; either way the range reads as zeroes afterwards.
    """

    __slots__ = ("end", "errno", "offset", "pieces", "token", "unmap")

    def __init__(self, token: Token, offset: int, end: int, *, unmap: bool = True) -> None:
        self.unmap = unmap
        self.token = token
        self.offset = offset
        self.end = end
        self.pieces = 0
        self.errno = 0


class Reading:
    """An application's read; `sent_ms`: when the peer was asked, if it was."""

    __slots__ = ("length", "offset", "owner", "sent_ms", "token")

    def __init__(self, owner: WriteOwner, token: Token, offset: int, length: int) -> None:
        self.owner = owner
        self.token = token
        self.offset = offset
        self.length = length
        self.sent_ms = 0

    def done(self, errno: int, buffer: Buffer) -> None:
        """The local disk is done."""
        self.owner.read_done(self, errno, buffer)


class Write(Ranged):
    """An application's write, or a piece of its discard (`discard` set).

    `local` and `remote`: that side has not answered yet. `failed`: this disk could not. `answered`: the peer did.
    `on_disk`: the answer has to be that its disk has it, not that it has arrived.
    `epoch`: where it stands in the transfer log.
    """

    __slots__ = (
        "answered",
        "block_id",
        "buffer",
        "discard",
        "epoch",
        "errno",
        "extent_first",
        "extent_last",
        "failed",
        "in_log",
        "local",
        "on_disk",
        "owner",
        "remote",
        "sent_ms",
        "token",
    )

    def __init__(self, owner: WriteOwner, token: Token, offset: int, length: int, buffer: Buffer) -> None:
        self.offset = offset
        self.end = end = offset + length
        self.waits = 0
        self.followers = None
        self.owner = owner
        self.token = token
        self.buffer = buffer
        self.discard: Discard | None = None
        self.extent_first = offset >> EXTENT_SHIFT
        self.extent_last = (end - 1) >> EXTENT_SHIFT
        self.in_log = False
        self.local = False
        self.on_disk = False
        self.remote = False
        self.failed = False
        self.answered = False
        self.errno = 0
        self.epoch: SentEpoch | None = None
        self.block_id = 0
        self.sent_ms = 0

    def done(self, errno: int, buffer: Buffer) -> None:  # noqa: ARG002 - only reads bring a buffer
        """The local disk is done."""
        self.owner.write_done(self, errno)


class Flush:
    """An application's flush: waits for the local disk and for the acknowledgement of `epoch` (the latest)."""

    __slots__ = ("epoch", "errno", "local", "owner", "token")

    def __init__(self, owner: WriteOwner, token: Token) -> None:
        self.owner = owner
        self.token = token
        self.local = True
        self.errno = 0
        self.epoch: SentEpoch | None = None

    def done(self, errno: int, buffer: Buffer) -> None:  # noqa: ARG002
        """The local disk is done."""
        self.owner.flush_done(self, errno)


class PeerWrite(Ranged):
    """A write or discard of the peer's, or a block that a resync brought.

    `trim`: no payload, zeroes; `unmap`: then the space may be given back. `same`: the payload is one block, repeated.
    `answer`: the peer waits for P_WRITE_ACK. `sector` and `size_bytes` are the peer's; the range is the blocks
    that hold them, for a part of a block is read, changed and written.
    """

    __slots__ = (
        *("answer", "block_id", "buffer", "epoch", "epochs", "owner", "resync", "same", "sector", "size_bytes"),
        *("trim", "unmap"),
    )

    def __init__(
        self, owner: PeerOwner, sector: int, size_bytes: int, buffer: Buffer, block_id: int, epochs: ReceivedEpochs
    ) -> None:
        offset = sector * SECTOR_BYTES
        super().__init__(offset & -BLOCK_BYTES, (offset + size_bytes + BLOCK_BYTES - 1) & -BLOCK_BYTES)
        self.sector = sector
        self.size_bytes = size_bytes
        self.owner = owner
        self.buffer = buffer
        self.block_id = block_id
        self.epochs = epochs
        self.epoch: ReceivedEpoch | None = None
        self.trim = False
        self.unmap = True
        self.same = False
        self.answer = True
        self.resync = False

    def done(self, errno: int, buffer: Buffer) -> None:  # noqa: ARG002
        """The local disk is done."""
        self.owner.write_done(self, errno)


class Served(Ranged):
    """A range that the peer's resync, verify or read asked for; a resync's stays occupied until the peer has it.

    `admitted` is called when the range is its own (only for those that wait for one), `finish` when the disk is done.
    """

    __slots__ = ("admitted", "block_id", "digest", "finish", "link", "resync", "thin")

    def __init__(self, finish: Callable[[Served, int, Buffer], None], offset: int, length: int, block_id: int) -> None:
        super().__init__(offset, offset + length)
        self.finish = finish
        self.admitted: Callable[[Served], None] | None = None
        self.block_id = block_id
        self.resync = False
        self.thin = False
        self.digest: bytes | None = None
        self.link = 0

    def done(self, errno: int, buffer: Buffer) -> None:
        """The local disk is done."""
        self.finish(self, errno, buffer)


class PeerRead(Served):
    """A read of a Primary without a whole disk."""

    __slots__ = ()


class Then:
    """Something that goes on when its I/O is done."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[int, Buffer], None]) -> None:
        self._call = call

    def done(self, errno: int, buffer: Buffer) -> None:
        """It is done."""
        self._call(errno, buffer)
