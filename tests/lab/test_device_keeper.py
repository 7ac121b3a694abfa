"""The keeper: it makes the device, takes it away, and cleans up after whoever dies."""

from __future__ import annotations

import os
import pathlib
import signal

import pytest
from device_tools import DISK_BYTES, LIMIT_S, Kept, grow_ext4, guarded, kept, mounts_below, sh, wait_for

from relevo.device import loop
from relevo.device.connection import connection_at

NAME = f"relevo-test:{os.getpid()}:kept"
pytestmark = pytest.mark.timeout(LIMIT_S + 60)


def test_a_device_comes_and_goes_in_order(tmp_path: pathlib.Path) -> None:
    point = tmp_path / "point"
    point.mkdir()
    with kept(tmp_path, NAME) as keeper:
        connection = connection_at(keeper.folder / "disk")
        assert connection is not None
        assert connection.alive
        sh("mkfs.ext4", "-q", str(keeper.device))
        sh("mount", str(keeper.device), str(point))
        (point / "file").write_bytes(b"content")
        assert keeper.order("detach") == ["2", "DeviceBusy"]
        assert (point / "file").read_bytes() == b"content"
        sh("umount", str(point))
        assert keeper.order("detach") == ["3", "ok"]
        assert not keeper.device.exists()
        assert mounts_below(tmp_path) == []
        assert not connection.alive
        assert loop.find(NAME, tmp_path) == ()
        assert keeper.order("detach") == ["4", "ok"], "what is gone can be taken away again"
        assert keeper.end() == 0
        sh("e2fsck", "-f", "-n", str(keeper.disk))


def test_a_device_grows_while_it_is_in_use(tmp_path: pathlib.Path) -> None:
    point = tmp_path / "point"
    point.mkdir()
    with kept(tmp_path, NAME) as keeper:
        sh("mkfs.ext4", "-q", str(keeper.device))
        sh("mount", str(keeper.device), str(point))
        (point / "file").write_bytes(b"content")
        before = os.statvfs(point).f_blocks
        assert keeper.order(str(2 * DISK_BYTES)) == ["2", "ok"]
        assert int(sh("blockdev", "--getsize64", str(keeper.device))) == 2 * DISK_BYTES
        grow_ext4(keeper.device, point)
        assert os.statvfs(point).f_blocks > 1.8 * before
        (point / "large").write_bytes(bytes(DISK_BYTES + (8 << 20)))
        sh("umount", str(point))
        assert keeper.order("detach") == ["3", "ok"]
        assert keeper.end() == 0
        sh("e2fsck", "-f", "-n", str(keeper.disk))


def test_the_end_of_the_worker_takes_the_device_away(tmp_path: pathlib.Path) -> None:
    with kept(tmp_path, NAME) as keeper:
        assert keeper.end() == 0
        assert not keeper.device.exists()
        assert mounts_below(tmp_path) == []


def test_a_killed_worker_is_cleaned_up_and_started_again(tmp_path: pathlib.Path) -> None:
    point = tmp_path / "point"
    point.mkdir()
    with kept(tmp_path, NAME) as keeper:
        sh("mkfs.ext4", "-q", str(keeper.device))
        sh("mount", str(keeper.device), str(point))
        (before,) = loop.find(NAME, tmp_path)
        worker = keeper.worker()
        os.kill(worker, signal.SIGKILL)
        assert keeper.line() == ["1", "ok", str(keeper.device)]
        assert keeper.worker() != worker
        assert {info.number for info in loop.find(NAME, tmp_path)} > {before.number}, "mounted yet, and a new one"
        sh("umount", str(point))
        assert loop.wait_until_free(before.number, NAME, tmp_path)
        sh("e2fsck", "-f", "-p", str(keeper.device))
        sh("mount", str(keeper.device), str(point))
        (point / "file").write_bytes(b"goes on")
        sh("umount", str(point))
        assert keeper.end() == 0


def test_a_forced_detach_of_a_mounted_device(tmp_path: pathlib.Path) -> None:
    point = tmp_path / "point"
    point.mkdir()
    with kept(tmp_path, NAME) as keeper:
        sh("mkfs.ext4", "-q", str(keeper.device))
        sh("mount", str(keeper.device), str(point))
        assert keeper.order("force") == ["2", "ok"]
        assert not keeper.device.exists()
        assert [path for path, _, _ in mounts_below(tmp_path)] == [point]
        sh("umount", str(point))
        wait_for(lambda: loop.find(NAME, tmp_path) == (), "the end of the loop device")
        assert keeper.end() == 0


def test_a_stopped_worker_is_killed_after_the_grace(tmp_path: pathlib.Path) -> None:
    with kept(tmp_path, NAME) as keeper:
        os.kill(keeper.worker(), signal.SIGSTOP)
        assert keeper.end() == 128 + signal.SIGKILL
        assert mounts_below(tmp_path) == []


def test_a_killed_keeper_takes_its_worker_along_and_the_next_one_cleans_up(tmp_path: pathlib.Path) -> None:
    with guarded(tmp_path, NAME):
        first = Kept(tmp_path, NAME)
        assert first.line()[1] == "ok"
        worker = first.worker()
        first.kill()
        wait_for(lambda: not pathlib.Path(f"/proc/{worker}").exists(), "the end of the worker")
        assert mounts_below(tmp_path) != []
        second = Kept(tmp_path, NAME)
        try:
            assert second.line() == ["1", "ok", str(second.device)]
            assert len(mounts_below(tmp_path)) == 1
            assert second.end() == 0
        finally:
            second.kill()
