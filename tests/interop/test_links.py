"""The link is cut at every stage, something is written meanwhile, and the copies are equal again afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from kernel_pair import BLOCK, Pair
from test_roles import kernel_writes, write

PairMaker = Callable[..., Pair]
SLOW = 'resync_rate = "4 MiB"\n'
"""A resync that lasts long enough to be cut."""
PRIMARIES = ("the kernel", "ours")


def promote(pair: Pair, primary: str) -> Callable[[int, int], None]:
    """Make one side Primary; what writes there: (first block, number of blocks)."""
    if primary == "ours":
        device = pair.ours.promote(epoch=int(pair.ours.status()["epoch"]))
        return lambda first, blocks: write(device, first * BLOCK, os.urandom(blocks * BLOCK))
    pair.kernel.run("drbdadm primary r0")
    return lambda first, blocks: kernel_writes(pair, first, blocks)


def scattered(writes: Callable[[int, int], None]) -> None:
    """Blocks here and there, single ones and runs."""
    for number in range(25):
        writes(number * 397, 1 + number % 4)


@pytest.mark.parametrize("use_rle", [True, False], ids=["run-length encoded", "plain"])
@pytest.mark.parametrize("primary", [pytest.param("the kernel", marks=pytest.mark.short), "ours"])
def test_bitmap_resync(make_pair: PairMaker, primary: str, use_rle: bool) -> None:
    pair = make_pair(net=() if use_rle else ("use-rle no;",), options={"use_rle": use_rle})
    pair.start_in_sync()
    writes = promote(pair, primary)
    writes(0, 64)
    pair.cut()
    pair.wait_lost()
    scattered(writes)
    before = pair.ours.status()["resync_total_bytes"]
    pair.heal()
    pair.wait_in_sync()
    assert 25 * BLOCK < pair.ours.status()["resync_total_bytes"] - before < 10 << 20
    pair.compare_whole()


@pytest.mark.parametrize("primary", PRIMARIES)
def test_cut_during_a_resync(make_pair: PairMaker, primary: str) -> None:
    pair = make_pair(mirror=SLOW, disk=("resync-rate 4M;",))
    pair.start_in_sync()
    writes = promote(pair, primary)
    pair.cut()
    pair.wait_lost()
    writes(0, 6000)
    for round_ in range(3):
        pair.heal()
        pair.kernel.wait_for("cs:Sync(Source|Target)")
        writes(round_ * 1999 + 500, 9)
        pair.cut()
        pair.wait_lost()
        writes(round_ * 1999 + 1500, 9)
    pair.heal()
    pair.compare_whole()


@pytest.mark.parametrize("primary", PRIMARIES)
def test_cut_under_load_again_and_again(make_pair: PairMaker, primary: str) -> None:
    pair = make_pair()
    pair.start_in_sync()
    if primary == "ours":
        device = pair.ours.promote()
        load = pair.ours.load(device)
    else:
        pair.kernel.run("drbdadm primary r0")
        pair.start_kernel_load()
    for _ in range(4):
        pair.cut()
        pair.wait_lost()
        pair.heal()
        pair.wait_in_sync()
    if primary == "ours":
        load.terminate()
        load.wait()
    else:
        pair.end_kernel_load()
    pair.compare_whole()


@pytest.mark.parametrize("primary", PRIMARIES)
def test_cut_during_the_exchange_of_bitmaps(make_pair: PairMaker, primary: str) -> None:
    """The whole bitmap of a large device, plain, takes its time on a slow cable; it is cut in the middle of it."""
    pair = make_pair(
        disk_bytes=2 << 30,
        net=("use-rle no;",),
        options={"use_rle": False},
    )
    pair.skip_initial_resync()
    writes = promote(pair, primary)
    pair.cut()
    pair.wait_lost()
    scattered(writes)
    pair.slow("200kbit")
    pair.heal()
    pair.kernel.wait_for("cs:WFBitMap[ST]")
    pair.cut()
    pair.slow(None)
    pair.wait_lost()
    writes(3, 5)
    pair.heal()
    pair.compare_whole()
