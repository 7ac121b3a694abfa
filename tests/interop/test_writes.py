"""What the kernel's side writes, in all sizes and kinds, arrives on our disk as it is on the kernel's."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from kernel_pair import Pair
from test_roles import write

PairMaker = Callable[..., Pair]
SIZES = (512, 1024, 3584, 4096, 4608, 65536, 128 << 10, 1 << 20)


@pytest.fixture
def pair(make_pair: PairMaker) -> Pair:
    """In sync, the kernel is Primary."""
    made = make_pair()
    made.start_in_sync()
    made.kernel.run("drbdadm primary r0")
    return made


@pytest.mark.parametrize("block_bytes", [512, pytest.param(4096, marks=pytest.mark.short)])
def test_sizes_from_512_bytes_to_1_mebibyte_at_odd_places(make_pair: PairMaker, block_bytes: int) -> None:
    pair = make_pair(block_bytes=block_bytes)
    pair.start_in_sync()
    pair.kernel.run("drbdadm primary r0")
    lines = [
        f"dd if=/dev/urandom of=/dev/drbd0 bs={size} seek={3 * index + 1} count=7 oflag=direct 2>&1"
        for index, size in enumerate(SIZES)
    ]
    pair.kernel.run(" && ".join(lines))
    pair.compare_whole()
    assert "disk_failed" not in pair.ours.log()


@pytest.mark.parametrize("block_bytes", [512, 4096])
def test_overlapping_small_writes_in_flight_together(make_pair: PairMaker, block_bytes: int) -> None:
    pair = make_pair(block_bytes=block_bytes)
    pair.start_in_sync()
    pair.kernel.run("drbdadm primary r0")
    dd = "dd if=/dev/urandom of=/dev/drbd0 bs=512 count=3 oflag=direct"
    one = f"for i in $(seq 60); do {dd} seek=$((i % 9 + {{0}})); done"
    together = " ".join(f"( {one.format(start)} ) 2>/dev/null &" for start in (0, 2, 5, 9))
    pair.kernel.run(f"{together} wait")
    pair.compare_whole()


def test_flush_and_fua(pair: Pair) -> None:
    pair.kernel.run(
        "dd if=/dev/urandom of=/dev/drbd0 bs=4k count=20 oflag=direct,dsync 2>&1"
        " && dd if=/dev/urandom of=/dev/drbd0 bs=512 seek=1001 count=20 oflag=direct,dsync 2>&1"
        " && dd if=/dev/urandom of=/dev/drbd0 bs=64k seek=20 count=20 conv=fsync 2>&1"
    )
    pair.compare_whole()


@pytest.mark.short
def test_a_file_system_on_the_kernels_device(pair: Pair) -> None:
    pair.kernel.run(
        "mkfs.ext4 -q /dev/drbd0 && mount -o discard /dev/drbd0 /mnt"
        " && for i in 1 2 3 4 5 6; do dd if=/dev/urandom of=/mnt/$i bs=50k count=$i conv=fsync 2>/dev/null; done"
        " && rm /mnt/3 /mnt/5 && sync && umount /mnt && e2fsck -fn /dev/drbd0",
        limit_s=90,
    )
    pair.compare_whole()


@pytest.mark.parametrize("block_bytes", [512, 4096])
@pytest.mark.parametrize("place", ["-o 1048576 -l 4194304", "-o 1049088 -l 65536", "-o 3584 -l 1024"])
@pytest.mark.parametrize("kind", ["", "-z"], ids=["discard", "write zeroes"])
def test_without_data(make_pair: PairMaker, kind: str, place: str, block_bytes: int) -> None:
    pair = make_pair(block_bytes=block_bytes)
    pair.start_in_sync()
    pair.kernel.run("drbdadm primary r0")
    pair.kernel.run("dd if=/dev/urandom of=/dev/drbd0 bs=1M count=8 oflag=direct conv=fsync 2>&1")
    status, printed = pair.kernel.call(f"blkdiscard {kind} {place} /dev/drbd0")
    assert status == 0, printed
    pair.compare_whole()


def test_the_whole_device_is_discarded_by_the_kernel(pair: Pair) -> None:
    pair.kernel.run(
        "dd if=/dev/urandom of=/dev/drbd0 bs=1M count=8 oflag=direct conv=fsync 2>&1; blkdiscard /dev/drbd0"
    )
    pair.compare_whole()


def test_ours_writes_in_all_sizes_discards_and_zeroes(make_pair: PairMaker) -> None:
    pair = make_pair()
    pair.start_in_sync()
    device = pair.ours.promote()
    for index, size in enumerate((4096, 8192, 65536, 1 << 20, 3 << 20)):
        write(device, index * (1 << 20), os.urandom(size))
    from mirror_pair import run

    run("blkdiscard", "--offset", str(1 << 20), "--length", str(5 << 20), str(device))
    run("blkdiscard", "--zeroout", "--offset", str(8 << 20), "--length", str(1 << 20), str(device))
    write(device, 2 << 20, os.urandom(4096))
    pair.compare_whole()


@pytest.mark.parametrize("protocol", ["A", "B"])
@pytest.mark.parametrize("primary", ["the kernel", "ours"])
def test_protocol(make_pair: PairMaker, protocol: str, primary: str) -> None:
    pair = make_pair(protocol=protocol)
    pair.start_in_sync()
    if primary == "ours":
        device = pair.ours.promote()
        for number in range(30):
            write(device, number * (300 << 10) & -4096, os.urandom(12 << 10))
    else:
        pair.kernel.run("drbdadm primary r0 && dd if=/dev/urandom of=/dev/drbd0 bs=12k count=200 conv=fsync 2>&1")
    pair.compare_whole()
