"""Who did what, when and from where: lines of JSON in `.relevo/audit/audit.log` on the volume, bounded by rotation.

Notes about files are written in batches, a fraction of a second after the answer; a power cut may take the last batch.
Notes about accounts are on stable storage before the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import os
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog

from relevo.base.durable import sync_fd
from relevo.base.errors import NOT_JSON, RelevoError
from relevo.files.accounts.notes import Notes
from relevo.files.entries import write_all
from relevo.files.http import Call
from relevo.files.volume import Volume

FOLDER = "audit"
FILE = "audit.log"
ROTATE_BYTES = 8 << 20
KEPT = 9
"""Older files that are kept: audit.1.log is the newest of them."""
BATCH_S = 0.2
WAITING_MAX = 20_000
"""Notes that may wait to be written; more are counted, and the count is noted."""
_MODE = 0o600
_log = structlog.get_logger()


def append(volume: Volume, lines: list[bytes]) -> None:
    """Write lines, durably; begins a new file when the present one is large.

    Raises:
        OSError: as the system calls do.
    """
    folder = volume.work(FOLDER)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(FILE, flags, _MODE, dir_fd=folder)
    try:
        new = (size := os.fstat(fd).st_size) == 0
        write_all(fd, lines)
        sync_fd(fd)
    finally:
        os.close(fd)
    if size >= ROTATE_BYTES:
        _rotate(folder)
    if new or size >= ROTATE_BYTES:
        sync_fd(folder)


def _rotate(folder: int) -> None:
    for number in range(KEPT, 0, -1):
        older = f"audit.{number}.log"
        newer = FILE if number == 1 else f"audit.{number - 1}.log"
        with contextlib.suppress(FileNotFoundError):
            os.rename(newer, older, src_dir_fd=folder, dst_dir_fd=folder)


@dataclasses.dataclass(frozen=True, slots=True)
class Filter:
    """Which notes are wanted: of somebody, of a kind (`what`), with a text somewhere; upper and lower case are one."""

    who: str = ""
    what: str = ""
    text: str = ""

    def takes(self, note: dict[str, Any]) -> bool:
        """Whether a note is wanted."""
        who, what = str(note.get("who", "")).lower(), str(note.get("what", "")).lower()
        if self.who.lower() not in who or self.what.lower() not in what:
            return False
        return not self.text or any(self.text.lower() in str(value).lower() for value in note.values())


ALL = Filter()


def tail(volume: Volume, count: int, wanted: Filter = ALL) -> list[dict[str, Any]]:
    """The last notes that are wanted, the oldest first; as far back as files are kept.

    Raises:
        OSError: as the system calls do.
    """
    found: list[dict[str, Any]] = []
    for number in range(KEPT + 1):
        for line in reversed(_lines(volume, FILE if number == 0 else f"audit.{number}.log")):
            with contextlib.suppress(*NOT_JSON):  # half a line after a power cut
                note = msgspec.json.decode(line, type=dict[str, Any])
                if wanted.takes(note):
                    found.append(note)
            if len(found) == count:
                return found[::-1]
    return found[::-1]


def _lines(volume: Volume, name: str) -> list[bytes]:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=volume.work(FOLDER))
    except FileNotFoundError:
        return []
    try:
        raw = b""
        while piece := os.read(fd, ROTATE_BYTES):
            raw += piece
        return raw.splitlines()
    finally:
        os.close(fd)


class Audit:
    """Takes notes while the volume is open."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._lost = 0
        self._writing = asyncio.Lock()
        self._write: Callable[[list[bytes]], Awaitable[object]] | None = None
        self._notes = Notes("audit_not_written", BATCH_S, again=False)

    def start(self, write: Callable[[list[bytes]], Awaitable[object]]) -> None:
        """The volume is open; `write` appends lines to it."""
        self._write = write
        self._notes.start(self.flush)

    async def stop(self, limit_s: float) -> None:
        """The volume is about to be closed: write what is left, within the limit."""
        if await self._notes.stop(limit_s):
            self._write = None

    def note(self, who: str, what: str, call: Call | None = None, **more: Any) -> None:
        """Remember something; it is written soon."""
        if self._write is None:
            return
        if len(self._lines) >= WAITING_MAX:
            self._lost += 1
            return
        moment = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        origin = {} if call is None else {"from": call.request.remote or ""}
        self._lines.append(msgspec.json.encode({"at": moment, "who": who, "what": what, **origin, **more}) + b"\n")
        self._notes.noted()

    async def durably(self, who: str, what: str, call: Call | None = None, **more: Any) -> None:
        """Note something that is already stored; on stable storage when this returns, if the volume takes it."""
        self.note(who, what, call, **more)
        try:
            await self.flush()
        except RelevoError as error:
            _log.error("audit_not_written", why=str(error), who=who, what=what)

    async def flush(self) -> None:
        """Write everything that was noted so far.

        Raises:
            RelevoError: the volume does not take it; it is given up.
        """
        async with self._writing:
            lines, self._lines = self._lines, []
            if self._lost:
                lines.append(msgspec.json.encode({"what": "lost", "count": self._lost}) + b"\n")
                self._lost = 0
            if lines and self._write is not None:
                await self._write(lines)
