"""Meta-data on its way to stable storage: one job at a time, first come, first served.

Whoever needs something stable passes what goes on afterwards. The order duties that concern meta-data alone are kept
here: the bitmap pages of evicted extents are stable before the activity-log block that evicts them (and, with external
meta-data, the data disk is flushed before). A disk that has failed is asked for nothing any more: a later write that it
happens to take could rest on an earlier one that it has refused.
"""

from __future__ import annotations

import collections
from collections.abc import Callable

from relevo.mirror import events as e
from relevo.mirror.activity_log import EXTENT_SHIFT
from relevo.mirror.bitmap import BLOCK_BYTES
from relevo.mirror.requests import Then
from relevo.mirror.state import Shared
from relevo.mirror.states import Disk

PIECE_PAGES = 1024
"""Pages of the bitmap written at a time: 4 MiB."""
BITS_PER_EXTENT = (1 << EXTENT_SHIFT) // BLOCK_BYTES
Next = Callable[[], None]


class Durable:
    """The queue of meta-data writes.

    Args:
        shared: the mirror's state.
        disk_failed: told when the disk refuses (errno).
    """

    def __init__(self, shared: Shared, disk_failed: Callable[..., None]) -> None:
        self._s = shared
        self._disk_failed = disk_failed
        self._jobs: collections.deque[Next] = collections.deque()
        self._busy = False

    @property
    def idle(self) -> bool:
        """Everything asked for is stable."""
        return not self._busy and not self._jobs

    def superblock(self, then: Next) -> None:
        """Make the state as it is when the write starts stable."""

        def start() -> None:
            self._s.out.append(e.WriteSuperblock(self._job(then), self._s.meta_state()))

        self._queue(start, then)

    def bitmap(self, then: Next) -> None:
        """Make every changed page of the bitmap stable, after the data whose bits were cleared.

        In pieces: all pages of 16 TiB at once would be the bitmap a second time.
        """

        def start() -> None:
            self._bitmap_piece(self._s.bitmap.dirty_pages(), 0, then)

        self._queue(start, then)

    def _bitmap_piece(self, numbers: list[int], at: int, then: Next) -> None:
        if at >= len(numbers):
            self._end(then)
            return
        end = at + PIECE_PAGES
        pages = self._take_pages(numbers[at:end])
        self._s.counters.bitmap_writes += 1
        if end >= len(numbers):
            self._s.out.append(e.WriteBitmap(self._job(then), pages, preflush=True))
        else:
            following = self._stage(lambda: self._bitmap_piece(numbers, end, then), then)
            self._s.out.append(e.WriteBitmap(following, pages, preflush=True))

    def forget_stale(self, then: Next) -> None:
        """What was noted elsewhere of this disk must not be said of a copy that is whole again."""

        def forgotten() -> None:
            if self._s.disk > Disk.FAILED:
                self._s.stale_noted = 0
                then()

        def start() -> None:
            if self._s.stale_noted:
                self._s.out.append(e.PersistStale(self._job(forgotten), 0))
            else:
                self._end(then)

        self._queue(start, _nothing)

    def activity_log(self, transaction: e.AlTransaction, evicted: list[int], then: Next) -> None:
        """Make a transaction stable; before it, the data and the bitmap of what it evicts."""

        def data_flush() -> None:
            if evicted and self._s.settings.external_meta:
                self._s.out.append(e.DiskFlush(self._stage(pages, then)))
            else:
                pages()

        def pages() -> None:
            found: set[int] = set()
            for extent in evicted:
                first = extent * BITS_PER_EXTENT
                found.update(self._s.bitmap.dirty_pages(first, min(first + BITS_PER_EXTENT, self._s.bitmap.bits)))
            if found:
                self._s.counters.bitmap_writes += 1
                content = self._take_pages(sorted(found))
                self._s.out.append(e.WriteBitmap(self._stage(block, then), content, preflush=True))
            else:
                block()

        def block() -> None:
            self._s.counters.log_writes += 1
            self._s.out.append(e.WriteActivityLog(self._job(then), transaction, preflush=bool(evicted)))

        self._queue(data_flush, then)

    def _take_pages(self, numbers: list[int]) -> tuple[tuple[int, bytes], ...]:
        return tuple((number, self._s.bitmap.take_page(number)) for number in numbers)

    def _queue(self, start: Next, then: Next) -> None:
        self._jobs.append(lambda: self._go_on(start, then))
        if not self._busy:
            self._start()

    def _start(self) -> None:
        self._busy = True
        self._jobs.popleft()()

    def _go_on(self, following: Next, then: Next) -> None:
        """The next write, while there is a disk that takes it."""
        if self._s.disk > Disk.FAILED:
            following()
        else:
            self._end(then)

    def _stage(self, following: Next, then: Next) -> Then:
        def done(errno: int, _: e.Buffer) -> None:
            if errno:
                self._disk_failed(errno, whole=True)
            self._go_on(following, then)

        return Then(done)

    def _job(self, then: Next) -> Then:
        def done(errno: int, _: e.Buffer) -> None:
            if errno:
                self._disk_failed(errno, whole=True)
            self._end(then)

        return Then(done)

    def _end(self, then: Next) -> None:
        then()
        self._busy = False
        if self._jobs:
            self._start()


def _nothing() -> None:
    """The disk has failed: nothing has to follow."""
