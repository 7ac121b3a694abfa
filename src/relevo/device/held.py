"""What outlives a worker: its descriptor of /dev/fuse. While the keeper holds it the device waits instead of failing.

Requests that were handed to the dead worker and not answered stay with the kernel, new ones queue behind them, and the
next worker has all of them handed over (FUSE_NOTIFY_RESEND). Waiting has bounds, named here; after them the connection
is aborted and whoever waits gets an I/O error, as without all this.

FOLDER/held is locked (flock) as long as the next worker would get the device: `is_held` tells others. The lock dies
with the keeper, so it is never wrong about one that is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import time

from relevo.device.connection import Connection

CANNOT_RESUME = 75
"""Exit status (EX_TEMPFAIL) of a worker that cannot take over the device of the dead one; it could start without."""
RESUME_LIMIT_S = 10.0
"""How long a new worker may take until it serves the device of the dead one."""
MAX_RESUMES = 3
"""How often in a row: a request that kills every worker must not keep its device waiting for ever."""
STEADY_S = 30.0
"""A worker that served for so long did not fail at its start."""
RESUME_BOUND_S = MAX_RESUMES * RESUME_LIMIT_S + 5.0
"""Longer than this no device waits for its server, the starts in between included."""
NOTE = "held"


class Held:
    """The descriptor of the present device, or none.

    Args:
        folder: the device's.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._path = folder / NOTE
        self._lock = -1
        self._since_s = 0.0
        self.fd = -1
        self.resumes = 0
        self.deadline_s: float | None = None

    def hold(self, fd: int) -> None:
        """Take over a descriptor of the device that was just made."""
        self.drop(None)
        lock = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)  # `is_held` has it for a moment at most
        self.fd, self._lock = fd, lock
        self.resumes = 0
        self.serving()

    def serving(self) -> None:
        """A worker serves the device."""
        self.deadline_s = None
        self._since_s = time.monotonic()

    def begin(self) -> bool:
        """The worker has died: may another one take over? Its time begins to run."""
        if self.fd < 0:
            return False
        if self.deadline_s is None and time.monotonic() - self._since_s > STEADY_S:
            self.resumes = 0
        if self.resumes >= MAX_RESUMES:
            return False
        self.resumes += 1
        self.deadline_s = time.monotonic() + RESUME_LIMIT_S
        return True

    def drop(self, connection: Connection | None) -> None:
        """Let go: the connection, if there is a device, fails at once, held or not.

        Aborted first, because a descriptor that is on its way to somebody would keep it alive.
        """
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.abort()
        fd, self.fd = self.fd, -1
        lock, self._lock = self._lock, -1
        self.deadline_s = None
        if fd >= 0:
            os.close(fd)
        if lock >= 0:
            self._path.unlink(missing_ok=True)
            os.close(lock)


class Pause:
    """For those who talk to a worker: whether its silence is a pause, in which its device waits for the next one.

    Args:
        folder: the device's.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._since_s: float | None = None

    def lasts(self) -> bool:
        """It does not answer now: does its device wait, and not longer than `RESUME_BOUND_S`?"""
        now_s = time.monotonic()
        if not is_held(self._folder):
            self._since_s = None
            return False
        if self._since_s is None:
            self._since_s = now_s
        return now_s - self._since_s <= RESUME_BOUND_S

    def over(self) -> None:
        """It answers."""
        self._since_s = None


def is_held(folder: pathlib.Path) -> bool:
    """Whether a keeper holds the device of this folder, and so would give it to the next worker."""
    try:
        fd = os.open(folder / NOTE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
