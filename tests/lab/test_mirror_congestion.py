"""A network that cannot keep up, between two real processes: the Primary goes Ahead, and the peer catches up."""

from __future__ import annotations

import contextlib
import mmap
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Iterator

import pytest

from mirror_pair import Pair, Side, run

PULLS = 'protocol = "A"\non_congestion = "pull-ahead"\ncongestion_fill = "1 MiB"\nsndbuf = "8 MiB"\n'
CHUNK = 64 << 10
CHUNKS = 96
RATE = "8mbit"
SLOWEST_S = 3.0
"""With the peer in step, what is written would take twice as long at this rate."""


@pytest.fixture
def pair() -> Iterator[Pair]:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="mirror-ahead-", dir="/dev/shm"))
    with contextlib.ExitStack() as ends:
        ends.callback(shutil.rmtree, folder, ignore_errors=True)
        made = Pair(folder, mirror=PULLS)
        ends.callback(made.close)
        made.start()
        yield made


def slow(side: Side, rate: str | None) -> None:
    """Bound what this side can send; None: no bound."""
    tc = ("ip", "netns", "exec", side.namespace, "tc", "qdisc")
    if rate is None:
        run(*tc, "del", "dev", "eth1", "root")
    else:
        run(*tc, "replace", "dev", "eth1", "root", "tbf", "rate", rate, "burst", "16kb", "latency", "60s")


def write(device: pathlib.Path, data: bytes) -> float:
    """Write from the start on; how long it took."""
    fd = os.open(device, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
    with mmap.mmap(-1, len(data)) as memory:
        memory.write(data)
        view = memoryview(memory)
        began = time.monotonic()
        for at in range(0, len(data), CHUNK):
            os.pwrite(fd, view[at : at + CHUNK], at)
        took = time.monotonic() - began
        view.release()
    os.close(fd)
    return took


def test_a_slow_network_does_not_slow_the_application(pair: Pair) -> None:
    device = pair.one.promote()
    data = os.urandom(CHUNKS * CHUNK)
    slow(pair.one, RATE)
    took = write(device, data)
    ahead = pair.one.status()
    assert ahead["connection"] == "Ahead"
    assert ahead["peer_disk"] == "Outdated"
    assert ahead["out_of_sync_bytes"] > 0
    assert took < SLOWEST_S, took
    pair.two.wait_for(lambda status: status["connection"] == "Behind", "being behind")
    assert pair.two.status()["disk"] == "Outdated"
    slow(pair.one, None)
    pair.wait_in_sync(40)
    assert pair.one.data_bytes()[: len(data)] == data
    assert pair.one.data_bytes() == pair.two.data_bytes()
    assert pair.one.events("pulls_ahead")
