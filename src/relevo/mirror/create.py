"""Writes the meta-data of a new copy to the end of a backing disk, and reads it back as the worker does."""

from __future__ import annotations

import os
import pathlib
import secrets
import stat

from relevo.base.errors import RelevoError
from relevo.mirror import activity_log_format as al
from relevo.mirror import metadata

_ZEROES_BYTES = 1 << 20


class MetadataExists(RelevoError):
    """The disk already carries the meta-data of a mirror."""


class DiskUnusable(RelevoError):
    """The backing disk cannot be opened, or is neither a block device nor a regular file."""


def open_disk(path: pathlib.Path, flags: int) -> tuple[int, int]:
    """Open a backing disk; returns the descriptor and its size in bytes.

    Raises:
        DiskUnusable: it cannot be opened, or is neither a block device nor a regular file.
    """
    try:
        fd = os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        raise DiskUnusable(
            f"The disk {path} cannot be opened ({error.strerror}).", "Check `disks` of this node."
        ) from error
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISBLK(mode) or stat.S_ISREG(mode)):
        os.close(fd)
        raise DiskUnusable(f"{path} is neither a block device nor a file.", "Check `disks` of this node.")
    return fd, os.lseek(fd, 0, os.SEEK_END)


def create_metadata(
    path: pathlib.Path,
    *,
    zeroed: bool = False,
    force: bool = False,
    al_extents: int = metadata.AL_EXTENTS_DEFAULT,
) -> metadata.Layout:
    """Make the disk at `path` the copy of a new mirror. What it held in its last part is overwritten.

    Args:
        path: the backing disk: a block device, or a file of its full size.
        zeroed: the operator says that both disks hold nothing but zeroes: no initial resync.
        force: overwrite meta-data that is already there.
        al_extents: size of the activity log.

    Returns:
        Where things lie.

    Raises:
        DiskUnusable: as `open_disk`.
        DiskTooSmall: no room.
        MetadataExists: there is some already, and `force` is not given.
    """
    fd, disk_bytes = open_disk(path, os.O_RDWR)
    try:
        layout = metadata.layout_for(disk_bytes)
        if not force:
            _refuse_existing(fd, path, layout)
        _write_zeroes(fd, layout.bitmap, layout.bitmap_bytes)
        blocks = layout.stripes * layout.stripe_blocks
        _write(fd, al.initialized_block() * blocks, layout.activity_log)
        os.fsync(fd)
        uuid = secrets.randbits(64)
        superblock = metadata.fresh_superblock(layout, uuid, zeroed=zeroed, al_extents=al_extents)
        _write(fd, metadata.encode_superblock(superblock), layout.superblock)
        os.fsync(fd)
    finally:
        os.close(fd)
    return layout


def read_superblock(path: pathlib.Path) -> tuple[metadata.Superblock, metadata.Layout]:
    """The meta-data of the disk at `path`.

    Raises:
        RelevoError: as `open_disk` and `metadata.decode_superblock`.
    """
    fd, disk_bytes = open_disk(path, os.O_RDONLY)
    try:
        block = os.pread(fd, metadata.SUPERBLOCK_BYTES, metadata.superblock_place(disk_bytes))
    finally:
        os.close(fd)
    return metadata.decode_superblock(block, disk_bytes)


def _refuse_existing(fd: int, path: pathlib.Path, layout: metadata.Layout) -> None:
    block = os.pread(fd, metadata.SUPERBLOCK_BYTES, layout.superblock)
    try:
        metadata.decode_superblock(block, layout.disk_bytes)
    except metadata.NoMetadata:
        return
    except RelevoError:
        pass  # something of a mirror is there, if only a damaged one: the operator has to say that it may go
    raise MetadataExists(
        f"{path} already carries the meta-data of a mirror.",
        "To give up what it holds, repeat the command with --force.",
    )


def _write(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count


def _write_zeroes(fd: int, offset: int, count: int) -> None:
    while count:
        size = min(count, _ZEROES_BYTES)
        _write(fd, bytes(size), offset)
        offset, count = offset + size, count - size
