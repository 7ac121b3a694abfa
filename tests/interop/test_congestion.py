"""Who cannot send any more goes ahead; the other one stays behind, is told what is missing, and gets it later."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

from kernel_pair import Pair
from test_roles import kernel_writes

from mirror_pair import run

PairMaker = Callable[..., Pair]


def test_pull_ahead(make_pair: PairMaker) -> None:
    pair = make_pair(protocol="A", net=("on-congestion pull-ahead;", "congestion-fill 400k;", "sndbuf-size 4M;"))
    pair.start_in_sync()
    pair.kernel.run("drbdadm primary r0")
    pair.slow("4mbit")
    pair.kernel.run("dd if=/dev/urandom of=/dev/drbd0 bs=64k count=100 oflag=direct 2>&1")
    pair.kernel.wait_for("cs:Ahead")
    status = pair.ours.wait_for(lambda status: status["connection"] == "Behind", "being behind", 40)
    assert status["disk"] == "Outdated"
    kernel_writes(pair, 4000, 50)
    pair.slow(None)
    pair.compare_whole()


def test_lost_while_behind(make_pair: PairMaker) -> None:
    pair = make_pair(protocol="A", net=("on-congestion pull-ahead;", "congestion-fill 400k;", "sndbuf-size 4M;"))
    pair.start_in_sync()
    pair.kernel.run("drbdadm primary r0")
    pair.slow("4mbit")
    pair.kernel.run("dd if=/dev/urandom of=/dev/drbd0 bs=64k count=100 oflag=direct 2>&1")
    pair.ours.wait_for(lambda status: status["connection"] == "Behind", "being behind", 40)
    pair.ours.kill()
    pair.slow(None)
    pair.kernel.wait_for("cs:WFConnection")
    pair.ours.start()
    pair.compare_whole()


OURS_PULLS = {"on_congestion": "pull-ahead", "congestion_fill_bytes": 400 << 10, "sndbuf_bytes": 4 << 20}


def test_ours_pulls_ahead(make_pair: PairMaker) -> None:
    pair = make_pair(protocol="A", options=OURS_PULLS)
    pair.start_in_sync()
    device = pair.ours.promote()
    pair.slow("4mbit")
    fill(device, 0, 100)
    assert pair.ours.status()["connection"] == "Ahead"
    pair.kernel.wait_for("cs:Behind")
    fill(device, 4 << 20, 50)
    pair.slow(None)
    pair.compare_whole()


def test_ours_is_lost_while_ahead(make_pair: PairMaker) -> None:
    pair = make_pair(protocol="A", options=OURS_PULLS)
    pair.start_in_sync()
    device = pair.ours.promote()
    pair.slow("4mbit")
    fill(device, 0, 100)
    pair.kernel.wait_for("cs:Behind")
    pair.ours.kill()
    pair.slow(None)
    pair.kernel.wait_for("cs:WFConnection")
    pair.ours.start()
    pair.compare_whole()


def fill(device: pathlib.Path, offset: int, chunks: int) -> None:
    """Random bytes in pieces of 64 KiB, past the cache."""
    where = (f"of={device}", "bs=64k", f"seek={offset >> 16}", f"count={chunks}", "oflag=direct")
    run("dd", "if=/dev/urandom", *where, "iflag=fullblock", limit_s=60)
