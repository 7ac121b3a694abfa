"""CRC-32C in the kernel's raw form: seed 0 and no final inversion, which makes it linear over GF(2).

Linearity is what makes it quick without a library: the first half of a block, advanced over the length of the second,
is added (xor) to it, and a block half as long has the same sum. The halves are advanced for all their words at once, as
byte planes through `bytes.translate`.
"""

from __future__ import annotations

import functools
import struct

_POLYNOMIAL = 0x82F63B78  # reflected
_WORD_BITS = 32
_SMALL_BYTES = 256
"""From here down the plain byte-wise loop is as quick as folding."""


def _byte_table() -> list[int]:
    table = []
    for value in range(256):
        crc = value
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
        table.append(crc)
    return table


_TABLE = _byte_table()


def _apply(columns: list[int], word: int) -> int:
    """A linear map of 32 bits, given by its images of the single bits."""
    result = 0
    while word:
        low = word & -word
        result ^= columns[low.bit_length() - 1]
        word ^= low
    return result


def _small(data: bytes | bytearray, crc: int = 0) -> int:
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc


Planes = tuple[tuple[bytes, bytes, bytes, bytes], ...]


def _planes(columns: list[int]) -> Planes:
    """For byte `i` of a word, the four translation tables that give its share in the four bytes of the image."""
    tables = []
    for byte in range(4):
        images = [_apply(columns, value << 8 * byte) for value in range(256)]
        tables.append(tuple(bytes(image >> 8 * out & 0xFF for image in images) for out in range(4)))
    return tuple((t[0], t[1], t[2], t[3]) for t in tables)


@functools.cache
def _columns(length: int) -> list[int]:
    """The images of the single bits when a sum is advanced over `length` zero bytes (a power of two from 4 on)."""
    if length == 4:
        return [_small(struct.pack("<I", 1 << bit)) for bit in range(_WORD_BITS)]
    half = _columns(length // 2)
    return [_apply(half, column) for column in half]


@functools.cache
def _advance(length: int) -> Planes:
    """The map that advances a sum over `length` zero bytes."""
    return _planes(_columns(length))


_FOLDED_BYTES = 1 << 20
"""The longest piece that is folded at once; longer data is taken piece by piece."""
for _length in (256, 512, 1024, 2048):  # what the activity log's blocks need: made now, not at the first write
    _advance(_length)


def crc32c(data: bytes | bytearray | memoryview) -> int:
    """The sum of `data`, by pieces that are powers of two: a sum goes on into the first word of what follows."""
    raw, crc = bytes(data), 0
    start, end = 0, len(raw)
    while start < end:
        size = min(_FOLDED_BYTES, 1 << (end - start).bit_length() - 1)
        piece = raw[start : start + size] if size < end else raw
        if size <= _SMALL_BYTES:
            return _small(raw[start:], crc)
        if crc:
            piece = struct.pack("<I", int.from_bytes(piece[:4], "little") ^ crc) + piece[4:]
        crc = _folded(piece)
        start += size
    return crc


def _folded(raw: bytes) -> int:
    count = len(raw)
    planes = [raw[0::4], raw[1::4], raw[2::4], raw[3::4]]
    while count > _SMALL_BYTES:
        count //= 2
        half = count // 4
        planes = _fold(planes, half, _advance(count))
    word = bytearray(count)
    for index, plane in enumerate(planes):
        word[index::4] = plane
    return _small(word)


def _fold(planes: list[bytes], half: int, tables: Planes) -> list[bytes]:
    number = int.from_bytes
    heads = [plane[:half] for plane in planes]
    folded = []
    for out in range(4):
        total = number(planes[out][half:], "little")
        for head, table in zip(heads, tables, strict=True):
            total ^= number(head.translate(table[out]), "little")
        folded.append(total.to_bytes(half, "little"))
    return folded


_BEFORE = {entry >> 24: index for index, entry in enumerate(_TABLE)}
"""The topmost bytes of the table's entries are all different: a step can be taken back."""


def find_damaged_byte(syndrome: int, count: int) -> tuple[int, int] | None:
    """Which single byte of a block is wrong: its place, and what to add (xor).

    Args:
        syndrome: the block's sum, xor the sum it should have.
        count: the block's length in bytes.

    Returns:
        None when no single byte explains it, or more than one does.
    """
    found = None
    state = syndrome
    for place in range(count - 1, -1, -1):
        index = _BEFORE[state >> 24]
        state = (state ^ _TABLE[index]) << 8 & 0xFFFF_FFFF | index
        if 0 < state <= 0xFF:
            if found is not None:
                return None
            found = place, state
    return found
