"""The activity log as a policy: which extents of 4 MiB may be written to, and what must be stable before.

An extent is *in* the log once the transaction that puts it there is stable; only then a write to it may go to the disk
or to the peer. After a crash everything in the log is taken as out of sync. How a transaction lies in bytes is
`activity_log_format`'s.
"""

from __future__ import annotations

import collections
import dataclasses
from typing import Protocol

from relevo.mirror.events import AlTransaction

EXTENT_SHIFT = 22
"""An extent is 4 MiB."""
FREE = 0xFFFF_FFFF
"""The extent number of an unused slot."""
MAX_UPDATES = 64
"""Changes in one transaction."""
MAX_CONTEXT = 919
"""Slots that one transaction repeats."""


class Writer(Protocol):
    """What the log has to know of a write: its first and last extent, and whether it holds references."""

    extent_first: int
    extent_last: int
    in_log: bool


@dataclasses.dataclass(slots=True)
class Step:
    """What has to be done next.

    Attributes:
        ready: writes whose extents are all in the log by now: they may go on at once.
        transaction: to be made stable (then call `committed`), after the bitmap pages of `evicted` are stable.
        evicted: extents that this transaction takes out.
    """

    ready: list[Writer]
    transaction: AlTransaction | None
    evicted: list[int]


class ActivityLog:
    """A least-recently-used set of extents with references.

    It starts empty whatever the ring on the disk says: what that held was marked out of sync before.

    Args:
        size: number of slots (`al-extents`).
        number: number of the newest transaction on the disk.
    """

    def __init__(self, size: int, number: int) -> None:
        self._table = [FREE] * size
        self._slot_of: dict[int, int] = {}
        self._idle: collections.OrderedDict[int, None] = collections.OrderedDict()
        self._references: dict[int, int] = {}
        self._waiting: collections.deque[Writer] = collections.deque()
        self._coming: dict[int, int] = {}
        self._entering: list[Writer] = []
        self._number = number
        self._context_start = 0
        self._busy = False
        self.starving = False
        """All extents are referenced: only acknowledged epochs free one."""
        self._free = list(range(size - 1, -1, -1))

    def enter(self, write: Writer) -> bool:
        """Take references; True: the write may go on now. Otherwise a later `advance` or `committed` returns it."""
        slot_of = self._slot_of
        if not self.starving and write.extent_first in slot_of and write.extent_last in slot_of:
            self._hold(write.extent_first)
            if write.extent_last != write.extent_first:
                self._hold(write.extent_last)
            write.in_log = True
            return True
        self._waiting.append(write)
        return False

    def leave(self, write: Writer) -> None:
        """Drop the references of a write (at BARRIER_ACK)."""
        assert write.in_log
        write.in_log = False
        self._drop(write.extent_first)
        if write.extent_last != write.extent_first:
            self._drop(write.extent_last)

    def forget_waiting(self) -> list[Writer]:
        """Give up those that wait for a transaction not begun (the disk has failed)."""
        waiting = list(self._waiting)
        self._waiting.clear()
        self.starving = False
        return waiting

    @property
    def held(self) -> int:
        """How many extents are referenced."""
        return len(self._references)

    @property
    def wants(self) -> bool:
        """Somebody waits, and no transaction is under way."""
        return bool(self._waiting) and not self._busy

    def advance(self) -> Step | None:
        """Build the next transaction. None: nothing can be done now."""
        if not self.wants:
            return None
        step = Step([], None, [])
        updates: list[tuple[int, int]] = []
        self.starving = False
        while self._waiting:
            write = self._waiting[0]
            extents = self._extents(write)
            missing = [extent for extent in extents if extent not in self._slot_of and extent not in self._coming]
            if len(updates) + len(missing) > MAX_UPDATES:
                break
            present = [extent for extent in extents if extent not in missing]
            for extent in present:
                self._hold(extent)
            if len(missing) > len(self._free) + len(self._idle):
                for extent in present:
                    self._drop(extent)
                self.starving = True
                break
            self._waiting.popleft()
            updates.extend([(self._slot_for(extent, step.evicted), extent) for extent in missing])
            if any(extent in self._coming for extent in extents):
                self._entering.append(write)
            else:
                write.in_log = True
                step.ready.append(write)
        if updates:
            self._busy = True
            step.transaction = self._transaction(updates)
        return step if updates or step.ready else None

    def committed(self) -> list[Writer]:
        """The transaction is stable. Returns the writes that may go on."""
        assert self._busy
        self._busy = False
        self._slot_of.update(self._coming)
        self._coming.clear()
        entering, self._entering = self._entering, []
        for write in entering:
            write.in_log = True
        return entering

    def extents(self) -> set[int]:
        """The extents that are in the log."""
        return set(self._slot_of)

    @staticmethod
    def _extents(write: Writer) -> tuple[int, ...]:
        if write.extent_first == write.extent_last:
            return (write.extent_first,)
        return (write.extent_first, write.extent_last)

    def _hold(self, extent: int) -> None:
        count = self._references.get(extent, 0)
        if count == 0:
            self._idle.pop(extent, None)
        self._references[extent] = count + 1

    def _drop(self, extent: int) -> None:
        count = self._references[extent] - 1
        if count:
            self._references[extent] = count
        else:
            del self._references[extent]
            if extent in self._slot_of:
                self._idle[extent] = None

    def _slot_for(self, extent: int, evicted: list[int]) -> int:
        if self._free:
            slot = self._free.pop()
        else:
            oldest, _ = self._idle.popitem(last=False)
            slot = self._slot_of.pop(oldest)
            evicted.append(oldest)
        self._coming[extent] = slot
        self._table[slot] = extent
        self._references[extent] = 1
        return slot

    def _transaction(self, updates: list[tuple[int, int]]) -> AlTransaction:
        """Context is repeated as it is after the updates: whoever replays may apply both in any order."""
        self._number = (self._number + 1) & 0xFFFF_FFFF
        start = self._context_start
        context = tuple(self._table[start : start + MAX_CONTEXT])
        self._context_start = start + len(context) if start + len(context) < len(self._table) else 0
        return AlTransaction(self._number, tuple(updates), len(self._table), start, context)
