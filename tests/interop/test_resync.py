"""Verify, checksums, thin resync, pauses and full resyncs on demand, with the kernel's drbd on the other side."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

import pytest
from kernel_pair import BLOCK, Pair
from test_roles import kernel_writes, write

PairMaker = Callable[..., Pair]
VERIFY: dict[str, Any] = {"net": ("verify-alg sha1;",), "options": {"verify_alg": "sha1"}}
FLIPPED_BLOCK = 777


def flip(disk: pathlib.Path, offset: int) -> None:
    """One bit of a backing disk changes by itself."""
    fd = os.open(disk, os.O_RDWR | os.O_CLOEXEC)
    try:
        byte = os.pread(fd, 1, offset)
        os.pwrite(fd, bytes([byte[0] ^ 1]), offset)
        os.fsync(fd)
    finally:
        os.close(fd)


def marked_bytes(pair: Pair) -> tuple[int, int]:
    """What each side has marked as different."""
    pair.ours.wait_for(lambda status: status["connection"] == "Connected", "the end of the verify", 60)
    pair.kernel.wait_for("cs:Connected", 60)
    found = re.search(r"oos:(\d+)", pair.kernel.run("cat /proc/drbd"))
    assert found is not None
    return int(pair.ours.status()["out_of_sync_bytes"]), int(found[1]) << 10


@pytest.mark.parametrize("asks", [pytest.param("ours", marks=pytest.mark.short), "the kernel"])
@pytest.mark.parametrize("primary", ["ours", "the kernel"])
def test_verify_finds_a_flipped_byte_and_a_resync_mends_it(make_pair: PairMaker, asks: str, primary: str) -> None:
    pair = make_pair(**VERIFY)
    pair.start_in_sync()
    if primary == "ours":
        write(pair.ours.promote(), 0, os.urandom(64 * BLOCK))
        pair.kernel.run("sync")
    else:
        pair.kernel.run("drbdadm primary r0")
        kernel_writes(pair, 0, 64)
    flip(pair.ours.disk, FLIPPED_BLOCK * BLOCK + 100)
    if asks == "ours":
        pair.ours.call("verify")
    else:
        pair.kernel.run("drbdadm verify r0")
        pair.ours.wait_for(lambda status: status["last_verify"] is not None, "the end of the verify", 60)
    assert marked_bytes(pair) == (BLOCK, BLOCK)
    last = pair.ours.wait_for(lambda status: status["last_verify"] is not None, "the outcome", 10)["last_verify"]
    assert last["sectors"] == [[FLIPPED_BLOCK * 8, 8]]
    if primary == "ours":
        flip(pair.ours.disk, FLIPPED_BLOCK * BLOCK + 100)  # the Primary's copy counts: it has to be the right one
        pair.ours.call("resync")
    else:
        pair.kernel.run("drbdadm disconnect r0; drbdadm connect r0")
    pair.compare_whole()


def test_verify_under_load_finds_nothing(make_pair: PairMaker) -> None:
    pair = make_pair(**VERIFY)
    pair.start_in_sync()
    load = pair.ours.load(pair.ours.promote())
    try:
        pair.ours.call("verify")
        pair.ours.wait_for(lambda status: status["last_verify"] is not None, "the end of the verify", 100)
    finally:
        load.terminate()
        load.wait(20)
    assert pair.ours.status()["last_verify"]["blocks"] == 0
    assert marked_bytes(pair) == (0, 0)
    pair.compare_whole()


@pytest.mark.parametrize("target", ["the kernel", "ours"])
def test_checksums_spare_what_is_equal(make_pair: PairMaker, target: str) -> None:
    pair = make_pair(net=("csums-alg md5;",), options={"csums_alg": "md5"})
    pair.start_in_sync()
    if target == "the kernel":
        write(pair.ours.promote(), 0, os.urandom(64 * BLOCK))
        before = pair.ours.status()["counters"]["ns"]
        pair.ours.call("invalidate_remote")
        pair.wait_in_sync()
        moved = pair.ours.status()["counters"]["ns"] - before
    else:
        pair.kernel.run("drbdadm primary r0")
        kernel_writes(pair, 0, 64)
        before = pair.ours.status()["counters"]["nr"]
        pair.ours.call("invalidate")
        pair.wait_in_sync()
        moved = pair.ours.status()["counters"]["nr"] - before
    assert moved == 0
    assert pair.ours.status()["resync_total_bytes"] >= pair.ours.status()["size_bytes"]
    pair.compare_whole()


def test_a_thin_resync_to_ours_does_not_send_zeroes(make_pair: PairMaker) -> None:
    pair = make_pair(options={"rs_discard_granularity_bytes": 1 << 20})
    pair.start_in_sync()
    pair.kernel.run("drbdadm primary r0")
    kernel_writes(pair, 0, 64)
    before = pair.ours.status()["counters"]["nr"]
    pair.ours.call("invalidate")
    pair.wait_in_sync()
    assert pair.ours.status()["counters"]["nr"] - before <= 2 << 10
    pair.compare_whole()


@pytest.mark.parametrize("begins", ["ours", "the kernel"])
@pytest.mark.parametrize("target", ["ours", "the kernel"])
def test_all_of_a_copy_is_replaced_on_demand(make_pair: PairMaker, begins: str, target: str) -> None:
    pair = make_pair()
    pair.start_in_sync()
    if target == "the kernel":
        write(pair.ours.promote(), 0, os.urandom(64 * BLOCK))
    else:
        pair.kernel.run("drbdadm primary r0")
        kernel_writes(pair, 0, 64)
    before = pair.ours.status()["resync_total_bytes"]
    if begins == "ours":
        pair.ours.call("invalidate" if target == "ours" else "invalidate_remote")
    else:
        pair.kernel.run(f"drbdadm {'invalidate-remote' if target == 'ours' else 'invalidate'} r0")
    pair.ours.wait_for(lambda status: status["resync_total_bytes"] > before, "a resync", 30)
    pair.wait_in_sync()
    status = pair.ours.status()
    assert status["resync_total_bytes"] - before >= status["size_bytes"]
    pair.compare_whole()


@pytest.mark.parametrize("pauses", ["ours", "the kernel"])
@pytest.mark.parametrize("target", ["ours", "the kernel"])
def test_a_resync_pauses_and_goes_on(make_pair: PairMaker, pauses: str, target: str) -> None:
    slow = {"c_plan_ahead_ms": 0, "c_max_rate_bytes": 6 << 20}
    pair = make_pair(mirror='resync_rate = "6 MiB"\n', options=slow, disk=("resync-rate 6M;",))
    pair.start_in_sync()
    pair.ours.call("invalidate" if target == "ours" else "invalidate_remote")
    role = "T" if target == "ours" else "S"
    if pauses == "ours":
        pair.ours.call("pause_sync")
    else:
        pair.kernel.run("drbdadm pause-sync r0")
    pair.ours.wait_for(lambda status: status["connection"] == f"PausedSync{role}", "a paused resync", 30)
    pair.kernel.wait_for("cs:PausedSync")
    assert pair.ours.status()["resync"]["paused_by"] == ["this side" if pauses == "ours" else "the peer"]
    if pauses == "ours":
        pair.ours.call("resume_sync")
    else:
        pair.kernel.run("drbdadm resume-sync r0")
    pair.ours.call("resync_speed", speed="fast")
    pair.compare_whole()
