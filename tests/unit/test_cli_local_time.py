"""Times that daemons say in UTC are shown in local time."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from relevo.cli.local_time import localised


@pytest.fixture(autouse=True)
def in_madrid(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("web is banned from nodo1 until 2026-11-27 17:35 UTC.", "web is banned from nodo1 until 2026-11-27 18:35."),
        ("apart since 2026-07-26T23:00:12Z: 8 KiB", "apart since 2026-07-27 01:00: 8 KiB"),
        ("2026-11-27T15:28:02.296+00:00  web is stopped", "2026-11-27 16:28  web is stopped"),
        ("20261127T153303Z-split-brain is a name", "20261127T153303Z-split-brain is a name"),
        ("2026-13-45T15:28:02Z is no time", "2026-13-45T15:28:02Z is no time"),
        ("a local 2026-11-27 15:28 stays", "a local 2026-11-27 15:28 stays"),
    ],
)
def test_what_is_marked_as_utc_becomes_local_time_to_the_minute(said: str, shown: str) -> None:
    assert localised(said) == shown


def test_seconds_where_they_matter() -> None:
    assert localised("2026-11-27T15:28:02.296+00:00  x", seconds=True) == "2026-11-27 16:28:02  x"
