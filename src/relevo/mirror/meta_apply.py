"""Applies the activity log of a crashed copy to its bitmap, as `drbdmeta apply-al`: then any drbd attaches it."""

from __future__ import annotations

import os
import pathlib

import msgspec

from relevo.config.meta_disk import INTERNAL, MetaDisk
from relevo.mirror import activity_log_format as al
from relevo.mirror import metadata
from relevo.mirror.bitmap import BLOCK_BYTES
from relevo.mirror.create import opened, read_at, write_activity_log, write_at
from relevo.mirror.layout import SECTOR_BYTES, SUPERBLOCK_BYTES, Layout, superblock_place
from relevo.mirror.metadata import MetaFlag, Superblock

_MARKS_BYTES = al.EXTENT_BYTES // BLOCK_BYTES // 8
"""What an extent takes in the bitmap."""


class Applied(msgspec.Struct, frozen=True):
    """What was done.

    Attributes:
        clean: nothing had to be done.
        extents: how many extents of 4 MiB are out of sync by the activity log.
        everything: the log is unreadable: everything counts as out of sync.
    """

    clean: bool
    extents: int = 0
    everything: bool = False


def apply_activity_log(path: pathlib.Path, place: MetaDisk = INTERNAL) -> Applied:
    """Mark in the bitmap what the activity log of the data disk at `path` says, and make the meta-data clean.

    Only the log of a Primary counts: what a Secondary lacks is known by its peer.

    Raises:
        DiskInUse: a mirror is using it.
        RelevoError: as `create.read_superblock`.
    """
    with opened(path, place, os.O_RDWR) as (fd, disk_bytes, meta_bytes):
        at = superblock_place(disk_bytes if meta_bytes is None else meta_bytes, place)
        block = read_at(fd, SUPERBLOCK_BYTES, at)
        superblock, layout = metadata.decode_superblock(block, disk_bytes, place, meta_bytes)
        if superblock.clean and superblock.flags & MetaFlag.AL_CLEAN:
            return Applied(clean=True)
        applied = Applied(clean=False)
        flags = superblock.flags | MetaFlag.AL_CLEAN
        if superblock.flags & MetaFlag.PRIMARY_IND:
            applied = _mark(fd, layout, superblock)
            if applied.everything:
                flags |= MetaFlag.FULL_SYNC
            os.fsync(fd)
        write_activity_log(fd, layout)
        os.fsync(fd)
        clean = msgspec.structs.replace(superblock, flags=int(flags), clean=True)
        write_at(fd, metadata.encode_superblock(clean), layout.superblock)
        os.fsync(fd)
        return applied


def _mark(fd: int, layout: Layout, superblock: Superblock) -> Applied:
    try:
        replay = al.replay(read_at(fd, layout.al_bytes, layout.activity_log), layout.stripes, layout.stripe_blocks)
    except al.ActivityLogCorrupt:
        return Applied(clean=False, everything=True)
    extents = sorted(replay.extents)
    end = -(-superblock.size_sectors * SECTOR_BYTES // al.EXTENT_BYTES)
    inside = [extent for extent in extents if extent < end]
    for extent in inside:
        write_at(fd, b"\xff" * _MARKS_BYTES, layout.bitmap + extent * _MARKS_BYTES)
    return Applied(clean=False, extents=len(inside))
