"""Meta-data as bytes, torn between sectors of 512 bytes: what a power cut leaves of a block that was being written."""

from __future__ import annotations

import random

import msgspec

from relevo.mirror import events as e
from relevo.mirror.activity_log_format import (
    BLOCK_BYTES,
    ActivityLogCorrupt,
    Replay,
    encode_transaction,
    initialized_block,
    replay,
)
from relevo.mirror.metadata import decode_superblock, encode_superblock, fresh_superblock, layout_for

SECTOR = 512
RING = 8
DISK_BYTES = 100 << 20
_FRESH = fresh_superblock(layout_for(DISK_BYTES), 1, zeroed=True, al_extents=7)


def torn(old: bytes, new: bytes, rng: random.Random) -> bytes:
    """A block of which some sectors are written and some are not."""
    assert len(old) == len(new)
    return b"".join(
        (new if rng.random() < 0.5 else old)[begin : begin + SECTOR] for begin in range(0, len(new), SECTOR)
    )


def superblock_bytes(meta: e.MetaState) -> bytes:
    """The superblock that says so."""
    return encode_superblock(
        msgspec.structs.replace(
            _FRESH,
            size_sectors=meta.size_sectors,
            current=meta.current,
            bitmap=meta.bitmap,
            history0=meta.history0,
            history1=meta.history1,
            flags=meta.flags,
        )
    )


def torn_superblock(old: e.MetaState, new: e.MetaState, rng: random.Random) -> e.MetaState:
    """What is read after a superblock was torn; the real decoder has to make sense of it."""
    found, _ = decode_superblock(torn(superblock_bytes(old), superblock_bytes(new), rng), DISK_BYTES)
    return e.MetaState(found.current, found.bitmap, found.history0, found.history1, found.flags, found.size_sectors)


class Ring:
    """The activity log on the disk: transactions, and torn blocks as bytes."""

    def __init__(self) -> None:
        self.whole: dict[int, e.AlTransaction] = {}
        self._torn: dict[int, bytes] = {}

    def write(self, transaction: e.AlTransaction) -> None:
        position = transaction.number % RING
        self.whole[position] = transaction
        self._torn.pop(position, None)

    def tear(self, transaction: e.AlTransaction, rng: random.Random) -> None:
        position = transaction.number % RING
        self._torn[position] = torn(self._block(position), encode_transaction(transaction), rng)
        self.whole.pop(position, None)

    def _block(self, position: int) -> bytes:
        if position in self._torn:
            return self._torn[position]
        there = self.whole.get(position)
        return initialized_block() if there is None else encode_transaction(there)

    def read(self) -> Replay | None:
        """As the next start reads it; None: unreadable."""
        log = b"".join(self._block(position) for position in range(RING))
        assert len(log) == RING * BLOCK_BYTES
        try:
            return replay(log)
        except ActivityLogCorrupt:
            return None
