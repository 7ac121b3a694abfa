"""The mirror's backing disk: what is written where, in which order, and what is read back at the start."""

from __future__ import annotations

import os
import pathlib
import random
from collections.abc import Iterator
from typing import Any

import pytest

from relevo.device import backing
from relevo.device.aio import Aio
from relevo.device.backing import open_backing
from relevo.device.buffers import Buffer, BufferPool
from relevo.mirror import activity_log_format as al
from relevo.mirror import events as ev
from relevo.mirror import metadata, shell_disk
from relevo.mirror.create import create_metadata, read_superblock
from relevo.mirror.disk_content import DiskContent, OpenCopy
from relevo.mirror.loop import Loop, now_ms
from relevo.mirror.metadata import MetaFlag
from relevo.mirror.shell_disk import ShellDisk

DISK_BYTES = 32 << 20
LIMIT_MS = 20_000


class RecordingAio(Aio[Any]):
    """A queue that notes what it was asked for."""

    asked: list[tuple[str, int]]

    def write(self, fd: int, view: memoryview, offset: int, token: Any) -> None:
        self.asked.append(("write", offset))
        super().write(fd, view, offset, token)

    def fdsync(self, fd: int, token: Any) -> None:
        self.asked.append(("flush", 0))
        super().fdsync(fd, token)


class Rig:
    """A disk under test and what it reported."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        create_metadata(path)
        self.done: dict[object, tuple[int, bytes | None]] = {}
        self.order: list[object] = []
        RecordingAio.asked = self.asked = []
        self.loop = Loop(after=self._submit)
        self.pool = BufferPool(8 << 20)
        self.open()

    def open(self) -> None:
        self.content = DiskContent(backing := open_backing(self.path))
        self.layout = self.content.layout
        self.disk = ShellDisk(self.loop, OpenCopy(backing, None, self.content), self._done)

    def _submit(self) -> None:
        self.disk.submit()

    def _done(self, token: object, number: int, buffer: Buffer | None) -> None:
        self.done[token] = (number, None if buffer is None else bytes(buffer.view))
        self.order.append(token)
        if buffer is not None:
            buffer.release()

    def buffer(self, data: bytes) -> Buffer:
        made = self.pool.take(len(data))
        assert made is not None
        made.view[:] = data
        return made

    def wait(self, *tokens: object) -> None:
        end = now_ms() + LIMIT_MS
        while not all(token in self.done for token in tokens):
            assert now_ms() < end, self.done
            self.disk.submit()
            self.loop.round(50)

    def on_disk(self, offset: int, length: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(length)


@pytest.fixture
def rig(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(shell_disk, "Aio", RecordingAio)
    path = tmp_path / "disk"
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, DISK_BYTES)
    made = Rig(path)
    yield made
    made.disk.close()
    made.loop.close()


def test_data_is_written_read_and_discarded(rig: Rig) -> None:
    data = random.Random(1).randbytes(64 << 10)
    rig.disk.write(ev.DiskWrite("w", 1 << 20, len(data), rig.buffer(data)))
    rig.wait("w")
    rig.disk.read(ev.DiskRead("r", 1 << 20, len(data), None))
    rig.disk.flush(ev.DiskFlush("f"))
    rig.wait("r", "f")
    assert rig.done["r"] == (0, data)
    rig.disk.discard(ev.DiskDiscard("d", (1 << 20) + 4096, 8192))
    rig.wait("d")
    assert rig.on_disk(1 << 20, len(data)) == data[:4096] + bytes(8192) + data[12288:]


def test_what_fails_is_told_with_its_number(rig: Rig) -> None:
    rig.disk.write(ev.DiskWrite("far", 1 << 62, 4096, rig.buffer(bytes(4096))))
    rig.disk.read(ev.DiskRead("beyond", DISK_BYTES + (1 << 20), 4096, None))
    rig.wait("far", "beyond")
    assert rig.done["far"][0] != 0
    assert rig.done["beyond"] != (0, bytes(4096))
    assert rig.done["beyond"][0] != 0


def test_who_asks_for_the_same_to_be_stable_shares_one_flush(rig: Rig) -> None:
    rig.disk.write(ev.DiskWrite("w", 0, 4096, rig.buffer(bytes(4096))))
    rig.wait("w")
    rig.asked.clear()
    for number in range(6):
        rig.disk.flush(ev.DiskFlush(number))
    rig.wait(*range(6))
    assert rig.asked == [("flush", 0)]
    rig.disk.flush(ev.DiskFlush("later"))
    rig.wait("later")
    assert rig.asked == [("flush", 0)]


META = ev.MetaState(0x1111, 0x2222, 0x3333, 0x4444, MetaFlag.CONSISTENT | MetaFlag.PRIMARY_IND, 4096)


def test_the_superblock_is_between_two_flushes_and_carries_the_state(rig: Rig) -> None:
    rig.disk.meta.write_superblock(ev.WriteSuperblock("s", META))
    rig.wait("s")
    assert rig.asked == [("flush", 0), ("write", rig.layout.superblock), ("flush", 0)]
    superblock, _ = read_superblock(rig.path)
    assert (superblock.current, superblock.history1, superblock.size_sectors) == (0x1111, 0x4444, 4096)
    assert superblock.device_uuid == rig.content.superblock.device_uuid
    assert not superblock.clean


def test_a_transaction_goes_to_its_place_in_the_ring(rig: Rig) -> None:
    transaction = ev.AlTransaction(11, ((3, 7),), 100, 0, tuple([al.UNUSED] * 100))
    rig.disk.meta.write_activity_log(ev.WriteActivityLog("quick", transaction, preflush=False))
    rig.wait("quick")
    place = rig.layout.activity_log + 3 * 4096
    assert rig.asked == [("write", place), ("flush", 0)]
    assert al.decode_transaction(rig.on_disk(place, 4096)) == transaction
    rig.disk.write(ev.DiskWrite("data", 0, 4096, rig.buffer(bytes(4096))))
    rig.wait("data")
    rig.asked.clear()
    rig.disk.meta.write_activity_log(ev.WriteActivityLog("careful", transaction, preflush=True))
    rig.wait("careful")
    assert rig.asked == [("flush", 0), ("write", place), ("flush", 0)]


def test_neighbouring_pages_of_the_bitmap_go_together(rig: Rig) -> None:
    pages = tuple((number, bytes([number]) * 4096) for number in (3, 1, 0))
    rig.disk.meta.write_bitmap(ev.WriteBitmap("b", pages, preflush=False))
    rig.wait("b")
    place = rig.layout.bitmap
    assert rig.asked == [("write", place), ("write", place + 3 * 4096), ("flush", 0)]
    assert rig.on_disk(place, 8192) == bytes(4096) + b"\x01" * 4096


def test_jobs_are_done_one_after_the_other(rig: Rig) -> None:
    rig.disk.meta.write_bitmap(ev.WriteBitmap("first", ((0, bytes(4096)),), preflush=True))
    rig.disk.meta.write_superblock(ev.WriteSuperblock("second", META))
    rig.wait("first", "second")
    assert rig.order == ["first", "second"]
    assert [offset for what, offset in rig.asked if what == "write"] == [rig.layout.bitmap, rig.layout.superblock]


def reopened(rig: Rig) -> DiskContent:
    rig.disk.close()
    rig.open()
    return rig.content


def test_after_a_crash_the_log_says_what_may_differ(rig: Rig) -> None:
    slots = [al.UNUSED] * 100
    for number, extent in enumerate((2, 5, 6)):
        transaction = ev.AlTransaction(number, ((number, extent),), 100, 0, tuple(slots))
        slots[number] = extent
        rig.disk.meta.write_activity_log(ev.WriteActivityLog(number, transaction, preflush=False))
    rig.disk.meta.write_superblock(ev.WriteSuperblock("s", META))
    rig.wait(0, 1, 2, "s")
    content = reopened(rig)
    assert (content.active_extents, content.newest_transaction) == (frozenset({2, 5, 6}), 2)
    clean = ev.MetaState(0x1111, 0, 0, 0, MetaFlag.CONSISTENT | MetaFlag.AL_CLEAN, 4096)
    rig.disk.meta.write_superblock(ev.WriteSuperblock("clean", clean))
    rig.wait("clean")
    content = reopened(rig)
    assert (content.active_extents, content.newest_transaction) == (frozenset(), 0)
    assert rig.on_disk(rig.layout.activity_log, 8 * 4096) == al.initialized_block() * 8


def test_an_unreadable_log_means_everything_may_differ(rig: Rig) -> None:
    rig.disk.meta.write_superblock(ev.WriteSuperblock("s", META))
    rig.wait("s")
    with rig.path.open("r+b") as file:
        file.seek(rig.layout.activity_log)
        file.write(b"noise" * 2000)
    content = reopened(rig)
    assert content.active_extents is None


def test_a_disk_without_meta_data_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "plain"
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, DISK_BYTES)
    backing = open_backing(path)
    with pytest.raises(metadata.NoMetadata):
        DiskContent(backing)
    backing.close()


def test_write_same_fills_its_range_and_nothing_else(rig: Rig) -> None:
    before = rig.buffer(b"x" * (4 << 20))
    rig.disk.write(ev.DiskWrite("before", 0, 4 << 20, before))
    rig.wait("before")
    pattern = rig.buffer(bytes(range(256)) * 2)
    rig.disk.write_same(ev.DiskWriteSame("same", 4096, 3 << 20, pattern))
    rig.disk.read(ev.DiskRead("read", 0, 1 << 20, None))
    rig.wait("same", "read")
    rig.disk.read(ev.DiskRead("head", 0, 8192, None))
    rig.disk.read(ev.DiskRead("tail", 3 << 20, 8192, None))
    rig.wait("head", "tail")
    filled = bytes(range(256)) * 16
    assert rig.done["same"][0] == 0
    assert rig.done["head"][1] == b"x" * 4096 + filled
    assert rig.done["tail"][1] == filled + b"x" * 4096


@pytest.mark.parametrize(("taken", "depth"), [("64", 48), ("4", 8), ("1023", 256), ("", 256)])
def test_no_more_is_given_to_the_disk_than_its_queue_takes(
    rig: Rig, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, taken: str, depth: int
) -> None:
    """io_submit(2) itself would wait, and with it the loop: for ever, when the disk hangs."""
    number = rig.path.stat().st_dev
    disk = tmp_path / "sys" / f"{os.major(number)}:{os.minor(number)}"
    (disk / "queue").mkdir(parents=True)
    (disk / "queue" / "nr_requests").write_text(f"{taken}\n")
    monkeypatch.setattr(backing, "SYSFS_BLOCK", disk.parent)
    rig.disk.close()
    rig.open()
    assert rig.disk._aio._depth == depth
