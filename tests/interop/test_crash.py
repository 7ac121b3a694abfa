"""Power and processes are cut on either side, in either role, while writes are under way."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest
from kernel_pair import BLOCK, Pair
from test_links import promote
from test_roles import write

PairMaker = Callable[..., Pair]


@pytest.mark.short
def test_power_cut_of_the_kernel_as_primary(make_pair: PairMaker) -> None:
    pair = make_pair()
    pair.start_in_sync()
    pair.kernel.run(
        "drbdadm primary r0 && dd if=/dev/urandom of=/tmp/data bs=64k count=8 2>/dev/null"
        " && dd if=/tmp/data of=/dev/drbd0 bs=64k seek=3 oflag=direct,dsync 2>&1"
    )
    acknowledged = pair.kernel_data()[3 << 16 : 11 << 16]
    pair.start_kernel_load()
    pair.cut_power_of_kernel()
    pair.ours.wait_for(lambda status: status["connection"] == "WFConnection", "the loss of its peer", 30)
    assert pair.ours.data_bytes()[3 << 16 : 11 << 16] == acknowledged
    device = pair.ours.promote()
    write(device, 40 << 20, os.urandom(64 * BLOCK))
    pair.boot_kernel()
    pair.compare_whole()


def test_power_cut_of_the_kernel_as_primary_which_goes_on(make_pair: PairMaker) -> None:
    pair = make_pair()
    pair.start_in_sync()
    pair.kernel.run("drbdadm primary r0")
    pair.start_kernel_load()
    pair.cut_power_of_kernel()
    pair.ours.wait_for(lambda status: status["connection"] == "WFConnection", "the loss of its peer", 30)
    pair.boot_kernel()
    pair.wait_in_sync()
    assert pair.ours.status()["resync_total_bytes"] > 0
    pair.compare_whole()


def test_power_cut_of_the_kernel_as_secondary(make_pair: PairMaker) -> None:
    pair = make_pair()
    pair.start_in_sync()
    device = pair.ours.promote()
    load = pair.ours.load(device)
    pair.cut_power_of_kernel()
    pair.ours.wait_for(lambda status: status["connection"] == "WFConnection", "the loss of its peer", 30)
    end(load)
    write(device, 20 << 20, os.urandom(9 * BLOCK))
    pair.boot_kernel()
    pair.compare_whole()


def end(load: subprocess.Popen[bytes]) -> None:
    load.terminate()
    load.wait()


@pytest.mark.parametrize("then", ["ours goes on", "the kernel goes on"])
def test_kill_9_of_ours_as_primary(make_pair: PairMaker, then: str) -> None:
    pair = make_pair()
    pair.start_in_sync()
    device = pair.ours.promote()
    load = pair.ours.load(device)
    pair.ours.kill()
    load.wait()
    pair.kernel.wait_for("cs:WFConnection")
    if then == "the kernel goes on":
        pair.kernel.run("drbdadm primary r0 && dd if=/dev/urandom of=/dev/drbd0 bs=64k count=9 oflag=direct 2>&1")
    pair.ours.start()
    pair.wait_in_sync()
    assert pair.ours.status()["resync_total_bytes"] > 0
    pair.compare_whole()


@pytest.mark.short
def test_kill_9_of_ours_as_secondary(make_pair: PairMaker) -> None:
    pair = make_pair()
    pair.start_in_sync()
    writes = promote(pair, "the kernel")
    pair.start_kernel_load()
    pair.ours.kill()
    pair.kernel.wait_for("cs:WFConnection")
    pair.end_kernel_load()
    writes(5000, 20)
    pair.ours.start()
    pair.compare_whole()


def test_both_lose_power_under_load(make_pair: PairMaker) -> None:
    pair = make_pair()
    pair.start_in_sync()
    pair.kernel.run("drbdadm primary r0")
    pair.start_kernel_load()
    pair.cut_power_of_kernel()
    pair.ours.kill()
    pair.ours.start()
    pair.boot_kernel()
    pair.compare_whole()


@pytest.mark.parametrize("source", ["ours", "the kernel"])
def test_crash_of_the_target_during_a_full_resync(make_pair: PairMaker, source: str) -> None:
    pair = make_pair(mirror='resync_rate = "6 MiB"\n', disk=("resync-rate 6M;",), ours_good=source == "ours")
    pair.start()
    pair.kernel.wait_for("cs:[A-Z]")
    if source == "ours":
        pair.kernel.wait_for("cs:SyncTarget")
        pair.cut_power_of_kernel()
        pair.ours.wait_for(lambda status: status["connection"] == "WFConnection", "the loss of its peer", 30)
        pair.boot_kernel()
    else:
        pair.kernel.wait_for("cs:Connected")
        pair.kernel.run("drbdadm primary --force r0")
        pair.kernel.wait_for("cs:SyncSource")
        pair.ours.kill()
        pair.kernel.wait_for("cs:WFConnection")
        pair.ours.start()
    pair.compare_whole()
