"""A part of each day, such as the one in which services may go back by themselves."""

from __future__ import annotations

import msgspec


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A part of each day, in local time; one that ends before it begins goes through midnight.

    Attributes:
        begin, end: minutes of the day, 0 to 1439; the end is not part of it.
    """

    begin: int
    end: int

    def contains(self, minute: int) -> bool:
        """Whether a minute of the day is in it."""
        if self.begin <= self.end:
            return self.begin <= minute < self.end
        return minute >= self.begin or minute < self.end

    @property
    def text(self) -> str:
        """As it is written in relevo.toml."""
        return "-".join(f"{minute // 60:02}:{minute % 60:02}" for minute in (self.begin, self.end))
