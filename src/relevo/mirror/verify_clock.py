"""Verify on a schedule: begins one when it is due (`verify_due`), and remembers the last one over restarts.

`STATE/mirror-NAME.verified` is JSON: since when the schedule is known, when the last verify of the whole device began
and ended (UTC), and how many blocks differed. Both sides write their own: whoever is Primary next knows what was done.
"""

from __future__ import annotations

import datetime as dt
import os
import pathlib
import threading
from collections.abc import Callable

import msgspec
import structlog

from relevo.base.control import Message
from relevo.base.durable import write_durably
from relevo.base.errors import RelevoError
from relevo.config.verify_schedule import VerifySchedule
from relevo.mirror import events as ev
from relevo.mirror.loop import Loop, Timer
from relevo.mirror.verify_due import Due, judge, next_due

CHECK_MS = 10_000
"""How often it is looked whether one is due, or whether what it waits for is over."""
_STAMP = "%Y-%m-%dT%H:%M:%SZ"
_log = structlog.get_logger()


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What has to be known after a restart; times are UTC.

    Attributes:
        since: when the schedule was first seen.
        begun, ended: of the last verify of the whole device; None: there was none.
        blocks: so many blocks of 4 KiB differed.
    """

    since: dt.datetime
    begun: dt.datetime | None = None
    ended: dt.datetime | None = None
    blocks: int = 0


class VerifyClock:
    """Follows the mirror's state and the wall clock.

    Args:
        loop: whose timers are used; none while nothing is scheduled.
        path: the note.
        schedule: as configured.
        status: the core's state.
        step: gives the core an event.
    """

    def __init__(
        self,
        loop: Loop,
        path: pathlib.Path,
        schedule: VerifySchedule,
        status: Callable[[], Message],
        step: Callable[[ev.Event], None],
    ) -> None:
        self._loop = loop
        self._path = path
        self._schedule = schedule
        self._status = status
        self._step = step
        self._note = _read(path) or Note(since=_now())
        self._last: object = None
        self._under_way: dt.datetime | None = None
        self._tried: dt.datetime | None = None
        self._timer: Timer | None = None
        self._writing = threading.Lock()

    def configure(self, schedule: VerifySchedule) -> None:
        """Look from now on; another schedule holds."""
        self._schedule = schedule
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if schedule.every_ms:
            if not self._path.exists():
                self._write()
            self._check()

    def follow(self, status: Message) -> None:
        """The mirror's state has changed."""
        if status["verify"] is not None:
            self._under_way = self._under_way or _now()
            return
        begun, self._under_way = self._under_way, None
        last = status["last_verify"]
        if last is None or last is self._last:
            return
        self._last = last
        if last["complete"]:
            now = _now()
            self._tried = None
            self._note = Note(since=self._note.since, begun=begun or now, ended=now, blocks=last["blocks"])
            self._write()

    def fields(self) -> dict[str, object]:
        """What the status shows."""
        note, due = self._note, self._due(_now())
        return {
            "every_ms": self._schedule.every_ms,
            "at": self._schedule.at,
            "last_ended": _said(note.ended),
            "last_blocks": None if note.ended is None else note.blocks,
            "next_due": _said(due.at),
            "waits": due.waits,
        }

    def _due(self, now: dt.datetime) -> Due:
        note, local = self._note, now.astimezone()
        zone = local.tzinfo
        since = min(note.since, now).astimezone(zone)  # a time to come: the clock was wrong then
        begun = None if note.begun is None or note.begun > now else note.begun.astimezone(zone)
        return judge(next_due(self._schedule, local, since, begun), local, self._tried, self._status())

    def _check(self) -> None:
        now = _now()
        due = self._due(now)
        wait_ms = CHECK_MS
        if due.at is not None and due.at > now:
            wait_ms = min(CHECK_MS, int((due.at - now).total_seconds() * 1000) + 1)
        self._timer = self._loop.call_in(wait_ms, self._check)
        if due.begin:
            self._tried = now
            _log.info("verify_due", since=_said(due.at))
            self._step(ev.Verify(self._loop.now_ms, _answered))

    def _write(self) -> None:
        threading.Thread(target=self._written, daemon=True).start()  # fsync takes long on a busy disk

    def _written(self) -> None:
        try:
            with self._writing:
                write_durably(self._path, msgspec.json.encode(self._note) + b"\n")
        except OSError as error:
            _log.warning("note_not_written", path=str(self._path), error=os.strerror(error.errno or 0))


def _answered(error: RelevoError | None) -> None:
    if error is not None:
        _log.warning("verify_not_begun", problem=str(error))


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _said(time: dt.datetime | None) -> str:
    return "" if time is None else time.astimezone(dt.UTC).strftime(_STAMP)


def _read(path: pathlib.Path) -> Note | None:
    try:
        note = msgspec.json.decode(path.read_bytes(), type=Note)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _log.warning("note_not_read", path=str(path), error=str(error))
        return None
    times = (note.since, note.begun, note.ended)
    return note if all(time is None or time.tzinfo is not None for time in times) else None
