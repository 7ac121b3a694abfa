"""Initial full resync in both directions, and who is Primary."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable

import pytest
from guest import ScriptFailed
from kernel_pair import BLOCK, Pair

from mirror_pair import Refused

PairMaker = Callable[..., Pair]


def write(device: pathlib.Path, offset: int, data: bytes) -> None:
    """Write through our device and flush it."""
    fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.pwrite(fd, data, offset)
        os.fsync(fd)
    finally:
        os.close(fd)


def kernel_writes(pair: Pair, first_block: int, blocks: int) -> None:
    """Random bytes through the kernel's device, which is Primary."""
    pair.kernel.run(
        f"dd if=/dev/urandom of=/dev/drbd0 bs=4k seek={first_block} count={blocks} oflag=direct conv=fsync 2>&1"
    )


@pytest.mark.short
def test_full_resync_from_the_kernel(make_pair: PairMaker) -> None:
    pair = make_pair(ours_good=False)
    pair.kernel.run("dd if=/dev/urandom of=/dev/vda bs=1M count=16 oflag=direct 2>&1")
    pair.start()
    pair.kernel.wait_for("cs:Connected")
    pair.kernel.run("drbdadm primary --force r0")
    pair.compare_whole()


def test_full_resync_from_ours(make_pair: PairMaker) -> None:
    pair = make_pair(ours_good=False)
    with pair.ours.disk.open("r+b") as file:
        file.write(os.urandom(16 << 20))
    pair.start()
    pair.kernel.wait_for("cs:Connected")
    pair.ours.promote(force=True)
    pair.compare_whole()


@pytest.mark.short
def test_role_changes_while_connected(make_pair: PairMaker) -> None:
    pair = make_pair()
    pair.start_in_sync()
    for turn in range(3):
        pair.kernel.run("drbdadm primary r0")
        pair.ours.wait_for(lambda status: status["peer_role"] == "Primary", "the peer as Primary")
        with pytest.raises(Refused) as refused:
            pair.ours.promote(epoch=turn + 1)
        assert refused.value.error == "PeerIsPrimary"
        kernel_writes(pair, 100 * turn, 50)
        pair.kernel.run("drbdadm secondary r0")
        pair.ours.wait_for(lambda status: status["peer_role"] == "Secondary", "the peer as Secondary")
        device = pair.ours.promote(epoch=turn + 1)
        pair.kernel.wait_for("ro:Secondary/Primary")
        with pytest.raises(ScriptFailed):
            pair.kernel.run("drbdadm primary r0")
        write(device, (100 * turn + 1000) * BLOCK, os.urandom(50 * BLOCK))
        pair.ours.call("secondary")
        pair.kernel.wait_for("ro:Secondary/Secondary")
    pair.compare_whole()


def test_writes_during_a_full_resync_by_either_side(make_pair: PairMaker) -> None:
    pair = make_pair(mirror='resync_rate = "10 MiB"\n')
    pair.start()
    pair.ours.wait_for(lambda status: status["connection"] == "SyncSource", "the resync")
    device = pair.ours.promote()
    for number in range(40):
        write(device, (number * 293) * BLOCK, os.urandom(3 * BLOCK))
    pair.wait_in_sync()
    pair.ours.call("secondary")
    pair.kernel.run("drbdadm invalidate r0")
    pair.compare_whole()


def test_orderly_stop_and_return_without_a_resync(make_pair: PairMaker) -> None:
    pair = make_pair()
    pair.start_in_sync()
    pair.kernel.run("drbdadm primary r0")
    kernel_writes(pair, 0, 100)
    pair.kernel.run("drbdadm secondary r0 && drbdadm down r0")
    assert pair.ours.stop() == 0
    pair.start()
    pair.wait_in_sync()
    assert pair.ours.status()["resync_total_bytes"] == 0
    pair.compare_whole()


def test_the_kernel_leaves_and_returns_while_ours_is_primary(make_pair: PairMaker) -> None:
    pair = make_pair()
    pair.start_in_sync()
    device = pair.ours.promote()
    write(device, 0, os.urandom(BLOCK))
    pair.kernel.run("drbdadm disconnect r0")
    write(device, 5 * BLOCK, os.urandom(9 * BLOCK))
    pair.kernel.run("drbdadm connect r0")
    pair.compare_whole()


def test_ours_leaves_and_returns_while_the_kernel_is_primary(make_pair: PairMaker) -> None:
    pair = make_pair()
    pair.start_in_sync()
    pair.kernel.run("drbdadm primary r0")
    kernel_writes(pair, 0, 9)
    assert pair.ours.stop() == 0
    kernel_writes(pair, 7, 9)
    pair.ours.start()
    pair.compare_whole()
