"""What the administrator of the kernel's side does while both are connected."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from kernel_pair import BLOCK, Pair
from test_roles import kernel_writes, write

from relevo.base.control import Refused

PairMaker = Callable[..., Pair]


def test_detach_and_attach_of_the_kernels_disk(make_pair: PairMaker) -> None:
    pair = make_pair()
    pair.start_in_sync()
    device = pair.ours.promote()
    write(device, 0, os.urandom(9 * BLOCK))
    pair.kernel.run("drbdadm detach r0")
    pair.ours.wait_for(lambda status: status["peer_disk"] == "Diskless", "the peer without its disk", 30)
    write(device, 100 * BLOCK, os.urandom(9 * BLOCK))
    pair.kernel.run("drbdadm attach r0")
    pair.compare_whole()


def test_a_diskless_kernel_as_primary_reads_and_writes_through_ours(make_pair: PairMaker) -> None:
    pair = make_pair()
    pair.start_in_sync()
    pair.kernel.run("drbdadm primary r0")
    kernel_writes(pair, 0, 64)
    before = pair.kernel.run("dd if=/dev/drbd0 bs=512 skip=3 count=300 iflag=direct 2>/dev/null | md5sum")
    pair.kernel.run("drbdadm detach r0")
    pair.ours.wait_for(lambda status: status["peer_disk"] == "Diskless", "the peer without its disk", 30)
    assert pair.kernel.run("dd if=/dev/drbd0 bs=512 skip=3 count=300 iflag=direct 2>/dev/null | md5sum") == before
    kernel_writes(pair, 500, 64)
    pair.kernel.run("dd if=/dev/urandom of=/dev/drbd0 bs=512 seek=9001 count=5 oflag=direct 2>&1")
    pair.kernel.run("drbdadm attach r0")
    pair.compare_whole()


def test_the_kernel_is_primary_while_it_is_the_target(make_pair: PairMaker) -> None:
    pair = make_pair(mirror='resync_rate = "6 MiB"\n', options={"c_plan_ahead_ms": 0, "c_max_rate_bytes": 6 << 20})
    pair.start()
    pair.kernel.wait_for("cs:SyncTarget")
    pair.kernel.run("drbdadm primary r0")
    for place in range(0, 11000, 1500):
        kernel_writes(pair, place, 5)
    pair.kernel.run("dd if=/dev/drbd0 of=/dev/null bs=1M count=30 iflag=direct 2>&1")
    pair.compare_whole()


@pytest.mark.parametrize("command", ["invalidate", "invalidate-remote"])
def test_full_resync_asked_for(make_pair: PairMaker, command: str) -> None:
    pair = make_pair()
    pair.start_in_sync()
    before = pair.ours.status()["resync_total_bytes"]
    pair.kernel.run(f"drbdadm {command} r0")
    pair.wait_in_sync()
    pair.ours.wait_for(lambda status: status["resync_total_bytes"] - before >= status["size_bytes"], "a full resync")
    pair.compare_whole()


def test_pause_and_resume_of_a_resync(make_pair: PairMaker) -> None:
    pair = make_pair(ours_good=False, mirror='resync_rate = "6 MiB"\n')
    pair.start()
    pair.kernel.wait_for("cs:Connected")
    pair.kernel.run("drbdadm primary --force r0")
    pair.ours.wait_for(lambda status: status["connection"] == "SyncTarget", "the resync")
    pair.kernel.run("drbdadm pause-sync r0")
    pair.kernel.wait_for("cs:PausedSyncS")
    pair.ours.wait_for(lambda status: status["connection"] == "PausedSyncT", "the pause")
    pair.kernel.run("drbdadm resume-sync r0")
    pair.compare_whole()


def test_settings_changed_while_connected(make_pair: PairMaker) -> None:
    """What changes the speed only is taken; what both have to agree on ends the link with a sentence."""
    pair = make_pair()
    pair.start_in_sync()
    pair.configure_kernel(disk=("c-max-rate 300M;",), net=("max-buffers 4000;",))
    pair.kernel.run("drbdadm adjust r0")
    pair.kernel.run("drbdadm primary r0")
    kernel_writes(pair, 0, 64)
    pair.compare_whole()


def test_a_connected_copy_is_outdated_by_neither(make_pair: PairMaker) -> None:
    """The kernel says yes and does nothing; ours says no, for who asks would rely on it."""
    pair = make_pair()
    pair.start_in_sync()
    assert pair.kernel.call("drbdadm outdate r0")[0] == 0
    assert pair.kernel.drbd().in_sync
    with pytest.raises(Refused) as refused:
        pair.ours.call("outdate")
    assert refused.value.error == "ConnectedOutdates"
    assert pair.ours.status()["disk"] == "UpToDate"
    pair.compare_whole()


@pytest.mark.parametrize("role", ["Primary", "Secondary"])
def test_ours_leaves_the_cluster_and_comes_back(make_pair: PairMaker, role: str) -> None:
    pair = make_pair()
    pair.start_in_sync()
    if role == "Primary":
        pair.kernel.run("drbdadm primary r0")
    pair.ours.call("leave")
    assert (pair.ours.status()["disk"], pair.ours.status()["connection"]) == ("Outdated", "StandAlone")
    found = pair.kernel.wait_for("cs:WFConnection")
    assert (found.disk, found.peer_disk) == ("UpToDate", "Outdated" if role == "Primary" else "DUnknown")
    if role == "Secondary":
        pair.kernel.run("drbdadm primary r0")
    kernel_writes(pair, 0, 64)
    pair.ours.call("connect")
    pair.wait_in_sync()
    assert not pair.ours.status()["left"]
    pair.compare_whole()
