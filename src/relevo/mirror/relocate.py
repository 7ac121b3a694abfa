"""Moves meta-data to where a grown disk has to have it, step by step, so that a crash anywhere loses nothing.

The parts at the new place are stable before the new superblock is written, and that is stable before the old one is
overwritten: at each moment one of them is whole. Until the new one is there the old one is found by the disk's last
known size (`disk_note`). Both must not overlap: a disk that grew by less than its meta-data is used as it was before.
Pure: places in, steps out; carried out before the loop runs (`disk_content`) or in it (`shell_disk`).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator

import msgspec

from relevo.base.errors import RelevoError
from relevo.base.units import format_bytes
from relevo.mirror import metadata
from relevo.mirror.layout import SUPERBLOCK_BYTES, Layout

PIECE_BYTES = 1 << 20
"""The largest single operation."""


class Barrier(enum.Enum):
    """A step between writes of meta-data: what was written before is made stable."""

    ALL = enum.auto()
    """Data and meta-data."""
    META = enum.auto()
    """The disk that holds the meta-data (with the data, when that is the same)."""


class Copy(msgspec.Struct, frozen=True):
    """Copy a piece of the disk that holds the meta-data."""

    source: int
    target: int
    length: int


Step = tuple[int, bytes] | Barrier | Copy
"""Write bytes at an offset, make stable, or copy."""


class GrowthTooSmall(RelevoError):
    """The disk has grown by less than its meta-data takes."""


def check_move(old: Layout, new: Layout) -> None:
    """Whether a move is possible.

    Raises:
        GrowthTooSmall: the new place would overlap the old one.
    """
    if not new.external and new.superblock != old.superblock and new.bitmap < old.superblock + SUPERBLOCK_BYTES:
        needed = new.disk_bytes - new.bitmap + old.superblock + SUPERBLOCK_BYTES - old.disk_bytes
        raise GrowthTooSmall(
            f"The disk has grown by {format_bytes(new.disk_bytes - old.disk_bytes)}, which is less than its meta-data "
            "takes: the addition is not used.",
            f"Let it grow by at least {format_bytes(needed)}.",
        )


def move_steps(old: Layout, new: Layout, superblock: Callable[[], metadata.Superblock]) -> Iterator[Step]:
    """The steps from one layout to the other.

    Args:
        old, new: where things lie and shall lie; `check_move` has passed.
        superblock: what the superblock says at the time when it is asked (called once, at its turn).
    """
    yield from _zeroes(new.bitmap + old.bitmap_bytes, new.bitmap_bytes - old.bitmap_bytes)
    if new.bitmap != old.bitmap:
        yield from _copies(old.bitmap, new.bitmap, old.bitmap_bytes)
        yield from _copies(old.activity_log, new.activity_log, old.al_bytes)
    yield Barrier.ALL
    moved = msgspec.structs.replace(
        superblock(), md_size_sectors=new.md_size_sectors, al_offset=new.al_offset, bm_offset=new.bm_offset
    )
    yield new.superblock, metadata.encode_superblock(moved)
    yield Barrier.META
    if new.superblock != old.superblock:
        yield old.superblock, bytes(SUPERBLOCK_BYTES)
        yield Barrier.META
        yield from _zeroes(old.bitmap, old.superblock - old.bitmap)  # it is data now, and equal to the peer's then


def _zeroes(offset: int, length: int) -> Iterator[Step]:
    for at in range(0, length, PIECE_BYTES):
        yield offset + at, bytes(min(PIECE_BYTES, length - at))


def _copies(source: int, target: int, length: int) -> Iterator[Step]:
    for at in range(0, length, PIECE_BYTES):
        yield Copy(source + at, target + at, min(PIECE_BYTES, length - at))
