"""`attach` while the mirror runs: the disk is opened and read in a thread, so that whatever it does the loop goes on.

A thread that a hanging disk holds cannot be ended. Its `attach` is refused after `ATTACH_LIMIT_MS`, and another one as
long as it lasts; should it come back with an open disk, that is closed again.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from typing import Any

from relevo.base.errors import RelevoError
from relevo.device.backing import BackingInUse
from relevo.mirror import errors
from relevo.mirror import events as ev
from relevo.mirror.disk_content import OpenCopy
from relevo.mirror.loop import READ, Loop, Timer

ATTACH_LIMIT_MS = 60_000
"""How long `attach` waits for the disk: until it is read, and until what was under way on the one before has ended."""
GIVEN_UP_MAX = 2
"""So many disks that do not answer may be left behind; each keeps its memory until the kernel is done with it."""


class Reattach:
    """One `attach` at a time.

    Args:
        loop: the loop that is told when the disk is read.
        read: opens the disk and reads it; called in a thread.
        use: takes the open disk and the token of whoever asked; a `RelevoError` or OSError is the answer.
        refuse: called with the token and why the disk is not attached.
        closing: whether the disk before it is still to be closed in order.
        given_up: how many disks were left behind because they do not answer.
    """

    def __init__(
        self,
        loop: Loop,
        read: Callable[[], OpenCopy],
        use: Callable[[OpenCopy, ev.Token], None],
        refuse: Callable[[ev.Token, Exception], None],
        closing: Callable[[], bool],
        given_up: Callable[[], int],
    ) -> None:
        self.waiting = False
        """Somebody has asked, and the disk is not being read: call `go_on` when something has ended on another one."""
        self._loop = loop
        self._read = read
        self._use = use
        self._refuse = refuse
        self._closing = closing
        self._given_up = given_up
        self._token: Any = None
        self._timer: Timer | None = None
        self._reading = False
        self._in_use = False
        self._found: queue.SimpleQueue[OpenCopy | Exception] = queue.SimpleQueue()
        self._found_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        loop.add(self._found_fd, READ, self._read_ended)

    def begin(self, token: ev.Token) -> None:
        """Attach as soon as it can be.

        Raises:
            CommandInProgress: somebody else has asked for it.
            DiskDoesNotAnswer: an earlier attempt still waits for the disk.
        """
        if self._token is not None:
            raise errors.CommandInProgress("A disk is being attached.")
        if self._reading:
            raise errors.DiskDoesNotAnswer("The disk that was to be attached before does not answer yet.")
        self._token = token
        self._in_use = False
        self.waiting = True
        self._timer = self._loop.call_in(ATTACH_LIMIT_MS, self._late)
        self.go_on()

    def go_on(self) -> None:
        """Read the disk now, unless one before it is in the way."""
        given_up = self._given_up()
        if not self.waiting or self._closing() or given_up >= GIVEN_UP_MAX or (self._in_use and given_up):
            return
        self.waiting, self._reading = False, True
        threading.Thread(target=self._work, name="attach", daemon=True).start()

    def _work(self) -> None:
        found: OpenCopy | Exception
        try:
            found = self._read()
        except Exception as error:  # noqa: BLE001 - whatever happened, whoever asked is told
            found = error
        self._found.put(found)
        os.eventfd_write(self._found_fd, 1)

    def _read_ended(self, _events: int) -> None:
        os.eventfd_read(self._found_fd)
        found = self._found.get()
        self._reading = False
        if self._token is None:  # too late
            if isinstance(found, OpenCopy):
                found.close()
        elif isinstance(found, BackingInUse) and self._given_up():
            self._in_use = self.waiting = True  # most likely by ourselves: it is the one that did not answer
            self.go_on()
        elif isinstance(found, OpenCopy):
            token = self._end()
            try:
                self._use(found, token)
            except (RelevoError, OSError) as error:
                self._refuse(token, error)
        else:
            self._refuse(self._end(), found)

    def _late(self) -> None:
        limit = f"within {ATTACH_LIMIT_MS // 1000} s"
        if self._reading:
            what = f"The disk could not be read {limit}."
        else:
            what = f"What was under way on the disk before has not ended {limit}."
        self._refuse(self._end(), errors.DiskDoesNotAnswer(what))

    def _end(self) -> ev.Token:
        token, self._token = self._token, None
        self.waiting = False
        if self._timer is not None:
            self._timer.cancel()
        return token
