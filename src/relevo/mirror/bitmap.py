"""Which blocks of 4 KiB may be different on the peer: one bit each, as on the disk and on the wire.

Pure memory. Little-endian bits, padded with zeroes to whole 64-bit words, kept in pages of 4 KiB as the disk has them.
How many bits are set in each page is kept beside them, so that a search never looks through pages that are all alike:
16 TiB have 131072 pages, which is what the longest search looks at.
"""

from __future__ import annotations

import array
import re
from collections.abc import Iterator

BLOCK_BYTES = 4096
"""What one bit stands for."""
SECTORS_PER_BIT = BLOCK_BYTES // 512
PAGE_BYTES = 4096
PAGE_BITS = PAGE_BYTES * 8
WORD_BYTES = 8
WORD_BITS = 64
_SET = re.compile(rb"[^\x00]")
_CLEAR = re.compile(rb"[^\xff]")
_EMPTY, _MIXED, _FULL = 0, 1, 2
_CLEAR_PIECE = bytes(1 << 20)
_ALIKE = {0: bytes(PAGE_BYTES), 0xFF: b"\xff" * PAGE_BYTES}


class Bitmap:
    """A row of bits that counts those that are set and remembers which pages changed.

    Args:
        bits: how many there are (`bits_for`).
        pages: the content, whole pages; empty is all clear. Bits beyond the last one are cleared. A bytearray of the
            right length is not copied: it is the bitmap's from now on (16 TiB have 512 MiB).
    """

    def __init__(self, bits: int, pages: bytes | bytearray = b"") -> None:
        self.bits = bits
        count = -(-bits // PAGE_BITS)
        adopted = isinstance(pages, bytearray) and len(pages) == count * PAGE_BYTES
        self._bytes = pages if isinstance(pages, bytearray) and adopted else bytearray(count * PAGE_BYTES)
        self._dirty: set[int] = set()
        self._counts = array.array("H", bytes(2 * count))
        self._states = bytearray(count)
        """Per page: empty, mixed or full. The last one counts as full when all bits that there are are set."""
        self.count = 0
        if pages:
            if not adopted:
                size = min(len(pages), len(self._bytes))
                self._bytes[:size] = memoryview(pages)[:size]
            self._clear_beyond()
            self._count_all()

    def _clear_beyond(self) -> None:
        last, spare = divmod(self.bits, 8)
        if spare:
            self._bytes[last] &= (1 << spare) - 1
            last += 1
        self._bytes[last:] = bytes(len(self._bytes) - last)

    def _count_all(self) -> None:
        """Count the bits of a new bitmap. Most of one is mostly clear: large pieces without a bit are passed over."""
        piece = len(_CLEAR_PIECE)
        for begin in range(0, len(self._bytes), piece):
            content = self._bytes[begin : begin + piece]
            if content != _CLEAR_PIECE[: len(content)]:
                for page in range(begin // PAGE_BYTES, (begin + len(content)) // PAGE_BYTES):
                    self._recount(page)

    def grow(self, bits: int) -> None:
        """Have more bits; the new ones are clear."""
        assert bits >= self.bits
        added = -(-bits // PAGE_BITS) - self.pages
        last = self.pages - 1
        self.bits = bits
        self._bytes.extend(bytes(added * PAGE_BYTES))
        self._counts.extend(array.array("H", bytes(2 * added)))
        self._states.extend(bytes(added))
        if last >= 0:
            self._counted(last, 0)  # what was all set may be so no more

    def _recount(self, page: int) -> None:
        """A page was written as a whole: count its bits anew."""
        content = self._bytes[page * PAGE_BYTES : (page + 1) * PAGE_BYTES]
        if content == _ALIKE[0xFF]:
            self._counted(page, PAGE_BITS - self._counts[page])
        elif content != _ALIKE[0]:
            self._counted(page, int.from_bytes(content, "little").bit_count() - self._counts[page])

    def _counted(self, page: int, change: int) -> None:
        """`change` more bits are set in a page than before."""
        found = self._counts[page] + change
        self._counts[page] = found
        self.count += change
        if not found:
            self._states[page] = _EMPTY
        else:
            self._states[page] = _FULL if found == min(PAGE_BITS, self.bits - page * PAGE_BITS) else _MIXED

    @property
    def words(self) -> int:
        """How many 64-bit words hold all bits."""
        return -(-self.bits // WORD_BITS)

    def test(self, bit: int) -> bool:
        """Whether one bit is set."""
        return bool(self._bytes[bit >> 3] >> (bit & 7) & 1)

    def any_set(self, first: int, end: int) -> bool:
        """Whether a bit of [first, end) is set."""
        if end - first == 1:
            return bool(self._bytes[first >> 3] >> (first & 7) & 1)
        found = self.next_set(first)
        return 0 <= found < end

    def set_range(self, first: int, end: int) -> int:
        """Set [first, end); returns how many were clear before."""
        return self._write(first, end, 0xFF)

    def clear_range(self, first: int, end: int) -> int:
        """Clear [first, end); returns how many were set before."""
        return self._write(first, end, 0)

    def _write(self, first: int, end: int, fill: int) -> int:
        assert 0 <= first <= end <= self.bits
        changed = 0
        while first < end:
            page = first // PAGE_BITS
            stop = min(end, (page + 1) * PAGE_BITS)
            if self._states[page] != (_FULL if fill else _EMPTY):
                change = self._write_in_page(page, first, stop, fill)
                if change:
                    self._counted(page, change if fill else -change)
                    self._dirty.add(page)
                    changed += change
            first = stop
        return changed

    def _write_in_page(self, page: int, first: int, end: int, fill: int) -> int:
        begin, stop = first >> 3, -(-end // 8)
        if stop - begin == 1:
            old = self._bytes[begin]
            mask = (1 << (end & 7 or 8)) - (1 << (first & 7))
            new = old | mask if fill else old & ~mask
            self._bytes[begin] = new
            return (old ^ new).bit_count()
        if end - first == PAGE_BITS:
            self._bytes[begin:stop] = _ALIKE[fill]
            return PAGE_BITS - self._counts[page] if fill else self._counts[page]
        return self._write_long(first, end, fill)

    def _write_long(self, first: int, end: int, fill: int) -> int:
        begin, stop = first >> 3, -(-end // 8)
        old = self._bytes[begin:stop]
        new = bytearray((fill,)) * len(old)
        head = (1 << (first & 7)) - 1
        new[0] = (old[0] & head) | (new[0] & ~head)
        if end & 7:
            tail = (1 << (end & 7)) - 1
            new[-1] = (new[-1] & tail) | (old[-1] & ~tail & 0xFF)
        self._bytes[begin:stop] = new
        before, after = int.from_bytes(old, "little").bit_count(), int.from_bytes(new, "little").bit_count()
        return abs(after - before)

    def set_all(self) -> None:
        """Set every bit."""
        self._write(0, self.bits, 0xFF)

    def clear_all(self) -> None:
        """Clear every bit."""
        self._write(0, self.bits, 0)

    def next_set(self, bit: int) -> int:
        """The first set bit from `bit` on, or -1."""
        return self._next(bit, _SET, _FULL, 0)

    def next_clear(self, bit: int) -> int:
        """The first clear bit from `bit` on, or -1."""
        return self._next(bit, _CLEAR, _EMPTY, 0xFF)

    def _next(self, bit: int, pattern: re.Pattern[bytes], whole: int, flip: int) -> int:
        if bit >= self.bits:
            return -1
        at = bit >> 3
        byte = (self._bytes[at] ^ flip) >> (bit & 7)
        if byte:
            found = bit + (byte & -byte).bit_length() - 1
            return found if found < self.bits else -1
        page = bit // PAGE_BITS
        match = pattern.search(self._bytes, at + 1, (page + 1) * PAGE_BYTES)
        if match is None:
            there = [at for at in (self._states.find(state, page + 1) for state in (_MIXED, whole)) if at >= 0]
            if not there:
                return -1
            match = pattern.search(self._bytes, min(there) * PAGE_BYTES)
            assert match is not None, "the page's state says that there is one"
        at = match.start()
        byte = self._bytes[at] ^ flip
        found = at * 8 + (byte & -byte).bit_length() - 1
        return found if found < self.bits else -1

    def runs(self, first: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
        """The runs of set bits within [first, end), as pairs (first, end)."""
        limit = self.bits if end is None else end
        at = self.next_set(first)
        while 0 <= at < limit:
            stop = self.next_clear(at)
            stop = limit if stop < 0 else min(stop, limit)
            yield at, stop
            at = self.next_set(stop)

    def read_words(self, word: int, count: int) -> bytes:
        """`count` words from `word` on, as they go on the wire; fewer at the end."""
        return bytes(self._bytes[word * WORD_BYTES : min(word + count, self.words) * WORD_BYTES])

    def merge_words(self, word: int, data: bytes) -> int:
        """Set the bits that are set in `data`, which begins at `word`; returns how many were clear before."""
        changed = 0
        size = min(len(data), (self.words - word) * WORD_BYTES)
        at, taken = word * WORD_BYTES, 0
        while taken < size:
            page, inside = divmod(at, PAGE_BYTES)
            piece = data[taken : min(size, taken + PAGE_BYTES - inside)]
            change = self._merge_in_page(at, piece)
            if change:
                self._counted(page, change)
                self._dirty.add(page)
                changed += change
            at, taken = at + len(piece), taken + len(piece)
        return changed

    def _merge_in_page(self, begin: int, data: bytes) -> int:
        size = len(data)
        old = int.from_bytes(self._bytes[begin : begin + size], "little")
        new = old | int.from_bytes(data, "little")
        beyond = (begin + size) * 8 - self.bits
        if beyond > 0:
            new &= (1 << (size * 8 - beyond)) - 1
        if new != old:
            self._bytes[begin : begin + size] = new.to_bytes(size, "little")
        return (new ^ old).bit_count()

    @property
    def pages(self) -> int:
        """How many pages of 4 KiB the disk holds of it."""
        return len(self._bytes) // PAGE_BYTES

    @property
    def dirty(self) -> bool:
        """Whether a page changed and was not taken since."""
        return bool(self._dirty)

    def dirty_pages(self, first: int = 0, end: int | None = None) -> list[int]:
        """Numbers of the changed pages that hold bits of [first, end)."""
        stop = self.bits if end is None else end
        low, high = first // PAGE_BITS, -(-stop // PAGE_BITS)
        return sorted(page for page in self._dirty if low <= page < high)

    def take_page(self, page: int) -> bytes:
        """A page as it is to be written; it counts as unchanged from now on (`page_failed` takes that back)."""
        self._dirty.discard(page)
        return bytes(self._bytes[page * PAGE_BYTES : (page + 1) * PAGE_BYTES])

    def page_failed(self, page: int) -> None:
        """A page taken was not written after all."""
        self._dirty.add(page)

    def all_dirty(self) -> None:
        """Every page has to be written."""
        self._dirty.update(range(self.pages))


def bits_for(sectors: int) -> int:
    """How many bits a data area of that many sectors has."""
    return -(-sectors // SECTORS_PER_BIT)
