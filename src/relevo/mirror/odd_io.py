"""Requests of a peer that do not fall on whole blocks of the backing disk: the blocks are read, changed and written.

Nobody else may touch these blocks meanwhile: the core keeps whole blocks occupied (`requests.PeerWrite`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from relevo.device.buffers import Buffer, BufferPool
from relevo.device.frontend import DiscardKind

POOL_BYTES = 8 << 20
LARGEST_BYTES = (1 << 20) + 2 * 4096
"""The largest request, with the blocks that it begins and ends in."""
Then = Callable[[int], None]
"""Gets 0 or an errno."""
Transfer = Callable[[memoryview, int, Then], None]
Discard = Callable[[int, int, DiscardKind, Then], None]


class OddIo:
    """Odd requests of one disk.

    Args:
        block_bytes: what the disk's requests have to be multiples of.
        read, write: fill a view from an offset, write one there; both whole blocks.
        discard: make whole blocks read as zeroes.
    """

    def __init__(self, block_bytes: int, read: Transfer, write: Transfer, discard: Discard) -> None:
        self._block = block_bytes
        self._read = read
        self._write = write
        self._discard = discard
        self._pool = BufferPool(POOL_BYTES, LARGEST_BYTES)
        self._waiting: deque[Callable[[Buffer], None]] = deque()
        self._sizes: deque[int] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def _around(self, offset: int, length: int) -> tuple[int, int]:
        """The whole blocks that hold a range."""
        return offset // self._block * self._block, -(-(offset + length) // self._block) * self._block

    def write(self, offset: int, content: memoryview, then: Then) -> None:
        """Write, and keep the rest of the first and the last block."""
        first, end = self._around(offset, len(content))

        def go_on(buffer: Buffer) -> None:
            edges = {first} if offset > first else set()
            if offset + len(content) < end:
                edges.add(end - self._block)
            self._fill(buffer, first, edges, lambda errno: merge(buffer, errno))

        def merge(buffer: Buffer, errno: int) -> None:
            if errno:
                done(buffer, errno)
                return
            buffer.view[offset - first : offset - first + len(content)] = content
            self._write(buffer.view, first, lambda number: done(buffer, number))

        def done(buffer: Buffer, errno: int) -> None:
            self._give_back(buffer)
            then(errno)

        self._with_buffer(end - first, go_on)

    def _fill(self, buffer: Buffer, first: int, edges: set[int], then: Then) -> None:
        """Read the blocks at `edges` into their places."""
        left = len(edges)
        worst = 0

        def came(errno: int) -> None:
            nonlocal left, worst
            left -= 1
            worst = worst or errno
            if not left:
                then(worst)

        for edge in edges:
            self._read(buffer.view[edge - first : edge - first + self._block], edge, came)
        if not edges:
            then(0)

    def zero(self, offset: int, length: int, kind: DiscardKind, then: Then) -> None:
        """Make a range read as zeroes: the edges one after the other, then the whole blocks between them."""
        end = offset + length
        whole, whole_end = -(-offset // self._block) * self._block, end // self._block * self._block
        if whole > whole_end:  # within one block
            self.write(offset, memoryview(bytes(length)), then)
            return

        def head(_errno: int) -> None:
            part(offset, whole, tail)

        def tail(errno: int) -> None:
            if errno:
                then(errno)
            else:
                part(whole_end, end, middle)

        def middle(errno: int) -> None:
            if errno or whole == whole_end:
                then(errno)
            else:
                self._discard(whole, whole_end - whole, kind, then)

        def part(start: int, stop: int, following: Then) -> None:
            if start == stop:
                following(0)
            else:
                self.write(start, memoryview(bytes(stop - start)), following)

        head(0)

    def read(self, offset: int, length: int, then: Callable[[int, Buffer | None], None]) -> None:
        """Read; the buffer holds just the range and has to be released (and `resume` called) by whoever gets it."""
        first, end = self._around(offset, length)

        def go_on(buffer: Buffer) -> None:
            self._read(buffer.view, first, lambda errno: came(buffer, errno))

        def came(buffer: Buffer, errno: int) -> None:
            if errno:
                self._give_back(buffer)
                then(errno, None)
                return
            buffer.view[:length] = bytes(buffer.view[offset - first : offset - first + length])
            buffer.view = buffer.view[:length]
            then(0, buffer)

        self._with_buffer(end - first, go_on)

    # ---- memory ------------------------------------------------------------------------------------------------

    def _with_buffer(self, size: int, then: Callable[[Buffer], None]) -> None:
        buffer = None if self._waiting else self._pool.take(size)
        if buffer is None:
            self._waiting.append(then)
            self._sizes.append(size)
        else:
            then(buffer)

    def _give_back(self, buffer: Buffer) -> None:
        buffer.release()
        self.resume()

    def resume(self) -> None:
        """Go on with what waited for memory."""
        while self._waiting:
            buffer = self._pool.take(self._sizes[0])
            if buffer is None:
                return
            self._sizes.popleft()
            self._waiting.popleft()(buffer)
