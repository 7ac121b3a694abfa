"""A kernel whose send buffer is full goes ahead of us; we stay behind, are told what is missing, and get it later."""

from __future__ import annotations

from collections.abc import Callable

from kernel_pair import Pair
from test_roles import kernel_writes

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
