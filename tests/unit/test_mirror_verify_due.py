"""When a verify is due and where it begins: the decision, without a clock."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import Any

import pytest

from relevo.config.verify_schedule import VerifySchedule
from relevo.mirror.verify_due import RETRY, WINDOW, judge, next_due

DAY_MS = 86_400_000
WEEKLY = VerifySchedule(every_ms=7 * DAY_MS, weekday=6, minute=180)
DAILY = VerifySchedule(every_ms=DAY_MS, minute=180)
ZONE = dt.timezone(dt.timedelta(hours=2))
READY: dict[str, Any] = {
    "verify": None,
    "resync": None,
    "connection": "Connected",
    "role": "Primary",
    "peer_role": "Secondary",
    "disk": "UpToDate",
    "peer_disk": "UpToDate",
}


def at(day: int, hour: int = 0, minute: int = 0) -> dt.datetime:
    """A time of November 2026; the 1st is a Sunday."""
    return dt.datetime(2026, 11, day, hour, minute, tzinfo=ZONE)


@pytest.mark.parametrize(
    ("schedule", "now", "begun", "due"),
    [
        (VerifySchedule(), at(5), None, None),
        (VerifySchedule(every_ms=DAY_MS), at(5), None, at(3)),
        (VerifySchedule(every_ms=DAY_MS), at(5), at(4, 12), at(5, 12)),
        (WEEKLY, at(2), None, at(8, 3)),
        (WEEKLY, at(9), at(8, 3, 10), at(15, 3)),
        (WEEKLY, at(10), at(9, 12), at(22, 3)),
        (DAILY, at(5), at(4, 3, 59), at(5, 3)),
        (DAILY, at(9, 12), at(4, 3), at(10, 3)),
        (DAILY, at(9, 3, 30), at(4, 3), at(9, 3)),
    ],
    ids=[
        "off",
        "never done: counted from when it was first seen",
        "the interval over",
        "the first window",
        "the next week, although less than a whole interval later",
        "one by hand puts it off",
        "however late in its window the last one began",
        "a missed window is not made up for at noon",
        "still within the window",
    ],
)
def test_when_it_is_due(
    schedule: VerifySchedule, now: dt.datetime, begun: dt.datetime | None, due: dt.datetime | None
) -> None:
    assert next_due(schedule, now, at(2), begun) == due


def test_it_begins_when_due_and_not_before() -> None:
    assert judge(at(5), at(5), None, READY).begin
    early = judge(at(5), at(4), None, READY)
    assert not early.begin
    assert not early.waits
    assert not judge(None, at(5), None, READY).begin


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"role": "Secondary", "peer_role": "Primary"}, "the Primary begins it"),
        ({"role": "Secondary"}, "no side is Primary"),
        ({"connection": "SyncSource", "resync": {}}, "resync"),
        ({"connection": "VerifyS", "verify": {}}, "under way"),
        ({"connection": "WFConnection"}, "not connected"),
        ({"peer_disk": "Outdated"}, "UpToDate"),
        ({"disk": "Diskless"}, "UpToDate"),
    ],
)
def test_what_it_waits_for(change: dict[str, Any], word: str) -> None:
    due = judge(at(5), at(5, 1), None, READY | change)
    assert not due.begin
    assert word in due.waits


def test_a_failed_attempt_is_not_repeated_at_once() -> None:
    assert not judge(at(5), at(5, 1), at(5, 1), READY).begin
    assert judge(at(5), at(5, 1) + RETRY, at(5, 1), READY).begin
    assert judge(at(5), at(5, 1), at(6), READY).begin, "a clock that was wrong"


def test_every_window_of_a_year_is_used_once() -> None:
    now, begun, begins = at(1), None, []
    while len(begins) < 52:
        due = next_due(WEEKLY, now, at(1), begun)
        assert due is not None
        now = max(now, due) + WINDOW / 2
        begins.append(due)
        begun = now
        now += dt.timedelta(minutes=40)
    assert {after - before for before, after in itertools.pairwise(begins)} == {dt.timedelta(days=7)}
