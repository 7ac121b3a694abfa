"""A mirror never waits for its disk: while reads hang, everything else goes on."""

from __future__ import annotations

import concurrent.futures
import contextlib
import mmap
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

from mirror_pair import Pair
from relevo.device.connection import abort_at
from relevo.device.mount import umount

BLOCK = 4096
READS = 24
GAP_BLOCKS = 64
"""Reads so far apart are not joined into one."""


class Held:
    """A disk of the pair behind `held_disk.py`."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        command = [sys.executable, str(pathlib.Path(__file__).with_name("held_disk.py")), str(path)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._read_until("ready")

    def _read_until(self, line: str) -> None:
        assert self._process.stdout is not None
        for found in self._process.stdout:
            if found.strip() == line:
                return
        raise AssertionError(f"the disk ended before it said {line}")

    def order(self, what: str) -> None:
        """Hold or release reads."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        self._read_until("0")

    def await_held(self, count: int) -> None:
        """Until so many reads hang at the same time."""
        self._read_until(str(count))

    def close(self) -> None:
        """Answer what hangs, and end; harmless when it has ended."""
        if self._process.returncode is not None:
            return
        with contextlib.suppress(OSError, AssertionError):
            self.order("release")
        abort_at(self.path)
        umount(self.path, lazy=True)
        with self._process:  # closes its pipes and waits for its end
            pass


@pytest.fixture
def pair() -> Iterator[tuple[Pair, Held]]:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="mirror-slow-", dir="/dev/shm"))
    with contextlib.ExitStack() as ends:
        ends.callback(shutil.rmtree, folder, ignore_errors=True)
        made = Pair(folder)
        disk = Held(made.one.disk)
        ends.callback(disk.close)
        ends.callback(made.close)
        ends.callback(lambda: disk.order("release"))
        made.start()
        yield made, disk


@pytest.fixture
def limited() -> Iterator[tuple[Pair, Held]]:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="mirror-hung-", dir="/dev/shm"))
    with contextlib.ExitStack() as ends:
        ends.callback(shutil.rmtree, folder, ignore_errors=True)
        made = Pair(folder, mirror='disk_timeout = "800 ms"\n')
        disk = Held(made.one.disk)
        ends.callback(disk.close)
        ends.callback(made.close)
        ends.callback(lambda: disk.order("release"))
        made.start()
        yield made, disk


def read(device: pathlib.Path, block: int) -> bytes:
    """Read a block past the page cache."""
    fd = os.open(device, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        with mmap.mmap(-1, BLOCK) as room:
            assert os.preadv(fd, [room], block * BLOCK) == BLOCK
            return bytes(room)
    finally:
        os.close(fd)


def write(device: pathlib.Path, block: int, content: bytes) -> None:
    """Write a block past the page cache and flush it."""
    fd = os.open(device, os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
    try:
        with mmap.mmap(-1, BLOCK) as room:
            room[:] = content
            assert os.pwritev(fd, [room], block * BLOCK) == BLOCK
        os.fsync(fd)
    finally:
        os.close(fd)


def test_while_reads_hang_writes_and_the_peer_go_on(pair: tuple[Pair, Held]) -> None:
    mirror, disk = pair
    device = mirror.one.promote()
    blocks = [number * GAP_BLOCKS for number in range(READS)]
    contents = {block: bytes([number + 1]) * BLOCK for number, block in enumerate(blocks)}
    for block, content in contents.items():
        write(device, block, content)
    with concurrent.futures.ThreadPoolExecutor(READS) as threads:
        disk.order("hold")
        reading = {block: threads.submit(read, device, block) for block in blocks}
        disk.await_held(READS)  # all of them are on the disk at the same time: none waits for another
        write(device, READS * GAP_BLOCKS, b"w" * BLOCK)
        assert not any(found.done() for found in reading.values())
        status = mirror.one.status()
        assert (status["connection"], status["disk"], status["role"]) == ("Connected", "UpToDate", "Primary")
        assert mirror.two.status()["connection"] == "Connected"
        disk.order("release")
        assert {block: found.result() for block, found in reading.items()} == contents
    assert read(device, READS * GAP_BLOCKS) == b"w" * BLOCK
    mirror.one.call("secondary")


def test_a_disk_that_does_not_answer_is_given_up(limited: tuple[Pair, Held]) -> None:
    mirror, disk = limited
    device = mirror.one.promote()
    write(device, 3, b"a" * BLOCK)
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        disk.order("hold")
        reading = threads.submit(read, device, 3)
        disk.await_held(1)
        status = mirror.one.wait_for(lambda status: status["disk"] == "Diskless", "giving the disk up", 20)
        assert "did not answer within disk-timeout" in status["problem"]
        assert reading.result() == b"a" * BLOCK, "the peer has it"
    write(device, 3, b"b" * BLOCK)
    assert read(device, 3) == b"b" * BLOCK
    assert mirror.one.events("disk_does_not_answer")
    disk.order("release")
    mirror.one.call("attach")
    mirror.wait_in_sync(30)
    mirror.one.call("secondary")
    for side in mirror.sides.values():
        assert side.stop() == 0
    assert mirror.one.data_bytes() == mirror.two.data_bytes()
