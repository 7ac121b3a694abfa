"""What a transfer tells: to whoever watches while it goes on, and at the end."""

from __future__ import annotations

import pathlib

import msgspec


class Stored(msgspec.Struct, frozen=True):
    """A file that the server has acknowledged.

    Attributes:
        path: its path at the server, decoded.
        bytes: its length.
        sha256: its checksum, hexadecimal, which the server confirmed.
        copies: on how many servers it was when it was acknowledged.
        retries: attempts that broke off.
    """

    path: str
    bytes: int
    sha256: str
    copies: int
    retries: int


class Fetched(msgspec.Struct, frozen=True):
    """A file that was fetched and verified; the fields are those of `Stored`, `file` is where it lies now."""

    file: str
    bytes: int
    sha256: str
    retries: int


class TreeReport(msgspec.Struct):
    """What became of a tree.

    Attributes:
        stored: the files that were acknowledged.
        skipped: links to folders, devices and the like.
        failed: one sentence for each file that could not be stored.
    """

    stored: list[Stored] = msgspec.field(default_factory=list)
    skipped: list[str] = msgspec.field(default_factory=list)
    failed: list[str] = msgspec.field(default_factory=list)

    @property
    def bytes(self) -> int:
        """The length of everything stored."""
        return sum(item.bytes for item in self.stored)

    def add(self, other: TreeReport) -> None:
        """Take in what became of another tree."""
        self.stored += other.stored
        self.skipped += other.skipped
        self.failed += other.failed


class Observer:
    """Whoever watches; this one sees nothing. Methods are called on the event loop and return at once."""

    def found(self, source: pathlib.Path | str, size_bytes: int) -> None:
        """A file is about to be transferred."""

    def moved(self, source: pathlib.Path | str, position_bytes: int) -> None:
        """So much of it is on the way; less than before when a part has to be sent again."""

    def retrying(self, source: pathlib.Path | str, why: str) -> None:
        """An attempt broke off; the next one follows."""

    def stored(self, source: pathlib.Path | str, result: Stored) -> None:
        """The server has acknowledged it."""

    def failed(self, source: pathlib.Path | str, why: str) -> None:
        """It could not be transferred."""


SILENT = Observer()
