"""DRBD's meta-data v08: the superblock, checked against the disk that carries it (`layout` knows the places).

All big endian; offsets within the meta-data are counted in sectors from the superblock. Pure: bytes in, structures out.
Layout: docs/internals/mirror-disk.md.
"""

from __future__ import annotations

import enum
import struct

import msgspec

from relevo.base.errors import RelevoError
from relevo.base.units import format_bytes
from relevo.config.meta_disk import INTERNAL, MetaDisk
from relevo.mirror.bitmap import BLOCK_BYTES
from relevo.mirror.crc32c import crc32c
from relevo.mirror.layout import (
    AL_STRIPE_BLOCKS,
    AL_STRIPES,
    SECTOR_BYTES,
    SUPERBLOCK_BYTES,
    DiskTooSmall,
    Layout,
    LayoutImpossible,
    layout_for,
)

MAGIC_CLEAN = 0x8374026B
MAGIC_UNCLEAN = 0x8374026C
MAGIC_V09 = 0x8374026D
JUST_CREATED = 4
"""The generation of a copy that never was in use."""
SEAL_MAGIC = 0x52656C76
"""Begins our checksum in the superblock's reserved part; the kernel and drbdmeta write zeroes there."""
SEALED_BYTES = 504
"""What the checksum covers. It lies in the same sector: whatever a power cut tears, they fit together."""
AL_EXTENTS_MIN = 67
AL_EXTENTS_MAX = 65534
AL_EXTENTS_DEFAULT = 1237
_BODY = struct.Struct(">Q4QQQIIIiIiIIII")
_SEAL = struct.Struct(">II")


class NoMetadata(RelevoError):
    """There is no meta-data where it should be."""


class MetadataCorrupt(RelevoError):
    """The superblock's fields cannot be true."""


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


def encode_superblock(superblock: Superblock) -> bytes:
    """The superblock's 4096 bytes."""
    s = superblock
    body = _BODY.pack(
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
    ).ljust(SEALED_BYTES, b"\0")
    return (body + _SEAL.pack(SEAL_MAGIC, crc32c(body))).ljust(SUPERBLOCK_BYTES, b"\0")


def decode_superblock(
    block: bytes, disk_bytes: int, place: MetaDisk = INTERNAL, meta_disk_bytes: int | None = None
) -> tuple[Superblock, Layout]:
    """What a superblock says, checked against the disks' sizes.

    Args:
        block: 4 KiB read from `layout.superblock_place`.
        disk_bytes: the data disk's size.
        place: where the meta-data lies.
        meta_disk_bytes: the size of that disk, if it is another one.

    Raises:
        NoMetadata: no magic number.
        MetadataTooNew: DRBD 9's magic number.
        MetadataCorrupt: a field cannot be true, or the meta-data was made for a disk of another size.
        DiskTooSmall: the disk is too small for the data or the meta-data that the superblock speaks of.
    """
    fields = _BODY.unpack_from(block)
    size, current, bitmap, history0, history1, device_uuid, _, flags = fields[:8]
    magic, md_size, al_offset, al_extents, bm_offset, bytes_per_bit, max_bio, stripes, stripe_blocks = fields[8:]
    _check_magic(magic, place)
    _check_seal(block)
    if (stripes, stripe_blocks) == (0, 0):
        stripes, stripe_blocks = AL_STRIPES, AL_STRIPE_BLOCKS
    _check(bytes_per_bit == BLOCK_BYTES, f"one bit stands for {bytes_per_bit} bytes")
    if place.kind == "flexible":
        meta_disk_bytes = _flexible_size(md_size, meta_disk_bytes)
    try:
        layout = layout_for(disk_bytes, stripes, stripe_blocks, place, meta_disk_bytes)
    except LayoutImpossible as error:
        raise _corrupt(f"the activity log has {stripes} x {stripe_blocks} blocks") from error
    _check((al_offset, bm_offset) == (layout.al_offset, layout.bm_offset), "it was made for a disk of another size")
    _check(md_size == layout.md_size_sectors, f"its size is given as {md_size} sectors")
    if size * SECTOR_BYTES > layout.data_bytes:
        raise DiskTooSmall(
            f"The mirror's data of {format_bytes(size * SECTOR_BYTES)} does not fit on a disk of "
            f"{format_bytes(disk_bytes)}, of which {format_bytes(layout.data_bytes)} can be used.",
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


def _check_magic(magic: int, place: MetaDisk) -> None:
    if magic == MAGIC_V09:
        raise MetadataTooNew("The disk's meta-data is DRBD 9's.", "Convert it to v08 with drbdmeta first.")
    if magic not in {MAGIC_CLEAN, MAGIC_UNCLEAN}:
        where = "The disk" if place.kind == "internal" else str(place)
        raise NoMetadata(f"{where} carries no mirror meta-data.", "Create it with: relevo mirror create NAME.")


def _check_seal(block: bytes) -> None:
    seal, total = _SEAL.unpack_from(block, SEALED_BYTES)
    if seal == SEAL_MAGIC:
        _check(crc32c(block[:SEALED_BYTES]) == total, "its checksum is wrong")


def _flexible_size(md_size: int, meta_disk_bytes: int | None) -> int:
    """The size of the disk when the meta-data was made: it may have grown since."""
    assert meta_disk_bytes is not None, "another disk has a size of its own"
    made_for = md_size * SECTOR_BYTES
    _check(made_for >= SUPERBLOCK_BYTES, f"its size is given as {md_size} sectors")
    if made_for > meta_disk_bytes:
        raise DiskTooSmall(
            f"The meta-data was made for a disk of {format_bytes(made_for)}, this one has only "
            f"{format_bytes(meta_disk_bytes)}.",
            "Has the disk been replaced by a smaller one? Use one at least as large.",
        )
    return made_for


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise _corrupt(what)


def _corrupt(what: str) -> MetadataCorrupt:
    return MetadataCorrupt(
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
        md_size_sectors=layout.md_size_sectors,
        al_offset=layout.al_offset,
        al_extents=al_extents,
        bm_offset=layout.bm_offset,
        al_stripes=layout.stripes,
        al_stripe_blocks=layout.stripe_blocks,
    )
