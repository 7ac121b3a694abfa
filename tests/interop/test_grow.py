"""Both disks grow while the mirror is in use: either side is asked, either is Primary; what was added is resynced."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable

import pytest
from kernel_pair import DISK_BYTES, Pair

from mirror_pair import in_sync
from relevo.mirror.create import read_superblock

PairMaker = Callable[..., Pair]
MIB = 1 << 20
LARGER_BYTES = 80 * MIB
BITMAP_WORD_BYTES = 64 * 4096
"""Each word of a bitmap stands for 64 blocks."""


def grow_disks(pair: Pair) -> None:
    """What is added differs on the two."""
    with pair.ours.disk.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(random.Random(1).randbytes(LARGER_BYTES - DISK_BYTES))
        os.fsync(file.fileno())
    pair.kernel.grow_disk(LARGER_BYTES)


def wait_grown(pair: Pair) -> int:
    """Both in sync with the new size; the bytes that were resynced here."""

    def grown(status: dict[str, object]) -> bool:
        return in_sync(status) and int(str(status["size_bytes"])) > DISK_BYTES and not status["out_of_sync_bytes"]

    status = pair.ours.wait_for(grown, "its new size", 40)
    pair.wait_in_sync()
    size = int(status["size_bytes"])
    assert int(pair.kernel.run("cat /sys/block/drbd0/size")) * 512 == size
    return int(status["resync_total_bytes"])


@pytest.mark.parametrize("primary", ["ours", "kernel"])
@pytest.mark.parametrize("asked", ["ours", "kernel"])
def test_both_grow(make_pair: PairMaker, primary: str, asked: str) -> None:
    pair = make_pair()
    pair.start_in_sync()
    before = int(pair.ours.status()["resync_total_bytes"])
    if primary == "ours":
        pair.ours.promote()
    else:
        pair.kernel.run("drbdadm primary r0")
    grow_disks(pair)
    if asked == "ours":
        pair.ours.call("resize")
    else:
        pair.kernel.run("drbdadm resize r0")
    resynced = wait_grown(pair) - before
    added = int(pair.ours.status()["size_bytes"]) - DISK_BYTES
    assert 0 < resynced < added + MIB
    pair.compare_whole()
    superblock, layout = read_superblock(pair.ours.disk)
    assert superblock.size_sectors * 512 == layout.data_bytes


@pytest.mark.parametrize("asked", ["ours", "kernel"])
def test_what_is_added_is_said_to_be_equal(make_pair: PairMaker, asked: str) -> None:
    pair = make_pair()
    pair.start_in_sync()
    before = int(pair.ours.status()["resync_total_bytes"])
    pair.ours.promote()
    grow_disks(pair)
    if asked == "ours":
        pair.ours.call("resize", assume_clean=True)
    else:
        pair.kernel.run("drbdadm -- --assume-clean resize r0")
    assert wait_grown(pair) == before


@pytest.mark.parametrize("limited", ["ours", "kernel", "both"])
def test_the_option_size_limits_both(make_pair: PairMaker, limited: str) -> None:
    limit = 20 * MIB
    mine = {"size_bytes": limit if limited == "ours" else 2 * limit} if limited != "kernel" else {}
    theirs = ("size 20M;",) if limited != "ours" else ()
    pair = make_pair(options=mine, disk=theirs, ours_good=False)
    pair.start()
    pair.kernel.wait_for("cs:Connected")
    pair.ours.promote(force=True)
    pair.wait_in_sync()
    assert pair.ours.status()["size_bytes"] == limit
    assert int(pair.kernel.run("cat /sys/block/drbd0/size")) * 512 == limit
    if limited != "ours":
        pair.compare_whole()
        return
    pair.compare_data()
    pair.down()
    pair.compare_data()
    mine, theirs = pair.metadata()
    assert "bits-set 0;" in mine, mine
    # the kernel begins with its whole disk out of sync, and keeps the bits behind the end that ours has set it
    words = limit // BITMAP_WORD_BYTES
    assert re.search(rf"# at 0kB\s+{words} times 0x0000000000000000;\s+\d+ times 0xFFFFFFFFFFFFFFFF;", theirs), theirs
