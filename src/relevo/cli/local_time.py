"""Times for people: what the daemons say in UTC is shown in the time of the reader's machine."""

from __future__ import annotations

import datetime as dt
import re

_TIME = re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|\+00:00| UTC)(?!\w)")
"""A point in time in UTC, as ISO 8601 has it or with a blank and `UTC`."""


def localised(text: str, *, seconds: bool = False) -> str:
    """The text with every point in time that is marked as UTC in local time, to the minute or to the second."""
    form = "%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M"

    def local(found: re.Match[str]) -> str:
        try:
            when = dt.datetime.fromisoformat(found[0].replace(" UTC", "+00:00"))
        except ValueError:
            return found[0]
        return f"{when.astimezone():{form}}"

    return _TIME.sub(local, text)
