"""Carries out the core's disk effects on the backing disk: data, superblock, activity log and bitmap.

Everything goes through one queue of asynchronous operations with direct I/O. One flush is under way at a time; what
asks for one meanwhile shares the next. Meta-data is written by jobs, one after the other, each a short list of steps.
"""

from __future__ import annotations

import enum
import errno
import os
from collections import deque
from collections.abc import Callable, Iterator

import structlog

from relevo.base.errors import RelevoError
from relevo.device.aio import Aio
from relevo.device.backing import Backing
from relevo.device.buffers import Buffer, BufferPool
from relevo.device.frontend import DiscardKind
from relevo.mirror import activity_log_format as al
from relevo.mirror import events as ev
from relevo.mirror import metadata
from relevo.mirror.bitmap import PAGE_BYTES
from relevo.mirror.layout import Layout
from relevo.mirror.loop import READ, Loop
from relevo.mirror.metadata import MetaFlag, Superblock

READ_POOL_BYTES = 64 << 20
META_POOL_BYTES = 8 << 20
PIECE_BYTES = 1 << 20
"""The largest single operation on meta-data, and on zeroes."""
Done = Callable[[ev.Token, int, Buffer | None], None]


class Barrier(enum.Enum):
    """A step between writes of meta-data: what was written before is made stable."""

    ALL = enum.auto()
    """Data and meta-data."""
    META = enum.auto()
    """The disk that holds the meta-data (with the data, when that is the same)."""


Step = tuple[int, bytes] | Barrier
"""Write bytes at an offset, or make stable."""
_log = structlog.get_logger()


class DiskOfAnotherSize(RelevoError):
    """The backing disk's block size does not suit a mirror."""


class _Operation:
    """One asynchronous operation: what to do with its result."""

    __slots__ = ("buffer", "finish", "length", "token")

    def __init__(self, finish: Callable[[_Operation, int], None], token: ev.Token, length: int, buffer: Buffer | None):
        self.finish = finish
        self.token = token
        self.length = length
        self.buffer = buffer


class _Job:
    """A row of meta-data steps for one effect."""

    __slots__ = ("steps", "token")

    def __init__(self, token: ev.Token, steps: Iterator[Step]) -> None:
        self.token = token
        self.steps = steps


class Flushes:
    """The flushes of one disk: one is under way at a time; all that ask meanwhile share the next."""

    def __init__(self, aio: Aio[_Operation], fd: int) -> None:
        self._aio = aio
        self._fd = fd
        self._under_way = False
        self._waiting: list[Callable[[int], None]] = []

    def ask(self, then: Callable[[int], None]) -> None:
        """Make everything that was reported done stable; `then` gets 0 or an errno."""
        self._waiting.append(then)
        if not self._under_way:
            self._start()

    def _start(self) -> None:
        sharing, self._waiting = self._waiting, []
        self._under_way = True

        def finish(_operation: _Operation, result: int) -> None:
            self._under_way = False
            if self._waiting:
                self._start()
            for then in sharing:
                then(_errno(result, 0))

        self._aio.fdsync(self._fd, _Operation(finish, None, 0, None))


class ShellDisk:
    """The backing disk of one mirror.

    Args:
        loop: the loop that serves it.
        backing: the open data disk.
        meta: the open disk that holds the meta-data; None: the same.
        layout: where its parts lie.
        superblock: what it says now; its fixed part is kept.
        done: called with an effect's token, 0 or an errno, and the buffer of a read.
    """

    def __init__(
        self,
        loop: Loop,
        backing: Backing,
        layout: Layout,
        superblock: Superblock,
        done: Done,
        meta: Backing | None = None,
    ) -> None:
        self._loop = loop
        self._backing = backing
        self._meta = backing if meta is None else meta
        self._fd = backing.fd
        self._layout = layout
        self._superblock = superblock
        self._done = done
        self._aio: Aio[_Operation] = Aio()
        self._reads = BufferPool(READ_POOL_BYTES)
        self._metas = BufferPool(META_POOL_BYTES)
        self._waiting_reads: deque[ev.DiskRead] = deque()
        self._flushes = Flushes(self._aio, backing.fd)
        self._meta_flushes = self._flushes if meta is None else Flushes(self._aio, meta.fd)
        self._jobs: deque[_Job] = deque()
        self._zeroes: Buffer | None = None
        loop.add(self._aio.fileno(), READ, self._ready)

    @property
    def busy(self) -> bool:
        """Whether anything is under way."""
        return len(self._aio) > 0 or bool(self._jobs) or bool(self._waiting_reads)

    # ---- data --------------------------------------------------------------------------------------------------

    def read(self, effect: ev.DiskRead) -> None:
        """Read from the data area."""
        buffer = effect.buffer if effect.buffer is not None else self._reads.take(effect.length)
        if buffer is None:
            self._waiting_reads.append(effect)
            return
        operation = _Operation(self._read_done, effect.token, effect.length, buffer)
        self._aio.read(self._fd, buffer.view, effect.offset, operation)

    def write(self, effect: ev.DiskWrite) -> None:
        """Write to the data area."""
        view = effect.buffer.view
        if len(view) != effect.length:
            view = view[: effect.length]
        self._aio.write(self._fd, view, effect.offset, _Operation(self._write_done, effect.token, effect.length, None))

    def discard(self, effect: ev.DiskDiscard) -> None:
        """Discard in the data area; it reads as zeroes afterwards."""
        operation = _Operation(self._discard_done, effect, 0, None)
        kind = DiscardKind.UNMAP if effect.unmap else DiscardKind.ZERO
        self._aio.discard(self._fd, effect.offset, effect.length, kind, operation)

    def write_same(self, effect: ev.DiskWriteSame) -> None:
        """Fill a range with one block."""
        pattern = bytes(effect.buffer.view)
        size = min(PIECE_BYTES // len(pattern) * len(pattern), effect.length)
        filled = self._metas.take(size)
        if filled is None:
            self._done(effect.token, errno.ENOMEM, None)
            return
        filled.view[:] = pattern * (size // len(pattern))

        def done(number: int) -> None:
            filled.release()
            self._done(effect.token, number, None)

        self._fill(filled.view, effect.offset, effect.offset + effect.length, done)

    def flush(self, effect: ev.DiskFlush) -> None:
        """Make everything that was reported done stable."""
        token = effect.token
        self._flushes.ask(lambda number: self._done(token, number, None))

    def submit(self) -> None:
        """Hand what was queued to the kernel."""
        while self._waiting_reads:
            effect = self._waiting_reads[0]
            buffer = self._reads.take(effect.length)
            if buffer is None:
                break
            self._waiting_reads.popleft()
            operation = _Operation(self._read_done, effect.token, effect.length, buffer)
            self._aio.read(self._fd, buffer.view, effect.offset, operation)
        self._aio.submit()

    def _ready(self, _events: int) -> None:
        for operation, result in self._aio.reap():
            operation.finish(operation, result)

    def _read_done(self, operation: _Operation, result: int) -> None:
        buffer = operation.buffer
        if result != operation.length:
            assert buffer is not None
            buffer.release()
            buffer = None
        self._done(operation.token, _errno(result, operation.length), buffer)

    def _write_done(self, operation: _Operation, result: int) -> None:
        self._done(operation.token, _errno(result, operation.length), None)

    def _discard_done(self, operation: _Operation, result: int) -> None:
        effect: ev.DiskDiscard = operation.token
        if -result in {errno.EOPNOTSUPP, errno.ENOSYS}:
            self._write_zeroes(effect, effect.offset)
            return
        self._done(effect.token, _errno(result, 0), None)

    def _write_zeroes(self, effect: ev.DiskDiscard, offset: int) -> None:
        """The disk cannot discard: write zeroes, piece after piece."""
        if self._zeroes is None:
            self._zeroes = self._metas.take(PIECE_BYTES)
            assert self._zeroes is not None, "the pool holds more than its largest piece"
            self._zeroes.view[:] = bytes(PIECE_BYTES)
        token = effect.token
        self._fill(self._zeroes.view, offset, offset + effect.length, lambda number: self._done(token, number, None))

    def _fill(self, content: memoryview, offset: int, end: int, done: Callable[[int], None]) -> None:
        """Write `content` again and again, one piece after the other."""
        size = min(len(content), end - offset)

        def finish(_operation: _Operation, result: int) -> None:
            if result == size and offset + size < end:
                self._fill(content, offset + size, end, done)
            else:
                done(_errno(result, size))

        self._aio.write(self._fd, content[:size], offset, _Operation(finish, None, size, None))

    # ---- meta-data ---------------------------------------------------------------------------------------------

    def write_superblock(self, effect: ev.WriteSuperblock) -> None:
        """Flush, write the superblock, flush."""
        block = metadata.encode_superblock(self.superblock_of(effect.meta))
        self._enqueue(effect.token, [Barrier.ALL, (self._layout.superblock, block), Barrier.META])

    def write_activity_log(self, effect: ev.WriteActivityLog) -> None:
        """Write one transaction, flush."""
        layout = self._layout
        place = al.ring_block(effect.transaction.number, layout.stripes, layout.stripe_blocks)
        block = al.encode_transaction(effect.transaction)
        steps: list[Step] = [(layout.activity_log + place * al.BLOCK_BYTES, block), Barrier.META]
        self._enqueue(effect.token, [Barrier.ALL, *steps] if effect.preflush else steps)

    def write_bitmap(self, effect: ev.WriteBitmap) -> None:
        """Write pages of the bitmap, neighbours together, flush."""
        steps: list[Step] = [Barrier.ALL] if effect.preflush else []
        steps.extend(self._page_runs(effect.pages))
        self._enqueue(effect.token, [*steps, Barrier.META])

    def _page_runs(self, pages: tuple[tuple[int, bytes], ...]) -> Iterator[Step]:
        run: list[bytes] = []
        first = 0
        for number, content in sorted(pages):
            if run and (number != first + len(run) or len(run) * PAGE_BYTES >= PIECE_BYTES):
                yield self._layout.bitmap + first * PAGE_BYTES, b"".join(run)
                run = []
            if not run:
                first = number
            run.append(content)
        if run:
            yield self._layout.bitmap + first * PAGE_BYTES, b"".join(run)

    def superblock_of(self, meta: ev.MetaState) -> Superblock:
        """The superblock with the core's state in it."""
        old = self._superblock
        return metadata.Superblock(
            size_sectors=meta.size_sectors,
            current=meta.current,
            bitmap=meta.bitmap,
            history0=meta.history0,
            history1=meta.history1,
            device_uuid=old.device_uuid,
            flags=int(meta.flags),
            md_size_sectors=old.md_size_sectors,
            al_offset=old.al_offset,
            al_extents=old.al_extents,
            bm_offset=old.bm_offset,
            peer_max_bio_bytes=old.peer_max_bio_bytes,
            al_stripes=old.al_stripes,
            al_stripe_blocks=old.al_stripe_blocks,
            clean=bool(meta.flags & MetaFlag.AL_CLEAN),
        )

    def _enqueue(self, token: ev.Token, steps: list[Step]) -> None:
        self._jobs.append(_Job(token, iter(steps)))
        if len(self._jobs) == 1:
            self._next_step()

    def _next_step(self) -> None:
        job = self._jobs[0]
        try:
            step = next(job.steps)
        except StopIteration:
            self._job_done(0)
            return
        if isinstance(step, Barrier):
            self._make_stable(step)
            return
        offset, content = step
        buffer = self._metas.take(len(content))
        assert buffer is not None, "one job at a time never uses the pool up"
        buffer.view[:] = content

        def finish(_operation: _Operation, result: int) -> None:
            buffer.release()
            self._step_done(_errno(result, len(content)))

        self._aio.write(self._meta.fd, buffer.view, offset, _Operation(finish, None, len(content), buffer))

    def _make_stable(self, barrier: Barrier) -> None:
        def data_done(number: int) -> None:
            if number:
                self._step_done(number)
            else:
                self._meta_flushes.ask(self._step_done)

        if barrier is Barrier.ALL and self._flushes is not self._meta_flushes:
            self._flushes.ask(data_done)
        else:
            self._meta_flushes.ask(self._step_done)

    def _step_done(self, number: int) -> None:
        if number:
            self._job_done(number)
        else:
            self._next_step()

    def _job_done(self, number: int) -> None:
        job = self._jobs.popleft()
        if number:
            _log.error("metadata_not_written", error=os.strerror(number))
        if self._jobs:
            self._next_step()
        self._done(job.token, number, None)

    def close(self) -> None:
        """Wait for what is under way, and give the disk back."""
        self._loop.remove(self._aio.fileno())
        self._aio.close()
        self._backing.close()
        if self._meta is not self._backing:
            self._meta.close()


def _errno(result: int, expected: int) -> int:
    if result == expected:
        return 0
    return -result if result < 0 else errno.EIO
