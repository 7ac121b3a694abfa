"""Where the parts of meta-data v08 lie, for each kind of meta-disk. Pure: sizes in, places out.

Internal: [data][bitmap][activity log][superblock][up to 7 sectors] on the data's own disk; the superblock is the last
whole 4 KiB block. External: [superblock][activity log][bitmap] in a slot of 128 MiB, or on the whole of a disk that
holds nothing else (flexible). Layout: docs/internals/mirror-disk.md.
"""

from __future__ import annotations

import msgspec

from relevo.base.errors import RelevoError
from relevo.base.units import format_bytes
from relevo.config.meta_disk import INTERNAL, MetaDisk
from relevo.mirror.bitmap import BLOCK_BYTES

SECTOR_BYTES = 512
SUPERBLOCK_BYTES = 4096
SLOT_BYTES = 128 << 20
"""An indexed external slot, always."""
AL_STRIPES = 1
AL_STRIPE_BLOCKS = 8
"""The activity log's size in blocks of 4 KiB unless the superblock says otherwise; also the smallest."""
AL_BLOCKS_MAX = 1 << 15
"""128 MiB of activity log: a longer history than anybody needs."""
BITMAP_SECTOR_SPAN = 16 << 20
"""How much data one sector of the bitmap stands for."""
MIN_DATA_BYTES = 1 << 20
MAX_DATA_BYTES = 16 << 40
"""The largest data area: its bitmap takes 512 MiB of memory."""
_ALIGN_SECTORS = 8


class DiskTooSmall(RelevoError):
    """A disk is smaller than what its meta-data, or a mirror at all, needs."""


class LayoutImpossible(RelevoError):
    """An activity log of such a shape cannot be had there."""


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Where things lie; all in bytes from the start of their disk.

    Attributes:
        disk_bytes: size of the data disk.
        meta_disk_bytes: size of the disk that holds the meta-data (the same when internal).
        external: the meta-data lies on another disk than the data.
        superblock, activity_log, bitmap: where each begins.
        bitmap_bytes: room for the bitmap.
        data_bytes: the most data that the disk and the bitmap have room for.
        stripes, stripe_blocks: the activity log's ring.
        md_size_sectors: what the superblock gives as the size of the meta-data.
    """

    disk_bytes: int
    meta_disk_bytes: int
    external: bool
    superblock: int
    activity_log: int
    bitmap: int
    bitmap_bytes: int
    data_bytes: int
    stripes: int
    stripe_blocks: int
    md_size_sectors: int

    @property
    def al_offset(self) -> int:
        """Of the activity log from the superblock, in sectors."""
        return (self.activity_log - self.superblock) // SECTOR_BYTES

    @property
    def bm_offset(self) -> int:
        """Of the bitmap from the superblock, in sectors."""
        return (self.bitmap - self.superblock) // SECTOR_BYTES

    @property
    def al_bytes(self) -> int:
        """Size of the activity log."""
        return self.stripes * self.stripe_blocks * BLOCK_BYTES


def bitmap_room(data_bytes: int) -> int:
    """What a bitmap for that much data takes on the disk: a sector for each started 16 MiB, whole blocks of 4 KiB."""
    spans = -(-(data_bytes // SECTOR_BYTES * SECTOR_BYTES) // BITMAP_SECTOR_SPAN)
    return -(-spans // _ALIGN_SECTORS) * _ALIGN_SECTORS * SECTOR_BYTES


def superblock_place(meta_disk_bytes: int, place: MetaDisk = INTERNAL) -> int:
    """Where the superblock lies on the disk that holds the meta-data, in bytes.

    Raises:
        DiskTooSmall: that place is beyond its end.
    """
    if place.kind == "internal":
        if meta_disk_bytes < 2 * SUPERBLOCK_BYTES:
            raise DiskTooSmall(f"The disk has only {format_bytes(meta_disk_bytes)}.", "Use a larger disk.")
        return meta_disk_bytes // SUPERBLOCK_BYTES * SUPERBLOCK_BYTES - SUPERBLOCK_BYTES
    begin = place.index * SLOT_BYTES
    needed = begin + (SLOT_BYTES if place.kind == "external" else 2 * SUPERBLOCK_BYTES)
    if meta_disk_bytes < needed:
        raise DiskTooSmall(
            f"The meta-data disk {place.path} has only {format_bytes(meta_disk_bytes)}; {place} reaches up to "
            f"{format_bytes(needed)}.",
            "Use a larger disk, or another index (each takes 128 MiB).",
        )
    return begin


def layout_for(
    disk_bytes: int,
    stripes: int = AL_STRIPES,
    stripe_blocks: int = AL_STRIPE_BLOCKS,
    place: MetaDisk = INTERNAL,
    meta_disk_bytes: int | None = None,
) -> Layout:
    """The places for a data disk of that size.

    Args:
        disk_bytes: the data disk's size.
        stripes, stripe_blocks: the activity log's ring.
        place: which kind of meta-data.
        meta_disk_bytes: size of its disk, when it is another one.

    Raises:
        DiskTooSmall: there is no room for meta-data and `MIN_DATA_BYTES` of data.
        LayoutImpossible: an activity log that large or small, or striped in an indexed slot.
    """
    _check_ring(stripes, stripe_blocks, place)
    if place.kind == "internal":
        return _internal(disk_bytes, stripes, stripe_blocks)
    assert meta_disk_bytes is not None, "another disk has a size of its own"
    return _external(disk_bytes, stripes, stripe_blocks, place, meta_disk_bytes)


def _check_ring(stripes: int, stripe_blocks: int, place: MetaDisk) -> None:
    blocks = stripes * stripe_blocks
    if stripes < 1 or stripe_blocks < 1 or not AL_STRIPE_BLOCKS <= blocks <= AL_BLOCKS_MAX:
        raise LayoutImpossible(
            f"An activity log of {stripes} x {stripe_blocks} blocks cannot be had.",
            f"Choose {AL_STRIPE_BLOCKS} to {AL_BLOCKS_MAX} blocks of 4 KiB in all.",
        )
    if place.kind == "external" and (stripes, stripe_blocks) != (AL_STRIPES, AL_STRIPE_BLOCKS):
        raise LayoutImpossible(
            f"An activity log of {stripes} x {stripe_blocks} blocks does not fit into a slot of 128 MiB.",
            "Use internal or flexible meta-data, or leave the activity log as it is.",
        )


def _internal(disk_bytes: int, stripes: int, stripe_blocks: int) -> Layout:
    superblock = disk_bytes // SUPERBLOCK_BYTES * SUPERBLOCK_BYTES - SUPERBLOCK_BYTES
    activity_log = superblock - stripes * stripe_blocks * BLOCK_BYTES
    bitmap = activity_log - bitmap_room(disk_bytes)
    if bitmap < MIN_DATA_BYTES:
        raise DiskTooSmall(
            f"The disk has only {format_bytes(disk_bytes)}; a mirror needs at least "
            f"{format_bytes(MIN_DATA_BYTES)} and its meta-data.",
            "Use a larger disk.",
        )
    return Layout(
        disk_bytes=disk_bytes,
        meta_disk_bytes=disk_bytes,
        external=False,
        superblock=superblock,
        activity_log=activity_log,
        bitmap=bitmap,
        bitmap_bytes=activity_log - bitmap,
        data_bytes=min(bitmap, MAX_DATA_BYTES),
        stripes=stripes,
        stripe_blocks=stripe_blocks,
        md_size_sectors=(superblock - bitmap + SUPERBLOCK_BYTES) // SECTOR_BYTES,
    )


def _external(disk_bytes: int, stripes: int, stripe_blocks: int, place: MetaDisk, meta_disk_bytes: int) -> Layout:
    superblock = superblock_place(meta_disk_bytes, place)
    activity_log = superblock + SUPERBLOCK_BYTES
    bitmap = activity_log + stripes * stripe_blocks * BLOCK_BYTES
    end = superblock + (SLOT_BYTES if place.kind == "external" else meta_disk_bytes // SECTOR_BYTES * SECTOR_BYTES)
    room = (end - bitmap) // BLOCK_BYTES * BLOCK_BYTES
    data = min(disk_bytes, max(0, room) // SECTOR_BYTES * BITMAP_SECTOR_SPAN, MAX_DATA_BYTES)
    if data < MIN_DATA_BYTES:
        raise DiskTooSmall(
            f"A data disk of {format_bytes(disk_bytes)} and a meta-data disk of {format_bytes(meta_disk_bytes)} have "
            "no room for a mirror.",
            f"A mirror needs at least {format_bytes(MIN_DATA_BYTES)}; its meta-data 36 KiB and 1/32768 of the data.",
        )
    return Layout(
        disk_bytes=disk_bytes,
        meta_disk_bytes=meta_disk_bytes,
        external=True,
        superblock=superblock,
        activity_log=activity_log,
        bitmap=bitmap,
        bitmap_bytes=room,
        data_bytes=data,
        stripes=stripes,
        stripe_blocks=stripe_blocks,
        md_size_sectors=(end - superblock) // SECTOR_BYTES,
    )
