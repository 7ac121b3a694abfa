"""Since when the two copies are apart, for whoever has to decide after a split brain: a note that survives a restart.

`STATE/mirror-NAME.parted` holds one UTC time, `2026-11-26T07:00:00Z`: when the connected peer was lost. It is removed
as soon as both are connected again. It tells people something; nothing is decided by it, and a note that cannot be
written or read is left out.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import pathlib
import queue
import threading

import structlog

from relevo.base.control import Message
from relevo.base.durable import write_durably

TOGETHER = frozenset(
    {"Connected", "SyncSource", "SyncTarget", "PausedSyncS", "PausedSyncT", "VerifyS", "VerifyT", "Ahead", "Behind"}
)
_STAMP = "%Y-%m-%dT%H:%M:%SZ"
_log = structlog.get_logger()


class Parted:
    """Follows the mirror's state.

    Args:
        path: the note; written in a thread of its own, for a busy disk may take long.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._together = False
        self._jobs: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self.since = _read(path)
        """When the peer was lost, or a split brain was found without that being known; "" while together."""

    def follow(self, status: Message) -> None:
        """The mirror's state has changed."""
        together = status["connection"] in TOGETHER
        if together:
            if self.since:
                self._note("")
        elif self._together or (status["split_brain"] and not self.since):
            self._note(dt.datetime.now(dt.UTC).strftime(_STAMP))
        self._together = together

    def _note(self, since: str) -> None:
        self.since = since
        self._jobs.put(since)
        if self._writer is None:
            self._writer = threading.Thread(target=self._write, daemon=True)
            self._writer.start()

    def _write(self) -> None:
        while True:
            since = self._jobs.get()
            try:
                if since:
                    write_durably(self._path, f"{since}\n".encode())
                else:
                    self._path.unlink(missing_ok=True)
            except OSError as error:
                _log.warning("note_not_written", path=str(self._path), error=os.strerror(error.errno or 0))


def _read(path: pathlib.Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        text = path.read_text().strip()
        dt.datetime.strptime(text, _STAMP).replace(tzinfo=dt.UTC)
        return text
    return ""
