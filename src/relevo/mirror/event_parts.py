"""What several events and effects of the mirror's core have in common."""

from __future__ import annotations

import dataclasses
from typing import Any

Token = Any
"""Whoever made it knows what it is; the other side gives it back."""
Buffer = Any
"""A piece of memory of the shell's."""


@dataclasses.dataclass(slots=True)
class MetaState:
    """What the superblock says that changes: generations, flags (`MetaFlag`), the agreed size."""

    current: int
    bitmap: int
    history0: int
    history1: int
    flags: int
    size_sectors: int


@dataclasses.dataclass(slots=True)
class AlTransaction:
    """One block of the activity log. Unused slots hold extent 0xffffffff.

    Attributes:
        number: `tr_number`; the block's place in the ring follows from it.
        updates: (slot, extent) of each change.
        context_size: number of slots of the whole log.
        context_start: first slot of `context`.
        context: extents of consecutive slots.
    """

    number: int
    updates: tuple[tuple[int, int], ...]
    context_size: int
    context_start: int
    context: tuple[int, ...]
