"""What a kernel as the peer does that two of ours do not: small writes, odd answers, going ahead."""

from __future__ import annotations

from typing import Any

import pytest

from mirror_core_support import BLOCK, Bench
from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.pace import UNBOUNDED_KIB
from relevo.mirror.states import CONN_MASK, DISK_MASK, ROLE_MASK, Connection, Disk, Role

FLAGS = int(p.DataFlag.SEND_WRITE_ACK)
SECTOR = 512


def peer_writes(bench: Bench, sector: int, size_bytes: int, block_id: int) -> None:
    bench.packet(p.Data(sector, block_id, block_id, FLAGS, size_bytes), object())


def secondary(**meeting: Any) -> Bench:
    """Attached and connected to a Primary."""
    bench = Bench().attach()
    bench.meet(role=Role.PRIMARY, **meeting)
    bench.meta_done()
    bench.effects.clear()
    return bench


def test_two_writes_within_one_block_go_one_after_the_other() -> None:
    bench = secondary()
    peer_writes(bench, 8, SECTOR, 1)
    peer_writes(bench, 9, SECTOR, 2)
    peer_writes(bench, 16, SECTOR, 3)
    first, other = bench.take(e.DiskWrite)
    assert [(write.offset, write.length) for write in (first, other)] == [(8 * SECTOR, SECTOR), (16 * SECTOR, SECTOR)]
    bench.done(first)
    second = bench.one(e.DiskWrite)
    assert (second.offset, second.length) == (9 * SECTOR, SECTOR)
    bench.done(second)
    acks = [(ack.sector, ack.size_bytes) for ack in bench.meta_sent() if isinstance(ack, p.WriteAck)]
    assert acks == [(8, SECTOR), (9, SECTOR)]


def test_a_write_that_made_its_blocks_equal_clears_just_them() -> None:
    bench = Bench().pair()
    bench.write(5, 2)
    bench.meta_done()
    (sent,) = [packet for packet in bench.sent() if isinstance(packet, p.Data)]
    with_bits = bench.core._s.bitmap
    with_bits.set_range(4, 9)
    bench.packet(p.ResyncWriteAck(sent.sector, sent.block_id, sent.size_bytes, 1))
    assert list(with_bits.runs()) == [(4, 5), (7, 9)]


def test_an_answer_for_another_range_than_that_of_the_write_ends_the_link() -> None:
    bench = Bench().pair()
    bench.write(5, 2)
    bench.meta_done()
    (sent,) = [packet for packet in bench.sent() if isinstance(packet, p.Data)]
    bench.packet(p.ResyncWriteAck(sent.sector + 8, sent.block_id, sent.size_bytes, 1))
    assert "another range" in bench.one(e.DropConnection).reason


@pytest.mark.parametrize(
    ("kind", "shift", "word"), [(p.WriteAck, 8, "another range"), (p.ReceiveAck, 0, "not that it is on disk")]
)
def test_an_answer_that_proves_nothing_completes_nothing(kind: type[p.BlockAck], shift: int, word: str) -> None:
    """Of another place than the write's; or, with protocol C, of its arrival."""
    bench = Bench().pair()
    bench.write(5)
    bench.meta_done()
    (sent,) = [packet for packet in bench.sent() if isinstance(packet, p.Data)]
    bench.done(bench.one(e.DiskWrite))
    bench.packet(kind(sent.sector + shift, sent.block_id, sent.size_bytes, 1))
    assert word in bench.one(e.DropConnection).reason
    assert bench.completed() == {}


def test_what_came_too_early_is_released_when_the_link_is_lost() -> None:
    bench = Bench().pair()
    bench.write(1)
    bench.give(e.Disconnected(bench.now, "cut"))  # the new generation is not stable yet: nothing is told
    bench.effects.clear()
    bench.give(e.Connected(bench.now, 0, resolve_conflicts=False))
    buffer = object()
    bench.packet(p.Data(0, 1, 1, FLAGS, BLOCK), buffer)
    assert not bench.take(e.ReleaseBuffer)
    bench.give(e.Disconnected(bench.now, "cut"))
    assert [effect.buffer for effect in bench.take(e.ReleaseBuffer)] == [buffer]


@pytest.mark.parametrize(("verify", "csums", "name"), [("sha1", "", "verify-alg"), ("", "md5", "csums-alg")])
def test_other_hashes_than_ours_are_named(verify: str, csums: str, name: str) -> None:
    bench = Bench().attach()
    bench.give(e.Connected(bench.now, 0, resolve_conflicts=False))
    bench.packet(p.Protocol(3, 0, 0, 0, 0, 0, ""))
    bench.packet(p.SyncParam(1, verify, csums, 0, 0, 0, 0))
    assert name in str(bench.core.status()["problem"])
    assert bench.core.status()["connection"] == "WFConnection"


def test_no_bound_on_the_rate_is_told_as_the_highest() -> None:
    bench = Bench().attach()
    bench.give(e.Connected(bench.now, 0, resolve_conflicts=False))
    (told,) = [packet for packet in bench.sent() if isinstance(packet, p.SyncParam)]
    assert (told.rate, told.c_max_rate) == (UNBOUNDED_KIB, UNBOUNDED_KIB)


def test_a_peer_that_leaves_gets_its_barriers_acknowledged_first() -> None:
    bench = secondary()
    peer_writes(bench, 8, BLOCK, 1)
    bench.packet(p.Barrier(1))
    bench.done(bench.one(e.DiskWrite))
    bench.packet(p.ConnStateChangeRequest(CONN_MASK, int(Connection.DISCONNECTING) << 4))
    assert not [packet for packet in bench.meta_sent() if isinstance(packet, p.ConnStateChangeReply)]
    bench.done(bench.one(e.DiskFlush))
    bench.meta_done()
    kinds = [type(packet) for packet in bench.meta_sent()]
    assert kinds == [p.BarrierAck, p.ConnStateChangeReply]


def behind() -> Bench:
    """The kernel has gone ahead."""
    bench = secondary()
    bench.peer_state(Role.PRIMARY, Disk.UP_TO_DATE, Connection.AHEAD)
    return bench


def test_behind_a_peer_this_copy_is_outdated() -> None:
    bench = behind()
    assert bench.one(e.WriteSuperblock).meta.flags & 0x10 == 0  # was-up-to-date
    assert (bench.core.status()["connection"], bench.core.status()["disk"]) == ("Behind", "Outdated")


def test_behind_a_peer_what_it_tells_is_pulled_when_it_comes_back() -> None:
    bench = behind()
    bench.meta_done()
    bench.packet(p.OutOfSync(8 * 3, 2 * BLOCK))
    bench.packet(p.SyncUuid(0x7770))
    assert not [packet for packet in bench.sent() if isinstance(packet, p.ResyncRequest)]
    bench.meta_done()  # Inconsistent, and the marks, are stable
    assert bench.core.status()["disk"] == "Inconsistent"
    (asked,) = [packet for packet in bench.sent() if isinstance(packet, p.ResyncRequest)]
    assert (asked.sector, asked.size_bytes) == (8 * 3, 2 * BLOCK)
    assert bench.core._s.uuids.current == 0x7770


def test_no_out_of_sync_while_connected() -> None:
    bench = secondary()
    bench.packet(p.OutOfSync(0, BLOCK))
    assert "OUT_OF_SYNC" in bench.one(e.DropConnection).reason


def test_the_end_of_a_resync_behind_takes_the_generation_that_the_source_has_now() -> None:
    """The source's generations changed since the handshake, by a resync in which it was the target."""
    bench = Bench().attach()
    bench.meet(uuids=(4, 0, 0, 0), disk=Disk.INCONSISTENT)
    bench.meta_done()
    bench.peer_bitmap()
    bench.meta_done()
    bench.core._s.bitmap.clear_all()
    bench.peer_state(Role.SECONDARY, Disk.UP_TO_DATE, Connection.CONNECTED)
    bench.meta_done()
    current = bench.core._s.uuids.current
    bench.peer_state(Role.PRIMARY, Disk.UP_TO_DATE, Connection.CONNECTED)
    bench.peer_state(Role.PRIMARY, Disk.UP_TO_DATE, Connection.AHEAD)
    bench.meta_done()
    bench.packet(p.SyncUuid(0x7770))
    bench.meta_done()
    bench.packet(p.PingAck())
    bench.meta_done()
    assert (bench.core.status()["connection"], bench.core._s.uuids.current) == ("Connected", current)


@pytest.mark.parametrize(
    ("mine", "mask", "value", "answer"),
    [
        (Disk.UP_TO_DATE, DISK_MASK, Disk.FAILED << 9, 1),
        (Disk.OUTDATED, DISK_MASK, Disk.FAILED << 9, -2),
        (Disk.OUTDATED, DISK_MASK | ROLE_MASK, Role.PRIMARY | Disk.UP_TO_DATE << 9, 1),
        (Disk.UP_TO_DATE, 1 << 17, 1 << 17, -17),
        (Disk.UP_TO_DATE, 0, 0, -17),
    ],
)
def test_what_the_peer_asks_for_is_answered(mine: Disk, mask: int, value: int, answer: int) -> None:
    bench = secondary()
    bench.core._s.disk = mine
    bench.packet(p.StateChangeRequest(mask, int(value)))
    (reply,) = [packet for packet in bench.meta_sent() if isinstance(packet, p.StateChangeReply)]
    assert reply.retcode == answer
    assert not bench.take(e.DropConnection)


def test_a_peer_that_was_forced_is_compared_with_again() -> None:
    bench = Bench().attach(flags=0)
    bench.meet(disk=Disk.INCONSISTENT)
    bench.meta_done()
    assert bench.core.status()["connection"] == "Connected"
    bench.packet(p.StateChangeRequest(DISK_MASK | ROLE_MASK, Role.PRIMARY | Disk.UP_TO_DATE << 9))
    bench.peer_state(Role.PRIMARY, Disk.UP_TO_DATE, Connection.CONNECTED)
    assert "compared again" in bench.one(e.DropConnection).reason
