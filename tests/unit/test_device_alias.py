"""A further name of a device: made, replaced, taken away, and never in the place of something else."""

from __future__ import annotations

import os
import pathlib
import stat

import pytest

from relevo.device.alias import Alias, NameTaken
from relevo.device.loop import MAJOR

DRBD_MAJOR = 147


def test_a_name_comes_and_goes(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "drbd" / "0"
    alias = Alias(path)
    alias.remove()
    for number in (3, 4):
        alias.make(number)
        found = path.lstat()
        assert (stat.S_ISBLK(found.st_mode), found.st_rdev) == (True, os.makedev(MAJOR, number))
    alias.remove()
    assert list(path.parent.iterdir()) == []


def test_what_is_not_ours_stays(tmp_path: pathlib.Path) -> None:
    kernels, file, link = tmp_path / "drbd0", tmp_path / "drbd1", tmp_path / "drbd2"
    os.mknod(kernels, stat.S_IFBLK | 0o600, os.makedev(DRBD_MAJOR, 0))
    file.write_text("something")
    link.symlink_to("/dev/null")
    for path in (kernels, file, link):
        with pytest.raises(NameTaken, match=path.name):
            Alias(path).make(3)
        Alias(path).remove()
        assert path.exists()


def test_no_name_is_wanted() -> None:
    Alias(None).make(3)
    Alias(None).remove()
