"""The device outlives its worker where the kernel can resend; bounds where that fails."""

from __future__ import annotations

import os
import pathlib
import signal

import pytest
from device_tools import LIMIT_S, Kept, kept, mounts_below, sh
from stamped_load import StampedLoad

from relevo.device.held import MAX_RESUMES, is_held

NAME = f"relevo-test:{os.getpid()}:resume"
pytestmark = pytest.mark.timeout(LIMIT_S + 60)


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder whose keeper holds the device."""
    (tmp_path / "hold").touch()
    return tmp_path


def kill_and_await_the_next(keeper: Kept) -> None:
    os.kill(keeper.worker(), signal.SIGKILL)
    assert keeper.line() == ["1", "ok"], "the keeper's answer to the next worker, which serves"


def test_killed_workers_are_pauses(folder: pathlib.Path) -> None:
    with kept(folder, NAME) as keeper:
        assert keeper.line() == ["2", "ok"], "held"
        assert is_held(keeper.folder)
        (before,) = mounts_below(folder)
        load = StampedLoad(keeper.device).start()
        try:
            for _ in range(MAX_RESUMES):
                load.await_progress()
                kill_and_await_the_next(keeper)
            load.await_progress()
        finally:
            load.stop()
        assert load.errors == []
        assert load.problems(keeper.disk.read_bytes()) == []
        assert mounts_below(folder) == [before], "the same mount all the time"
        assert keeper.order("detach")[1] == "ok"
        assert not is_held(keeper.folder)
        assert keeper.end() == 0


def test_a_file_system_sees_no_error(folder: pathlib.Path) -> None:
    point = folder / "point"
    point.mkdir()
    with kept(folder, NAME) as keeper:
        keeper.line()
        sh("mkfs.ext4", "-q", str(keeper.device))
        sh("mount", str(keeper.device), str(point))
        for number in range(MAX_RESUMES):
            (point / f"{number}").write_bytes(b"%d" % number * 100_000)
            kill_and_await_the_next(keeper)
            sh("sync", "--file-system", str(point))
        sh("umount", str(point))
        sh("e2fsck", "-f", "-n", str(keeper.device))
        assert keeper.end() == 0


def test_workers_that_die_again_and_again_take_the_device_along(folder: pathlib.Path) -> None:
    with kept(folder, NAME) as keeper:
        keeper.line()
        (folder / "deadly").touch()
        load = StampedLoad(keeper.device, writers=2).start()
        try:
            load.await_progress(50)
            os.kill(keeper.worker(), signal.SIGKILL)
            assert keeper.line() == ["1", "ok", str(keeper.device)], "a new device"
        finally:
            load.stop()
        assert load.errors, "the old one has failed"
        assert keeper.end() == 0


def test_a_worker_that_takes_too_long_does_not_keep_the_device_waiting(folder: pathlib.Path) -> None:
    with kept(folder, NAME) as keeper:
        keeper.line()
        (folder / "stuck").touch()
        load = StampedLoad(keeper.device, writers=2).start()
        try:
            load.await_progress(50)
            os.kill(keeper.worker(), signal.SIGKILL)
            assert keeper.line() == ["1", "ok", str(keeper.device)], "a new device"
        finally:
            load.stop()
        assert load.errors, "the old one has failed"
        assert keeper.end() == 0


def test_the_end_of_the_keeper_is_the_end_of_the_device(folder: pathlib.Path) -> None:
    with kept(folder, NAME) as keeper:
        keeper.line()
        load = StampedLoad(keeper.device, writers=2).start()
        try:
            load.await_progress(50)
            keeper.kill()
        finally:
            load.stop()
        assert load.errors
        assert not is_held(keeper.folder)
        second = Kept(folder, NAME)
        try:
            assert second.line() == ["1", "ok", str(second.device)]
            assert second.end() == 0
        finally:
            second.kill()
