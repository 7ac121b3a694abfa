"""The pool of aligned memory."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from relevo.device.buffers import ARENA_BYTES, PAGE_BYTES, Buffer, BufferPool, address_of

MIB = 1 << 20


def test_a_pool_is_bounded_and_refills() -> None:
    pool = BufferPool(2 * ARENA_BYTES)
    taken = []
    while (buffer := pool.take(MIB)) is not None:
        taken.append(buffer)
    assert len(taken) == 2 * ARENA_BYTES // MIB
    assert pool.room(MIB) is None
    for buffer in taken[: ARENA_BYTES // MIB]:
        buffer.release()
    assert pool.take(MIB) is not None


def test_an_idle_pool_uses_the_same_memory_again() -> None:
    pool = BufferPool()
    first = pool.take(PAGE_BYTES)
    assert first is not None
    where = address_of(first.view)
    first.release()
    again = pool.take(PAGE_BYTES)
    assert again is not None
    assert address_of(again.view) == where


def test_hold_keeps_the_memory() -> None:
    pool = BufferPool()
    held = pool.take(PAGE_BYTES)
    assert held is not None
    held.hold()
    held.release()
    other = pool.take(PAGE_BYTES)
    assert other is not None
    assert address_of(other.view) != address_of(held.view)


def test_room_then_cut_is_what_was_filled() -> None:
    pool = BufferPool()
    room = pool.room(MIB)
    assert room is not None
    room[:3] = b"abc"
    buffer = pool.cut(3)
    assert bytes(buffer.view) == b"abc"
    following = pool.room(MIB)
    assert following is not None
    assert address_of(following) - address_of(buffer.view) == PAGE_BYTES


@given(st.lists(st.one_of(st.integers(1, MIB), st.integers(-40, -1)), max_size=120))
def test_buffers_in_use_never_overlap(steps: list[int]) -> None:
    pool = BufferPool(3 * ARENA_BYTES)
    held: list[Buffer] = []
    for step in steps:
        if step < 0:
            if held:
                held.pop(step % len(held)).release()
            continue
        buffer = pool.take(step)
        if buffer is None:
            assert held
            continue
        assert address_of(buffer.view) % PAGE_BYTES == 0
        assert len(buffer.view) == step
        held.append(buffer)
        ranges = sorted((address_of(one.view), len(one.view)) for one in held)
        assert all(a + length <= b for (a, length), (b, _) in itertools.pairwise(ranges))
