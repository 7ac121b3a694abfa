"""Where something stands in a file, and what is to be said about it."""

from __future__ import annotations

import difflib
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

from relevo.config.errors import ConfigError

MAX_MISTAKES = 50
"""More are not looked for: they would only hide the first."""
MAX_NOTES = 200
"""More warnings are not written down."""
QUOTED_LENGTH = 40


class Place(NamedTuple):
    """A place in a file; line and column count from 1. Line 0 is the file as a whole."""

    file: pathlib.Path
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Note(NamedTuple):
    """A warning: what was read is valid, but does not do what its author may expect."""

    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


class Findings:
    """Mistakes and warnings, in the order in which they were found."""

    def __init__(self) -> None:
        self.mistakes: list[ConfigError] = []
        self.notes: list[Note] = []

    @property
    def full(self) -> bool:
        """Whether there are so many mistakes that reading on is of no use."""
        return len(self.mistakes) >= MAX_MISTAKES

    def wrong(self, place: Place, what: str, remedy: str) -> None:
        """Write down a mistake; one at no line (0) is about the file as a whole."""
        if not self.full:
            self.mistakes.append(
                ConfigError(place.file, place.line or None, what, remedy, column=place.column if place.line else None)
            )

    def warn(self, place: Place, text: str) -> None:
        """Write down a warning, once."""
        note = Note(place, text)
        if len(self.notes) < MAX_NOTES and note not in self.notes:
            self.notes.append(note)


def quoted(text: str) -> str:
    """A piece of the file as a message shows it: short, in quotation marks."""
    short = text if len(text) <= QUOTED_LENGTH else text[: QUOTED_LENGTH - 1] + "…"
    return repr(short)


def nearest(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """A remedy that names the most similar known word; without one, `otherwise` or all that are known."""
    names = sorted(known)
    similar = difflib.get_close_matches(word, names, 1)
    if similar:
        return f"Did you mean {similar[0]!r}?"
    return otherwise or f"Known here: {', '.join(names)}."
