"""Writes the meta-data of a new copy, reads it back as the worker does, takes it away."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pathlib
import secrets
import stat
from collections.abc import Iterator

from relevo.base.errors import RelevoError
from relevo.config.meta_disk import INTERNAL, MetaDisk
from relevo.mirror import activity_log_format as al
from relevo.mirror import metadata
from relevo.mirror.layout import (
    AL_STRIPE_BLOCKS,
    AL_STRIPES,
    SUPERBLOCK_BYTES,
    DiskTooSmall,
    Layout,
    layout_for,
    superblock_place,
)

_ZEROES_BYTES = 1 << 20


class MetadataExists(RelevoError):
    """The disk already carries the meta-data of a mirror."""


class DiskUnusable(RelevoError):
    """The backing disk cannot be opened, or is neither a block device nor a regular file."""


class DiskInUse(RelevoError):
    """A running mirror, or somebody else, has the disk."""


def open_disk(path: pathlib.Path, flags: int, *, alone: bool = False) -> tuple[int, int]:
    """Open a backing disk; returns the descriptor and its size in bytes.

    Args:
        path: a block device or a regular file.
        flags: of open(2).
        alone: nobody else may be using it.

    Raises:
        DiskUnusable: it cannot be opened, or is neither a block device nor a regular file.
        DiskInUse: `alone`, and somebody does.
    """
    try:
        exclusive = os.O_EXCL if alone and stat.S_ISBLK(path.stat().st_mode) else 0
        fd = os.open(path, flags | exclusive | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise _in_use(path) from error
        raise DiskUnusable(
            f"The disk {path} cannot be opened ({error.strerror}).", "Check `disks` and `meta_disks` of this node."
        ) from error
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISBLK(mode) or stat.S_ISREG(mode)):
        os.close(fd)
        raise DiskUnusable(
            f"{path} is neither a block device nor a file.", "Check `disks` and `meta_disks` of this node."
        )
    if alone and stat.S_ISREG(mode):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(fd)
            raise _in_use(path) from error
    return fd, os.lseek(fd, 0, os.SEEK_END)


def _in_use(path: pathlib.Path) -> DiskInUse:
    return DiskInUse(f"{path} is in use.", "Stop the mirror that uses it, or unmount it.")


@contextlib.contextmanager
def opened(path: pathlib.Path, place: MetaDisk, flags: int) -> Iterator[tuple[int, int, int | None]]:
    """Open the disk that holds a copy's meta-data: descriptor, size of the data disk, its own size if it is another.

    To write, the copy must not be in use; a disk that holds slots of others as well may.

    Raises:
        DiskUnusable, DiskInUse: as `open_disk`; DiskUnusable, too, when it fails in the user's hands.
    """
    alone = flags & os.O_ACCMODE != os.O_RDONLY
    with contextlib.ExitStack() as stack:
        fd, disk_bytes = open_disk(path, flags if place.path is None else os.O_RDONLY, alone=alone)
        stack.callback(os.close, fd)
        if place.path is None:
            with _errors_of(path):
                yield fd, disk_bytes, None
            return
        meta_fd, meta_bytes = open_disk(place.path, flags, alone=alone and place.kind == "flexible")
        stack.callback(os.close, meta_fd)
        with _errors_of(place.path):
            yield meta_fd, disk_bytes, meta_bytes


@contextlib.contextmanager
def _errors_of(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskUnusable(
            f"The disk {path} cannot be read or written ({error.strerror}).",
            "The kernel's log says more: is it broken?",
        ) from error


def create_metadata(
    path: pathlib.Path,
    *,
    zeroed: bool = False,
    force: bool = False,
    al_extents: int = metadata.AL_EXTENTS_DEFAULT,
    place: MetaDisk = INTERNAL,
    al_stripes: int = AL_STRIPES,
    al_stripe_blocks: int = AL_STRIPE_BLOCKS,
) -> Layout:
    """Make the disk at `path` the copy of a new mirror. What lay where the meta-data goes is overwritten.

    Args:
        path: the data disk: a block device, or a file of its full size.
        zeroed: the operator says that both disks hold nothing but zeroes: no initial resync.
        force: overwrite meta-data that is already there.
        al_extents: size of the activity log in extents.
        place: where the meta-data goes.
        al_stripes, al_stripe_blocks: the activity log's ring in blocks of 4 KiB.

    Returns:
        Where things lie.

    Raises:
        DiskUnusable, DiskInUse: as `open_disk`.
        DiskTooSmall: no room.
        LayoutImpossible: no such activity log there.
        MetadataExists: there is some already, and `force` is not given.
    """
    with opened(path, place, os.O_RDWR) as (fd, disk_bytes, meta_bytes):
        layout = layout_for(disk_bytes, al_stripes, al_stripe_blocks, place, meta_bytes)
        if not force:
            _refuse_existing(fd, place, path, layout)
        write_at(fd, bytes(SUPERBLOCK_BYTES), layout.superblock)  # cut off in the middle, it must not look like the old
        os.fsync(fd)
        _write_zeroes(fd, layout.bitmap, layout.bitmap_bytes)
        write_activity_log(fd, layout)
        os.fsync(fd)
        uuid = secrets.randbits(64)
        superblock = metadata.fresh_superblock(layout, uuid, zeroed=zeroed, al_extents=al_extents)
        write_at(fd, metadata.encode_superblock(superblock), layout.superblock)
        os.fsync(fd)
    return layout


def read_superblock(path: pathlib.Path, place: MetaDisk = INTERNAL) -> tuple[metadata.Superblock, Layout]:
    """The meta-data of the data disk at `path`.

    Raises:
        RelevoError: as `open_disk` and `metadata.decode_superblock`.
    """
    with opened(path, place, os.O_RDONLY) as (fd, disk_bytes, meta_bytes):
        at = superblock_place(disk_bytes if meta_bytes is None else meta_bytes, place)
        block = read_at(fd, SUPERBLOCK_BYTES, at)
        return metadata.decode_superblock(block, disk_bytes, place, meta_bytes)


def wipe_metadata(path: pathlib.Path, place: MetaDisk = INTERNAL) -> None:
    """Take the meta-data away: the data stays, but nothing of a mirror is known any more.

    Raises:
        NoMetadata: there is none.
        RelevoError: as `open_disk`; a superblock that is damaged, or made for another size, is wiped as well.
    """
    with opened(path, place, os.O_RDWR) as (fd, disk_bytes, meta_bytes):
        at = superblock_place(disk_bytes if meta_bytes is None else meta_bytes, place)
        damaged = (metadata.MetadataCorrupt, metadata.MetadataTooNew, DiskTooSmall)
        with contextlib.suppress(*damaged):  # something of a mirror is there, if only a damaged one
            metadata.decode_superblock(read_at(fd, SUPERBLOCK_BYTES, at), disk_bytes, place, meta_bytes)
        write_at(fd, bytes(SUPERBLOCK_BYTES), at)
        os.fsync(fd)


def _refuse_existing(fd: int, place: MetaDisk, path: pathlib.Path, layout: Layout) -> None:
    block = read_at(fd, SUPERBLOCK_BYTES, layout.superblock)
    try:
        metadata.decode_superblock(block, layout.disk_bytes, place, layout.meta_disk_bytes)
    except metadata.NoMetadata:
        return
    except RelevoError:
        pass  # something of a mirror is there, if only a damaged one: the operator has to say that it may go
    raise MetadataExists(
        f"{path if place.path is None else place} already carries the meta-data of a mirror.",
        "To give up what it holds, repeat the command with --force.",
    )


def write_activity_log(fd: int, layout: Layout) -> None:
    """Fill the activity log as that of a copy on which nothing is active."""
    block = al.initialized_block()
    for at in range(layout.activity_log, layout.activity_log + layout.al_bytes, len(block)):
        write_at(fd, block, at)


def read_at(fd: int, count: int, offset: int) -> bytes:
    """Read that many bytes.

    Raises:
        MetadataCorrupt: the disk ends before.
    """
    parts = []
    while count:
        part = os.pread(fd, count, offset)
        if not part:
            raise metadata.MetadataCorrupt("The disk ends within its meta-data.", "Is it the right disk, and whole?")
        parts.append(part)
        offset, count = offset + len(part), count - len(part)
    return b"".join(parts)


def write_at(fd: int, data: bytes, offset: int) -> None:
    """Write all of it."""
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count


def _write_zeroes(fd: int, offset: int, count: int) -> None:
    zeroes = bytes(_ZEROES_BYTES)
    while count:
        size = min(count, _ZEROES_BYTES)
        write_at(fd, zeroes[:size], offset)
        offset, count = offset + size, count - size
