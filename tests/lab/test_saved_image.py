"""The file system in an image out of a saved copy, with the real tools: found, mended, or refused in a sentence."""

from __future__ import annotations

import pathlib
import subprocess

import pytest

from relevo.cli import image_check

EXT_BYTES, XFS_BYTES = 16 << 20, 320 << 20


def made(folder: pathlib.Path, size: int, *command: str) -> pathlib.Path:
    image = folder / "old.img"
    with image.open("wb") as file:
        file.truncate(size)
    if command:
        subprocess.run([*command, str(image)], check=True, capture_output=True)
    return image


def test_what_a_base_in_use_leaves_torn_is_mended(tmp_path: pathlib.Path) -> None:
    image = made(tmp_path, EXT_BYTES, "mke2fs", "-q", "-t", "ext4")
    assert image_check.check(image) == ("ext4", "e2fsck finds nothing wrong with its file system.")
    subprocess.run(["debugfs", "-w", "-R", "clri <2>", str(image)], check=True, capture_output=True)  # no root folder
    assert image_check.check(image) == ("ext4", "e2fsck has mended its file system.")
    assert image_check.check(image)[1].startswith("e2fsck finds nothing")


def test_xfs_is_checked(tmp_path: pathlib.Path) -> None:
    image = made(tmp_path, XFS_BYTES, "mkfs.xfs", "-q")
    assert image_check.check(image) == ("xfs", "xfs_repair has checked its file system.")
    assert "nouuid" in image_check.how_to_look(image, "xfs")


def test_a_log_that_only_a_mount_could_replay_is_given_up(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """xfs_repair(8) ends with 2 for it; to have the kernel write such a log takes a mount and a power cut."""
    image = made(tmp_path, XFS_BYTES, "mkfs.xfs", "-q")
    tool = tmp_path / "xfs_repair"
    tool.write_text('#!/bin/sh\ncase "$*" in "-f -L "*) exec /usr/sbin/xfs_repair "$@";; *) exit 2;; esac\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert image_check.check(image)[1] == "xfs_repair has checked its file system, without what was only in its log."


def test_no_file_system_is_said(tmp_path: pathlib.Path) -> None:
    with pytest.raises(image_check.NoFileSystem, match="no file system that is known"):
        image_check.check(made(tmp_path, EXT_BYTES))


def test_a_tool_that_is_missing_is_named_with_its_package(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = made(tmp_path, EXT_BYTES, "mke2fs", "-q", "-t", "ext4")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(image_check.ToolMissing) as missing:
        image_check.check(image)
    assert missing.value.remedy.startswith("Install e2fsprogs, then: e2fsck -f -y ")
