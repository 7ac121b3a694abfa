"""A whole image out of a saved copy: what was saved, laid over a base where only changed blocks were saved.

The base is a disk that is in use while it is read, and most of it is another side's: whoever makes an image has its
file system checked before it is used.
"""

from __future__ import annotations

import errno
import os
import pathlib
from collections.abc import Iterator

from relevo.base.errors import RelevoError
from relevo.base.units import format_bytes
from relevo.mirror import saved as copies
from relevo.mirror.saved import PIECE_BYTES, Saved, TargetThere

HOLE_BYTES = 64 << 10
"""Pieces of the base of this size that are zero become holes."""
_ZEROES = bytes(HOLE_BYTES)


class BaseUnusable(RelevoError):
    """The base of an image is missing, too small, or not wanted."""


class NoRoom(RelevoError):
    """The image does not fit on the file system of its folder."""


def write_image(saved: Saved, target: pathlib.Path, base: pathlib.Path | None) -> int:
    """Write a saved copy to a new file that is as large as the mirror's device, sparse, and stable at the end.

    Args:
        saved: the copy.
        target: the file; nothing of it is left behind when it fails.
        base: a disk or a file with the blocks that were not saved; None for a copy that is whole.

    Returns:
        bytes of the saved copy in it.

    Raises:
        SavedCopyUnusable: the copy is damaged; nothing has been written.
        BaseUnusable: the base is.
        TargetThere: `target` exists.
        NoRoom: it does not fit.
        OSError: something cannot be read or written.
    """
    if target.exists():
        raise TargetThere(f"{target} exists.", "Name a new file.")
    if base is None and saved.index.kind == "blocks":
        raise BaseUnusable(f"{saved.name} holds changed blocks only.", "Name a base to lay them over: --base DISK.")
    if base is not None and saved.index.kind != "blocks":
        raise BaseUnusable(f"{saved.name} is whole.", "Leave out --base.")
    pieces = copies.checked_pieces(saved)
    source = None if base is None else _open_base(base, saved.index.data_bytes)
    try:
        return _write(saved, target, source, pieces)
    finally:
        if source is not None:
            os.close(source)


def _write(saved: Saved, target: pathlib.Path, source: int | None, pieces: Iterator[tuple[int, bytes]]) -> int:
    fd = os.open(target, os.O_WRONLY | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.ftruncate(fd, saved.index.data_bytes)
        if source is not None:
            _copy(source, fd, saved.index.data_bytes)
        written = sum(_lay(fd, offset, data, sparse=source is None) for offset, data in pieces)
        os.fsync(fd)
    except BaseException as error:  # an interrupt too: what is not whole must not be taken for an image
        target.unlink()
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise NoRoom(
                f"There is no room for the image in {target.parent.absolute()}; the device has "
                f"{format_bytes(saved.index.data_bytes)}.",
                "Name a file in another folder.",
            ) from error
        raise
    finally:
        os.close(fd)
    return written


def _open_base(base: pathlib.Path, data_bytes: int) -> int:
    try:
        fd = os.open(base, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise BaseUnusable(f"{base} cannot be read ({error.strerror}).", "Name another base: --base DISK.") from error
    size = os.lseek(fd, 0, os.SEEK_END)
    if size < data_bytes:
        os.close(fd)
        what = f"{base} has {format_bytes(size)}, the device of the copy {format_bytes(data_bytes)}."
        raise BaseUnusable(what, "Name the disk that holds the mirror, or a copy of it: --base DISK.")
    return fd


def _copy(source: int, target: int, size: int) -> None:
    """Everything but holes and zeroes. What was read is not kept in memory: the server has better use for that."""
    for begin, end in _data(source, size):
        for at in range(begin, end, PIECE_BYTES):
            piece = os.pread(source, min(PIECE_BYTES, end - at), at)
            if not piece:
                raise BaseUnusable(f"The base ends at byte {at}.", "Has it become smaller? Try again.")
            _lay(target, at, piece, sparse=True)
            os.posix_fadvise(source, at, len(piece), os.POSIX_FADV_DONTNEED)


def _data(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts that are no holes; all of a disk that has none."""
    at = 0
    while at < size:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
            end = os.lseek(fd, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole
                return
            begin, end = at, size
        if begin < size:
            yield begin, min(end, size)
        at = end


def _lay(fd: int, offset: int, data: bytes, *, sparse: bool) -> int:
    """Write a piece; `sparse`: the file is new there, and reads as zeroes by itself."""
    step = HOLE_BYTES if sparse else len(data)
    for at in range(0, len(data), step):
        part = data[at : at + step]
        if not sparse or part != _ZEROES[: len(part)]:
            copies.write_all(fd, offset + at, part)
    return len(data)
