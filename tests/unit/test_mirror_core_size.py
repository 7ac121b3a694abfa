"""The option size: what both sides agree on, and what is refused."""

from __future__ import annotations

import pytest

from mirror_core_support import CURRENT, EXTENT, EXTENTS, FEATURES, GOOD, Bench
from relevo.config.drbd_options import DrbdOptions
from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.uuids import JUST_CREATED

DISK = EXTENTS * EXTENT
DISK_SECTORS = DISK // 512
SMALL = 3 * EXTENT


def limited(size_bytes: int) -> Bench:
    return Bench(options=DrbdOptions(ko_count=1, size_bytes=size_bytes))


def attach(bench: Bench, *, agreed_bytes: int) -> None:
    numbers = tuple(range(0x5000, 0x5000 + 8 * 0x10, 0x10))
    current = CURRENT if agreed_bytes else JUST_CREATED
    meta = e.MetaState(current, 0, 0, 0, GOOD, agreed_bytes // 512)
    bench.give(e.Attach(bench.now, meta, DISK, b"", (), 0, 0, numbers))
    bench.meta_done()


def meet(bench: Bench, *, user_bytes: int, current: int = JUST_CREATED) -> None:
    """A peer with a disk of the same size and a limit of its own."""
    bench.give(e.Connected(bench.now, FEATURES, resolve_conflicts=False))
    bench.packet(p.Protocol(3, 0, 0, 0, 0, 0, ""))
    bench.packet(p.Sizes(DISK_SECTORS, user_bytes // 512, 0, 1 << 20, 0, 0))
    bench.packet(p.Uuids(current, 0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("mine", "theirs", "agreed"),
    [
        (0, 0, DISK),
        (SMALL, 0, SMALL),
        (0, SMALL, SMALL),
        (SMALL, 2 * SMALL, SMALL),
        (2 * SMALL, SMALL, SMALL),
        (2 * DISK, 0, DISK),
        (SMALL + 512, 0, SMALL),
    ],
)
def test_the_smaller_limit_counts(mine: int, theirs: int, agreed: int) -> None:
    bench = limited(mine)
    attach(bench, agreed_bytes=0)
    meet(bench, user_bytes=theirs)
    (told,) = (packet for packet in bench.sent() if isinstance(packet, p.Sizes))
    assert told.user_sectors == mine // 512
    assert bench.status["size_bytes"] == agreed


def test_alone_its_own_limit_counts() -> None:
    bench = limited(SMALL)
    attach(bench, agreed_bytes=0)
    bench.promote(force=True)
    assert bench.status["size_bytes"] == SMALL
    write = bench.token()
    bench.give(e.AppWrite(bench.now, write, SMALL, 4096, "buffer"))
    assert bench.completed()[write], "outside of the device"


def test_a_mirror_in_use_is_never_made_smaller() -> None:
    bench = limited(SMALL)
    attach(bench, agreed_bytes=DISK)
    assert bench.status["disk"] == "Diskless"
    assert bench.status["problem"].startswith(
        "This side's option size (12.0 MiB) is smaller than the mirror (64.0 MiB)"
    )
    sentence = bench.status["problem"]
    meet(bench, user_bytes=0, current=CURRENT)
    bench.packet(p.StateWord(bench.core._s.state_word()))
    assert bench.status["connection"] == "Connected"
    assert bench.status["problem"] == sentence, "meeting the peer does not make it better"


def test_a_peer_with_a_smaller_limit_is_refused() -> None:
    bench = limited(0)
    attach(bench, agreed_bytes=DISK)
    meet(bench, user_bytes=SMALL, current=CURRENT)
    assert bench.status["problem"].startswith("The peer's option size (12.0 MiB)")
    assert bench.status["connection"] != "Connected"


def test_two_that_meet_grow_no_further_than_the_limit() -> None:
    bench = limited(2 * SMALL)
    attach(bench, agreed_bytes=SMALL)
    meet(bench, user_bytes=0, current=CURRENT)
    bench.meta_done()
    assert bench.status["size_bytes"] == 2 * SMALL


def test_resize_names_the_option() -> None:
    bench = limited(SMALL)
    attach(bench, agreed_bytes=SMALL)
    meet(bench, user_bytes=SMALL, current=CURRENT)
    bench.packet(p.StateWord(bench.core._s.state_word()))
    bench.meta_done()
    bench.promote()
    bench.give(e.Resize(bench.now, bench.token()))
    bench.give(e.DiskMeasured(bench.now, bench.one(e.MeasureDisk).token, 0, DISK))
    assert "The option size of this side limits the mirror to 12.0 MiB." in str(bench.one(e.CommandDone).error)
