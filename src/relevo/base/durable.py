"""What must survive a power cut: an fsync that can be believed, and small files."""

from __future__ import annotations

import errno
import os
import pathlib

_PROBE = "user.relevo.absent"
_HARMLESS = frozenset({errno.ENODATA, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES})
"""What the probe meets on a file system that works: no such attribute, no attributes at all, not ours to change."""


def sync_fd(fd: int, *, data_only: bool = False) -> None:
    """`fsync` (or `fdatasync`) that does not succeed on a file system whose disk has failed.

    ext4 alone cannot be believed: when the transaction that holds a change failed with the disk a moment before, and
    the file system has not been made read-only yet, fsync finds that transaction over and answers 0 (seen on Linux 6.18
    with a disk that refuses everything: in 1 of 15 power cuts under load). Asking for a journal handle afterwards says
    whether the journal has been aborted; to remove an attribute that does not exist asks for one, and changes nothing.

    Raises:
        OSError: what the system calls say; EROFS when the journal was aborted. Nothing may be acknowledged then.
    """
    (os.fdatasync if data_only else os.fsync)(fd)
    try:
        os.removexattr(fd, _PROBE)
    except OSError as error:
        if error.errno not in _HARMLESS:
            raise


def write_durably(path: pathlib.Path, data: bytes, mode: int = 0o600) -> None:
    """Replace a file so that after a power cut either the old or the new content is there, whole.

    Written beside, fsynced, renamed, and the directory fsynced (one that is made too, and then the one above it): when
    this returns the new content is on stable storage.

    Raises:
        OSError: as the system calls do; the old content is then still in place.
    """
    _make_folder(path.parent)
    beside = path.with_name(path.name + ".new")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.fchmod(fd, mode)  # a leftover of a power cut may have another one
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        sync_fd(fd)
    finally:
        os.close(fd)
    beside.replace(path)
    sync_folder(path.parent)


def _make_folder(folder: pathlib.Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: pathlib.Path) -> None:
    """Make the names in a folder stable. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_fd(fd)
    finally:
        os.close(fd)
