"""The bitmap on the wire: plain words, or run lengths in a variable-length code (DRBD's RLE_VLI_Bits).

A run's length is at least 1. Its code is a prefix that names a level, then the distance from the level's first value;
bits are written least significant first. Runs of clear and set bits take turns.
"""

from __future__ import annotations

from collections.abc import Iterator

from relevo.mirror.bitmap import WORD_BITS, WORD_BYTES, Bitmap
from relevo.mirror.packets import (
    MAX_CONTROL_BYTES,
    UPGRADE_REMEDY,
    BadField,
    BitmapWords,
    CompressedBitmap,
)

ENCODING_RLE_VLI = 2
_START_SET = 0x80
_PAD_SHIFT = 4
_PAD_MASK = 7
_H100_BYTES = 16
PLAIN_WORDS_MAX = (MAX_CONTROL_BYTES - _H100_BYTES) // WORD_BYTES
CODE_BYTES_MAX = MAX_CONTROL_BYTES - _H100_BYTES - 1
_LEVELS: tuple[tuple[int, int, int], ...] = (
    (2, 1, 0x00),
    (3, 2, 0x01),
    (5, 3, 0x03),
    (7, 4, 0x07),
    (10, 5, 0x0F),
    (14, 6, 0x1F),
)
_LEVELS += ((21, 8, 0x3F), (29, 8, 0x7F), (42, 8, 0xBF), (64, 8, 0xFF))
"""Total bits, bits of the prefix, the prefix."""
_MAX_CODE_BYTES = 9  # 64 bits that need not begin at a byte


def _level_table() -> tuple[tuple[int, int, int, int, int], ...]:
    """Per level: total bits, prefix bits, prefix, first value, first value of the next level."""
    table, first = [], 1
    for total, width, prefix in _LEVELS:
        following = first + (1 << (total - width))
        table.append((total, width, prefix, first, following))
        first = following
    return tuple(table)


_TABLE = _level_table()


def _by_prefix() -> tuple[tuple[int, int, int], ...]:
    """For each low byte of a code: total bits, prefix bits, first value of its level."""
    found = []
    for low in range(256):
        level = next(row for row in _TABLE if low & ((1 << row[1]) - 1) == row[2])
        found.append((level[0], level[1], level[3]))
    return tuple(found)


_PREFIXES = _by_prefix()


def encode_length(length: int) -> tuple[int, int]:
    """The code of a run's length, and how many bits it has."""
    assert length >= 1
    for total, width, prefix, first, following in _TABLE:
        if length < following:
            return prefix | (length - first) << width, total
    raise AssertionError("a run is longer than any bitmap")


def decode_lengths(code: bytes, pad_bits: int) -> Iterator[int]:
    """The runs' lengths in a code whose last byte has `pad_bits` unused bits.

    Raises:
        BadField: the code ends within a length.
    """
    at, end = 0, len(code) * 8 - pad_bits
    while at < end:
        begin = at >> 3
        ahead = int.from_bytes(code[begin : begin + _MAX_CODE_BYTES], "little") >> (at & 7)
        total, width, first = _PREFIXES[ahead & 0xFF]
        if at + total > end:
            raise BadField("The peer's compressed bitmap ends within a run.", UPGRADE_REMEDY)
        yield ((ahead & ((1 << total) - 1)) >> width) + first
        at += total


class BitmapSender:
    """Cuts a bitmap into packets, each compressed where that makes it shorter.

    A transfer ends with the run that reaches the end of the bitmap; when words went plain, with an
    empty packet.

    Args:
        bitmap: what to send.
        compress: compress at all (drbd: use-rle).
    """

    def __init__(self, bitmap: Bitmap, *, compress: bool = True) -> None:
        self._bitmap = bitmap
        self._compress = compress
        self._bit = 0
        self._end_due = False

    def next_packet(self) -> BitmapWords | CompressedBitmap | None:
        """The next packet, or None when all bits are sent."""
        if self._bit >= self._bitmap.bits:
            last = BitmapWords(b"") if self._end_due else None
            self._end_due = False
            return last
        compressed, end = self._compressed() if self._compress else (None, 0)
        if compressed is not None:
            self._bit, self._end_due = end, False
            return compressed
        word = self._bit // WORD_BITS
        words = self._bitmap.read_words(word, PLAIN_WORDS_MAX)
        self._bit = min((word + len(words) // WORD_BYTES) * WORD_BITS, self._bitmap.bits)
        self._end_due = True
        return BitmapWords(words)

    def _compressed(self) -> tuple[CompressedBitmap | None, int]:
        bitmap, at = self._bitmap, self._bit
        start = is_set = bitmap.test(at)
        code, used = 0, 0
        while at < bitmap.bits:
            stop = bitmap.next_clear(at) if is_set else bitmap.next_set(at)
            stop = bitmap.bits if stop < 0 else stop
            value, width = encode_length(stop - at)
            if used + width > CODE_BYTES_MAX * 8:
                break
            code |= value << used
            used += width
            at, is_set = stop, not is_set
        if used > at - self._bit and used > WORD_BITS:
            return None, at
        size = -(-used // 8)
        encoding = ENCODING_RLE_VLI | (size * 8 - used) << _PAD_SHIFT | (_START_SET if start else 0)
        return CompressedBitmap(encoding, code.to_bytes(size, "little")), at


class BitmapReceiver:
    """Puts the packets of a peer's bitmap together; bits are only ever set."""

    def __init__(self, bitmap: Bitmap) -> None:
        self._bitmap = bitmap
        self._bit = 0
        self.done = bitmap.bits == 0
        """Every bit has come, and the end of the transfer."""

    def take(self, packet: BitmapWords | CompressedBitmap) -> bool:
        """Merge one packet; returns `done`.

        Raises:
            BadField: it holds more bits than the bitmap has, or an unknown encoding.
        """
        if self.done:
            raise BadField("The peer sent more bitmap than the disk has.", UPGRADE_REMEDY)
        if isinstance(packet, BitmapWords):
            self._take_words(packet.words)
        else:
            self._take_code(packet)
            self.done = self._bit >= self._bitmap.bits
        return self.done

    def _take_words(self, words: bytes) -> None:
        if self._bit >= self._bitmap.bits and not words:
            self.done = True
            return
        word = self._bit // WORD_BITS
        following = word + len(words) // WORD_BYTES
        if not words or self._bit >= self._bitmap.bits or following > self._bitmap.words:
            raise BadField(f"The peer sent {len(words)} bytes of bitmap where fewer are left.", UPGRADE_REMEDY)
        self._bitmap.merge_words(word, words)
        self._bit = min(following * WORD_BITS, self._bitmap.bits)

    def _take_code(self, packet: CompressedBitmap) -> None:
        if packet.encoding & 0xF != ENCODING_RLE_VLI:
            raise BadField(
                f"The peer compressed its bitmap in the unknown way {packet.encoding & 0xF}.", UPGRADE_REMEDY
            )
        is_set = bool(packet.encoding & _START_SET)
        at = self._bit
        for length in decode_lengths(packet.code, packet.encoding >> _PAD_SHIFT & _PAD_MASK):
            if at + length > self._bitmap.bits:
                raise BadField("The peer's compressed bitmap is longer than the disk.", UPGRADE_REMEDY)
            if is_set:
                self._bitmap.set_range(at, at + length)
            at, is_set = at + length, not is_set
        if at == self._bit:
            raise BadField("The peer sent a compressed bitmap without a run.", UPGRADE_REMEDY)
        self._bit = at
