"""A simulated backing disk: a volatile cache over stable blocks, and the meta-data beside them.

A block of 4 KiB is one number (who wrote it last). A power cut keeps a random part of what was not flushed, and of what
was in flight; a meta-data write that was in flight is there, not there, or torn between its sectors (`mirror_tear`).
A disk may fail: from then on everything asked of it is an error, of writes perhaps after some of it was done.
"""

from __future__ import annotations

import dataclasses
import random
from typing import Any

from mirror_tear import Ring, torn, torn_superblock

from relevo.mirror import events as e
from relevo.mirror.activity_log import FREE
from relevo.mirror.bitmap import PAGE_BYTES
from relevo.mirror.metadata import MetaFlag
from relevo.mirror.uuids import JUST_CREATED

BLOCK = 4096
EIO = 5
_ELSEWHERE = {e.PersistEpoch, e.PersistStale}
_HARMLESS = (e.DiskRead, e.DiskReadThin, e.DiskDigest, e.DiskFlush)


@dataclasses.dataclass(slots=True, eq=False)
class Op:
    """A disk effect under way. `mark`: how many writes were done when it was started (what a flush covers)."""

    effect: Any
    mark: int


class SimDisk:
    """One server's disk.

    Args:
        blocks: size of the data area.
        rng: decides what a power cut keeps.
        keeps_flushed: False: a disk (or a build) whose flushes do nothing, for the test that the simulator sees it.
    """

    def __init__(self, blocks: int, rng: random.Random, meta: e.MetaState, *, honest: bool = True) -> None:
        self.blocks = blocks
        self.rng = rng
        self.honest = honest
        self.stable: dict[int, int] = {}
        self.now: dict[int, int] = {}
        self._log: list[tuple[int, int]] = []  # writes done and not flushed: (block, value)
        self._flushed = 0  # how many of all writes done are stable
        self._done = 0
        self.superblock = meta
        self.pages: dict[int, bytes] = {}
        self.ring = Ring()
        self.failing = False
        self.epoch = 0
        self.stale = 0
        self.in_flight: list[Op] = []
        self.active: frozenset[int] = frozenset()

    # ------------------------------------------------------------ running

    def start(self, effect: Any) -> Op:
        op = Op(effect, self._done)
        self.in_flight.append(op)
        return op

    def finish(self, op: Op) -> Any:
        """Carry it out; returns what a read found."""
        self.in_flight.remove(op)
        effect = op.effect
        kind = type(effect)
        if self.failing and kind not in _ELSEWHERE:
            self._fail(effect)
            return None
        if kind is e.DiskRead or kind is e.DiskReadThin or kind is e.DiskDigest:
            return self._read(effect)
        if kind is e.DiskWrite or kind is e.DiskDiscard:
            for block, value in written(effect):
                self.write(block, value)
        elif kind is e.DiskFlush:
            self._flush(op.mark)
        else:
            if kind is e.WriteSuperblock or (kind not in _ELSEWHERE and effect.preflush):
                self._flush(op.mark)
            self._meta(effect)
        return None

    def _fail(self, effect: Any) -> None:
        """It is an error; what it wrote may be there or not, and no flush will cover it."""
        if isinstance(effect, e.DiskWrite | e.DiskDiscard):
            for block, value in written(effect):
                if self.rng.random() < 0.5:
                    self.write(block, value)

    def _read(self, effect: Any) -> Any:
        first = effect.offset // BLOCK
        found = [self.now.get(block, 0) for block in range(first, first + effect.length // BLOCK)]
        if isinstance(effect, e.DiskDigest):
            return f"{effect.algorithm} of {found}".encode()
        if isinstance(effect, e.DiskReadThin) and not any(found):
            return None
        return found

    def is_stable(self, mark: int) -> bool:
        """Whether the first `mark` writes are."""
        return self._flushed >= mark

    @property
    def done(self) -> int:
        return self._done

    def write(self, block: int, value: int) -> None:
        self.now[block] = value
        self._log.append((block, value))
        self._done += 1

    def _flush(self, mark: int) -> None:
        if not self.honest:
            return
        while self._flushed < mark:
            block, value = self._log.pop(0)
            self.stable[block] = value
            self._flushed += 1

    def _meta(self, effect: Any) -> None:
        if isinstance(effect, e.WriteSuperblock):
            self.superblock = dataclasses.replace(effect.meta)
        elif isinstance(effect, e.WriteBitmap):
            for number, page in effect.pages:
                assert len(page) == PAGE_BYTES
                self.pages[number] = page
        elif isinstance(effect, e.WriteActivityLog):
            self.ring.write(effect.transaction)
            self.active = self.extents()
        elif isinstance(effect, e.PersistStale):
            self.stale = effect.generation
        else:
            assert isinstance(effect, e.PersistEpoch)
            self.epoch = effect.epoch

    def blank(self) -> None:
        """Another disk in its place, with new meta-data. What this server notes elsewhere stays."""
        self.stable, self.now, self.pages, self.ring = {}, {}, {}, Ring()
        self.active = frozenset()
        self._reset()
        self.superblock = e.MetaState(JUST_CREATED, 0, 0, 0, int(MetaFlag.AL_CLEAN), 0)

    # ------------------------------------------------------------ ends

    def power_cut(self) -> None:
        """What was flushed stays; of the rest a random part."""
        for block, value in self._log:
            if self.rng.random() < 0.5:
                self.stable[block] = value
        rest: dict[int, int] = {}
        for op in self.in_flight:
            self._cut(op, rest)
        self.stable.update(rest)
        self._reset()
        self.now = dict(self.stable)

    def _cut(self, op: Op, rest: dict[int, int]) -> None:
        effect, rng = op.effect, self.rng
        if isinstance(effect, e.DiskWrite | e.DiskDiscard):
            rest.update((block, value) for block, value in written(effect) if rng.random() < 0.5)
        elif not isinstance(effect, _HARMLESS):
            flushes = isinstance(effect, e.WriteSuperblock) or getattr(effect, "preflush", False)
            fate = rng.randrange(3)
            if fate and flushes and self.honest:
                for block, value in self._log[: max(0, op.mark - self._flushed)]:
                    self.stable[block] = value
            if fate == 2:
                self._meta(effect)
            elif fate == 1:
                self._tear(effect)

    def _tear(self, effect: Any) -> None:
        """Some sectors of a meta-data write are there."""
        if isinstance(effect, e.WriteSuperblock):
            self.superblock = torn_superblock(self.superblock, effect.meta, self.rng)
        elif isinstance(effect, e.WriteBitmap):
            for number, page in effect.pages:
                self.pages[number] = torn(self.pages.get(number, bytes(PAGE_BYTES)), page, self.rng)
        elif isinstance(effect, e.WriteActivityLog):
            self.ring.tear(effect.transaction, self.rng)
            self.active = self.extents()

    def process_death(self) -> None:
        """The process is gone, the disk is not: everything done stays in its cache."""
        for op in self.in_flight:
            effect = op.effect
            if isinstance(effect, e.DiskWrite | e.DiskDiscard):
                if self.rng.random() < 0.5:
                    for block, value in written(effect):
                        self.write(block, value)
            elif not isinstance(effect, _HARMLESS) and self.rng.random() < 0.5 and not self.failing:
                if isinstance(effect, e.WriteSuperblock) or getattr(effect, "preflush", False):
                    self._flush(op.mark)
                self._meta(effect)
        self.in_flight.clear()

    def _reset(self) -> None:
        self._log.clear()
        self._flushed = self._done
        self.in_flight.clear()

    # ------------------------------------------------------------ what the next start reads

    def extents(self) -> frozenset[int]:
        """Replay the ring, oldest transaction first."""
        held: dict[int, int] = {}
        for transaction in sorted(self.ring.whole.values(), key=lambda t: t.number):
            held.update(enumerate(transaction.context, transaction.context_start))
            held.update(transaction.updates)
        return frozenset(extent for extent in held.values() if extent != FREE)

    def attach(self, now_ms: int, numbers: tuple[int, ...], resume_bytes: int = 0, token: Any = None) -> e.Attach:
        self.failing = False
        log = self.ring.read()
        pages = -(-self.blocks // (PAGE_BYTES * 8))
        return e.Attach(
            now_ms,
            dataclasses.replace(self.superblock),
            self.blocks * BLOCK,
            b"".join(self.pages.get(page, bytes(PAGE_BYTES)) for page in range(pages)),
            None if log is None else log.extents,
            0 if log is None else log.number,
            self.epoch,
            numbers,
            resume_bytes,
            token,
            self.stale,
        )

    def bit(self, block: int) -> bool:
        """Whether the stable bitmap marks a block."""
        page = self.pages.get(block // (PAGE_BYTES * 8))
        return page is not None and bool(page[(block // 8) % PAGE_BYTES] >> (block % 8) & 1)


def written(effect: e.DiskWrite | e.DiskDiscard) -> list[tuple[int, int]]:
    """The blocks of a write, with their new values."""
    first = effect.offset // BLOCK
    count = effect.length // BLOCK
    if isinstance(effect, e.DiskDiscard):
        return [(block, 0) for block in range(first, first + count)]
    assert len(effect.buffer) == count
    return list(zip(range(first, first + count), effect.buffer, strict=True))
