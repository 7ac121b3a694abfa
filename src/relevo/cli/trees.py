"""Which files of two trees differ: by type, size, time of the last change, and content where these leave it open."""

from __future__ import annotations

import contextlib
import enum
import os
import pathlib
import stat
from collections.abc import Iterator

import msgspec

UNCOMPARED = frozenset({"lost+found", ".relevo"})
"""In the root: the file system's own, and the file service's."""
PIECE_BYTES = 1 << 20


class Where(enum.StrEnum):
    """What is the matter with a path."""

    ONLY_LEFT = "only left"
    ONLY_RIGHT = "only right"
    DIFFERENT = "different"


class Entry(msgspec.Struct, frozen=True):
    """What a path is.

    Attributes:
        kind: `file`, `folder`, `link` or `other`.
        size: bytes of a file.
        changed_ns: time of the last change of a file's content, in nanoseconds since 1970.
        target: where a link leads.
    """

    kind: str
    size: int = 0
    changed_ns: int = 0
    target: str = ""


class Difference(msgspec.Struct, frozen=True):
    """A path that is not the same in both trees; what is below a folder that only one has is not told."""

    path: str
    where: Where
    left: Entry | None = None
    right: Entry | None = None


def differences(left: pathlib.Path, right: pathlib.Path, *, content: bool = False) -> Iterator[Difference]:
    """What differs, in the order of the paths.

    Args:
        left, right: folders.
        content: read files also where size and time are the same.
    """
    yield from _below(left, right, "", content=content)


def _below(left: pathlib.Path, right: pathlib.Path, at: str, *, content: bool) -> Iterator[Difference]:
    mine, theirs = _entries(left / at), _entries(right / at)
    for name in sorted(mine.keys() | theirs.keys()):
        if not at and name in UNCOMPARED:
            continue
        path = f"{at}/{name}" if at else name
        one, other = mine.get(name), theirs.get(name)
        if one is None or other is None:
            yield Difference(path, Where.ONLY_RIGHT if one is None else Where.ONLY_LEFT, one, other)
        elif one.kind == other.kind == "folder":
            yield from _below(left, right, path, content=content)
        elif not _same(left / path, one, right / path, other, content=content):
            yield Difference(path, Where.DIFFERENT, one, other)


def _entries(folder: pathlib.Path) -> dict[str, Entry]:
    entries = {}
    with os.scandir(folder) as found:
        for entry in found:
            with contextlib.suppress(FileNotFoundError):  # one of the trees may be in use
                entries[entry.name] = _entry(entry)
    return entries


def _entry(entry: os.DirEntry[str]) -> Entry:
    known = entry.stat(follow_symlinks=False)
    if stat.S_ISDIR(known.st_mode):
        return Entry("folder")
    if stat.S_ISLNK(known.st_mode):
        return Entry("link", target=str(pathlib.Path(entry.path).readlink()))
    if stat.S_ISREG(known.st_mode):
        return Entry("file", known.st_size, known.st_mtime_ns)
    return Entry("other")


def _same(left: pathlib.Path, one: Entry, right: pathlib.Path, other: Entry, *, content: bool) -> bool:
    if one.kind != "file" or other.kind != "file" or one.size != other.size:
        return one == other
    return (one == other and not content) or _same_content(left, right)


def _same_content(left: pathlib.Path, right: pathlib.Path) -> bool:
    try:
        with left.open("rb") as mine, right.open("rb") as theirs:
            while piece := mine.read(PIECE_BYTES):
                if piece != theirs.read(PIECE_BYTES):
                    return False
    except FileNotFoundError:
        return False
    return True
