"""What happened and why, for people: a bounded list in memory, and the log."""

from __future__ import annotations

import collections
import datetime as dt

import structlog

MAX_EVENTS = 200
_log = structlog.get_logger()


class History:
    """The last `MAX_EVENTS` decisions and outcomes of this node, oldest first."""

    def __init__(self) -> None:
        self._events: collections.deque[dict[str, str]] = collections.deque(maxlen=MAX_EVENTS)
        self._last: dict[str, str] = {}

    def add(self, what: str, **details: object) -> None:
        """Note one sentence; details go to the log only."""
        at = dt.datetime.now(tz=dt.UTC).isoformat(timespec="milliseconds")
        self._events.append({"at": at, "what": what})
        _log.info("event", what=what, **details)

    def add_changed(self, subject: str, what: str) -> None:
        """Note a sentence about a subject when it differs from the last one about it."""
        if self._last.get(subject) != what:
            self._last[subject] = what
            self.add(what, subject=subject)

    def events(self) -> list[dict[str, str]]:
        """The events, oldest first."""
        return list(self._events)
