"""A way back before a resync, on real file systems that can share blocks, each on a loop device of its own."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator

import pytest
from labtools import PairMaker

from mirror_pair import Pair, run
from relevo.device.mount import umount
from relevo.mirror import saved

IMAGE_BYTES = 512 << 20
DISK_BYTES = 48 << 20
BLOCKS, BLOCK = 2000, 4096
SLOW = 'resync_rate = "64 KiB"\nc_plan_ahead = "0 s"\ntimeout = "1 s"\nping_interval = "1 s"\nping_timeout = "300 ms"'


@pytest.fixture(params=["xfs", "btrfs"])
def place(request: pytest.FixtureRequest) -> Iterator[pathlib.Path]:
    """A folder on a file system that can share blocks between files."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="relevo-reflink-", dir="/var/tmp"))
    image, mounted = folder / "image", folder / "mounted"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    loop = run("losetup", "--find", "--show", str(image)).strip()
    try:
        run(f"mkfs.{request.param}", "-q", loop)
        run("mount", loop, str(mounted))
        yield mounted
    finally:
        umount(mounted, lazy=True)
        run("losetup", "--detach", loop, check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def pair(place: pathlib.Path, make_pair: PairMaker) -> Pair:
    """nodo1 is Primary and has changed what nodo2, which is off, does not know."""

    def on_it(path: pathlib.Path, size_bytes: int) -> None:
        real = place / f"{path.parent.name}.disk"
        with real.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size_bytes)
        path.symlink_to(real)

    made = make_pair(disk_bytes=DISK_BYTES, mirror=SLOW, make_disk=on_it)
    made.start()
    device = made.one.promote()
    _fill(device, b"old")
    made.two.stop()
    made.one.wait_for(lambda status: status["connection"] != "Connected", "the peer's end")
    _fill(device, b"new")
    return made


def _fill(device: pathlib.Path, word: bytes) -> None:
    with device.open("r+b", buffering=0) as file:
        for number in range(BLOCKS):
            file.write((word + number.to_bytes(4, "big")).ljust(BLOCK, b"."))
        os.fsync(file.fileno())


def _wait_for_blocks(pair: Pair) -> None:
    """Until the resync has begun to overwrite the copy; its progress is announced to nobody."""
    pair.two.wait_for(lambda status: status["connection"] == "SyncTarget", "a resync")
    end = time.monotonic() + 20
    while not pair.two.status()["resync"]["done_bytes"]:
        assert time.monotonic() < end
        time.sleep(0.05)


def _kept(pair: Pair) -> list[saved.Saved]:
    return saved.saved_copies(pair.two.paths.state, "r0")


def test_the_copy_as_it_was_is_there_until_the_resync_has_ended_well(pair: Pair, tmp_path: pathlib.Path) -> None:
    one, two = pair.one, pair.two
    before = two.data_bytes()
    two.start()
    _wait_for_blocks(pair)
    (copy,) = _kept(pair)
    assert (copy.index.kind, copy.index.reason) == ("image", "resync")
    one.kill()
    two.wait_for(lambda status: status["disk"] == "Inconsistent" and status["connection"] != "SyncTarget", "the loss")
    assert two.data_bytes() != before, "a part of the resync has come"
    saved.extract(copy, tmp_path / "back", onto=False)
    assert (tmp_path / "back").read_bytes() == before
    one.start()
    two.wait_for(lambda status: status["connection"] == "SyncTarget", "the resync's going on")
    two.call("resync_speed", speed="fast")
    pair.wait_in_sync(60)
    end = time.monotonic() + 20
    while _kept(pair):  # another process removes it, which tells nobody
        assert time.monotonic() < end
        time.sleep(0.05)
    assert one.data_bytes() == two.data_bytes()


def test_shared_blocks_take_no_room(pair: Pair, place: pathlib.Path) -> None:
    subprocess.run(["sync", "-f", str(place)], check=True)
    free = shutil.disk_usage(place).free
    two = pair.two
    two.start()
    _wait_for_blocks(pair)
    assert len(_kept(pair)) == 1
    subprocess.run(["sync", "-f", str(place)], check=True)
    assert free - shutil.disk_usage(place).free < DISK_BYTES // 2
