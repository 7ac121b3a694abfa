"""Who may touch which blocks now: overlapping writes in flight are put in order, first come, first served.

Two copies stay equal only if overlapping writes reach both disks in the same order; a block layer gives no such order.
The same order keeps resynchronisation and application writes apart: a resync read enters like a write.
"""

from __future__ import annotations

CHUNK_SHIFT = 17
"""Ranges are looked up in chunks of 128 KiB: a 4 KiB request meets one chunk, the largest write nine."""


class Ranged:
    """Something that occupies the bytes [offset, end). `waits` counts the earlier ones it waits for."""

    __slots__ = ("end", "followers", "offset", "waits")

    def __init__(self, offset: int, end: int) -> None:
        self.offset = offset
        self.end = end
        self.waits = 0
        self.followers: list[Ranged] | None = None


class RangeOrder:
    """All ranges in flight or waiting. An entry runs once no earlier overlapping one is left: none starves."""

    def __init__(self) -> None:
        self._chunks: dict[int, list[Ranged]] = {}

    def __bool__(self) -> bool:
        return bool(self._chunks)

    def enter(self, entry: Ranged) -> bool:
        """Take a place; True: it may run now. Otherwise a later `leave` returns it."""
        chunks = self._chunks
        first, last = entry.offset >> CHUNK_SHIFT, (entry.end - 1) >> CHUNK_SHIFT
        if first == last:
            others = chunks.get(first)
            if others is None:
                chunks[first] = [entry]
                return True
            self._wait(entry, others)
            others.append(entry)
            return entry.waits == 0
        met: dict[int, Ranged] = {}
        for chunk in range(first, last + 1):
            others = chunks.setdefault(chunk, [])
            for other in others:
                met[id(other)] = other
            others.append(entry)
        self._wait(entry, list(met.values()))
        return entry.waits == 0

    @staticmethod
    def _wait(entry: Ranged, others: list[Ranged]) -> None:
        for other in others:
            if other.offset < entry.end and entry.offset < other.end:
                if other.followers is None:
                    other.followers = []
                other.followers.append(entry)
                entry.waits += 1

    def entries(self) -> list[Ranged]:
        """All that are here, running or waiting."""
        return list({id(entry): entry for others in self._chunks.values() for entry in others}.values())

    def leave(self, entry: Ranged) -> list[Ranged]:
        """Give the place back. Returns those that may run now."""
        chunks = self._chunks
        for chunk in range(entry.offset >> CHUNK_SHIFT, ((entry.end - 1) >> CHUNK_SHIFT) + 1):
            others = chunks[chunk]
            others.remove(entry)
            if not others:
                del chunks[chunk]
        followers = entry.followers
        if followers is None:
            return []
        entry.followers = None
        ready = []
        for follower in followers:
            follower.waits -= 1
            if follower.waits == 0:
                ready.append(follower)
        return ready
