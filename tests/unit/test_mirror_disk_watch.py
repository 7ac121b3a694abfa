"""disk-timeout: when a disk is late, and what becomes of what it was asked for."""

from __future__ import annotations

import errno
import os
import pathlib
import select

import pytest

from relevo.device.aio import Aio
from relevo.device.aio_abandoned import abandon
from relevo.device.buffers import BufferPool
from relevo.device.frontend import DiscardKind
from relevo.mirror.disk_watch import LOOKS, DiskWatch

BLOCK = 4096
TIMEOUT_MS = 400


def looks(watch: DiskWatch, seen: list[tuple[int | None, int]]) -> list[bool]:
    """What it says at each look, one interval apart: (oldest, following) each time."""
    return [watch.late(number * watch.interval_ms, *pair) for number, pair in enumerate(seen)]


def test_an_operation_that_stays_is_late_after_the_timeout() -> None:
    said = looks(DiskWatch(TIMEOUT_MS), [(7, 8 + number) for number in range(LOOKS + 2)])
    assert said == [False] * LOOKS + [True] * 2


def test_many_that_come_and_go_are_not_late() -> None:
    assert not any(looks(DiskWatch(TIMEOUT_MS), [(10 * number, 10 * number + 5) for number in range(1, 50)]))


def test_a_pause_says_nothing_of_what_comes_after_it() -> None:
    seen: list[tuple[int | None, int]] = [(1, 2), (1, 2), (1, 2), (None, 2), (2, 3), (2, 3), (2, 3), (2, 3), (2, 3)]
    assert looks(DiskWatch(TIMEOUT_MS), seen) == [False] * 8 + [True]


def test_the_age_is_that_of_the_oldest() -> None:
    watch = DiskWatch(TIMEOUT_MS)
    seen: list[tuple[int | None, int]] = [(1, 5), (1, 9), (4, 12), (4, 20), (4, 30)]
    assert looks(watch, seen) == [False] * 4 + [True], "number 4 was asked for before the first look"


def test_a_discard_that_hangs_is_late_and_one_that_waits_for_its_turn_is_not() -> None:
    assert looks(DiskWatch(TIMEOUT_MS), [(number, number + 1) for number in range(50)]) == [False] * 50
    assert looks(DiskWatch(TIMEOUT_MS), [(3, 4)] * (LOOKS + 1)) == [False] * LOOKS + [True]


@pytest.fixture
def fd(tmp_path: pathlib.Path) -> int:
    path = tmp_path / "disk"
    path.write_bytes(bytes(64 * BLOCK))
    return os.open(path, os.O_RDWR)


def test_discards_are_counted_when_they_are_done(fd: int) -> None:
    queue: Aio[str] = Aio(depth=2)
    assert queue.discard_age() == (None, 1)
    for token in ("one", "two"):
        queue.discard(fd, 0, BLOCK, DiscardKind.ZERO, token)
    assert queue.discard_age() == (0, 1)
    done: list[str] = []
    while len(done) < 2:
        select.select([queue.fileno()], [], [])
        done += [token for token, _ in queue.reap()]
        assert queue.discard_age() == ((len(done), len(done) + 1) if len(done) < 2 else (None, 3))
    assert done == ["one", "two"]
    queue.close()
    os.close(fd)


def test_an_abandoned_queue_takes_nothing_more_and_tells_nobody_twice(fd: int) -> None:
    queue: Aio[str] = Aio(depth=2)
    pool = BufferPool(1 << 20)
    buffers = [pool.take(BLOCK) for _ in range(4)]
    for number, buffer in enumerate(buffers):
        assert buffer is not None
        buffer.view[:] = b"x" * BLOCK
        queue.write(fd, buffer.view, number * BLOCK, f"write {number}")
        if number == 1:
            queue.submit()
    queue.discard(fd, 32 * BLOCK, BLOCK, DiscardKind.ZERO, "discard")
    assert queue.age() == (1, 6)
    assert abandon(queue, lambda token: f"heir of {token}") == ["write 0", "write 1", "write 2", "write 3", "discard"]
    view = buffers[0].view if buffers[0] is not None else memoryview(b"")
    queue.read(fd, view, 0, "read")
    queue.fdsync(fd, "flush")
    heard: list[tuple[str, int]] = []
    poll = select.poll()
    poll.register(queue.fileno(), select.POLLIN)
    while len(queue):
        poll.poll(5000)
        heard += queue.reap()
    assert sorted(heard) == [
        ("flush", -errno.ETIMEDOUT),
        ("heir of discard", 0),
        ("heir of write 0", BLOCK),
        ("heir of write 1", BLOCK),
        ("read", -errno.ETIMEDOUT),
    ]
    assert os.pread(fd, 4 * BLOCK, 0) == b"x" * 2 * BLOCK + bytes(2 * BLOCK), "the last two were never handed over"
    queue.close()
    os.close(fd)
