"""Small files that must survive a power cut."""

from __future__ import annotations

import os
import pathlib


def write_durably(path: pathlib.Path, data: bytes, mode: int = 0o600) -> None:
    """Replace a file so that after a power cut either the old or the new content is there, whole.

    Written beside, fsynced, renamed, and the directory fsynced: when this returns the new content is on stable storage.

    Raises:
        OSError: as the system calls do; the old content is then still in place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
