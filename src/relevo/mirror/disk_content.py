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
from relevo.mirror.disk_note import DiskNote
from relevo.mirror.layout import SECTOR_BYTES, SLOT_BYTES, SUPERBLOCK_BYTES, Layout, layout_for, superblock_place
from relevo.mirror.metadata import MetaFlag, Superblock
from relevo.mirror.relocate import Barrier, Copy, GrowthTooSmall, Step, check_move, move_steps

READ_BYTES = 4 << 20
"""The largest single read of meta-data."""
_log = structlog.get_logger()


class MetadataUnreadable(RelevoError):
    """The disk fails where its meta-data lies."""


class DiskContent:
    """The meta-data of one copy.

    Args:
        data: the open data disk.
        meta: the open disk that holds the meta-data; None: the same.
        place: where it lies there.
        note: what was last known of the disk.
        note_path: where that is kept, for messages.

    Attributes:
        superblock, layout: what it says, and where things lie.
        bitmap: whole pages for the data in use; the caller owns it.
        active_extents: what the activity log says was active; None: it cannot be known, everything may differ.
        newest_transaction: its number.

    Raises:
        MetadataUnreadable: the disk fails.
        WrongDisk: the disk is that of another mirror.
        RelevoError: as `metadata.decode_superblock`.
    """

    __slots__ = ("active_extents", "bitmap", "layout", "newest_transaction", "superblock")

    superblock: Superblock
    layout: Layout
    active_extents: Collection[int] | None

    def __init__(
        self,
        data: Backing,
        meta: Backing | None = None,
        place: MetaDisk = INTERNAL,
        note: DiskNote | None = None,
        note_path: pathlib.Path = pathlib.Path(),
    ) -> None:
        holder = data if meta is None else meta
        self.superblock, self.layout = _find_superblock(data, holder, place, note)
        if note is not None:
            note.check(self.superblock, data.path, note_path)
        self._grow(data, holder, place)
        self.bitmap = self._read_bitmap(holder)
        self.active_extents = frozenset()
        self.newest_transaction = 0
        self._read_activity_log(holder)

    def _grow(self, data: Backing, holder: Backing, place: MetaDisk) -> None:
        """The disk has grown while nobody used it: put the meta-data where it belongs now."""
        old = self.layout
        new = layout_for(data.size_bytes, old.stripes, old.stripe_blocks, place, holder.size_bytes)
        if new == old:
            return
        try:
            check_move(old, new)
        except GrowthTooSmall as error:
            _log.warning("growth_not_used", problem=error.what, remedy=error.remedy)
            return
        for step in move_steps(old, new, lambda: self.superblock):
            carry_out(step, holder)
        _log.info("metadata_moved", old=old.superblock, new=new.superblock)
        self.superblock, self.layout = _read_superblock(holder, place, data.size_bytes, holder.size_bytes)

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
                os.fdatasync(holder.fd)
            return
        try:
            replay = al.replay(log, layout.stripes, layout.stripe_blocks)
        except al.ActivityLogCorrupt as error:
            if self.superblock.flags & MetaFlag.PRIMARY_IND:
                _log.error("activity_log_corrupt", problem=str(error), consequence="everything counts as out of sync")
            self.active_extents = None
            self.newest_transaction = al.newest_number(log)
            return
        self.active_extents = replay.extents
        self.newest_transaction = replay.number


def _read_superblock(holder: Backing, place: MetaDisk, disk_bytes: int, holder_bytes: int) -> tuple[Superblock, Layout]:
    block = bytes(_read(holder, superblock_place(holder_bytes, place), SUPERBLOCK_BYTES))
    return metadata.decode_superblock(block, disk_bytes, place, holder_bytes)


def _find_superblock(
    data: Backing, holder: Backing, place: MetaDisk, note: DiskNote | None
) -> tuple[Superblock, Layout]:
    """Where it should be, or where it was before the disk grew."""
    try:
        return _read_superblock(holder, place, data.size_bytes, holder.size_bytes)
    except (metadata.NoMetadata, metadata.MetadataCorrupt):
        if note is None or place.kind != "internal":
            raise
        note.check_size(data.size_bytes, data.path)
        if note.disk_bytes == data.size_bytes:
            raise
        try:
            found = _read_superblock(holder, place, note.disk_bytes, note.disk_bytes)
        except RelevoError:
            found = None
        if found is None or found[0].device_uuid != note.device_uuid:
            raise
        return found


def carry_out(step: Step, disk: Backing) -> None:
    """One step of a move, waiting for it."""
    if isinstance(step, Barrier):
        os.fdatasync(disk.fd)
    elif isinstance(step, Copy):
        _write(disk, step.target, bytes(_read(disk, step.source, step.length)))
    else:
        _write(disk, *step)


@dataclasses.dataclass(frozen=True, slots=True)
class OpenCopy:
    """One copy, ready to be used.

    Attributes:
        data: the data disk.
        meta: the disk that holds the meta-data, if it is another one.
        content: what it says.
        place: which kind of meta-data it is.
        note: what is known of it by now, where that was not known before: to be kept once the copy is in use.
    """

    data: Backing
    meta: Backing | None
    content: DiskContent
    place: MetaDisk = INTERNAL
    note: DiskNote | None = None

    def close(self) -> None:
        """Give the disks back."""
        self.data.close()
        if self.meta is not None:
            self.meta.close()


def open_copy(disk: pathlib.Path, place: MetaDisk = INTERNAL, note_path: pathlib.Path | None = None) -> OpenCopy:
    """Open a copy's disks for this process alone, and read its meta-data.

    Args:
        disk: the data disk.
        place: where the meta-data lies.
        note_path: where what is known of the disk is kept. Only read: an attempt may be given up that still runs.

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
        note = DiskNote.read(note_path) if note_path is not None else None
        content = DiskContent(data, meta, place, note, note_path or pathlib.Path())
        known = DiskNote(content.superblock.device_uuid, content.layout.disk_bytes)
        news = known if note_path is not None and known != note else None
        stack.pop_all()
    return OpenCopy(data, meta, content, place, news)


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
    """Write with direct I/O, waiting for it."""
    try:
        with mmap.mmap(-1, len(content)) as area:
            area[:] = content
            os.pwritev(disk.fd, [area], offset)
    except OSError as error:
        raise MetadataUnreadable(
            f"{disk.path} cannot be written at byte {offset}, within its meta-data ({error.strerror}).",
            "Check the disk; a new one is filled by a resync.",
        ) from error
