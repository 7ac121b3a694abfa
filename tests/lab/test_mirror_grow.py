"""A mirror that becomes larger while it is in use, with a file system on it."""

from __future__ import annotations

import os
import pathlib
import random

import pytest
from device_tools import grow_ext4
from labtools import PairMaker

from mirror_pair import Pair, Refused, in_sync, run
from relevo.mirror.create import read_superblock

MIB = 1 << 20
BEFORE, AFTER = 64 * MIB, 160 * MIB


def grow_disk(path: pathlib.Path, size: int = AFTER) -> None:
    """The disk gets larger; what is added is noise, as it is when a volume gets blocks that were in use before."""
    with path.open("r+b") as file:
        old = file.seek(0, os.SEEK_END)
        file.write(random.Random(str(path)).randbytes(size - old))
        os.fsync(file.fileno())


def grown(pair: Pair) -> int:
    """Both sides have taken over the same larger size and are in sync; that size."""
    sizes = set()
    for side in pair.sides.values():
        status = side.wait_for(lambda status: in_sync(status) and status["size_bytes"] > BEFORE, "its new size")
        assert status["out_of_sync_bytes"] == 0
        sizes.add(status["size_bytes"])
    (size,) = sizes
    return int(size)


@pytest.mark.parametrize("asked", ["nodo1", "nodo2"])
def test_both_disks_grow_under_a_mounted_file_system(pair: Pair, asked: str) -> None:
    device = pair.one.promote()
    run("mkfs.ext4", "-q", "-E", "nodiscard", str(device))
    target = pair.one.folder / "mnt"
    target.mkdir()
    run("mount", "-t", "ext4", str(device), str(target))
    content = random.Random(1).randbytes(5 << 20)
    try:
        (target / "before").write_bytes(content)
        for side in pair.sides.values():
            grow_disk(side.disk)
        pair.sides[asked].call("resize")
        size = grown(pair)
        assert size == read_superblock(pair.one.disk)[1].data_bytes
        assert int(run("blockdev", "--getsize64", str(device))) == size
        before = os.statvfs(target).f_blocks
        grow_ext4(device, target)
        assert os.statvfs(target).f_blocks > 2 * before
        (target / "after").write_bytes(content * 12)
        assert (target / "before").read_bytes() == content
    finally:
        run("umount", str(target))
    run("e2fsck", "-fn", str(device))
    pair.one.call("secondary")
    assert pair.one.data_bytes()[:size] == pair.two.data_bytes()[:size]
    for side in pair.sides.values():
        assert side.stop() == 0
        superblock, layout = read_superblock(side.disk)
        assert superblock.size_sectors * 512 == size == layout.data_bytes
        run("drbdmeta", "--force", "254", "v08", str(side.disk), "internal", "dump-md")
    pair.start()


def test_only_one_disk_has_grown(pair: Pair) -> None:
    pair.one.promote()
    with pytest.raises(Refused) as refused:
        pair.one.call("resize")
    assert "no more than before" in str(refused.value)
    grow_disk(pair.one.disk)
    with pytest.raises(Refused) as refused:
        pair.one.call("resize")
    assert "The disk of the peer has room for" in str(refused.value)
    assert in_sync(pair.one.status())
    grow_disk(pair.two.disk)
    pair.two.call("resize")
    grown(pair)
    pair.one.call("secondary")


def test_nobody_is_primary(pair: Pair) -> None:
    for side in pair.sides.values():
        grow_disk(side.disk)
    with pytest.raises(Refused) as refused:
        pair.one.call("resize")
    assert "Neither side is Primary" in str(refused.value)


def test_disks_that_grew_while_nobody_used_them(pair: Pair) -> None:
    for side in pair.sides.values():
        assert side.stop() == 0
        grow_disk(side.disk)
        side.start()
    for side in pair.sides.values():
        side.wait_for(
            lambda status: status["connection"] == "Connected" and status["size_bytes"] > BEFORE, "its new size"
        )


def test_killed_while_it_grows(make_pair: PairMaker) -> None:
    """The Primary dies in the middle: both come up again, with one size, and equal."""
    pair = make_pair()
    pair.start()
    pair.one.promote()
    for side in pair.sides.values():
        grow_disk(side.disk)
    pair.one.call("resize")
    pair.one.kill()
    pair.one.start()
    size = grown(pair)
    pair.one.promote(epoch=2)
    pair.one.call("secondary")
    assert pair.one.data_bytes()[:size] == pair.two.data_bytes()[:size]
