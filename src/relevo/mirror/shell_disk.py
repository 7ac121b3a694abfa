"""Carries out the core's disk effects on the backing disk: reads, writes, discards, flushes.

Everything goes through one queue of asynchronous operations with direct I/O; flushes as `flushes` says. Meta-data has
a writer of its own (`shell_meta`).
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from typing import Any

import structlog

from relevo.base.errors import RelevoError
from relevo.device.aio import DEFAULT_DEPTH, Aio
from relevo.device.aio_abandoned import abandon
from relevo.device.backing import requests_at_once
from relevo.device.buffers import Buffer, BufferPool, all_zero
from relevo.device.frontend import DiscardKind
from relevo.mirror import events as ev
from relevo.mirror.digests import Digest, digest
from relevo.mirror.disk_content import OpenCopy
from relevo.mirror.disk_operations import Harmless, Operation, errno_of, flushes_of
from relevo.mirror.disk_watch import DiskWatch
from relevo.mirror.loop import EDGE, READ, Loop
from relevo.mirror.odd_io import OddIo
from relevo.mirror.relocate import PIECE_BYTES
from relevo.mirror.shell_meta import MetaWriter

READ_POOL_BYTES = 64 << 20
META_POOL_BYTES = 8 << 20
DEPTH_MIN = 8
"""So many operations are given to a disk at once however short its queue is."""
Done = Callable[[ev.Token, int, Any], None]
_log = structlog.get_logger()


class DiskOfAnotherSize(RelevoError):
    """The backing disk's block size does not suit a mirror."""


class _Inner:
    """Token of a read whose content this shell looks at itself."""

    __slots__ = ("finish",)

    def __init__(self, finish: Callable[[int, Buffer | None], None]) -> None:
        self.finish = finish


class ShellDisk:
    """The backing disk of one mirror.

    Args:
        loop: the loop that serves it.
        copy: its open disks, and what they say.
        done: called with an effect's token, 0 or an errno, and the buffer of a read.

    Attributes:
        meta: writes the meta-data.
    """

    def __init__(self, loop: Loop, copy: OpenCopy, done: Done) -> None:
        self._loop = loop
        self._copy = copy
        self._fd = copy.data.fd
        self._done = done
        self._aio: Aio[Operation] = Aio(_depth(copy), edge=True)
        self._reads = BufferPool(READ_POOL_BYTES)
        self._metas = BufferPool(META_POOL_BYTES)
        self._waiting_reads: deque[ev.DiskRead] = deque()
        self._flushes = flushes_of(self._aio, copy.data.fd)
        self.meta = MetaWriter(self._aio, copy, self._flushes, lambda token, number: done(token, number, None))
        self._zeroes: Buffer | None = None
        self._odd_bits = copy.data.block_bytes - 1
        self._odd = OddIo(copy.data.block_bytes, self._read_view, self._write_view, self._discard_range)
        self._digests: dict[str, Digest] = {}
        self._closed = False
        self.abandoned = False
        """It did not answer: nothing more is asked of it."""
        loop.add(self._aio.fileno(), READ | EDGE, self._ready)

    @property
    def busy(self) -> bool:
        """Whether anything is under way."""
        return len(self._aio) > 0 or self.meta.busy or bool(self._waiting_reads) or bool(self._odd)

    # ---- a disk that does not answer ---------------------------------------------------------------------------

    def watch(self, timeout_ms: int, failed: Callable[[], None]) -> None:
        """Call `failed` when an operation takes longer; then `abandon`."""
        watch, discards = DiskWatch(timeout_ms), DiskWatch(timeout_ms)

        def look() -> None:
            if self._closed:
                return
            now_ms = self._loop.now_ms
            late = watch.late(now_ms, *self._aio.age())
            if discards.late(now_ms, *self._aio.discard_age()) or late:
                failed()
            else:
                self._loop.call_in(watch.interval_ms, look)

        look()

    def abandon(self) -> None:
        """Everything that is under way has failed (ETIMEDOUT), and so does what is still asked for.

        It stays `busy` as long as the kernel has something: until then nobody else may use the disk.
        """
        self.abandoned = True
        waiting, self._waiting_reads = list(self._waiting_reads), deque()
        for operation in abandon(self._aio, _heir):
            operation.finish(operation, -errno.ETIMEDOUT)
        for effect in waiting:
            self._read_done(Harmless(_ended_late, effect.token, effect.length, None), -errno.ETIMEDOUT)

    # ---- data --------------------------------------------------------------------------------------------------

    def read(self, effect: ev.DiskRead) -> None:
        """Read from the data area."""
        if (effect.offset | effect.length) & self._odd_bits:
            token = effect.token
            self._odd.read(effect.offset, effect.length, lambda number, buffer: self._done(token, number, buffer))
            return
        buffer = effect.buffer if effect.buffer is not None else self._reads.take(effect.length)
        if buffer is None and not self.abandoned:
            self._waiting_reads.append(effect)
            return
        if buffer is None:  # the kernel may keep all of it for ever, and it would not be used
            refused = Harmless(self._read_done, effect.token, effect.length, None)
            self._aio.read(self._fd, memoryview(b""), effect.offset, refused)
            return
        operation = Harmless(self._read_done, effect.token, effect.length, buffer)
        self._aio.read(self._fd, buffer.view, effect.offset, operation)

    def read_thin(self, effect: ev.DiskReadThin) -> None:
        """Read from the data area; zeroes are not handed on."""
        self._read_and(effect.offset, effect.length, lambda number, buffer: self._thinned(effect.token, number, buffer))

    def _thinned(self, token: ev.Token, number: int, buffer: Buffer | None) -> None:
        if buffer is not None and all_zero(buffer.view):
            buffer.release()
            buffer = None
        self._done(token, number, buffer)

    def digest(self, effect: ev.DiskDigest) -> None:
        """Read from the data area and compute a digest."""
        compute = self._digests.get(effect.algorithm)
        if compute is None:
            compute = self._digests[effect.algorithm] = digest(effect.algorithm)

        def finish(number: int, buffer: Buffer | None) -> None:
            found = None
            if buffer is not None:
                found = compute(buffer.view)
                buffer.release()
            self._done(effect.token, number, found)

        self._read_and(effect.offset, effect.length, finish)

    def _read_and(self, offset: int, length: int, finish: Callable[[int, Buffer | None], None]) -> None:
        """Read for this shell itself: `finish` gets 0 or an errno, and the buffer."""
        self.read(ev.DiskRead(_Inner(finish), offset, length, None))

    def write(self, effect: ev.DiskWrite) -> None:
        """Write to the data area."""
        view = effect.buffer.view
        if len(view) != effect.length:
            view = view[: effect.length]
        if (effect.offset | effect.length) & self._odd_bits:
            token = effect.token
            self._odd.write(effect.offset, view, lambda number: self._done(token, number, None))
            return
        self._aio.write(
            self._fd, view, effect.offset, Operation(self._write_done, effect.token, effect.length, effect.buffer)
        )

    def discard(self, effect: ev.DiskDiscard) -> None:
        """Discard in the data area; it reads as zeroes afterwards."""
        token = effect.token
        kind = DiscardKind.UNMAP if effect.unmap else DiscardKind.ZERO
        zero = self._odd.zero if (effect.offset | effect.length) & self._odd_bits else self._discard_range
        zero(effect.offset, effect.length, kind, lambda number: self._done(token, number, None))

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
        self._odd.resume()
        while self._waiting_reads:
            effect = self._waiting_reads[0]
            buffer = self._reads.take(effect.length)
            if buffer is None:
                break
            self._waiting_reads.popleft()
            operation = Harmless(self._read_done, effect.token, effect.length, buffer)
            self._aio.read(self._fd, buffer.view, effect.offset, operation)
        self._aio.submit()

    def _ready(self, _events: int) -> None:
        for operation, result in self._aio.reap():
            if operation.changes:
                self.meta.written()
            operation.finish(operation, result)

    def _read_done(self, operation: Operation, result: int) -> None:
        buffer = operation.buffer
        if result != operation.length:
            if buffer is not None:
                buffer.release()
            buffer = None
        number, token = errno_of(result, operation.length), operation.token
        if type(token) is _Inner:
            token.finish(number, buffer)
        else:
            self._done(token, number, buffer)

    def _write_done(self, operation: Operation, result: int) -> None:
        self._done(operation.token, errno_of(result, operation.length), None)

    def _discard_range(self, offset: int, length: int, kind: DiscardKind, then: Callable[[int], None]) -> None:
        """Whole blocks; written with zeroes when the disk cannot do it otherwise."""

        def finish(_operation: Operation, result: int) -> None:
            if -result in {errno.EOPNOTSUPP, errno.ENOSYS}:
                self._write_zeroes(offset, length, then)
            else:
                then(errno_of(result, 0))

        self._aio.discard(self._fd, offset, length, kind, Operation(finish, None, 0, None))

    def _write_zeroes(self, offset: int, length: int, then: Callable[[int], None]) -> None:
        """Piece after piece."""
        if self._zeroes is None:
            self._zeroes = self._metas.take(PIECE_BYTES)
            assert self._zeroes is not None, "the pool holds more than its largest piece"
            self._zeroes.view[:] = bytes(PIECE_BYTES)
        self._fill(self._zeroes.view, offset, offset + length, then)

    def _read_view(self, view: memoryview, offset: int, then: Callable[[int], None]) -> None:
        self._aio.read(self._fd, view, offset, _whole(len(view), then))

    def _write_view(self, view: memoryview, offset: int, then: Callable[[int], None]) -> None:
        self._aio.write(self._fd, view, offset, _whole(len(view), then))

    def _fill(self, content: memoryview, offset: int, end: int, done: Callable[[int], None]) -> None:
        """Write `content` again and again, one piece after the other."""
        size = min(len(content), end - offset)

        def finish(_operation: Operation, result: int) -> None:
            if result == size and offset + size < end:
                self._fill(content, offset + size, end, done)
            else:
                done(errno_of(result, size))

        self._aio.write(self._fd, content[:size], offset, Operation(finish, None, size, None))

    def close(self) -> None:
        """Wait for what is under way, and give the disk back."""
        self._closed = True
        self._loop.remove(self._aio.fileno())
        self._aio.close()
        self._copy.close()


def _depth(copy: OpenCopy) -> int:
    """How many operations the kernel is given at once: fewer than its queue takes, else io_submit(2) itself waits."""
    disks = (copy.data,) if copy.meta is None else (copy.data, copy.meta)
    limits = [count for disk in disks if (count := requests_at_once(disk.fd)) is not None]
    return min([DEFAULT_DEPTH, *(max(DEPTH_MIN, count * 3 // 4) for count in limits)])


def _heir(operation: Operation) -> Operation:
    """Nobody waits for it any more, but a disk that answers late must not find other content in its memory."""
    if operation.buffer is not None:
        operation.buffer.hold()
    return Harmless(_ended_late, None, 0, operation.buffer)


def _ended_late(operation: Operation, _result: int) -> None:
    if operation.buffer is not None:
        operation.buffer.release()


def _whole(size: int, then: Callable[[int], None]) -> Operation:
    """An operation that has to move `size` bytes."""
    return Operation(lambda _, result: then(errno_of(result, size)), None, size, None)
