"""Small files of ours in the work area of the volume: there whole or not at all, whatever dies. Runs in threads.

Written beside, renamed, and made stable as every change is (`commits.py`): the old or the new content is there.
"""

from __future__ import annotations

import os

from relevo.files.entries import write_all
from relevo.files.volume import Volume

MODE = 0o600


def replace_whole(volume: Volume, area: str, name: str, data: bytes, *, mark: str = "new") -> None:
    """Give a file of a work folder another content, durably.

    Args:
        volume: the open one.
        area: the work folder.
        name: of the file.
        data: its new content.
        mark: ending of the file beside it; one of their own for each of those who may do this at the same time.

    Raises:
        OSError: as the system calls do; the old content is then still in place.
    """
    folder, beside = volume.work(area), f"{name}.{mark}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(beside, flags, MODE, dir_fd=folder)
    try:
        os.fchmod(fd, MODE)  # a leftover of a power cut may have another one
        write_all(fd, [data])
        volume.commits.before(fd)
    except BaseException:
        os.unlink(beside, dir_fd=folder)
        raise
    finally:
        os.close(fd)
    os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
    volume.commits.sync(folder)


def read_whole(volume: Volume, area: str, name: str, most_bytes: int) -> bytes | None:
    """The first `most_bytes` of a file of a work folder; None when there is none.

    Raises:
        OSError: as the system calls do.
    """
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=volume.work(area))
    except FileNotFoundError:
        return None
    try:
        raw = b""
        while piece := os.read(fd, most_bytes - len(raw)):
            raw += piece
        return raw
    finally:
        os.close(fd)
