"""When both copies of a mirror are compared by themselves: `verify_every` and `verify_at` of [mirrors.NAME]."""

from __future__ import annotations

import re

import msgspec

from relevo.config.table import Table, nearest

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MIN_EVERY_MS = 60_000
"""More often the copies would be compared all the time."""
OFF = ("off", "0")
_AT = re.compile(r"(?:([a-z]+) )?([0-9]{1,2}):([0-9]{2})")
_EXAMPLE = '"sun 03:00" or "03:00"'


class VerifySchedule(msgspec.Struct, frozen=True, kw_only=True):
    """How often, and at which time of the day.

    Attributes:
        every_ms: from the begin of one verify to the next; 0: never by itself.
        weekday: only on that day, 0 is Monday; None: on any.
        minute: minute of the day (local time) from which on it may begin; None: at any time.
    """

    every_ms: int = 0
    weekday: int | None = None
    minute: int | None = None

    @property
    def at(self) -> str:
        """As it is written in relevo.toml; empty: at any time."""
        if self.minute is None:
            return ""
        day = "" if self.weekday is None else f"{WEEKDAYS[self.weekday]} "
        return f"{day}{self.minute // 60:02}:{self.minute % 60:02}"


NEVER = VerifySchedule()


def read_schedule(table: Table) -> VerifySchedule:
    """The two keys; what is wrong with them is written down in the table."""
    every_ms = 0
    if table.has("verify_every") and table.text("verify_every", '"7 d"') not in OFF:
        every_ms = table.duration_ms("verify_every", 0)
        if table.sound and every_ms < MIN_EVERY_MS:
            table.wrong("verify_every", "is too short.", 'Write at least "1 min", or "off".')
    if not table.has("verify_at"):
        return VerifySchedule(every_ms=every_ms)
    text = table.text("verify_at", None, _EXAMPLE)
    if not table.has("verify_every"):
        table.wrong("verify_at", "says when, but not how often.", 'Add verify_every = "7 d".')
    match = _AT.fullmatch(text)
    if match is None or int(match[2]) > 23 or int(match[3]) > 59:
        table.wrong("verify_at", f"is no time of the day: {text!r}.", f"Write {_EXAMPLE}.")
        return NEVER
    if match[1] is not None and match[1] not in WEEKDAYS:
        table.wrong("verify_at", f"names no day of the week: {match[1]!r}.", nearest(match[1], WEEKDAYS))
        return NEVER
    day = None if match[1] is None else WEEKDAYS.index(match[1])
    return VerifySchedule(every_ms=every_ms, weekday=day, minute=int(match[2]) * 60 + int(match[3]))
