"""Page-aligned memory for O_DIRECT, handed out in pieces and taken back in any order.

Memory is mapped in arenas. Pieces are cut off the current arena one after the other; an arena is used again when the
last of its pieces has come back, so taking and giving back are a few instructions whatever the sizes. A lightly loaded
pool goes on using the same few pages, which stay in the processor's cache.
"""

from __future__ import annotations

import ctypes
import mmap

PAGE_BYTES = 4096
ARENA_BYTES = 4 << 20
DEFAULT_POOL_BYTES = 64 << 20


def address_of(view: memoryview) -> int:
    """The address in memory of a writable view, for system calls that take one."""
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


_libc = ctypes.CDLL(None)
_libc.memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]


def all_zero(view: memoryview) -> bool:
    """Whether a writable view holds nothing but zeroes: it does if it begins with one and equals itself one further."""
    if not view:
        return True
    address = address_of(view)
    return view[0] == 0 and _libc.memcmp(address, address + 1, len(view) - 1) == 0


class _Arena:
    __slots__ = ("mapping", "users", "view")

    def __init__(self, size_bytes: int) -> None:
        self.mapping = mmap.mmap(-1, size_bytes)
        self.view = memoryview(self.mapping)
        self.users = 0


class Buffer:
    """A piece of a pool: `view` is its memory, page aligned. It goes back with the last `release`."""

    __slots__ = ("_arena", "_pool", "_users", "view")

    def __init__(self, pool: BufferPool, arena: _Arena, view: memoryview) -> None:
        self._pool = pool
        self._arena = arena
        self._users = 1
        self.view = view

    def hold(self) -> None:
        """One more user: `release` is to be called once more."""
        self._users += 1

    def release(self) -> None:
        """One user less; after the last the memory is used again and `view` must not be touched."""
        self._users -= 1
        if self._users == 0:
            self._pool.take_back(self._arena)
        assert self._users >= 0, "a buffer was released once too often"


class BufferPool:
    """A bounded pool of page-aligned memory.

    Args:
        size_bytes: upper bound of the memory mapped (rounded up to whole arenas).
        largest_bytes: the largest piece that will be asked for.
    """

    def __init__(self, size_bytes: int = DEFAULT_POOL_BYTES, largest_bytes: int = 1 << 20) -> None:
        self._arena_bytes = max(ARENA_BYTES, -(-largest_bytes // PAGE_BYTES) * PAGE_BYTES)
        self._left = max(1, -(-size_bytes // self._arena_bytes))
        self._free: list[_Arena] = []
        self._largest = largest_bytes
        self._position = 0
        self._current = self._new_arena()

    def _new_arena(self) -> _Arena:
        self._left -= 1
        return _Arena(self._arena_bytes)

    def room(self, length: int) -> memoryview | None:
        """Memory for up to `length` bytes, to be filled and then cut off with `cut`; None when the pool is used up.

        Asking again without a `cut` gives the same memory.
        """
        end = self._position + length
        if end > self._arena_bytes:
            if not self._advance(length):
                return None
            end = length
        return self._current.view[self._position : end]

    def _advance(self, length: int) -> bool:
        assert length <= self._largest, "a buffer larger than the pool was made for"
        if self._free:
            following = self._free.pop()
        elif self._left:
            following = self._new_arena()
        else:
            return False
        if self._current.users == 0:
            self._free.append(self._current)
        self._current = following
        self._position = 0
        return True

    def cut(self, length: int) -> Buffer:
        """Turn the first `length` bytes of what `room` gave into a buffer."""
        start = self._position
        end = start + length
        assert end <= self._arena_bytes, "more was cut off than there was room for"
        arena = self._current
        arena.users += 1
        self._position = (end + PAGE_BYTES - 1) & -PAGE_BYTES
        return Buffer(self, arena, arena.view[start:end])

    def take(self, length: int) -> Buffer | None:
        """A buffer of `length` bytes, or None when the pool is used up: try again after a release."""
        if self._position + length > self._arena_bytes and not self._advance(length):
            return None
        return self.cut(length)

    def take_back(self, arena: _Arena) -> None:
        """A buffer of `arena` has no user any more (called by `Buffer.release`)."""
        arena.users -= 1
        if arena.users == 0:
            if arena is self._current:
                self._position = 0
            else:
                self._free.append(arena)
