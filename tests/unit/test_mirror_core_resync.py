"""Pace, progress, verify, pauses and resyncs on demand: one test per promise."""

from __future__ import annotations

from typing import Any

import pytest

from mirror_core_support import BLOCK, CURRENT, EXTENT, EXTENTS, Bench
from relevo.config.drbd_options import DrbdOptions
from relevo.mirror import errors
from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.pace import GENTLE_RATE_BYTES, IDLE_WINDOW_BYTES, LEAST_WINDOW_BYTES, SLICE_MS, Limits, Pace
from relevo.mirror.progress import Progress
from relevo.mirror.states import CONN_MASK, Connection, Disk, Role
from relevo.mirror.verify import RECHECK_MS, REQUEST_BITS

MIB = 1 << 20
BITS = EXTENTS * EXTENT // BLOCK
DEFAULT = Limits.configured(DrbdOptions(), 0)


# ---------------------------------------------------------------- pace


def test_an_idle_server_is_asked_for_all_that_fits_on_the_way() -> None:
    pace = Pace(DEFAULT)
    pace.begin(0)
    assert pace.room(0) == IDLE_WINDOW_BYTES
    pace.asked(100 * MIB)
    assert pace.room(0) == IDLE_WINDOW_BYTES, "no bound on the rate: nothing is counted"


def slices(pace: Pace, count: int, *, answered: int, writes: bool, waits: bool, now: int = 0) -> int:
    for _ in range(count):
        now += SLICE_MS
        pace.answered(answered)
        if writes:
            pace.application(now, waits=waits)
        pace.next_slice(now)
    return now


def test_an_application_at_work_leaves_a_small_window_and_gets_it_back_over_the_plan() -> None:
    pace = Pace(DEFAULT)
    pace.begin(0)
    now = slices(pace, 3, answered=50 * MIB, writes=True, waits=False)
    assert pace.window_bytes == LEAST_WINDOW_BYTES
    now = slices(pace, 6, answered=MIB, writes=False, waits=False, now=now)
    assert LEAST_WINDOW_BYTES < pace.window_bytes < IDLE_WINDOW_BYTES
    slices(pace, DEFAULT.plan_ahead_ms // SLICE_MS, answered=MIB, writes=False, waits=False, now=now)
    assert pace.window_bytes == IDLE_WINDOW_BYTES


def asked_in_a_slice(pace: Pace) -> int:
    """How much is asked for in one slice when every answer comes at once."""
    asked = 0
    while (room := pace.room(0)) > 0 and asked < 256 * MIB:
        pace.asked(min(room, BLOCK * REQUEST_BITS))
        asked += min(room, BLOCK * REQUEST_BITS)
    return asked


def test_a_hard_working_application_gets_the_rate_down_but_never_below_the_least() -> None:
    limits = Limits.configured(DrbdOptions(c_min_rate_bytes=3 * MIB), 0)
    pace = Pace(limits)
    pace.begin(0)
    slices(pace, 100, answered=limits.min_rate_bytes * SLICE_MS // 1000, writes=True, waits=True)
    assert asked_in_a_slice(pace) == pytest.approx(3 * MIB * SLICE_MS / 1000, rel=0.1)


def test_a_tenth_of_the_best_rate_is_kept() -> None:
    pace = Pace(DEFAULT)
    pace.begin(0)
    now = slices(pace, 1, answered=100 * MIB, writes=False, waits=False)
    for _ in range(60):
        now = slices(pace, 1, answered=asked_in_a_slice(pace), writes=True, waits=True, now=now)
    assert asked_in_a_slice(pace) >= 9 * MIB


@pytest.mark.parametrize(
    ("options", "rate", "top"),
    [
        (DrbdOptions(c_max_rate_bytes=5 * MIB), 0, 5 * MIB),
        (DrbdOptions(), 7 * MIB, 7 * MIB),
        (DrbdOptions(c_plan_ahead_ms=0), 2 * MIB, 2 * MIB),
    ],
)
def test_the_upper_bound_holds_whatever_the_application_does(options: DrbdOptions, rate: int, top: int) -> None:
    pace = Pace(Limits.configured(options, rate))
    pace.begin(0)
    asked, now = 0, 0
    for _ in range(100):
        asked += asked_in_a_slice(pace)
        now = slices(pace, 1, answered=0, writes=False, waits=False, now=now)
    assert asked == pytest.approx(top * 100 * SLICE_MS / 1000, rel=0.15)


def test_without_a_plan_the_application_is_not_looked_at() -> None:
    pace = Pace(DEFAULT.fast())
    pace.begin(0)
    slices(pace, 10, answered=MIB, writes=True, waits=True)
    assert pace.room(0) == IDLE_WINDOW_BYTES


def test_gentle_bounds_and_both_survive_the_wire() -> None:
    assert DEFAULT.gentle().top_bytes == GENTLE_RATE_BYTES
    for limits in (DEFAULT, DEFAULT.fast(), DEFAULT.gentle()):
        heard = DEFAULT.heard(limits.said("", ""))
        assert (heard.top_bytes, heard.plan_ahead_ms) == (limits.top_bytes, limits.plan_ahead_ms)


# ---------------------------------------------------------------- progress


def test_the_time_left_follows_the_last_seconds() -> None:
    progress = Progress(BLOCK)
    progress.begin(0, 100_000)
    left = 100_000
    for second in range(1, 60):
        left -= 1000 if second < 30 else 100
        progress.note(second * 1000, left)
    status = progress.status(59_000, left)
    assert status["rate_bytes"] == 100 * BLOCK
    assert status["eta_ms"] == left * 10
    progress.pause(60_000, left)
    assert progress.status(60_000, left)["eta_ms"] is None, "nobody can tell"


# ---------------------------------------------------------------- verify


def verifying(**options: Any) -> Bench:
    """Two UpToDate copies; this side has begun to compare them."""
    bench = Bench(options=DrbdOptions(verify_alg="any", ko_count=1), **options).attach()
    bench.meet()
    bench.meta_done()
    bench.effects.clear()
    token = bench.token()
    bench.give(e.Verify(bench.now, token, 0, REQUEST_BITS * BLOCK))
    assert bench.sent() == [p.StateChangeRequest(CONN_MASK, Connection.VERIFY_S << 4)]
    bench.packet(p.StateChangeReply(1))
    assert bench.one(e.CommandDone).error is None
    assert bench.status["connection"] == "VerifyS"
    return bench


def answer(bench: Bench, request: p.Packet, mine: bytes, theirs: bytes) -> int:
    """The peer's digest and this side's; returns the result that is told."""
    assert isinstance(request, p.VerifyRequest)
    bench.packet(p.VerifyReply(request.sector, request.block_id, request.size_bytes, theirs))
    bench.done(bench.one(e.DiskDigest), 0, mine)
    (result,) = [packet for packet in bench.meta_sent() if isinstance(packet, p.VerifyResult)]
    return result.block_id


def requests(bench: Bench) -> list[p.Packet]:
    return [packet for packet in bench.sent() if isinstance(packet, p.VerifyRequest)]


def test_equal_copies_are_told_to_be_equal_and_the_verify_ends() -> None:
    bench = verifying()
    (request,) = requests(bench)
    assert answer(bench, request, b"same", b"same") == p.ID_IN_SYNC
    assert bench.status["connection"] == "Connected"
    assert bench.status["last_verify"]["blocks"] == 0


def test_a_block_that_differs_is_looked_at_again_before_it_is_reported() -> None:
    bench = verifying()
    (request,) = requests(bench)
    assert answer(bench, request, b"mine", b"theirs") == p.ID_IN_SYNC, "not proved yet"
    blocks = requests(bench)
    assert len(blocks) == REQUEST_BITS, "each block by itself"
    for block in blocks[1:]:
        bench.packet(p.VerifyReply(block.sector, block.block_id, block.size_bytes, b"same"))
    for effect in bench.take(e.DiskDigest):
        bench.done(effect, 0, b"same")
    bench.meta_sent()
    assert answer(bench, blocks[0], b"mine", b"theirs") == p.ID_IN_SYNC
    assert bench.status["out_of_sync_bytes"] == 0
    bench.tick(RECHECK_MS + SLICE_MS)
    (again,) = requests(bench)
    bench.meta_sent()
    assert answer(bench, again, b"mine", b"theirs") == p.ID_OUT_OF_SYNC
    assert bench.status["last_verify"]["sectors"] == [[0, 8]]
    assert bench.status["out_of_sync_bytes"] == BLOCK
    assert [effect.name for effect in bench.take(e.RunHandler)] == ["out-of-sync"]


def test_a_block_that_was_only_on_its_way_is_no_alarm() -> None:
    bench = verifying()
    (request,) = requests(bench)
    answer(bench, request, b"mine", b"theirs")
    for block in requests(bench):
        bench.packet(p.VerifyReply(block.sector, block.block_id, block.size_bytes, b"x"))
    first = bench.take(e.DiskDigest)
    for effect in first:
        bench.done(effect, 0, b"y" if effect is first[0] else b"x")
    bench.tick(RECHECK_MS + SLICE_MS)
    bench.meta_sent()
    (again,) = requests(bench)
    assert answer(bench, again, b"same", b"same") == p.ID_IN_SYNC
    assert bench.status["last_verify"]["blocks"] == 0
    assert not bench.take(e.RunHandler)


def test_the_application_stays_out_of_what_is_compared() -> None:
    bench = Bench(options=DrbdOptions(verify_alg="any", ko_count=1)).pair()
    bench.give(e.Verify(bench.now, bench.token(), 0, REQUEST_BITS * BLOCK))
    bench.packet(p.StateChangeReply(1))
    (request,) = requests(bench)
    bench.write(0)
    bench.meta_done()
    assert not bench.take(e.DiskWrite)
    answer(bench, request, b"same", b"same")
    bench.meta_done()
    assert bench.take(e.DiskWrite)


def test_without_an_algorithm_there_is_no_verify() -> None:
    bench = Bench().attach()
    bench.meet()
    bench.meta_done()
    bench.give(e.Verify(bench.now, bench.token()))
    assert isinstance(bench.one(e.CommandDone).error, errors.NoVerifyAlgorithm)
    bench.packet(p.StateChangeRequest(CONN_MASK, Connection.VERIFY_S << 4))
    assert p.StateChangeReply(-14) in bench.meta_sent()


# ---------------------------------------------------------------- on demand


def connected() -> Bench:
    bench = Bench().attach()
    bench.meet()
    bench.meta_done()
    bench.effects.clear()
    return bench


def test_a_copy_is_given_up_only_after_it_is_saved_and_the_peer_agrees() -> None:
    bench = connected()
    bench.give(e.Invalidate(bench.now, bench.token()))
    assert bench.status["disk"] == "UpToDate"
    bench.packet(p.StateChangeReply(1))
    assert bench.status["connection"] == "StartingSyncT"
    saving = bench.one(e.SaveTarget)
    assert (saving.reason, saving.required) == ("resync", False)
    bench.packet(p.SyncUuid(0x7700))  # the source may be quicker
    assert bench.status["disk"] == "UpToDate"
    bench.done(saving)
    assert bench.status["disk"] == "Inconsistent"
    bench.meta_done()
    assert bench.status["connection"] == "SyncTarget"
    assert bench.status["out_of_sync_bytes"] == EXTENTS * EXTENT


def test_a_snapshot_that_takes_too_long_does_not_stop_the_resync() -> None:
    bench = connected()
    bench.give(e.Invalidate(bench.now, bench.token()))
    bench.packet(p.StateChangeReply(1))
    saving = bench.one(e.SaveTarget)
    for _ in range(40):  # the peer is alive all the while
        bench.tick(1000)
        bench.packet(p.PingAck())
    assert bench.status["disk"] == "Inconsistent"
    bench.done(saving)
    assert bench.status["disk"] == "Inconsistent"


def test_a_refused_invalidate_changes_nothing() -> None:
    bench = connected()
    bench.give(e.Invalidate(bench.now, bench.token()))
    bench.packet(p.StateChangeReply(-2))
    assert isinstance(bench.one(e.CommandDone).error, errors.PeerRefused)
    assert bench.status["connection"] == "Connected"


def test_a_primary_goes_on_replicating_while_its_peers_copy_is_given_up() -> None:
    bench = Bench().pair()
    bench.give(e.Invalidate(bench.now, bench.token(), peer=True))
    bench.packet(p.StateChangeReply(1))
    assert bench.status["connection"] == "StartingSyncS"
    bench.sent()
    bench.write(3)
    bench.meta_done()
    assert [packet.sector for packet in bench.sent_data()] == [3 * 8]
    bench.meta_done()
    assert bench.status["connection"] == "SyncSource"


def test_a_link_lost_before_the_target_is_marked_may_have_left_a_good_copy_behind() -> None:
    bench = Bench(alone="ask").pair()
    bench.give(e.Invalidate(bench.now, bench.token(), peer=True))
    bench.packet(p.StateChangeReply(1))
    bench.meta_done()
    assert bench.status["connection"] == "SyncSource"
    bench.give(e.Disconnected(bench.now))
    assert bench.status["suspended"], "the peer may still be UpToDate on its disk"


def test_a_resync_is_paused_by_either_side() -> None:
    bench = Bench().attach()
    bench.meet(uuids=(CURRENT + 0x40, CURRENT, 0, 0))
    bench.peer_bitmap()
    bench.meta_done()
    bench.packet(p.SyncUuid(0x7700))
    bench.core._s.bitmap.set_range(0, 2000)
    bench.meta_done()
    assert bench.status["connection"] == "SyncTarget"
    bench.sent()
    bench.give(e.PauseResync(bench.now, bench.token(), paused=True))
    assert bench.status["connection"] == "PausedSyncT"
    assert bench.status["resync"]["paused_by"] == ["this side"]
    word = [packet.word for packet in bench.sent() if isinstance(packet, p.StateWord)][-1]
    assert word >> 20 & 1, "user_isp"
    bench.give(e.PauseResync(bench.now, bench.token(), paused=False))
    assert bench.status["connection"] == "SyncTarget"
    bench.packet(p.StateWord(1 << 20 | Role.SECONDARY | Connection.PAUSED_SYNC_S << 4 | Disk.UP_TO_DATE << 9))
    assert bench.status["resync"]["paused_by"] == ["the peer"]
