"""Opening a disk and reading it, in a thread: whatever the disk does, the loop goes on.

A thread that a hanging disk holds cannot be ended. Whoever waits for it is refused after `ATTACH_LIMIT_MS`, and it is
left behind; should it come back with an open disk, that is closed again. Another attempt may be made meanwhile, with a
disk that has taken the place of that one: at most `STUCK_MAX` of them are left behind.
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
STUCK_MAX = 3
"""So many threads that a disk does not let go may be left behind: each holds a stack, and what it has opened."""


class Reattach:
    """One attempt at a time, and those that hang.

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
        """An attempt is made, and the disk is not being read: call `go_on` when something has ended on another one."""
        self.busy = False
        """An attempt is being made."""
        self._loop = loop
        self._read = read
        self._use = use
        self._refuse = refuse
        self._closing = closing
        self._given_up = given_up
        self._token: Any = None
        self._timer: Timer | None = None
        self._reading: object | None = None
        self._stuck: set[object] = set()
        self._in_use = False
        self._found: queue.SimpleQueue[tuple[object, OpenCopy | Exception]] = queue.SimpleQueue()
        self._found_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC | os.EFD_SEMAPHORE)
        loop.add(self._found_fd, READ, self._read_ended)

    @property
    def stuck(self) -> int:
        """How many attempts were left behind because the disk does not answer."""
        return len(self._stuck)

    def begin(self, token: ev.Token) -> None:
        """Attach as soon as it can be; None: for nobody, and whoever asks meanwhile is told the outcome.

        Raises:
            CommandInProgress: somebody else has asked for it.
            DiskDoesNotAnswer: too many earlier attempts still wait for a disk.
        """
        if self.busy:
            if self._token is not None:
                raise errors.CommandInProgress("A disk is being attached.")
            self._token = token
            return
        if len(self._stuck) >= STUCK_MAX:
            raise errors.AttemptsHang(len(self._stuck))
        self._token = token
        self._in_use = False
        self.busy = self.waiting = True
        self._timer = self._loop.call_in(ATTACH_LIMIT_MS, self._late)
        self.go_on()

    def go_on(self) -> None:
        """Read the disk now, unless one before it is in the way."""
        given_up = self._given_up()
        own = bool(given_up or self._stuck)
        if not self.waiting or self._closing() or given_up >= GIVEN_UP_MAX or (self._in_use and own):
            return
        self.waiting = False
        self._reading = attempt = object()
        threading.Thread(target=self._work, args=(attempt,), name="attach", daemon=True).start()

    def _work(self, attempt: object) -> None:
        found: OpenCopy | Exception
        try:
            found = self._read()
        except Exception as error:  # noqa: BLE001 - whatever happened, whoever asked is told
            found = error
        self._found.put((attempt, found))
        os.eventfd_write(self._found_fd, 1)

    def _read_ended(self, _events: int) -> None:
        os.eventfd_read(self._found_fd)
        attempt, found = self._found.get()
        if attempt in self._stuck:  # too late
            self._stuck.remove(attempt)
            if isinstance(found, OpenCopy):
                found.close()
            return
        self._reading = None
        if isinstance(found, BackingInUse) and (self._given_up() or self._stuck):
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
        if self._reading is not None:
            what = f"The disk could not be read {limit}."
            self._stuck.add(self._reading)
            self._reading = None
        else:
            what = f"What was under way on the disk before has not ended {limit}."
        self._refuse(self._end(), errors.DiskDoesNotAnswer(what))

    def _end(self) -> ev.Token:
        token, self._token = self._token, None
        self.busy = self.waiting = False
        if self._timer is not None:
            self._timer.cancel()
        return token
