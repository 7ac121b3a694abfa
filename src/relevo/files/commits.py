"""How changes of the volume become durable: whoever waits at the same moment shares one commit of the journal.

On a file system that keeps order (ext4 with a journal, xfs) changes of names and sizes come to the disk in the order in
which they were made, and the disk's cache is flushed before a commit counts. Two things then replace the fsyncs of each
file and folder: `write_out` sends a file's bytes, which no journal holds, before it gets its name; and one commit makes
everything stable that anybody changed before it began. Other file systems (btrfs, ext4 without a journal, tmpfs) do not
promise an order between files: there each descriptor is fsynced by itself.

Everything here blocks, and runs in threads of the pool.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pathlib
import threading

from relevo.base.durable import sync_fd

_LIBC = ctypes.CDLL(None, use_errno=True)
_WRITE_AND_WAIT = 1 | 2 | 4
"""SYNC_FILE_RANGE_WAIT_BEFORE | WRITE | WAIT_AFTER: returns when no byte of the file is under way any more."""
_MOUNTS = pathlib.Path("/proc/self/mountinfo")
_JOURNALS = pathlib.Path("/proc/fs/jbd2")


def keeps_order(fd: int) -> bool:
    """Whether the file system of a descriptor brings changes to the disk in their order. In doubt it does not."""
    device = os.fstat(fd).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in _MOUNTS.read_text(errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[2] == number:
            kind = after.split()[0]
            return kind == "xfs" or (kind == "ext4" and _has_journal(number))
    return False


def _has_journal(number: str) -> bool:
    """Whether jbd2 keeps a journal on the very device (/proc/fs/jbd2/NAME-INODE); one elsewhere is not looked for."""
    try:
        name = pathlib.Path("/sys/dev/block", number).readlink().name
        return any(journal.name.rpartition("-")[0] == name for journal in _JOURNALS.iterdir())
    except OSError:
        return False


def write_out(fd: int) -> None:
    """Send what was written to a file to the disk (its cache may still hold it), and see whether that worked.

    Raises:
        OSError: the disk's, for any byte of this file since it was opened, or since this was last asked.
    """
    if _LIBC.sync_file_range(fd, ctypes.c_int64(0), ctypes.c_int64(0), _WRITE_AND_WAIT) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class _Round:
    """A commit that some wait for."""

    __slots__ = ("ended", "failure", "waiting")

    def __init__(self) -> None:
        self.waiting = 0
        self.ended = threading.Event()
        self.failure: OSError | None = None


class Commits:
    """The durability of one open volume.

    Args:
        folder: a folder of the volume that belongs to us. It is changed for each commit, so that there is one.
    """

    def __init__(self, folder: int) -> None:
        self._folder = folder
        self.ordered = keeps_order(folder)
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._next = _Round()

    @property
    def waiting(self) -> int:
        """How many wait for a commit that has not begun."""
        return self._next.waiting

    def before(self, fd: int) -> None:
        """What was written to a file (or made in a folder) is there whenever anything that is changed from now on is.

        Raises:
            OSError: the disk's. Nothing may follow then.
        """
        if self.ordered:
            write_out(fd)
        else:
            sync_fd(fd)

    def sync(self, *fds: int, data_only: bool = False) -> None:
        """Return when some files and folders are on stable storage, with all that was changed before.

        Raises:
            OSError: as `durable.sync_fd`. Nothing may be acknowledged then.
        """
        for fd in fds:
            if self.ordered:
                write_out(fd)
            else:
                sync_fd(fd, data_only=data_only)
        if self.ordered:
            self._join()

    def _join(self) -> None:
        """Wait for a commit that begins from now on: one that has begun may have missed our changes."""
        with self._lock:
            mine = self._next
            mine.waiting += 1
            leads = mine.waiting == 1
        if leads:
            self._lead(mine)
        else:
            mine.ended.wait()
        if mine.failure is not None:
            raise OSError(mine.failure.errno, mine.failure.strerror) from mine.failure

    def _lead(self, mine: _Round) -> None:
        """Others join until it is our turn, which is when the commit before has ended."""
        with self._turn:
            with self._lock:
                self._next = _Round()
            mine.failure = OSError(errno.EIO, "the commit was not made")  # until it is
            try:
                self.commit()
                mine.failure = None
            except OSError as error:
                mine.failure = error
            finally:
                mine.ended.set()

    def commit(self) -> None:
        """One commit of the journal. Without a change of our own there might be none to make, and nothing be flushed.

        fsync of a folder commits all there is on ext4, and on xfs all that is older than the folder's last change.

        Raises:
            OSError: as `durable.sync_fd`, which asks for a journal handle afterwards: there an aborted one shows.
        """
        os.utime(self._folder)
        sync_fd(self._folder)
