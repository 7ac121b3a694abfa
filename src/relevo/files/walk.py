"""Everything below a folder, one entry after the other, a slice at a time: no request keeps a thread for long."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from relevo.files.entries import Entry
from relevo.files.volume import Volume

Way = tuple[str, ...]
"""Names from the folder where a walk began."""


def below(volume: Volume, top: tuple[str, ...], ways: list[Way]) -> Iterator[tuple[Way, Entry]]:
    """The things at some ways below a folder and all that is in them, level by level, the nearest first.

    Args:
        volume: the volume; the iterator is to be advanced in threads of the pool.
        top: the folder.
        ways: where to begin; an empty way is the content of the folder itself. What is gone meanwhile is left out.
    """
    waiting: list[Way] = []
    for way in ways:
        if not way:
            waiting.append(way)
        elif (entry := volume.look((*top, *way))) is not None:
            yield way, entry
            if entry.is_folder:
                waiting.append(way)
    while waiting:
        level, waiting = waiting, []
        for way in level:
            entries: list[Entry] = []
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                entries = volume.entries((*top, *way))
            for entry in entries:
                yield (*way, entry.name), entry
                if entry.is_folder:
                    waiting.append((*way, entry.name))


def some(found: Iterator[tuple[Way, Entry]], seconds: float, count: int) -> tuple[list[tuple[Way, Entry]], bool]:
    """What a walk finds within a time, at most so many; and whether it has ended."""
    until, result = time.monotonic() + seconds, []
    for one in found:
        result.append(one)
        if len(result) >= count or time.monotonic() >= until:
            return result, False
    return result, True
