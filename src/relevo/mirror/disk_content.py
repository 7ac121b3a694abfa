"""What a copy's disk says when it is attached: superblock, bitmap and activity log, read at once before the loop runs.

The bitmap of 16 TiB has 512 MiB: it is read in large pieces into the memory in which it stays, without a second copy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
import os
import pathlib
from collections.abc import Collection, Iterator

import structlog

from relevo.base.errors import RelevoError
from relevo.config.meta_disk import INTERNAL, MetaDisk
from relevo.device.backing import Backing, open_backing
from relevo.mirror import activity_log_format as al
from relevo.mirror import metadata
from relevo.mirror.bitmap import PAGE_BITS, PAGE_BYTES, SECTORS_PER_BIT, bits_for
from relevo.mirror.layout import SECTOR_BYTES, SLOT_BYTES, SUPERBLOCK_BYTES, Layout, superblock_place
from relevo.mirror.metadata import MetaFlag, Superblock

READ_BYTES = 4 << 20
"""The largest single read of meta-data."""
_log = structlog.get_logger()


class MetadataUnreadable(RelevoError):
    """The disk fails where its meta-data lies."""


class DiskContent:
    """The meta-data of one copy.

    Args:
        data: the open data disk.
        meta: the open disk that holds the meta-data; the same when internal.
        place: where it lies there.

    Attributes:
        superblock, layout: what it says, and where things lie.
        bitmap: whole pages for the data in use; the caller owns it.
        active_extents: what the activity log says was active; None: it cannot be known, everything may differ.
        newest_transaction: its number.

    Raises:
        MetadataUnreadable: the disk fails.
        RelevoError: as `metadata.decode_superblock`.
    """

    __slots__ = ("active_extents", "bitmap", "layout", "newest_transaction", "superblock")

    superblock: Superblock
    layout: Layout
    active_extents: Collection[int] | None

    def __init__(self, data: Backing, meta: Backing | None = None, place: MetaDisk = INTERNAL) -> None:
        holder = data if meta is None else meta
        at = superblock_place(holder.size_bytes, place)
        block = bytes(_read(holder, at, SUPERBLOCK_BYTES))
        self.superblock, self.layout = metadata.decode_superblock(block, data.size_bytes, place, holder.size_bytes)
        self.bitmap = self._read_bitmap(holder)
        self.active_extents = frozenset()
        self.newest_transaction = 0
        self._read_activity_log(holder)

    def _read_bitmap(self, holder: Backing) -> bytearray:
        sectors = self.superblock.size_sectors or self.layout.data_bytes // SECTOR_BYTES
        bits = bits_for(sectors // SECTORS_PER_BIT * SECTORS_PER_BIT if not self.superblock.size_sectors else sectors)
        return _read(holder, self.layout.bitmap, -(-bits // PAGE_BITS) * PAGE_BYTES)

    def _read_activity_log(self, holder: Backing) -> None:
        """After an orderly stop the log begins anew; otherwise it says what may differ."""
        layout = self.layout
        log = bytes(_read(holder, layout.activity_log, layout.al_bytes))
        if self.superblock.clean and self.superblock.flags & MetaFlag.AL_CLEAN:
            fresh = al.initialized_block() * (layout.al_bytes // al.BLOCK_BYTES)
            if log != fresh:
                _write(holder, layout.activity_log, fresh)
            return
        try:
            replay = al.replay(log, layout.stripes, layout.stripe_blocks)
        except al.ActivityLogCorrupt as error:
            if self.superblock.flags & MetaFlag.PRIMARY_IND:
                _log.error("activity_log_corrupt", problem=str(error), consequence="everything counts as out of sync")
            self.active_extents = None
            self.newest_transaction = al.newest_number(log)
            return
        self.active_extents = frozenset(replay.slots.values())
        self.newest_transaction = replay.number


@dataclasses.dataclass(frozen=True, slots=True)
class OpenCopy:
    """One copy, ready to be used.

    Attributes:
        data: the data disk.
        meta: the disk that holds the meta-data, if it is another one.
        content: what it says.
    """

    data: Backing
    meta: Backing | None
    content: DiskContent


def open_copy(disk: pathlib.Path, place: MetaDisk = INTERNAL) -> OpenCopy:
    """Open a copy's disks for this process alone, and read its meta-data.

    Raises:
        BackingUnusable: as `open_backing`.
        RelevoError: as `DiskContent`.
    """
    with contextlib.ExitStack() as stack:
        data = open_backing(disk)
        stack.callback(data.close)
        meta = None
        if place.path is not None:
            meta = open_backing(place.path, part=_slot(place))
            stack.callback(meta.close)
        content = DiskContent(data, meta, place)
        stack.pop_all()
    return OpenCopy(data, meta, content)


def _slot(place: MetaDisk) -> range | None:
    """The part of its disk that an indexed place takes; the others belong to other mirrors."""
    if place.kind != "external":
        return None
    return range(place.index * SLOT_BYTES, (place.index + 1) * SLOT_BYTES)


def _pieces(offset: int, length: int) -> Iterator[tuple[int, int, int]]:
    """Where a piece lies on the disk, where in memory, and its size."""
    for at in range(0, length, READ_BYTES):
        yield offset + at, at, min(READ_BYTES, length - at)


def _read(disk: Backing, offset: int, length: int) -> bytearray:
    """Read with direct I/O, waiting for it."""
    found = bytearray(length)
    with mmap.mmap(-1, min(READ_BYTES, max(length, mmap.PAGESIZE))) as area, memoryview(area) as whole:
        zeroes = bytes(len(area))
        for place, at, size in _pieces(offset, length):
            with whole[:size] as view:
                _read_piece(disk, place, view)
            piece = area[:size]
            if piece != zeroes[:size]:
                found[at : at + size] = piece
    return found


def _read_piece(disk: Backing, place: int, view: memoryview) -> None:
    try:
        count = os.preadv(disk.fd, [view], place)
    except OSError as error:
        raise MetadataUnreadable(
            f"{disk.path} cannot be read at byte {place}, within its meta-data ({error.strerror}).",
            "Check the disk; a new one is filled by a resync.",
        ) from error
    if count != len(view):
        raise metadata.MetadataCorrupt(
            f"{disk.path} ends at byte {place + count}, within its meta-data.", "Is it the right disk, and whole?"
        )


def _write(disk: Backing, offset: int, content: bytes) -> None:
    """Write with direct I/O and make it stable, waiting for it."""
    try:
        with mmap.mmap(-1, len(content)) as area:
            area[:] = content
            os.pwritev(disk.fd, [area], offset)
        os.fdatasync(disk.fd)
    except OSError as error:
        raise MetadataUnreadable(
            f"{disk.path} cannot be written at byte {offset}, within its meta-data ({error.strerror}).",
            "Check the disk; a new one is filled by a resync.",
        ) from error
