"""Marks a copy that is not in use as no longer current, as `drbdmeta outdate`: a fence-peer handler may ask for it."""

from __future__ import annotations

import os
import pathlib

import msgspec

from relevo.config.meta_disk import INTERNAL, MetaDisk
from relevo.mirror import metadata
from relevo.mirror.create import opened, read_at, write_at
from relevo.mirror.errors import InconsistentAnyway
from relevo.mirror.layout import SUPERBLOCK_BYTES, superblock_place
from relevo.mirror.metadata import MetaFlag


def outdate_metadata(path: pathlib.Path, place: MetaDisk = INTERNAL) -> None:
    """Mark the copy on the data disk at `path`; it is stable when this returns.

    Raises:
        InconsistentAnyway: it is worse than that.
        DiskInUse: a mirror is using it.
        RelevoError: as `create.read_superblock`.
    """
    with opened(path, place, os.O_RDWR) as (fd, disk_bytes, meta_bytes):
        at = superblock_place(disk_bytes if meta_bytes is None else meta_bytes, place)
        block = read_at(fd, SUPERBLOCK_BYTES, at)
        superblock, layout = metadata.decode_superblock(block, disk_bytes, place, meta_bytes)
        if not superblock.flags & MetaFlag.CONSISTENT:
            raise InconsistentAnyway
        flags = int(superblock.flags & ~MetaFlag.WAS_UP_TO_DATE)
        write_at(fd, metadata.encode_superblock(msgspec.structs.replace(superblock, flags=flags)), layout.superblock)
        os.fsync(fd)
