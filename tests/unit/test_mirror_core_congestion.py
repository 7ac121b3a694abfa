"""on-congestion: a Primary that would have to wait for a slow peer goes Ahead, or leaves."""

from __future__ import annotations

from typing import Any

import pytest

from mirror_core_support import BLOCK, Bench
from relevo.config.drbd_options import DrbdOptions
from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.congestion import CATCH_UP_MS
from relevo.mirror.states import Connection, Disk, Role, State

FILL_BLOCKS = 4


def congested(**options: Any) -> Bench:
    """A Primary with protocol A to which as much is on its way as the option allows."""
    options = {"on_congestion": "pull-ahead", "congestion_fill_bytes": FILL_BLOCKS * BLOCK, **options}
    bench = Bench(ping_timeout_ms=60_000, options=DrbdOptions(protocol="A", ko_count=1, **options))
    bench.pair(protocol=1)
    write_sent(bench, 0)
    for block in range(1, FILL_BLOCKS):
        write_sent(bench, block)
    return bench


def write_sent(bench: Bench, block: int) -> None:
    """A write that is on the disk here and out of this process."""
    bench.write(block)
    bench.meta_done()
    for effect in bench.take(e.DiskWrite):
        bench.done(effect)
    for effect in [effect for effect in bench.effects if isinstance(effect, e.SendData) and effect.token is not None]:
        bench.give(e.Sent(bench.now, effect.token))


def acknowledge(bench: Bench, packets: list[p.Packet]) -> None:
    """The peer has all of it on its disk."""
    size = 0
    for packet in packets:
        if isinstance(packet, p.Data):
            size += 1
        elif isinstance(packet, p.Barrier):
            bench.packet(p.BarrierAck(packet.number, size))
            size = 0
    assert not size, "an epoch was left open"


def test_a_full_link_is_pulled_ahead_of_and_caught_up_with() -> None:
    bench = congested()
    before = bench.sent()
    assert bench.status["connection"] == "Connected"
    write_sent(bench, 100)
    assert bench.completed()
    after = bench.sent()
    assert bench.status["connection"] == "Ahead"
    assert bench.status["peer_disk"] == "Outdated"
    assert not [packet for packet in after if isinstance(packet, p.Data)]
    (word,) = [State.unpack(packet.word) for packet in after if isinstance(packet, p.StateWord)]
    assert (word.conn, word.disk) == (Connection.AHEAD, Disk.UP_TO_DATE)
    kinds = [type(packet) for packet in after]
    assert kinds.index(p.StateWord) < kinds.index(p.OutOfSync)
    (told,) = [packet for packet in after if isinstance(packet, p.OutOfSync)]
    assert (told.sector, told.size_bytes) == (100 * 8, BLOCK)
    assert bench.status["out_of_sync_bytes"] == BLOCK

    bench.tick(5 * CATCH_UP_MS // 10)
    assert bench.status["connection"] == "Ahead", "something is on its way still"
    acknowledge(bench, before + after)
    bench.tick(CATCH_UP_MS + 10)
    assert bench.status["connection"] == "Ahead", "the generation of the resync is told when it is stable"
    bench.meta_done()
    assert bench.status["connection"] == "SyncSource"
    (sync,) = [packet for packet in bench.sent() if isinstance(packet, p.SyncUuid)]
    assert f"{sync.uuid:016x}" == bench.status["bitmap_uuid"]
    bench.peer_state(Role.SECONDARY, Disk.INCONSISTENT, Connection.SYNC_TARGET)
    bench.packet(p.ResyncRequest(100 * 8, p.SYNCER_ID, BLOCK))
    bench.done(bench.one(e.DiskRead), 0, "found")
    bench.packet(p.ResyncWriteAck(100 * 8, p.SYNCER_ID, BLOCK, 0))
    bench.peer_state(Role.SECONDARY, Disk.UP_TO_DATE, Connection.CONNECTED)
    bench.meta_done()
    assert bench.status["connection"] == "Connected"
    assert bench.status["out_of_sync_bytes"] == 0


def test_a_flush_waits_for_what_was_sent_before() -> None:
    bench = congested()
    before = bench.sent()
    write_sent(bench, 100)
    flush = bench.flush()
    bench.done(bench.one(e.DiskFlush))
    assert flush not in bench.completed()
    acknowledge(bench, before + bench.sent())
    assert flush in bench.completed()


def test_a_link_lost_while_ahead_is_the_loss_of_a_good_copy() -> None:
    bench = congested()
    write_sent(bench, 100)
    bench.completed()
    bench.give(e.Disconnected(bench.now))
    bench.meta_done()
    assert bench.status["suspended"], "permission to go on alone is awaited"


def test_what_is_acknowledged_is_not_under_way_any_more() -> None:
    bench = congested()
    bench.flush()
    acknowledge(bench, bench.sent())
    write_sent(bench, 100)
    assert bench.status["connection"] == "Connected"


def test_the_activity_log_may_be_the_limit() -> None:
    bench = congested(congestion_fill_bytes=0, congestion_extents=3)
    write_sent(bench, 1024)
    assert bench.status["connection"] == "Connected"
    write_sent(bench, 2048)
    assert bench.status["connection"] == "Ahead"


def test_disconnect_leaves_the_peer() -> None:
    bench = congested(on_congestion="disconnect")
    write_sent(bench, 100)
    assert "congestion-fill" in bench.one(e.DropConnection).reason
    assert bench.status["connection"] == "StandAlone"
    assert not bench.one(e.WantConnection).wanted


@pytest.mark.parametrize(("protocol", "number"), [("B", 2), ("C", 3)])
def test_with_the_other_protocols_nobody_goes_ahead(protocol: Any, number: int) -> None:
    options = DrbdOptions(protocol=protocol, ko_count=1, on_congestion="pull-ahead", congestion_fill_bytes=BLOCK)
    bench = Bench(options=options).pair(protocol=number)
    for block in range(5):
        bench.write(block)
        bench.meta_done()
    assert bench.status["connection"] == "Connected"
    assert len(bench.sent_data()) == 5
