"""Power cuts under real file systems, on disks that forget what was not flushed. Hundreds of them: make torture."""

from __future__ import annotations

import pathlib

import pytest

from power_pair import Course

CUTS = 3


@pytest.mark.parametrize("fstype", ["ext4", "xfs"])
def test_every_fsynced_file_survives(tmp_path: pathlib.Path, fstype: str) -> None:
    Course(tmp_path, fstype, seed=1, cuts=CUTS).run()


def test_a_build_without_flushes_is_found(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same course with a mirror whose flushes are answered and not done: something is lost, and it is seen."""
    monkeypatch.setenv("PYTHONPATH", str(pathlib.Path(__file__).parent / "no_flush"))
    course = Course(tmp_path, "ext4", seed=2, cuts=20, limit_s=160.0)
    with pytest.raises(AssertionError):
        course.run()
    assert "flushes are left out" in course.pair.one.log()
