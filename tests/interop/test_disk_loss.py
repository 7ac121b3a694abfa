"""A Primary that loses its disk goes on through the other side, and takes a disk again while it runs."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable

import pytest
from kernel_pair import BLOCK, Pair
from test_roles import kernel_writes, write

from relevo.mirror.create import create_metadata

PairMaker = Callable[..., Pair]
THROUGH_S = 60.0


def read(device: pathlib.Path, offset: int, length: int) -> bytes:
    """What the device says, past the page cache."""
    fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(fd, length, offset)
    finally:
        os.close(fd)


@pytest.mark.short
@pytest.mark.parametrize("disk", ["the same disk", "a blank disk"])
def test_ours_without_its_disk(make_pair: PairMaker, disk: str) -> None:
    pair = make_pair()
    pair.start_in_sync()
    already = pair.ours.status()["resync_total_bytes"]
    device = pair.ours.promote()
    before = os.urandom(64 * BLOCK)
    write(device, 1 << 20, before)
    pair.ours.call("detach")
    pair.kernel.wait_for("ds:UpToDate/Diskless")
    assert pair.ours.status()["disk"] == "Diskless"
    assert read(device, 1 << 20, len(before)) == before, "through the kernel's copy"
    written = os.urandom(200 * BLOCK)
    write(device, 5 << 20, written)
    assert read(device, 5 << 20, len(written)) == written
    if disk == "a blank disk":
        create_metadata(pair.ours.disk, force=True)
    pair.ours.call("attach")
    write(device, 20 << 20, os.urandom(100 * BLOCK))
    pair.wait_in_sync(THROUGH_S)
    assert pair.ours.status()["role"] == "Primary"
    assert read(device, 5 << 20, len(written)) == written
    resynced = pair.ours.status()["resync_total_bytes"] - already
    assert (resynced < 16 << 20) == (disk == "the same disk"), resynced
    pair.compare_whole()


@pytest.mark.short
@pytest.mark.parametrize("disk", ["the same disk", "a blank disk"])
def test_the_kernel_without_its_disk(make_pair: PairMaker, disk: str) -> None:
    pair = make_pair()
    pair.start_in_sync()
    pair.kernel.run("drbdadm primary r0")
    kernel_writes(pair, 100, 64)
    pair.kernel.run("drbdadm detach --force r0")
    pair.ours.wait_for(lambda status: status["peer_disk"] == "Diskless", "the loss of the kernel's disk")
    pair.kernel.run(
        "dd if=/dev/urandom of=/tmp/data bs=64k count=20 2>/dev/null"
        " && dd if=/tmp/data of=/dev/drbd0 bs=64k seek=40 oflag=direct conv=fsync 2>&1"
        " && dd if=/dev/drbd0 of=/tmp/back bs=64k skip=40 count=20 iflag=direct 2>&1 && cmp /tmp/data /tmp/back"
    )
    if disk == "a blank disk":
        pair.kernel.run("drbdadm --force create-md r0")
    pair.kernel.run("drbdadm attach r0")
    pair.wait_in_sync(THROUGH_S)
    pair.kernel.run("dd if=/dev/drbd0 of=/tmp/back bs=64k skip=40 count=20 iflag=direct 2>&1; cmp /tmp/data /tmp/back")
    pair.compare_whole()


def test_the_secondarys_disk_goes_and_comes_again(make_pair: PairMaker) -> None:
    pair = make_pair()
    pair.start_in_sync()
    pair.kernel.run("drbdadm primary r0")
    pair.ours.call("detach")
    pair.kernel.wait_for("cs:Connected ro:Primary/Secondary ds:UpToDate/Diskless")
    kernel_writes(pair, 300, 64)
    pair.ours.call("attach")
    pair.wait_in_sync(THROUGH_S)
    pair.compare_whole()


@pytest.mark.parametrize("algorithm", ["sha1", "md5", "crc32c", "sha256"])
def test_digests_of_all_payloads(make_pair: PairMaker, algorithm: str) -> None:
    pair = make_pair(net=(f"data-integrity-alg {algorithm};",), options={"data_integrity_alg": algorithm})
    pair.start_in_sync()
    pair.kernel.run("drbdadm primary r0")
    kernel_writes(pair, 100, 300)
    pair.kernel.run("dd if=/dev/urandom of=/dev/drbd0 bs=1M seek=4 count=3 oflag=direct conv=fsync 2>&1")
    pair.kernel.run("drbdadm secondary r0")
    device = pair.ours.promote()
    write(device, 10 << 20, os.urandom(700 * BLOCK))
    pair.cut()
    pair.wait_lost()
    write(device, 20 << 20, os.urandom(50 * BLOCK))
    pair.heal()
    pair.compare_whole()


def test_digests_that_differ_are_refused_by_name(make_pair: PairMaker) -> None:
    pair = make_pair(net=("data-integrity-alg sha1;",), options={"data_integrity_alg": "md5"})
    pair.start()
    status = pair.ours.wait_for(lambda status: "data-integrity-alg" in str(status["problem"]), "the refusal", 30)
    assert "sha1" in status["problem"]
    assert "md5" in status["problem"]
