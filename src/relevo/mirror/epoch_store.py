"""The highest vote's epoch beside the disk: read once, stored durably in a thread while the data path goes on."""

from __future__ import annotations

import errno
import os
import pathlib
import queue
import threading
from collections import deque
from collections.abc import Callable

from relevo.base.durable import write_durably
from relevo.base.errors import RelevoError
from relevo.mirror import events as ev
from relevo.mirror.loop import READ, Loop


class EpochUnreadable(RelevoError):
    """The file that keeps the highest vote's epoch cannot be read: an older vote could not be told from a newer."""


class EpochStore:
    """Keeps it in a file.

    Args:
        loop: the loop that is told when a number is stored.
        path: the file.
        done: called with an effect's token and 0 or an errno.
    """

    def __init__(self, loop: Loop, path: pathlib.Path, done: Callable[[ev.Token, int], None]) -> None:
        self._path = path
        self._done = done
        self._storing: deque[ev.PersistEpoch] = deque()
        self._stored: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._stored_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        loop.add(self._stored_fd, READ, self._epoch_stored)

    def read(self) -> int:
        """The highest epoch that was stored; 0: none was.

        Raises:
            EpochUnreadable: there is one, but which cannot be told.
        """
        try:
            return int(self._path.read_text())
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            raise EpochUnreadable(
                f"{self._path} cannot be read ({error}).",
                "If it is damaged, remove it while the other server is active or off.",
            ) from error

    def persist(self, effect: ev.PersistEpoch) -> None:
        """In a thread, one after the other: on a busy disk it may take seconds, in which pings have to be answered."""
        self._storing.append(effect)
        if len(self._storing) == 1:
            self._store_next()

    def _store_next(self) -> None:
        threading.Thread(target=self._store, args=(self._storing[0].epoch,), daemon=True).start()

    def _store(self, epoch: int) -> None:
        number = 0
        try:
            write_durably(self._path, f"{epoch}\n".encode())
        except OSError as error:
            number = error.errno or errno.EIO
        self._stored.put(number)
        os.eventfd_write(self._stored_fd, 1)

    def _epoch_stored(self, _events: int) -> None:
        os.eventfd_read(self._stored_fd)
        number, stored = self._stored.get(), self._storing.popleft()
        if self._storing:
            self._store_next()
        self._done(stored.token, number)
