"""Files that survive a power cut: the order of the system calls is what makes them survive."""

from __future__ import annotations

import errno
import os
import pathlib
import tempfile
from typing import Any

import pytest

from relevo.base.durable import sync_fd, write_durably


def test_replaces_with_mode(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "deep" / "er" / "file"
    write_durably(path, b"first")
    assert path.read_bytes() == b"first"
    assert path.stat().st_mode & 0o777 == 0o600
    write_durably(path, b"", mode=0o644)
    assert path.read_bytes() == b""
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_leftover_beside_is_harmless(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    leftover = tmp_path / "file.new"
    leftover.write_bytes(b"half of somethi")
    leftover.chmod(0o666)
    write_durably(path, b"whole")
    assert path.read_bytes() == b"whole"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done to which path, in order."""
    seen: list[str] = []
    real_fsync, real_rename = os.fsync, os.replace

    def fsync(fd: int) -> None:
        seen.append("fsync " + pathlib.Path(f"/proc/self/fd/{fd}").readlink().name)
        real_fsync(fd)

    def replace(source: Any, target: Any, **options: Any) -> None:
        seen.append("rename " + pathlib.Path(source).name)
        real_rename(source, target, **options)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    return seen


def test_order(tmp_path: pathlib.Path, calls: list[str]) -> None:
    write_durably(tmp_path / "file", b"data")
    assert calls == ["fsync file.new", "rename file.new", f"fsync {tmp_path.name}"]


def test_new_folders_are_durable_too(tmp_path: pathlib.Path, calls: list[str]) -> None:
    write_durably(tmp_path / "deep" / "er" / "file", b"data")
    assert {f"fsync {tmp_path.name}", "fsync deep", "fsync er"} <= set(calls)
    assert calls[-1] == "fsync er"


def test_failure_keeps_the_old(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_durably(path, b"old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"


def test_an_fsync_on_a_failed_file_system_is_not_believed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsync itself says 0; asking for a journal handle shows that the journal has been aborted."""

    def aborted(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "removexattr", aborted)
    with pytest.raises(OSError, match="Read-only"):
        write_durably(tmp_path / "state", b"content")


@pytest.mark.parametrize("where", ["/var/tmp", "/dev/shm", "/run"])
def test_an_fsync_that_worked_is_believed(where: str) -> None:
    with tempfile.TemporaryDirectory(dir=where) as folder:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            sync_fd(fd)
        finally:
            os.close(fd)
        write_durably(pathlib.Path(folder) / "state", b"content")
        assert (pathlib.Path(folder) / "state").read_bytes() == b"content"
