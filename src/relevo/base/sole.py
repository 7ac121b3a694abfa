"""One process of a kind on a server: a second one would take away the first one's socket and work against it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator

from relevo.base.errors import RelevoError


class AlreadyRuns(RelevoError):
    """A daemon was started a second time."""


@contextlib.contextmanager
def sole(folder: pathlib.Path, daemon: str) -> Iterator[None]:
    """Be the only process that calls itself so in this folder, until the end of the block or of the process.

    Args:
        folder: made if it is not there; `DAEMON.lock` lies in it, which nobody ever removes (flock).
        daemon: `node`, `heartbeat`, `witness`.

    Raises:
        AlreadyRuns: there is one.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{daemon}.lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRuns(
                f"`relevo {daemon} run` runs here already: process {_holder(fd)} has {path}.",
                f"Stop that one first (systemctl stop relevo-{daemon}), or leave it to it.",
            ) from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def _holder(fd: int) -> str:
    return os.pread(fd, 32, 0).decode(errors="replace").strip() or "?"
