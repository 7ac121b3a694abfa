"""What is kept of a copy: what was changed comes back byte for byte, and what is damaged or too large is refused."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import random

import pytest

import drbd_conf_files as files
from relevo.base.paths import Paths
from relevo.cli.context import Context
from relevo.cli.mirror_saved import OwnDisk, refuse_own_disk
from relevo.device.backing import open_backing
from relevo.mirror import saved, saved_image, saver
from relevo.mirror.create import DiskInUse

DISK_BYTES = 1 << 20
RANGES = ((4096, 8192), (65536, 4096), (DISK_BYTES - 512, 512))
GENERATIONS = ("1111222233334440", "5555666677778880", "0" * 16, "0" * 16)


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "disk"
    path.write_bytes(random.Random(1).randbytes(DISK_BYTES))
    return path


@pytest.fixture(autouse=True)
def no_reflink(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_source: int, _target: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(saved, "share_blocks", refused)


def order(disk: pathlib.Path, *, limit_bytes: int = 1 << 30, reason: str = "split-brain") -> saver.Order:
    return saver.Order(
        disk=str(disk),
        data_bytes=DISK_BYTES,
        store=str(saved.store(disk.parent / "state", "r0")),
        mirror="r0",
        node="nodo1",
        reason=reason,
        generations=GENERATIONS,
        limit_bytes=limit_bytes,
    )


def kept(disk: pathlib.Path) -> list[saved.Saved]:
    return saved.saved_copies(disk.parent / "state", "r0")


def test_the_changed_blocks_come_back(disk: pathlib.Path) -> None:
    before = disk.read_bytes()
    assert "r0" in saver.save(order(disk), saved.pack_ranges(RANGES))
    disk.write_bytes(bytes(DISK_BYTES))
    (copy,) = kept(disk)
    assert (copy.index.kind, copy.index.saved_bytes, copy.index.node) == ("blocks", 12800, "nodo1")
    assert copy.index.generations == GENERATIONS
    new = disk.with_name("new")
    assert saved.extract(copy, new, onto=False) == 12800
    found = new.read_bytes()
    assert len(found) == DISK_BYTES
    changed = set()
    for offset, length in RANGES:
        assert found[offset : offset + length] == before[offset : offset + length]
        changed.update(range(offset, offset + length))
    assert not any(found[at] for at in range(DISK_BYTES) if at not in changed)


def test_onto_an_image_only_the_changed_blocks_are_written(disk: pathlib.Path) -> None:
    before = disk.read_bytes()
    saver.save(order(disk), saved.pack_ranges(RANGES))
    other = random.Random(2).randbytes(DISK_BYTES)
    disk.write_bytes(other)
    saved.extract(kept(disk)[0], disk, onto=True)
    expected = bytearray(other)
    for offset, length in RANGES:
        expected[offset : offset + length] = before[offset : offset + length]
    assert disk.read_bytes() == bytes(expected)


def test_a_disk_that_a_mirror_uses_is_not_written_past_it(disk: pathlib.Path) -> None:
    saver.save(order(disk), saved.pack_ranges(RANGES))
    disk.write_bytes(random.Random(2).randbytes(DISK_BYTES))
    before = disk.read_bytes()
    with contextlib.closing(open_backing(disk)), pytest.raises(DiskInUse, match="in use"):
        saved.extract(kept(disk)[0], disk, onto=True)
    assert disk.read_bytes() == before


def test_a_mirrors_own_disk_is_no_target_even_when_it_is_down(disk: pathlib.Path) -> None:
    here = disk.parent
    conf = here / "drbd.conf"
    conf.write_text(files.resource().replace("/dev/sda6", str(disk)))
    context = Context(Paths(here / "etc", here / "state", here / "run", conf), "nodo1")
    refuse_own_disk(context, here / "old.img")
    (here / "same").symlink_to(disk)
    with pytest.raises(OwnDisk, match="the disk of mirror r0"):
        refuse_own_disk(context, here / "same")


def test_a_target_that_is_there_is_not_written_over(disk: pathlib.Path) -> None:
    saver.save(order(disk), saved.pack_ranges(RANGES))
    with pytest.raises(saved.TargetThere, match="exists"):
        saved.extract(kept(disk)[0], disk, onto=False)
    with pytest.raises(saved.TargetThere, match="not there"):
        saved.extract(kept(disk)[0], disk.with_name("new"), onto=True)


@pytest.mark.parametrize("name", [saved.BLOCKS, saved.RANGES])
def test_a_damaged_copy_is_not_written_anywhere(disk: pathlib.Path, name: str) -> None:
    saver.save(order(disk), saved.pack_ranges(RANGES))
    (copy,) = kept(disk)
    content = bytearray((copy.folder / name).read_bytes())
    content[7] ^= 1
    (copy.folder / name).write_bytes(content)
    with pytest.raises(saved.SavedCopyUnusable, match="damaged"):
        saved.extract(copy, disk.with_name("new"), onto=False)
    assert not disk.with_name("new").exists()


def test_the_same_copy_is_kept_once(disk: pathlib.Path) -> None:
    for _ in range(2):
        saver.save(order(disk), saved.pack_ranges(RANGES))
    assert len(kept(disk)) == 1
    saver.save(order(disk), saved.pack_ranges(RANGES[:2]))
    assert len(kept(disk)) == 2


def test_the_bound_holds_for_all_copies_together(disk: pathlib.Path) -> None:
    saver.save(order(disk, limit_bytes=20_000), saved.pack_ranges(RANGES))
    with pytest.raises(saver.CopyNotSaved, match="at most") as refused:
        saver.save(order(disk, limit_bytes=20_000), saved.pack_ranges(RANGES[:2]))
    assert refused.value.errno == errno.ENOSPC
    assert len(kept(disk)) == 1
    saved.remove(kept(disk)[0])
    saver.save(order(disk, limit_bytes=20_000), saved.pack_ranges(RANGES[:2]))


def test_a_full_file_system_is_refused_before_anything_is_written(
    disk: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saver, "FREE_RESERVE_BYTES", 1 << 60)
    with pytest.raises(saver.CopyNotSaved, match="left") as refused:
        saver.save(order(disk), saved.pack_ranges(RANGES))
    assert refused.value.errno == errno.ENOSPC
    assert kept(disk) == []


def test_without_ranges_only_a_snapshot_will_do(disk: pathlib.Path) -> None:
    with pytest.raises(saver.CopyNotSaved, match="snapshot") as refused:
        saver.save(order(disk, reason="resync"), b"")
    assert refused.value.errno == errno.ENOTSUP


def test_an_image_that_shares_blocks_is_taken_where_that_can_be(
    disk: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copied(source: int, target: int) -> None:
        os.pwrite(target, os.pread(source, DISK_BYTES, 0), 0)

    monkeypatch.setattr(saved, "share_blocks", copied)
    before = disk.read_bytes()
    saver.save(order(disk), saved.pack_ranges(RANGES))
    disk.write_bytes(bytes(DISK_BYTES))
    (copy,) = kept(disk)
    assert copy.index.kind == "image"
    saved.extract(copy, disk.with_name("new"), onto=False)
    assert disk.with_name("new").read_bytes() == before
    saved.remove(copy)
    assert kept(disk) == []


def test_what_was_never_finished_is_no_copy_and_goes(disk: pathlib.Path) -> None:
    saver.save(order(disk), saved.pack_ranges(RANGES))
    half = kept(disk)[0].folder.with_name("20200101T000000Z-split-brain")
    half.mkdir()
    (half / saved.BLOCKS).write_bytes(b"half")
    assert len(kept(disk)) == 1
    with pytest.raises(saved.SavedCopyUnusable, match="never finished"):
        saved.find(disk.parent / "state", "r0", half.name)
    saver.save(order(disk), saved.pack_ranges(RANGES[:1]))
    assert not half.exists()


def test_the_process_says_why_and_ends_with_the_errno(
    disk: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io
    import sys

    import msgspec

    def run(limit_bytes: int) -> int:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(saved.pack_ranges(RANGES))))
        return saver.main([msgspec.json.encode(order(disk, limit_bytes=limit_bytes)).decode()])

    assert run(10) == errno.ENOSPC
    assert "at most 10 B" in capsys.readouterr().err
    assert run(1 << 20) == 0
    assert str(kept(disk)[0].folder) in capsys.readouterr().out
    disk.unlink()
    assert run(1 << 20) == 0, "kept already"


def test_where_nothing_was_ever_kept_nothing_has_to_go(tmp_path: pathlib.Path) -> None:
    store = tmp_path / "saved" / "r0"
    assert saver.main(["forget", str(store), "resync"]) == 0
    assert not store.exists()


def test_an_image_is_the_base_with_the_saved_blocks_over_it(disk: pathlib.Path) -> None:
    """As large as the device, whatever lies behind the data on the base; holes where the base has zeroes."""
    before = disk.read_bytes()
    saver.save(order(disk), saved.pack_ranges(RANGES))
    base = bytearray(random.Random(2).randbytes(DISK_BYTES))
    base[256 << 10 : 768 << 10] = bytes(512 << 10)
    disk.write_bytes(bytes(base) + b"meta-data")
    image = disk.with_name("image")
    assert saved_image.write_image(kept(disk)[0], image, disk) == 12800
    for offset, length in RANGES:
        base[offset : offset + length] = before[offset : offset + length]
    assert image.read_bytes() == bytes(base)
    assert image.stat().st_blocks * 512 <= DISK_BYTES - (448 << 10)
    assert (disk.read_bytes()[DISK_BYTES:], image.stat().st_mode & 0o777) == (b"meta-data", 0o600)


def test_a_base_with_holes_is_read_as_it_is(disk: pathlib.Path) -> None:
    saver.save(order(disk), saved.pack_ranges(RANGES[:1]))
    saved_blocks = disk.read_bytes()[4096:12288]
    base = disk.with_name("base")
    with base.open("wb") as file:
        file.truncate(DISK_BYTES)
        file.seek(DISK_BYTES // 2)
        file.write(b"in the middle")
    image = disk.with_name("image")
    saved_image.write_image(kept(disk)[0], image, base)
    expected = bytearray(base.read_bytes())
    expected[4096:12288] = saved_blocks
    assert image.read_bytes() == bytes(expected)


def test_of_a_whole_copy_the_image_needs_no_base(disk: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved, "share_blocks", lambda source, target: os.sendfile(target, source, 0, DISK_BYTES))
    before = disk.read_bytes()
    saver.save(order(disk), saved.pack_ranges(RANGES))
    disk.write_bytes(bytes(DISK_BYTES))
    (copy,) = kept(disk)
    with pytest.raises(saved_image.BaseUnusable, match="is whole"):
        saved_image.write_image(copy, disk.with_name("image"), disk)
    saved_image.write_image(copy, disk.with_name("image"), None)
    assert disk.with_name("image").read_bytes() == before


def test_an_image_that_cannot_be_made_leaves_nothing(disk: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saver.save(order(disk), saved.pack_ranges(RANGES))
    (copy,) = kept(disk)
    image, small = disk.with_name("image"), disk.with_name("small")
    small.write_bytes(bytes(4096))
    for base, words in ((None, "only"), (small, "the device of the copy"), (disk.with_name("none"), "cannot be read")):
        with pytest.raises(saved_image.BaseUnusable, match=words):
            saved_image.write_image(copy, image, base)
    with pytest.raises(saved.TargetThere):
        saved_image.write_image(copy, small, disk)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(saved, "write_all", full)
    with pytest.raises(saved_image.NoRoom, match="no room"):
        saved_image.write_image(copy, image, disk)
    assert not image.exists()
    (copy.folder / saved.BLOCKS).write_bytes(b"damaged")
    with pytest.raises(saved.SavedCopyUnusable):
        saved_image.write_image(copy, image, disk)
    assert not image.exists()
