"""What happened, when, where and why, for people: the last events in memory, more of them on disk, all in the log.

The file is one JSON object a line, oldest first. An event is written and fsynced by a thread right after it was noted,
never waited for: a power cut takes at most the events of its last moments with it, a restart of the daemon none.
"""

from __future__ import annotations

import asyncio
import collections
import datetime as dt
import os
import pathlib

import msgspec
import structlog

from relevo.base.durable import sync_fd, write_durably
from relevo.base.errors import NOT_JSON
from relevo.base.paths import Paths

MAX_EVENTS = 200
"""Events in memory, and in the status."""
MAX_FILE_EVENTS = 20_000
"""Events in the file; when it has more, the older half goes."""
RETRY_S = 5.0
"""Pause after a write that failed; what is noted meanwhile waits, `MAX_EVENTS` of it at most."""
_log = structlog.get_logger()


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event.

    Attributes:
        at: when, ISO 8601 in UTC with milliseconds.
        what: what and why, in a sentence.
        node: the server that it is about.
        subject: what it is about: a repetition of the last word on it is no event.
    """

    at: str
    what: str
    node: str = ""
    subject: str = ""


_decoder = msgspec.json.Decoder(Event)


def read_history(path: pathlib.Path) -> list[Event]:
    """The events of a file, oldest first; lines that a power cut has torn are left out. Raises OSError."""
    events = []
    for line in path.read_bytes().splitlines():
        try:
            events.append(_decoder.decode(line))
        except NOT_JSON:
            continue
    return events


def history_path(paths: Paths) -> pathlib.Path:
    """Where this server keeps its history."""
    return paths.state / "node" / "history.jsonl"


class History:
    """The decisions and outcomes that this node has seen, oldest first.

    Args:
        me: this node.
        path: the file; None: nothing is kept.
    """

    def __init__(self, me: str = "", path: pathlib.Path | None = None) -> None:
        self._me = me
        self._path = path
        self._events: collections.deque[Event] = collections.deque(maxlen=MAX_EVENTS)
        self._unwritten: collections.deque[Event] = collections.deque(maxlen=MAX_EVENTS)
        self._last: dict[str, str] = {}
        self._count = 0
        self._news = asyncio.Event()
        if path is not None:
            self._take_up(path)

    def _take_up(self, path: pathlib.Path) -> None:
        try:
            kept = read_history(path)
        except FileNotFoundError:
            return
        except OSError as error:
            _log.warning("history_not_read", file=str(path), why=str(error))
            return
        self._count = len(kept)
        self._events.extend(kept)
        self._last = {event.subject: event.what for event in kept if event.subject}

    def add(self, what: str, *, node: str = "", subject: str = "", **details: object) -> None:
        """Note one sentence; details go to the log only.

        Args:
            what: the sentence.
            node: the server that it is about; empty: this one.
            subject: what it is about.
            details: for the log.
        """
        at = dt.datetime.now(tz=dt.UTC).isoformat(timespec="milliseconds")
        event = Event(at=at, what=what, node=node or self._me, subject=subject)
        self._events.append(event)
        if self._path is not None:
            self._unwritten.append(event)
            self._news.set()
        _log.info("event", what=what, **details)

    def add_changed(self, subject: str, what: str, *, node: str = "") -> None:
        """Note a sentence about a subject when it differs from the last one about it."""
        if self._last.get(subject) != what:
            self._last[subject] = what
            self.add(what, node=node, subject=subject)

    def events(self) -> list[dict[str, str]]:
        """The last events, oldest first: `at`, `node`, `what`."""
        return [{"at": event.at, "node": event.node, "what": event.what} for event in self._events]

    async def run(self) -> None:
        """Write what is noted, until cancelled; then once more."""
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                waiting = list(self._unwritten)
                writing = asyncio.ensure_future(asyncio.to_thread(self._put, waiting))
                try:
                    await asyncio.shield(writing)
                finally:
                    written = await writing
                    self._forget(waiting if written else [])
                if not written:
                    await asyncio.sleep(RETRY_S)  # no event tells that a disk has room again
                    self._news.set()
        finally:
            self.write()

    def write(self) -> bool:
        """Put what is not written yet on stable storage; whether that succeeded."""
        waiting = list(self._unwritten)
        written = self._put(waiting)
        self._forget(waiting if written else [])
        return written

    def _forget(self, written: list[Event]) -> None:
        done = set(map(id, written))
        while self._unwritten and id(self._unwritten[0]) in done:
            self._unwritten.popleft()

    def _put(self, waiting: list[Event]) -> bool:
        path = self._path
        if path is None or not waiting:
            return True
        try:
            if not path.exists() or self._count + len(waiting) > MAX_FILE_EVENTS:
                kept = read_history(path)[-MAX_FILE_EVENTS // 2 :] if path.exists() else []
                write_durably(path, b"".join(_line(event) for event in [*kept, *waiting]))
                self._count = len(kept)
            else:
                _append(path, b"".join(_line(event) for event in waiting))
        except OSError as error:
            _log.warning("history_not_written", file=str(path), why=str(error))
            return False
        self._count += len(waiting)
        return True


def _line(event: Event) -> bytes:
    return msgspec.json.encode(event) + b"\n"


def _append(path: pathlib.Path, lines: bytes) -> None:
    with path.open("ab+") as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            if file.read(1) != b"\n":  # torn by a power cut: the next event must not be lost with it
                lines = b"\n" + lines
        file.write(lines)
        file.flush()
        sync_fd(file.fileno())
