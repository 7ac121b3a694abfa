"""When the next verify is due, and whether it may begin now: pure, the present time is an argument.

All times carry the same time zone, the local one as it is now: a window is a time of the wall clock.
"""

from __future__ import annotations

import datetime as dt
from typing import NamedTuple

from relevo.base.control import Message
from relevo.config.verify_schedule import VerifySchedule

WINDOW = dt.timedelta(hours=1)
"""A verify may begin so long after `verify_at`; later it waits for the next time."""
SLACK = dt.timedelta(hours=2)
"""So much before the interval is over the next window is good: the last verify began some time within its own."""
RETRY = dt.timedelta(minutes=10)
"""After one that was refused or broken off."""
_DAY = dt.timedelta(days=1)
_WEEK_DAYS = 7


class Due(NamedTuple):
    """The answer.

    Attributes:
        at: when the next verify is due; in the past: now. None: never.
        waits: why it does not begin although it is due; empty: it begins, or is not due.
        begin: start it now, here.
    """

    at: dt.datetime | None
    waits: str = ""
    begin: bool = False


def next_due(
    schedule: VerifySchedule, now: dt.datetime, since: dt.datetime, begun: dt.datetime | None
) -> dt.datetime | None:
    """When the next verify may begin.

    Args:
        schedule: as configured.
        now: the present time.
        since: when the schedule was first seen.
        begun: when the last whole verify began; None: there was none.
    """
    if not schedule.every_ms:
        return None
    every = dt.timedelta(milliseconds=schedule.every_ms)
    if schedule.minute is None:
        return (begun or since) + every
    earliest = since if begun is None else begun + every - min(SLACK, every / 2)
    return _opening(schedule, schedule.minute, max(earliest, now - WINDOW))


def _opening(schedule: VerifySchedule, minute: int, earliest: dt.datetime) -> dt.datetime:
    """The first window that opens at `earliest` or later."""
    found = earliest.replace(hour=minute // 60, minute=minute % 60, second=0, microsecond=0)
    if found < earliest:
        found += _DAY
    if schedule.weekday is not None:
        found += ((schedule.weekday - found.weekday()) % _WEEK_DAYS) * _DAY
    return found


def judge(at: dt.datetime | None, now: dt.datetime, tried: dt.datetime | None, status: Message) -> Due:
    """Whether a verify begins now, on this side.

    Args:
        at: when it is due (`next_due`).
        now: the present time.
        tried: when it was tried last and did not come to its end; None: it was not.
        status: the core's state.
    """
    if at is None or now < at:
        return Due(at)
    waits = _obstacle(status)
    if not waits and tried is not None and dt.timedelta() <= now - tried < RETRY:
        waits = "the last attempt did not come to its end; the next one follows soon"
    return Due(at, waits, begin=not waits)


def _obstacle(status: Message) -> str:
    if status["verify"] is not None:
        return "a verify is under way"
    if status["resync"] is not None:
        return "a resync is under way"
    if status["connection"] != "Connected":
        return f"the peer is not connected ({status['connection']})"
    if status["role"] != "Primary":
        return "the Primary begins it" if status["peer_role"] == "Primary" else "no side is Primary"
    if status["disk"] != "UpToDate" or status["peer_disk"] != "UpToDate":
        return "the two copies are not both UpToDate"
    return ""
