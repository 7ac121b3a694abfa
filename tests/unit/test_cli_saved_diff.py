"""Which files a saved copy has otherwise than the volume: found by reading both, told in one line each."""

from __future__ import annotations

import os
import pathlib

import pytest

import drbd_conf_files as files
from relevo.base.paths import Paths
from relevo.cli.saved_diff import NotMountable, _fstype, lines, refuse_disk
from relevo.cli.trees import Where, differences
from relevo.config.site import find_site

THEN_NS = 1_700_000_000_000_000_000


@pytest.fixture
def trees(tmp_path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Two trees with the same files."""
    left, right = tmp_path / "saved", tmp_path / "now"
    for root in (left, right):
        for name in ("a/b/one", "a/two", "lost+found/x", ".relevo/y"):
            _write(root / name, name.encode())
        (root / "link").symlink_to("a/two")
    return left, right


def _write(path: pathlib.Path, data: bytes, at_ns: int = THEN_NS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, ns=(at_ns, at_ns))


def _found(trees: tuple[pathlib.Path, pathlib.Path], *, content: bool = False) -> list[tuple[str, Where]]:
    return [(one.path, one.where) for one in differences(*trees, content=content)]


def test_equal_trees_have_no_difference(trees: tuple[pathlib.Path, pathlib.Path]) -> None:
    assert _found(trees) == []
    assert list(lines([])) == ["No file differs."]


def test_each_kind_of_difference_is_told_in_the_order_of_the_paths(trees: tuple[pathlib.Path, pathlib.Path]) -> None:
    left, right = trees
    _write(left / "a/b/one", b"longer than before")
    _write(left / "a/new/deep", b"")
    _write(right / "z", b"1")
    (right / "link").unlink()
    (right / "link").symlink_to("elsewhere")
    (right / "a/two").unlink()
    (right / "a/two").mkdir()
    _write(left / ".relevo/only", b"the file service's own")
    assert _found(trees) == [
        ("a/b/one", Where.DIFFERENT),
        ("a/new", Where.ONLY_LEFT),
        ("a/two", Where.DIFFERENT),
        ("link", Where.DIFFERENT),
        ("z", Where.ONLY_RIGHT),
    ]
    told = list(lines(list(differences(left, right))))
    assert told[0].startswith("different   a/b/one  (saved 18 B, ")
    assert told[1] == "only saved  a/new  (folder)"
    assert told[3] == "different   link  (saved link to a/two; now link to elsewhere)"
    assert told[-1] == "1 only saved, 1 only now, 3 different."


def test_content_decides_where_the_times_differ_and_where_it_is_asked_for(
    trees: tuple[pathlib.Path, pathlib.Path],
) -> None:
    left, _ = trees
    _write(left / "a/two", b"a/two", THEN_NS + 1)
    assert _found(trees) == [], "touched, and the same"
    _write(left / "a/two", b"A/two", THEN_NS + 1)
    assert _found(trees) == [("a/two", Where.DIFFERENT)]
    _write(left / "a/two", b"A/two")
    assert _found(trees) == [], "size and time are the same"
    assert _found(trees, content=True) == [("a/two", Where.DIFFERENT)]


def test_the_mirrors_own_disk_is_not_looked_into_nor_advised_to_be_mended(tmp_path: pathlib.Path) -> None:
    disk, conf = tmp_path / "disk", tmp_path / "drbd.conf"
    disk.touch()
    conf.write_text(files.resource().replace("/dev/sda6", str(disk)))
    site = find_site(Paths(tmp_path / "etc", tmp_path, tmp_path, conf), "nodo1", "r0")
    refuse_disk(site, tmp_path / "image")
    with pytest.raises(NotMountable) as caught:
        refuse_disk(site, disk)
    assert "e2fsck -fy now.img" in caught.value.remedy


def test_an_image_without_a_file_system_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "image").write_bytes(bytes(4096))
    with pytest.raises(NotMountable, match="no file system that is known"):
        _fstype(tmp_path / "image")
