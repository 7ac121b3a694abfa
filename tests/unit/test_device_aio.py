"""Asynchronous I/O against a real file, and the backing disk below it."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import select
from collections.abc import Iterator

import pytest

from relevo.device.aio import Aio
from relevo.device.backing import Backing, BackingInUse, BackingUnusable, discard, open_backing
from relevo.device.buffers import Buffer, BufferPool
from relevo.device.frontend import DiscardKind

SIZE = 4 << 20
LIMIT_S = 20.0


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> Iterator[Backing]:
    path = tmp_path / "disk"
    path.write_bytes(b"\xee" * SIZE)
    with contextlib.closing(open_backing(path)) as backing:
        yield backing


@pytest.fixture
def aio() -> Iterator[Aio[object]]:
    with contextlib.closing(Aio[object](depth=8)) as made:
        yield made


def buffer_of(pool: BufferPool, content: bytes) -> Buffer:
    buffer = pool.take(len(content))
    assert buffer is not None
    buffer.view[:] = content
    return buffer


def reap_all(aio: Aio[object]) -> dict[object, int]:
    """Wait, by its descriptor, for everything that was asked for."""
    results: dict[object, int] = {}
    with select.epoll() as epoll:
        epoll.register(aio.fileno(), select.EPOLLIN)
        while len(aio):
            assert epoll.poll(LIMIT_S), "no completion came"
            results.update(aio.reap())
    return results


def test_writes_are_read_back(aio: Aio[object], disk: Backing) -> None:
    pool = BufferPool()
    payload = buffer_of(pool, os.urandom(8192))
    aio.write(disk.fd, payload.view, 4096, "write")
    assert len(aio) == 1
    aio.submit()
    assert reap_all(aio) == {"write": 8192}
    aio.fdsync(disk.fd, "flush")
    aio.submit()
    assert reap_all(aio) == {"flush": 0}
    whole = buffer_of(pool, bytes(16384))
    aio.read(disk.fd, whole.view, 0, "read")
    aio.submit()
    assert reap_all(aio) == {"read": 16384}
    assert bytes(whole.view) == b"\xee" * 4096 + bytes(payload.view) + b"\xee" * 4096


def test_scattered_pieces_come_in_order(aio: Aio[object], disk: Backing) -> None:
    pool = BufferPool()
    parts = [buffer_of(pool, letter * 4096) for letter in (b"a", b"b", b"c")]
    aio.writev(disk.fd, [part.view for part in parts], 0, "write")
    aio.submit()
    assert reap_all(aio) == {"write": 3 * 4096}
    assert disk.path.read_bytes()[: 4 * 4096] == b"a" * 4096 + b"b" * 4096 + b"c" * 4096 + b"\xee" * 4096
    back = [buffer_of(pool, bytes(4096)) for _ in range(2)]
    aio.readv(disk.fd, [part.view for part in back], 4096, "read")
    aio.submit()
    assert reap_all(aio) == {"read": 2 * 4096}
    assert [bytes(part.view[:1]) for part in back] == [b"b", b"c"]


def test_more_than_the_kernel_was_asked_to_hold(aio: Aio[object], disk: Backing) -> None:
    pool = BufferPool()
    buffers = [buffer_of(pool, bytes([number]) * 4096) for number in range(100)]
    for number, buffer in enumerate(buffers):
        aio.write(disk.fd, buffer.view, number * 4096, number)
    assert len(aio) == 100
    aio.submit()
    assert reap_all(aio) == dict.fromkeys(range(100), 4096)
    content = disk.path.read_bytes()
    assert all(content[number * 4096] == number for number in range(100))


def test_a_refused_operation_fails_alone(aio: Aio[object], disk: Backing) -> None:
    pool = BufferPool()
    good, bad = buffer_of(pool, b"g" * 4096), buffer_of(pool, b"b" * 4096)
    gone = os.open(disk.path, os.O_RDONLY)
    os.close(gone)
    aio.write(disk.fd, good.view, 0, "first")
    aio.write(gone, bad.view, 0, "closed")
    aio.write(disk.fd, bad.view, 100, "unaligned")
    aio.write(disk.fd, good.view, 4096, "last")
    aio.submit()
    results = reap_all(aio)
    assert results == {"first": 4096, "closed": -errno.EBADF, "unaligned": -errno.EINVAL, "last": 4096}


def test_reap_never_blocks(aio: Aio[object]) -> None:
    assert aio.reap() == []


@pytest.mark.parametrize("kind", list(DiscardKind))
def test_a_discard_reads_as_zeros(aio: Aio[object], disk: Backing, kind: DiscardKind) -> None:
    assert disk.can_discard
    aio.discard(disk.fd, 8192, 4096, kind, "discard")
    assert reap_all(aio) == {"discard": 0}
    assert disk.path.read_bytes()[4096:16384] == b"\xee" * 4096 + bytes(4096) + b"\xee" * 4096
    assert os.fstat(disk.fd).st_blocks * 512 >= SIZE, "a file keeps its blocks: asynchronous writes wait in holes"


def test_a_discard_that_fails_says_so(aio: Aio[object], disk: Backing) -> None:
    fd = os.open(disk.path, os.O_RDONLY)
    aio.discard(fd, 0, 4096, DiscardKind.UNMAP, "discard")
    assert reap_all(aio) == {"discard": -errno.EBADF}
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        discard(fd, 0, 4096, DiscardKind.UNMAP)


def test_a_backing_disk_is_described(disk: Backing) -> None:
    assert disk.size_bytes == SIZE
    assert disk.block_bytes in (512, 4096)
    assert not disk.is_block_device


def test_holes_are_filled_and_content_stays(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.write(b"here")
        file.truncate(SIZE)
    assert path.stat().st_blocks * 512 < SIZE
    with contextlib.closing(open_backing(path)):
        assert path.stat().st_blocks * 512 >= SIZE
    assert path.read_bytes() == b"here" + bytes(SIZE - 4)


def test_a_disk_is_opened_once(disk: Backing) -> None:
    with pytest.raises(BackingInUse, match="in use"):
        open_backing(disk.path)


@pytest.mark.parametrize("name", ["missing", "folder", "empty"])
def test_what_is_no_disk_is_refused(tmp_path: pathlib.Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    with pytest.raises(BackingUnusable) as raised:
        open_backing(tmp_path / name)
    assert name in raised.value.what
    assert raised.value.remedy
