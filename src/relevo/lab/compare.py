"""Compare the data areas of two disks whole."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

CHUNK_BYTES = 4 << 20
BLOCK_BYTES = 4096


def differing_blocks(one: pathlib.Path, other: pathlib.Path, size_bytes: int) -> Iterator[int]:
    """The numbers of the 4 KiB blocks below `size_bytes` in which two images differ."""
    with one.open("rb") as left, other.open("rb") as right:
        for start in range(0, size_bytes, CHUNK_BYTES):
            count = min(CHUNK_BYTES, size_bytes - start)
            mine, theirs = left.read(count), right.read(count)
            if mine == theirs:
                continue
            for offset in range(0, count, BLOCK_BYTES):
                if mine[offset : offset + BLOCK_BYTES] != theirs[offset : offset + BLOCK_BYTES]:
                    yield (start + offset) // BLOCK_BYTES


def equal(one: pathlib.Path, other: pathlib.Path, size_bytes: int) -> bool:
    """Whether the first `size_bytes` of two images are the same."""
    return next(differing_blocks(one, other, size_bytes), None) is None
