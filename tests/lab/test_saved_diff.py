"""`relevo mirror saved diff` looks into images that are mounted nowhere, and leaves nothing behind."""

from __future__ import annotations

import pathlib
import subprocess

import pytest

from relevo.cli.saved_diff import NotMountable, _looked_into
from relevo.cli.trees import Where, differences
from relevo.device import loop


def _image(folder: pathlib.Path, name: str, files: dict[str, str]) -> pathlib.Path:
    root, image = folder / f"{name}.d", folder / f"{name}.img"
    root.mkdir()
    for path, text in files.items():
        (root / path).write_text(text)
    command = ["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", str(root), str(image), "16M"]
    subprocess.run(command, check=True, capture_output=True)
    return image


@pytest.mark.parametrize("private", [False, True])
def test_two_images_are_compared_and_nothing_is_left(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, private: bool
) -> None:
    """`private`: with a /dev that has no loop devices, as in a container."""
    if private:
        (tmp_path / "dev").mkdir()
        monkeypatch.setattr(loop, "DEV", tmp_path / "dev")
        monkeypatch.setattr(loop, "CONTROL", tmp_path / "dev" / "loop-control")
    saved = _image(tmp_path, "saved", {"both": "mine", "one": "only here"})
    now = _image(tmp_path, "now", {"both": "theirs", "two": "only there"})
    before = [image.read_bytes() for image in (saved, now)]
    run = tmp_path / "run"
    with _looked_into(saved, run) as left, _looked_into(now, run) as right:
        found = [(one.path, one.where) for one in differences(left, right)]
        with pytest.raises(OSError, match="Read-only"):
            (left / "new").touch()
    assert found == [("both", Where.DIFFERENT), ("one", Where.ONLY_LEFT), ("two", Where.ONLY_RIGHT)]
    assert [image.read_bytes() for image in (saved, now)] == before
    assert loop.find("look:", tmp_path) == ()
    assert list(run.iterdir()) == []


def test_an_image_that_was_copied_from_a_disk_in_use_names_the_check(tmp_path: pathlib.Path) -> None:
    image = _image(tmp_path, "used", {"one": "x"})
    subprocess.run(["debugfs", "-w", "-R", "ssv state 0", str(image)], check=True, capture_output=True)
    with pytest.raises(NotMountable) as caught, _looked_into(image, tmp_path):
        pass
    assert caught.value.remedy.startswith(f"e2fsck -fy {image}")
