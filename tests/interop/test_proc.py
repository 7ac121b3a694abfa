"""`relevo mirror proc` beside the kernel's /proc/drbd: the two ends of one mirror tell the same story."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import pytest
from kernel_pair import Pair

from relevo.cli.drbdadm.procfs import proc_text

PairMaker = Callable[..., Pair]
STATE = re.compile(r" 0: cs:(\w+) ro:(\w+)/(\w+) ds:(\w+)/(\w+) (.) (......)\n +(.*)\n((?:\t.*\n)*)")
PROGRESS = re.compile(
    r"\t\[=*>\.*\] sync'ed: *[\d.]+% \(\d+/(\d+)\)K\n\tfinish: \d+:\d\d:\d\d speed: [\d,]+ \([\d,]+\)"
)
WRITTEN_BYTES = 400 << 10


def told(text: str) -> tuple[dict[str, str], str]:
    """The fields of a text, and the lines of its progress."""
    found = STATE.search(text)
    assert found is not None, text
    names = ("cs", "role", "peer", "disk", "peer_disk", "protocol", "flags")
    counters = dict(word.split(":") for word in found[8].split())
    return {**dict(zip(names, found.groups()[:7], strict=True)), **counters}, found[9]


def ours(pair: Pair) -> tuple[dict[str, str], str]:
    return told(proc_text([(0, "C", pair.ours.status())]))


def kernels(pair: Pair) -> tuple[dict[str, str], str]:
    return told(pair.kernel.run("cat /proc/drbd") + "\n")


@pytest.mark.short
def test_both_ends_tell_the_same(make_pair: PairMaker) -> None:
    pair = make_pair()
    pair.start_in_sync()
    before, _ = ours(pair), kernels(pair)
    device = pair.ours.promote()
    fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.pwrite(fd, os.urandom(WRITTEN_BYTES), 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    (mine, progress), (theirs, their_progress) = ours(pair), kernels(pair)
    assert list(mine) == list(theirs)
    assert progress == their_progress == ""
    assert (mine["cs"], mine["protocol"], mine["flags"]) == (theirs["cs"], theirs["protocol"], theirs["flags"])
    assert (mine["role"], mine["peer"]) == (theirs["peer"], theirs["role"]) == ("Primary", "Secondary")
    assert (mine["disk"], mine["peer_disk"]) == (theirs["peer_disk"], theirs["disk"])
    sent = int(mine["ns"]) - int(before[0]["ns"])
    assert sent >= WRITTEN_BYTES >> 10
    assert mine["ns"] == theirs["nr"]
    assert int(mine["dw"]) - int(before[0]["dw"]) == sent
    assert mine["oos"] == theirs["oos"] == "0"


def test_a_resync_is_told_alike(make_pair: PairMaker) -> None:
    pair = make_pair(disk=("c-plan-ahead 0;", "resync-rate 2M;"), mirror='resync_rate = "2 MiB"\n', ours_good=False)
    pair.start()
    pair.kernel.wait_for("cs:Connected")
    pair.kernel.run("drbdadm primary --force r0")
    pair.ours.wait_for(lambda status: status["connection"] == "SyncTarget", "a resync")
    (mine, progress), (theirs, their_progress) = ours(pair), kernels(pair)
    assert (mine["cs"], theirs["cs"]) == ("SyncTarget", "SyncSource")
    assert (mine["disk"], mine["peer_disk"]) == (theirs["peer_disk"], theirs["disk"]) == ("Inconsistent", "UpToDate")
    seen, expected = PROGRESS.match(progress), PROGRESS.match(their_progress)
    assert seen is not None, progress
    assert expected is not None, their_progress
    assert seen[1] == expected[1]
