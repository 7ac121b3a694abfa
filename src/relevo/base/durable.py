"""Small files that must survive a power cut."""

from __future__ import annotations

import os
import pathlib


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
        os.fsync(fd)
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
        os.fsync(fd)
    finally:
        os.close(fd)
