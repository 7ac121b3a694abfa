"""The active server's disk fails under a file system: nobody notices; a new disk is filled while it is in use."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import pytest
from test_mirror_slow_disk import Held

from mirror_pair import Pair, run
from relevo.mirror.create import create_metadata

DISK_BYTES = 64 << 20
FILES = 30


@pytest.fixture
def pair() -> Iterator[tuple[Pair, Held]]:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="mirror-loss-", dir="/dev/shm"))
    with contextlib.ExitStack() as ends:
        ends.callback(shutil.rmtree, folder, ignore_errors=True)
        made = Pair(folder, disk_bytes=DISK_BYTES)
        disk = Held(made.one.disk)
        ends.callback(disk.close)
        ends.callback(made.close)
        made.start()
        yield made, disk


def write_files(folder: pathlib.Path, first: int) -> dict[str, bytes]:
    """Files whose content is on stable storage when this returns."""
    made = {}
    for number in range(first, first + FILES):
        path = folder / f"file{number}"
        made[path.name] = os.urandom(20_000)
        fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, made[path.name])
            os.fsync(fd)
        finally:
            os.close(fd)
    return made


def test_a_file_system_outlives_the_disk_below_it_and_gets_another_one(pair: tuple[Pair, Held]) -> None:
    both, disk = pair
    device = both.one.promote()
    run("mkfs.ext4", "-q", str(device))
    mounted = both.folder / "mounted"
    mounted.mkdir()
    run("mount", "-o", "errors=remount-ro", str(device), str(mounted))
    try:
        files = write_files(mounted, 0)
        disk.order("fail")
        files |= write_files(mounted, FILES)
        status = both.one.status()
        assert (status["disk"], status["role"]) == ("Diskless", "Primary")
        assert both.two.status()["peer_disk"] == "Diskless"
        disk.close()
        with both.one.disk.open("wb") as blank:
            os.posix_fallocate(blank.fileno(), 0, DISK_BYTES)
        create_metadata(both.one.disk)
        both.one.call("attach")
        files |= write_files(mounted, 2 * FILES)
        both.wait_in_sync(60)
        assert both.one.status()["role"] == "Primary"
        run("sh", "-c", f"echo 3 > /proc/sys/vm/drop_caches; umount {mounted}; mount {device} {mounted}")
        assert {path.name: path.read_bytes() for path in mounted.glob("file*")} == files
    finally:
        run("umount", str(mounted), check=False)
    run("e2fsck", "-fn", str(device))
    both.one.call("secondary")
    assert both.one.data_bytes() == both.two.data_bytes()


def test_a_copy_that_was_left_behind_is_never_promoted(pair: tuple[Pair, Held]) -> None:
    both, disk = pair
    device = both.one.promote()
    fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        disk.order("fail")
        os.pwrite(fd, b"only on the other one" + bytes(4075), 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    for side in both.sides.values():
        side.kill()
        side.clean()
    disk.order("release")  # the disk is there again, with what it held
    both.one.start()
    both.one.wait_for(lambda status: status["connection"] == "WFConnection", "its disk")
    status = both.one.status()
    assert status["disk"] == "Inconsistent"
    assert not status["was_primary_at_start"]
    both.two.start()
    both.wait_in_sync(60)
    assert both.one.data_bytes()[:21] == b"only on the other one"
    assert both.one.data_bytes() == both.two.data_bytes()
