"""DRBD's meta-data v08, internal: where its parts lie on the backing disk, and the superblock.

[data][bitmap][activity log][superblock][up to 7 sectors]: the superblock is the last whole 4 KiB block of the disk. All
big endian; offsets within the meta-data are counted in sectors from the superblock. Pure: bytes in, structures out.
Layout: docs/internals/mirror-disk.md.
"""

from __future__ import annotations

import enum
import struct

import msgspec

from relevo.base.errors import RelevoError
from relevo.base.units import format_bytes
from relevo.mirror.bitmap import BLOCK_BYTES

SECTOR_BYTES = 512
SUPERBLOCK_BYTES = 4096
MAGIC_CLEAN = 0x8374026B
MAGIC_UNCLEAN = 0x8374026C
MAGIC_V09 = 0x8374026D
JUST_CREATED = 4
"""The generation of a copy that never was in use."""
AL_STRIPES = 1
AL_STRIPE_BLOCKS = 8
"""The activity log's size in blocks of 4 KiB unless the superblock says otherwise."""
AL_BLOCKS_MAX = 1 << 15
BITMAP_SECTOR_SPAN = 16 << 20
"""How much data one sector of the bitmap stands for."""
MIN_DATA_BYTES = 1 << 20
AL_EXTENTS_MIN = 67
AL_EXTENTS_MAX = 65534
AL_EXTENTS_DEFAULT = 1237
_BODY = struct.Struct(">Q4QQQIIIiIiIIII")
_ALIGN_SECTORS = 8


class NoMetadata(RelevoError):
    """There is no meta-data at the end of the backing disk."""


class MetadataCorrupt(RelevoError):
    """The superblock's fields cannot be true."""


class DiskTooSmall(RelevoError):
    """The backing disk is smaller than what its meta-data, or a mirror at all, needs."""


class MetadataTooNew(RelevoError):
    """The meta-data is DRBD 9's."""


class MetaFlag(enum.IntFlag):
    """`flags` of the superblock."""

    CONSISTENT = 1
    PRIMARY_IND = 2
    CONNECTED_IND = 4
    FULL_SYNC = 8
    WAS_UP_TO_DATE = 16
    PEER_OUTDATED = 32
    CRASHED_PRIMARY = 64
    AL_CLEAN = 128
    AL_DISABLED = 256


class Superblock(msgspec.Struct, frozen=True, kw_only=True):
    """What the superblock says.

    Attributes:
        size_sectors: the agreed size of the data; 0: never agreed on one.
        current, bitmap, history0, history1: generation identifiers.
        device_uuid: a random number that names this copy.
        flags: see `MetaFlag`.
        md_size_sectors, al_offset, al_extents, bm_offset: sizes and places in sectors, relative to the superblock.
        peer_max_bio_bytes: the largest request the peer has ever taken.
        al_stripes, al_stripe_blocks: the activity log's ring.
        clean: written after an orderly stop: the activity log need not be applied.
    """

    size_sectors: int
    current: int
    bitmap: int
    history0: int
    history1: int
    device_uuid: int
    flags: int
    md_size_sectors: int
    al_offset: int
    al_extents: int
    bm_offset: int
    peer_max_bio_bytes: int = 0
    al_stripes: int = AL_STRIPES
    al_stripe_blocks: int = AL_STRIPE_BLOCKS
    clean: bool = True

    @property
    def al_bytes(self) -> int:
        """Size of the activity log."""
        return self.al_stripes * self.al_stripe_blocks * BLOCK_BYTES


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Where things lie on a backing disk; all in bytes from its start.

    Attributes:
        disk_bytes: size of the backing disk.
        superblock, activity_log, bitmap: where each begins.
        bitmap_bytes: room for the bitmap.
        data_bytes: the most data that fits below the meta-data.
        stripes, stripe_blocks: the activity log's ring.
    """

    disk_bytes: int
    superblock: int
    activity_log: int
    bitmap: int
    bitmap_bytes: int
    data_bytes: int
    stripes: int
    stripe_blocks: int


def layout_for(disk_bytes: int, stripes: int = AL_STRIPES, stripe_blocks: int = AL_STRIPE_BLOCKS) -> Layout:
    """The places on a backing disk of that size.

    Raises:
        DiskTooSmall: there is no room for meta-data and `MIN_DATA_BYTES` of data.
    """
    superblock = disk_bytes // SUPERBLOCK_BYTES * SUPERBLOCK_BYTES - SUPERBLOCK_BYTES
    activity_log = superblock - stripes * stripe_blocks * BLOCK_BYTES
    spans = -(-(disk_bytes // SECTOR_BYTES * SECTOR_BYTES) // BITMAP_SECTOR_SPAN)
    bitmap_bytes = -(-spans // _ALIGN_SECTORS) * _ALIGN_SECTORS * SECTOR_BYTES
    bitmap = activity_log - bitmap_bytes
    if bitmap < MIN_DATA_BYTES:
        raise DiskTooSmall(
            f"The disk has only {format_bytes(disk_bytes)}; a mirror needs at least "
            f"{format_bytes(MIN_DATA_BYTES)} and its meta-data.",
            "Use a larger disk.",
        )
    return Layout(
        disk_bytes=disk_bytes,
        superblock=superblock,
        activity_log=activity_log,
        bitmap=bitmap,
        bitmap_bytes=bitmap_bytes,
        data_bytes=bitmap,
        stripes=stripes,
        stripe_blocks=stripe_blocks,
    )


def superblock_place(disk_bytes: int) -> int:
    """Where the superblock of a disk of that size lies, in bytes.

    Raises:
        DiskTooSmall: there is not even room for that.
    """
    if disk_bytes < 2 * SUPERBLOCK_BYTES:
        raise DiskTooSmall(f"The disk has only {format_bytes(disk_bytes)}.", "Use a larger disk.")
    return disk_bytes // SUPERBLOCK_BYTES * SUPERBLOCK_BYTES - SUPERBLOCK_BYTES


def encode_superblock(superblock: Superblock) -> bytes:
    """The superblock's 4096 bytes."""
    s = superblock
    return _BODY.pack(
        s.size_sectors,
        *(s.current, s.bitmap, s.history0, s.history1),
        s.device_uuid,
        0,
        s.flags,
        MAGIC_CLEAN if s.clean else MAGIC_UNCLEAN,
        s.md_size_sectors,
        s.al_offset,
        s.al_extents,
        s.bm_offset,
        BLOCK_BYTES,
        s.peer_max_bio_bytes,
        s.al_stripes,
        s.al_stripe_blocks,
    ).ljust(SUPERBLOCK_BYTES, b"\0")


def decode_superblock(block: bytes, disk_bytes: int) -> tuple[Superblock, Layout]:
    """What the last 4 KiB block of a disk of `disk_bytes` says, checked against the disk's size.

    Raises:
        NoMetadata: no magic number.
        MetadataTooNew: DRBD 9's magic number.
        MetadataCorrupt: a field cannot be true, or the meta-data was made for a disk of another size.
        DiskTooSmall: the disk is too small for the data that the meta-data speaks of.
    """
    fields = _BODY.unpack_from(block)
    size, current, bitmap, history0, history1, device_uuid, _, flags = fields[:8]
    magic, md_size, al_offset, al_extents, bm_offset, bytes_per_bit, max_bio, stripes, stripe_blocks = fields[8:]
    if magic == MAGIC_V09:
        raise MetadataTooNew("The disk's meta-data is DRBD 9's.", "Convert it to v08 with drbdmeta first.")
    if magic not in {MAGIC_CLEAN, MAGIC_UNCLEAN}:
        raise NoMetadata("The disk carries no mirror meta-data.", "Create it with: relevo mirror create NAME.")
    if (stripes, stripe_blocks) == (0, 0):
        stripes, stripe_blocks = AL_STRIPES, AL_STRIPE_BLOCKS
    _check(bytes_per_bit == BLOCK_BYTES, f"one bit stands for {bytes_per_bit} bytes")
    _check(0 < stripes * stripe_blocks <= AL_BLOCKS_MAX, f"the activity log has {stripes} x {stripe_blocks} blocks")
    layout = layout_for(disk_bytes, stripes, stripe_blocks)
    expected = (
        (layout.activity_log - layout.superblock) // SECTOR_BYTES,
        (layout.bitmap - layout.superblock) // SECTOR_BYTES,
    )
    _check((al_offset, bm_offset) == expected, "it was made for a disk of another size")
    _check(md_size == _ALIGN_SECTORS - bm_offset, f"its size is given as {md_size} sectors")
    if size * SECTOR_BYTES > layout.data_bytes:
        raise DiskTooSmall(
            f"The mirror's data of {format_bytes(size * SECTOR_BYTES)} does not fit on a disk of "
            f"{format_bytes(disk_bytes)}.",
            "Has the disk been replaced by a smaller one? Use one at least as large.",
        )
    superblock = Superblock(
        size_sectors=size,
        current=current,
        bitmap=bitmap,
        history0=history0,
        history1=history1,
        device_uuid=device_uuid,
        flags=flags,
        md_size_sectors=md_size,
        al_offset=al_offset,
        al_extents=al_extents,
        bm_offset=bm_offset,
        peer_max_bio_bytes=max_bio,
        al_stripes=stripes,
        al_stripe_blocks=stripe_blocks,
        clean=magic == MAGIC_CLEAN,
    )
    return superblock, layout


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise MetadataCorrupt(
            f"The disk's meta-data cannot be true: {what}.",
            "Is this the right disk? If its data may be given up, create the meta-data again.",
        )


def fresh_superblock(layout: Layout, device_uuid: int, *, zeroed: bool, al_extents: int) -> Superblock:
    """The superblock of a new copy.

    Args:
        layout: the disk's.
        device_uuid: a random number.
        zeroed: every block reads as zero, and so does the peer's: the copy is as good as any from the start.
        al_extents: size of the activity log in extents.
    """
    flags = MetaFlag.AL_CLEAN | (MetaFlag.CONSISTENT | MetaFlag.WAS_UP_TO_DATE if zeroed else 0)
    return Superblock(
        size_sectors=0,
        current=JUST_CREATED,
        bitmap=0,
        history0=0,
        history1=0,
        device_uuid=device_uuid,
        flags=flags,
        md_size_sectors=(layout.superblock - layout.bitmap + SUPERBLOCK_BYTES) // SECTOR_BYTES,
        al_offset=(layout.activity_log - layout.superblock) // SECTOR_BYTES,
        al_extents=al_extents,
        bm_offset=(layout.bitmap - layout.superblock) // SECTOR_BYTES,
    )
