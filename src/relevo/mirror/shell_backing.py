"""Which backing disk the mirror's process uses: from the attempt to open it until it is closed, or left behind.

Opening and reading are a thread's (`reattach`): a disk that hangs, at the start too, holds up nobody else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import pathlib
import threading
from collections.abc import Callable
from typing import Any

import structlog

from relevo.base.control import Message
from relevo.base.errors import RelevoError
from relevo.config.model import MirrorSite
from relevo.mirror import diskless, errors
from relevo.mirror import events as ev
from relevo.mirror.disk_content import OpenCopy, open_copy
from relevo.mirror.disk_note import DiskNote
from relevo.mirror.epoch_store import EpochStore
from relevo.mirror.loop import Loop, Timer
from relevo.mirror.reattach import Reattach
from relevo.mirror.shell_disk import ShellDisk

ATTACH_RETRY_MS = 2000
Began = Callable[[OpenCopy, ev.Token, int, int], None]
_log = structlog.get_logger()


@dataclasses.dataclass(frozen=True, slots=True)
class Calls:
    """Whom the backing disk tells.

    Attributes:
        began: a disk is in use: what it says, the token of whoever asked (None: nobody), the highest vote's epoch
            and the generation noted as stale.
        ended: there is none any more.
        failed: it cannot be used; why, and the token.
        done: an effect's token, and 0 or an errno.
        disk_done: the same with the buffer of a read.
        status: the state of the core.
    """

    began: Began
    ended: Callable[[], None]
    failed: Callable[[ev.Token, Exception], None]
    done: Callable[[ev.Token, int], None]
    disk_done: Callable[[ev.Token, int, Any], None]
    status: Callable[[], Message]


class ShellBacking:
    """The backing disk of one mirror, or none.

    Args:
        loop: the loop that serves it.
        site: the mirror as this node has it.
        note: where what is known of the disk is kept.
        votes: keep the highest vote's epoch and the generation that is stale; without them no disk is of use.
        calls: whom to tell.

    Attributes:
        disk: what is in use.
        given_up: disks that do not answer and were left behind.
    """

    def __init__(
        self, loop: Loop, site: MirrorSite, note: pathlib.Path, votes: tuple[EpochStore, EpochStore], calls: Calls
    ) -> None:
        self.disk: ShellDisk | None = None
        self.given_up: list[ShellDisk] = []
        self.timeout_ms = site.mirror.options.disk_timeout_ms
        self._loop = loop
        self._path, self._place, self._note = site.disk, site.meta, note
        self._epochs, self._stale = votes
        self._calls = calls
        self._when_idle: list[ev.Token] = []
        self._again: Timer | None = None
        self._attempts = Reattach(
            loop, self._read, self._use, self._failed, lambda: self.disk is not None, lambda: len(self.given_up)
        )

    @property
    def pending(self) -> bool:
        """Whether `look` has something to do at the end of a round."""
        return bool(self._when_idle or self.given_up) or self._attempts.waiting

    # ---- beginning ---------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Use the disk for the first time; what fails is tried again until somebody has succeeded.

        While a thread hangs with the disk nothing is tried: that one tells when it answers.
        """
        if self.disk is not None or self._attempts.busy:
            return
        if self._attempts.stuck:
            self.retry()
        else:
            self._attempts.begin(None)

    def attach(self, token: ev.Token) -> None:
        """Use a disk because somebody asks for it: the same one again, or another in its place.

        Raises:
            AlreadySet: there is one in use.
            CommandInProgress: one is being attached.
            DiskDoesNotAnswer: too many attempts hang.
        """
        if self._calls.status()["disk"] != diskless.STATUS["disk"]:
            raise errors.AlreadySet("There is a disk in use already.", "Let go of it first: relevo mirror detach NAME.")
        if self.disk is not None and not self._when_idle:
            raise errors.CommandInProgress("A disk is being attached.")
        self._attempts.begin(token)

    def _read(self) -> OpenCopy:
        self._epochs.read()  # said before a disk is opened
        return open_copy(self._path, self._place, self._note)

    def _use(self, copy: OpenCopy, token: ev.Token) -> None:
        """Use an open disk; it is closed when that cannot be.

        Raises:
            RelevoError, OSError: it cannot be used.
        """
        with contextlib.ExitStack() as otherwise:
            otherwise.callback(copy.close)
            epoch, stale = self._epochs.read(), self._stale.read()
            disk = ShellDisk(self._loop, copy, self._calls.disk_done)
            otherwise.pop_all()
        self.disk = disk
        self._watch(disk)
        if copy.note is not None:
            self._keep(copy.note)
        self._calls.began(copy, token, epoch, stale)

    def _failed(self, token: ev.Token, error: Exception) -> None:
        if not isinstance(error, RelevoError):
            error = errors.BackingUnreadable(str(self._path), error)
        self._calls.failed(token, error)

    def retry(self) -> None:
        """Try again a little later: there has not been a disk since the start."""
        if self._again is not None:
            self._again.cancel()
        self._again = self._loop.call_in(ATTACH_RETRY_MS, self.begin)

    def _keep(self, note: DiskNote) -> None:
        """In a thread of its own: fsync takes long."""
        threading.Thread(target=_write_note, args=(note, self._note), daemon=True).start()

    # ---- while it is in use ------------------------------------------------------------------------------------

    def _watch(self, disk: ShellDisk) -> None:
        """disk-timeout: give the disk up when it does not answer; it is closed when it has."""
        timeout_ms = self.timeout_ms

        def failed() -> None:
            _log.error("disk_does_not_answer", disk=str(self._path), disk_timeout_ms=timeout_ms)
            disk.abandon()

        if timeout_ms:
            disk.watch(timeout_ms, failed)

    def measure(self, effect: ev.MeasureDisk, measured: Callable[[ev.Token, int, int], None]) -> None:
        """Look how large the disk is by now, and remember it; `measured`: token, errno, bytes for data."""
        disk = self.disk
        assert disk is not None
        before = disk.meta.layout

        def done(token: ev.Token, number: int, data_bytes: int) -> None:
            if disk.meta.layout != before:
                self._keep(DiskNote(disk.meta.device_uuid, disk.meta.layout.disk_bytes))
            measured(token, number, data_bytes)

        disk.meta.measure(effect, done)

    # ---- its end -----------------------------------------------------------------------------------------------

    def close_when_idle(self, effect: ev.CloseDisk) -> None:
        """Let go of it as soon as nothing is under way."""
        if self.disk is None:  # two commands at a time: the other one has closed it
            self._calls.done(effect.token, 0)
        else:
            self._when_idle.append(effect.token)

    def look(self) -> None:
        """The end of a round: close what nobody uses any more; whoever waits for that goes on."""
        if self._when_idle and self.disk is not None:
            self._close(self.disk)
        for disk in tuple(self.given_up):
            disk.submit()
            if not disk.busy:
                self.given_up.remove(disk)
                disk.close()
                _log.info("disk_answered_at_last", disk=str(self._path))
        self._attempts.go_on()

    def _close(self, disk: ShellDisk) -> None:
        """One that does not answer is left behind, and closed when it has answered: another may take its place."""
        if disk.busy:
            if not disk.abandoned:
                return
            self.given_up.append(disk)
        else:
            disk.close()
        tokens, self._when_idle = self._when_idle, []
        self.disk = None
        self._calls.ended()
        self._loop.call_in(0, _give_memory_back)
        for token in tokens:
            self._calls.done(token, 0)

    def close(self) -> None:
        """The process ends."""
        if self.disk is not None:
            self.disk.close()


def _write_note(note: DiskNote, path: pathlib.Path) -> None:
    try:
        note.write(path)
    except OSError as error:
        _log.warning("note_not_written", path=str(path), error=error.strerror)


def _give_memory_back() -> None:
    """A closed disk refers to itself: without this its pools would stay, locked in memory, for who knows how long."""
    gc.collect()
