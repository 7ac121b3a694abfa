"""Files that survive a power cut: the order of the system calls is what makes them survive."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import pytest

from relevo.base.durable import write_durably


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
