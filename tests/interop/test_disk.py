"""The same disk: what ours wrote is attached by the kernel in place, and the other way round; no full resync.

The two sides exchange their disks while both are down: then each goes on with what the other has written.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from kernel_pair import Pair

from relevo.mirror.create import read_superblock
from relevo.mirror.metadata import MetaFlag

PairMaker = Callable[..., Pair]
MIB = 1 << 20
LOG_BYTES = 12 * MIB
"""What the cases' writes may leave in the activity log: three extents."""


def exchange_disks(pair: Pair) -> None:
    """Both are down: each gets the very image of the other."""
    ours, theirs = pair.ours.disk.read_bytes(), pair.kernel.disk.read_bytes()
    assert len(ours) == len(theirs)
    for path, content in ((pair.ours.disk, theirs), (pair.kernel.disk, ours)):
        with path.open("r+b") as file:
            file.write(content)
            os.fsync(file.fileno())
    if pair.kernel.running:
        pair.kernel.run("echo 3 > /proc/sys/vm/drop_caches")
    (pair.ours.paths.state / "mirror-r0.disk").unlink()  # it is another disk now, and meant to be


def start_used(pair: Pair) -> None:
    """Both in sync, in a generation of their own: by the rules a copy that never was in use gets everything."""
    pair.start_in_sync()
    pair.ours.promote()
    pair.ours.call("secondary")


def write_ours(pair: Pair, seed: int) -> None:
    """Blocks in three extents of our device, flushed."""
    device = pair.ours.device
    fd = os.open(device, os.O_RDWR | os.O_SYNC)
    try:
        for extent in (0, 4, 9):
            os.pwrite(fd, bytes([seed + extent]) * 65536, extent * 4 * MIB + seed * 4096)
    finally:
        os.close(fd)


def write_kernels(pair: Pair, seed: int) -> None:
    """The same on the kernel's device."""
    for extent in (0, 4, 9):
        pair.kernel.run(
            f"tr '\\000' '\\{seed + extent:03o}' < /dev/zero | head -c 65536 | "
            f"dd of=/dev/drbd0 bs=4096 seek={extent * 1024 + seed} conv=fsync oflag=direct iflag=fullblock 2>/dev/null"
        )


def resynced(pair: Pair) -> int:
    """Bytes that the resync of our present link carried."""
    return int(pair.ours.status()["resync_total_bytes"])


def boot_and_start(pair: Pair) -> None:
    """Both sides again; the kernel's activity log is applied by drbdadm where that is needed."""
    if pair.kernel.running:
        pair.start_kernel()
    else:
        pair.boot_kernel()
    pair.ours.start()
    pair.wait_in_sync()


@pytest.mark.short
def test_after_orderly_stops_each_goes_on_with_the_others_disk(make_pair: PairMaker) -> None:
    pair = make_pair()
    start_used(pair)
    pair.ours.promote()
    write_ours(pair, 1)
    pair.ours.call("secondary")
    pair.kernel.run("drbdadm down r0")
    assert pair.ours.stop() == 0
    before = pair.ours.data_bytes()
    exchange_disks(pair)
    boot_and_start(pair)
    assert resynced(pair) == 0
    pair.compare_data()
    assert pair.kernel_data() == before[: pair.data_bytes]
    pair.kernel.run("drbdadm primary r0")
    write_kernels(pair, 20)
    pair.kernel.run("drbdadm secondary r0")
    pair.compare_whole()


def test_our_primary_killed_its_disk_under_the_kernel(make_pair: PairMaker) -> None:
    pair = make_pair()
    start_used(pair)
    pair.ours.promote()
    write_ours(pair, 3)
    pair.ours.kill()
    superblock, _ = read_superblock(pair.ours.disk)
    assert superblock.flags & MetaFlag.PRIMARY_IND
    assert not superblock.clean
    pair.kernel.wait_for("cs:WFConnection")
    pair.kernel.run("drbdadm down r0")
    before = pair.ours.data_bytes()
    exchange_disks(pair)
    boot_and_start(pair)
    assert 0 < resynced(pair) <= LOG_BYTES
    pair.compare_data()
    assert pair.kernel_data() == before[: pair.data_bytes]
    pair.compare_whole()


def test_our_secondary_killed_its_disk_under_the_kernel(make_pair: PairMaker) -> None:
    pair = make_pair()
    start_used(pair)
    pair.kernel.run("drbdadm primary r0")
    write_kernels(pair, 5)
    pair.ours.kill()
    pair.kernel.wait_for("cs:WFConnection")
    write_kernels(pair, 6)
    pair.kernel.run("drbdadm secondary r0; drbdadm down r0")
    before = pair.kernel_data()
    exchange_disks(pair)
    boot_and_start(pair)
    assert 0 < resynced(pair) <= LOG_BYTES
    assert pair.ours.data_bytes()[: len(before)] == before
    pair.compare_whole()


def test_the_kernels_disk_under_ours_after_its_power_cut(make_pair: PairMaker) -> None:
    """The kernel's Primary loses its power: ours applies its activity log."""
    pair = make_pair()
    start_used(pair)
    pair.kernel.run("drbdadm primary r0")
    write_kernels(pair, 7)
    pair.cut_power_of_kernel()
    superblock, _ = read_superblock(pair.kernel.disk)
    assert superblock.flags & MetaFlag.PRIMARY_IND
    pair.ours.wait_for(lambda status: status["connection"] == "WFConnection", "the loss of its peer", 30)
    assert pair.ours.stop() == 0
    before = pair.kernel_data()
    exchange_disks(pair)
    boot_and_start(pair)
    assert 0 < resynced(pair) <= LOG_BYTES
    assert pair.ours.data_bytes()[: len(before)] == before
    pair.compare_whole()


def test_changes_of_the_kernel_alone_are_in_its_bitmap_for_ours(make_pair: PairMaker) -> None:
    pair = make_pair()
    start_used(pair)
    pair.kernel.run("drbdadm primary r0")
    assert pair.ours.stop() == 0
    pair.kernel.wait_for("cs:WFConnection")
    write_kernels(pair, 9)
    pair.kernel.run("drbdadm secondary r0; drbdadm down r0")
    before = pair.kernel_data()
    exchange_disks(pair)
    boot_and_start(pair)
    assert resynced(pair) == 3 * 65536
    assert pair.ours.data_bytes()[: len(before)] == before
    pair.compare_whole()


def test_our_changes_alone_are_in_our_bitmap_for_the_kernel(make_pair: PairMaker) -> None:
    pair = make_pair()
    start_used(pair)
    pair.ours.promote()
    pair.kernel.run("drbdadm down r0")
    pair.ours.wait_for(lambda status: status["connection"] == "WFConnection", "the peer's leave", 30)
    write_ours(pair, 11)
    assert pair.ours.stop() == 0
    before = pair.ours.data_bytes()
    exchange_disks(pair)
    boot_and_start(pair)
    assert resynced(pair) == 3 * 65536
    assert pair.kernel_data() == before[: pair.data_bytes]
    pair.compare_whole()
