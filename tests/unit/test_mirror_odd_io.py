"""Requests that do not fall on whole blocks of the backing disk: read, changed, written, in order."""

from __future__ import annotations

import dataclasses
import pathlib
import random

import pytest

from mirror_core_support import BLOCK
from relevo.device.backing import open_backing
from relevo.device.buffers import BufferPool
from relevo.mirror import events as ev
from relevo.mirror.create import create_metadata
from relevo.mirror.disk_content import DiskContent, OpenCopy
from relevo.mirror.loop import Loop, now_ms
from relevo.mirror.shell_disk import ShellDisk

DISK_BYTES = 16 << 20
AREA_BYTES = 2 << 20
LIMIT_MS = 20_000


class Odd:
    """A disk whose blocks are of 4096 bytes, and what its first part has to hold."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        with path.open("wb") as file:
            file.write(random.Random(1).randbytes(AREA_BYTES))
            file.write(bytes(DISK_BYTES - AREA_BYTES))
        create_metadata(path)
        self.wanted = bytearray(path.read_bytes()[:AREA_BYTES])
        backing = dataclasses.replace(open_backing(path), block_bytes=BLOCK)
        content = DiskContent(backing)
        self.done: list[tuple[object, int, bytes | None]] = []
        self.loop = Loop(after=self._submit)
        self.pool = BufferPool(8 << 20)
        self.disk = ShellDisk(self.loop, OpenCopy(backing, None, content), self._done)

    def _submit(self) -> None:
        self.disk.submit()
        if not self.disk.busy:
            self.loop.stop()

    def _done(self, token: object, errno: int, buffer: object) -> None:
        content = None
        if buffer is not None:
            content = bytes(buffer.view)  # type: ignore[attr-defined]
            buffer.release()  # type: ignore[attr-defined]
        self.done.append((token, errno, content))

    def finish(self) -> None:
        """Until nothing is under way."""
        end = now_ms() + LIMIT_MS
        self.loop.call_in(LIMIT_MS, self.loop.stop)
        self.disk.submit()
        self.loop.run()
        assert now_ms() < end

    def write(self, offset: int, content: bytes) -> None:
        buffer = self.pool.take(len(content))
        assert buffer is not None
        buffer.view[:] = content
        self.wanted[offset : offset + len(content)] = content
        self.disk.write(ev.DiskWrite(("write", offset), offset, len(content), buffer))

    def discard(self, offset: int, length: int, *, unmap: bool) -> None:
        self.wanted[offset : offset + length] = bytes(length)
        self.disk.discard(ev.DiskDiscard(("discard", offset), offset, length, unmap))


@pytest.fixture
def odd(tmp_path: pathlib.Path) -> Odd:
    return Odd(tmp_path / "disk")


@pytest.mark.parametrize(
    ("offset", "length"),
    [(512, 512), (0, 512), (3584, 512), (3584, 1024), (512, 8192), (4096, 4608), (3584, (1 << 20)), (8192, 4096)],
)
def test_a_write_keeps_what_is_around_it(odd: Odd, offset: int, length: int) -> None:
    odd.write(offset, random.Random(2).randbytes(length))
    odd.finish()
    assert [errno for _, errno, _ in odd.done] == [0]
    assert odd.path.read_bytes()[:AREA_BYTES] == odd.wanted


@pytest.mark.parametrize("unmap", [True, False])
@pytest.mark.parametrize(("offset", "length"), [(512, 512), (512, 4096), (1024, 100 << 10), (0, 4608), (3584, 4608)])
def test_a_discard_keeps_what_is_around_it(odd: Odd, offset: int, length: int, unmap: bool) -> None:
    odd.discard(offset, length, unmap=unmap)
    odd.finish()
    assert [errno for _, errno, _ in odd.done] == [0]
    assert odd.path.read_bytes()[:AREA_BYTES] == odd.wanted


def test_a_read_gives_just_what_was_asked_for(odd: Odd) -> None:
    odd.disk.read(ev.DiskRead("read", 1536, 3072, None))
    odd.finish()
    assert odd.done == [("read", 0, bytes(odd.wanted[1536 : 1536 + 3072]))]


def test_more_than_the_memory_holds_waits_and_is_done(odd: Odd) -> None:
    for number in range(24):
        odd.write(number * (BLOCK + 512), bytes([number]) * 512)
        odd.disk.read(ev.DiskRead("read", (1 << 20) + 512, (1 << 20) - 1024, None))
    odd.finish()
    assert len(odd.done) == 48
    assert not [errno for _, errno, _ in odd.done if errno]
    assert odd.path.read_bytes()[:AREA_BYTES] == odd.wanted
