"""Writes meta-data to the disk that holds it: superblock, activity log, bitmap; moves it when the disk has grown.

Each effect is a job, a row of steps. One job at a time, first come, first served: where a part lies and what the
superblock says is asked when its step has its turn, so that a move between two jobs goes unnoticed by both.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterator

import msgspec
import structlog

from relevo.device.aio import Aio
from relevo.device.buffers import Buffer, BufferPool
from relevo.device.frontend import DiscardKind
from relevo.mirror import activity_log_format as al
from relevo.mirror import events as ev
from relevo.mirror import metadata
from relevo.mirror.bitmap import PAGE_BYTES
from relevo.mirror.disk_content import OpenCopy
from relevo.mirror.disk_operations import Operation, errno_of, flushes_of
from relevo.mirror.flushes import Flushes
from relevo.mirror.layout import DiskTooSmall, layout_for
from relevo.mirror.metadata import MetaFlag
from relevo.mirror.relocate import PIECE_BYTES, Barrier, Copy, GrowthTooSmall, Step, check_move, move_steps

POOL_BYTES = 8 << 20
Finish = Callable[[int], None]
_log = structlog.get_logger()


class Fill(msgspec.Struct, frozen=True):
    """Give a new part of a data file its blocks: asynchronous I/O waits at holes."""

    offset: int
    length: int


class _Job:
    """A row of steps, and what is called with their outcome."""

    __slots__ = ("finish", "steps")

    def __init__(self, steps: Iterator[Step | Fill], finish: Finish) -> None:
        self.steps = steps
        self.finish = finish


class MetaWriter:
    """The meta-data of one copy.

    Args:
        aio: carries out the operations.
        copy: its open disks, and what they say.
        flushes: of the data disk.
        done: called with an effect's token and 0 or an errno.

    Attributes:
        layout: where the parts lie now.
    """

    def __init__(
        self, aio: Aio[Operation], copy: OpenCopy, flushes: Flushes, done: Callable[[ev.Token, int], None]
    ) -> None:
        self._aio = aio
        self._data = copy.data
        self._meta = copy.data if copy.meta is None else copy.meta
        self._data_flushes = flushes
        self._meta_flushes = flushes if copy.meta is None else flushes_of(aio, copy.meta.fd)
        self.layout = copy.content.layout
        self._superblock = copy.content.superblock
        self._place = copy.place
        self._done = done
        self._pool = BufferPool(POOL_BYTES)
        self._jobs: deque[_Job] = deque()

    @property
    def busy(self) -> bool:
        """Whether a job is under way."""
        return bool(self._jobs)

    def written(self) -> None:
        """An operation has changed one of the disks, and nobody has been told yet."""
        self._data_flushes.written()
        if self._meta_flushes is not self._data_flushes:
            self._meta_flushes.written()

    @property
    def device_uuid(self) -> int:
        """The copy's name."""
        return self._superblock.device_uuid

    # ---- what the core asks for --------------------------------------------------------------------------------

    def write_superblock(self, effect: ev.WriteSuperblock) -> None:
        """Flush, write the superblock, flush."""
        self._effect(effect.token, self._superblock_steps(effect.meta))

    def write_activity_log(self, effect: ev.WriteActivityLog) -> None:
        """Write one transaction, flush."""
        self._effect(effect.token, self._activity_log_steps(effect))

    def write_bitmap(self, effect: ev.WriteBitmap) -> None:
        """Write pages of the bitmap, neighbours together, flush."""
        self._effect(effect.token, self._bitmap_steps(effect))

    def _superblock_steps(self, meta: ev.MetaState) -> Iterator[Step]:
        yield Barrier.ALL
        self._superblock = superblock = msgspec.structs.replace(
            self._superblock,
            size_sectors=meta.size_sectors,
            current=meta.current,
            bitmap=meta.bitmap,
            history0=meta.history0,
            history1=meta.history1,
            flags=int(meta.flags),
            clean=bool(meta.flags & MetaFlag.AL_CLEAN),
        )
        yield self.layout.superblock, metadata.encode_superblock(superblock)
        yield Barrier.META

    def _activity_log_steps(self, effect: ev.WriteActivityLog) -> Iterator[Step]:
        if effect.preflush:
            yield Barrier.ALL
        layout = self.layout
        place = al.ring_block(effect.transaction.number, layout.stripes, layout.stripe_blocks)
        yield layout.activity_log + place * al.BLOCK_BYTES, al.encode_transaction(effect.transaction)
        yield Barrier.META

    def _bitmap_steps(self, effect: ev.WriteBitmap) -> Iterator[Step]:
        if effect.preflush:
            yield Barrier.ALL
        run: list[bytes] = []
        first = 0
        for number, content in sorted(effect.pages):
            if run and (number != first + len(run) or len(run) * PAGE_BYTES >= PIECE_BYTES):
                yield self.layout.bitmap + first * PAGE_BYTES, b"".join(run)
                run = []
            if not run:
                first = number
            run.append(content)
        if run:
            yield self.layout.bitmap + first * PAGE_BYTES, b"".join(run)
        yield Barrier.META

    # ---- a disk that grows -------------------------------------------------------------------------------------

    def measure(self, effect: ev.MeasureDisk, measured: Callable[[ev.Token, int, int], None]) -> None:
        """Look how large the disks are; meta-data goes where it belongs. `measured` gets token, errno and data size."""

        def finish(number: int) -> None:
            measured(effect.token, number, self.layout.data_bytes)

        self._enqueue(self._growth_steps(), finish)

    def _growth_steps(self) -> Iterator[Step | Fill]:
        old, place = self.layout, self._place
        size = os.lseek(self._data.fd, 0, os.SEEK_END)
        meta_size = os.lseek(self._meta.fd, 0, os.SEEK_END)
        try:
            new = layout_for(size, old.stripes, old.stripe_blocks, place, meta_size)
            if new == old or size < old.disk_bytes or meta_size < old.meta_disk_bytes:
                return
            check_move(old, new)
        except (GrowthTooSmall, DiskTooSmall) as error:
            _log.warning("growth_not_used", problem=error.what, remedy=error.remedy)
            return
        if not self._data.is_block_device:
            yield Fill(old.disk_bytes, size - old.disk_bytes)
        yield from move_steps(old, new, lambda: self._superblock)
        self._superblock = msgspec.structs.replace(
            self._superblock, md_size_sectors=new.md_size_sectors, al_offset=new.al_offset, bm_offset=new.bm_offset
        )
        self.layout = new
        _log.info("metadata_moved", old=old.superblock, new=new.superblock, disk_bytes=size)

    # ---- jobs --------------------------------------------------------------------------------------------------

    def _effect(self, token: ev.Token, steps: Iterator[Step]) -> None:
        self._enqueue(steps, lambda number: self._done(token, number))

    def _enqueue(self, steps: Iterator[Step | Fill], finish: Finish) -> None:
        self._jobs.append(_Job(steps, finish))
        if len(self._jobs) == 1:
            self._next_step()

    def _next_step(self) -> None:
        try:
            step = next(self._jobs[0].steps, None)
        except OSError as error:
            self._job_done(error.errno or errno.EIO)
            return
        if step is None:
            self._job_done(0)
        elif isinstance(step, Barrier):
            self._make_stable(step)
        elif isinstance(step, Fill):
            operation = Operation(lambda _, result: self._step_done(errno_of(result, 0)), None, 0, None)
            self._aio.discard(self._data.fd, step.offset, step.length, DiscardKind.ZERO, operation)
        elif isinstance(step, Copy):
            self._copy(step)
        else:
            self._write(*step)

    def _write(self, offset: int, content: bytes) -> None:
        buffer = self._take(len(content))
        buffer.view[:] = content
        self._write_out(offset, buffer)

    def _write_out(self, offset: int, buffer: Buffer) -> None:
        size = len(buffer.view)

        def finish(_: Operation, result: int) -> None:
            buffer.release()
            self._step_done(errno_of(result, size))

        self._aio.write(self._meta.fd, buffer.view, offset, Operation(finish, None, size, buffer))

    def _copy(self, step: Copy) -> None:
        buffer = self._take(step.length)

        def finish(_: Operation, result: int) -> None:
            if result == step.length:
                self._write_out(step.target, buffer)
            else:
                buffer.release()
                self._step_done(errno_of(result, step.length))

        self._aio.read(self._meta.fd, buffer.view, step.source, Operation(finish, None, step.length, buffer))

    def _take(self, size: int) -> Buffer:
        buffer = self._pool.take(size)
        assert buffer is not None, "one job at a time never uses the pool up"
        return buffer

    def _make_stable(self, barrier: Barrier) -> None:
        def data_done(number: int) -> None:
            if number:
                self._step_done(number)
            else:
                self._meta_flushes.ask(self._step_done)

        if barrier is Barrier.ALL and self._data_flushes is not self._meta_flushes:
            self._data_flushes.ask(data_done)
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
        job.finish(number)
