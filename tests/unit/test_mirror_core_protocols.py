"""Protocols A, B and C on both sides; what both sides have to be configured alike; discards, zeroes and write-same."""

from __future__ import annotations

from typing import Any

import pytest

from mirror_core_support import BLOCK, EXTENT, FEATURES, Bench
from relevo.config.drbd_options import DrbdOptions
from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.states import Role

ANSWER = {"A": 0, "B": p.DataFlag.SEND_RECEIVE_ACK, "C": p.DataFlag.SEND_WRITE_ACK}
NUMBER = {"A": 1, "B": 2, "C": 3}
ZEROES = FEATURES | p.Feature.WZEROES


def _bench(protocol: Any, **options: Any) -> Bench:
    return Bench(options=DrbdOptions(protocol=protocol, **options)).pair(protocol=NUMBER[protocol])


def _secondary(**settings: Any) -> Bench:
    bench = Bench(**settings).attach()
    bench.meet(role=Role.PRIMARY)
    bench.meta_done()
    bench.effects.clear()
    return bench


def _answers(bench: Bench) -> list[type[p.Packet]]:
    return [type(packet) for packet in bench.meta_sent() if isinstance(packet, p.BlockAck)]


# ---------------------------------------------------------------- as Primary


@pytest.mark.parametrize("protocol", ["A", "B", "C"])
def test_a_write_asks_for_the_answer_of_its_protocol(protocol: str) -> None:
    bench = _bench(protocol)
    bench.write(5)
    bench.meta_done()
    flags = bench.sent_data()[0].flags
    assert flags & (p.DataFlag.SEND_RECEIVE_ACK | p.DataFlag.SEND_WRITE_ACK) == ANSWER[protocol]


def test_with_a_a_write_is_complete_when_it_is_on_the_disk_and_on_its_way() -> None:
    bench = _bench("A")
    token = bench.write(5)
    bench.meta_done()
    (sending,) = (effect for effect in bench.take(e.SendData) if isinstance(effect.packet, p.Data))
    bench.done(bench.one(e.DiskWrite))
    assert bench.completed() == {}
    bench.give(e.Sent(bench.now, sending.token))
    assert bench.completed() == {token: 0}
    assert any(isinstance(packet, p.Barrier) for packet in bench.sent())


def test_with_b_a_write_is_complete_when_the_peer_has_received_it() -> None:
    bench = _bench("B")
    token = bench.write(5)
    bench.meta_done()
    data = bench.sent_data()[0]
    bench.done(bench.one(e.DiskWrite))
    assert bench.completed() == {}
    bench.packet(p.ReceiveAck(data.sector, data.block_id, data.size_bytes, 0))
    assert bench.completed() == {token: 0}


@pytest.mark.parametrize("protocol", ["A", "B"])
def test_a_flush_waits_for_the_peers_disk_with_every_protocol(protocol: str) -> None:
    bench = _bench(protocol)
    bench.write(5)
    bench.meta_done()
    (sending,) = (effect for effect in bench.take(e.SendData) if isinstance(effect.packet, p.Data))
    bench.done(bench.one(e.DiskWrite))
    if protocol == "A":
        bench.give(e.Sent(bench.now, sending.token))
    else:
        bench.packet(p.ReceiveAck(sending.packet.sector, sending.packet.block_id, BLOCK, 0))
    (barrier,) = (packet for packet in bench.sent() if isinstance(packet, p.Barrier))
    bench.completed()
    token = bench.flush()
    bench.done(bench.one(e.DiskFlush))
    assert bench.completed() == {}
    bench.packet(p.BarrierAck(barrier.number, 1))
    assert bench.completed() == {token: 0}


@pytest.mark.parametrize("protocol", ["A", "B"])
def test_what_the_peers_disk_may_not_have_is_marked_when_the_link_is_lost(protocol: Any) -> None:
    bench = Bench(alone="risk", options=DrbdOptions(protocol=protocol)).pair(protocol=NUMBER[protocol])
    bench.write(5)
    bench.meta_done()
    (sending,) = (effect for effect in bench.take(e.SendData) if isinstance(effect.packet, p.Data))
    bench.done(bench.one(e.DiskWrite))
    if protocol == "A":
        bench.give(e.Sent(bench.now, sending.token))
    else:
        bench.packet(p.ReceiveAck(sending.packet.sector, sending.packet.block_id, BLOCK, 0))
    bench.give(e.Disconnected(bench.now))
    assert bench.status["out_of_sync_bytes"] == BLOCK


def test_a_note_of_a_link_that_is_lost_means_nothing() -> None:
    bench = Bench(alone="risk", options=DrbdOptions(protocol="A")).pair(protocol=1)
    token = bench.write(5)
    bench.meta_done()
    (sending,) = (effect for effect in bench.take(e.SendData) if isinstance(effect.packet, p.Data))
    bench.give(e.Disconnected(bench.now))
    bench.meta_done()
    bench.done(bench.one(e.DiskWrite))
    assert bench.completed() == {token: 0}
    bench.give(e.Sent(bench.now, sending.token))
    assert bench.completed() == {}


@pytest.mark.parametrize("protocol", ["A", "B"])
def test_overlapping_writes_are_kept_apart_by_an_epoch_where_the_peers_disk_is_not_waited_for(protocol: str) -> None:
    bench = _bench(protocol)
    bench.write(5)
    bench.write(5)
    bench.meta_done()
    (sending,) = (effect for effect in bench.take(e.SendData) if isinstance(effect.packet, p.Data))
    bench.done(bench.one(e.DiskWrite))
    if protocol == "A":
        bench.give(e.Sent(bench.now, sending.token))
    else:
        bench.packet(p.ReceiveAck(sending.packet.sector, sending.packet.block_id, BLOCK, 0))
    kinds = [type(packet) for packet in bench.sent()]
    assert kinds.index(p.Barrier) < kinds.index(p.Data)


def test_an_epoch_has_no_more_writes_than_configured() -> None:
    bench = _bench("C", max_epoch_size=2)
    for block in range(5):
        bench.write(block)
    bench.meta_done()
    kinds = [type(packet) for packet in bench.sent() if isinstance(packet, p.Data | p.Barrier)]
    assert kinds == [p.Data, p.Data, p.Barrier, p.Data, p.Data, p.Barrier, p.Data]


# ---------------------------------------------------------------- as Secondary: the packet decides


def test_the_peers_flags_say_which_answers_it_gets() -> None:
    bench = _secondary()
    both = int(p.DataFlag.SEND_RECEIVE_ACK | p.DataFlag.SEND_WRITE_ACK)
    for number, (flags, received, written) in enumerate(
        [
            (0, [], []),
            (int(p.DataFlag.SEND_RECEIVE_ACK), [p.ReceiveAck], []),
            (int(p.DataFlag.SEND_WRITE_ACK), [], [p.WriteAck]),
            (both, [p.ReceiveAck], [p.WriteAck]),
        ]
    ):
        bench.packet(p.Data(number * 8, number + 1, number, flags, BLOCK), object())
        assert _answers(bench) == received
        bench.done(bench.one(e.DiskWrite))
        assert _answers(bench) == written


def test_an_epoch_with_a_write_that_the_disk_refused_is_never_acknowledged() -> None:
    bench = _secondary()
    bench.packet(p.Data(8, 1, 1, int(p.DataFlag.SEND_RECEIVE_ACK), BLOCK), object())
    bench.packet(p.Barrier(7))
    bench.done(bench.one(e.DiskWrite), errno=5)
    bench.packet(p.UnplugRemote())
    bench.all_done()
    bench.tick(200)
    bench.all_done()
    sent = bench.meta_sent()
    assert any(isinstance(packet, p.NegAck) for packet in sent)
    assert not any(isinstance(packet, p.BarrierAck) for packet in sent)


# ---------------------------------------------------------------- both sides alike


@pytest.mark.parametrize(
    ("peer", "names"),
    [({"protocol": 1}, ("protocol A", "protocol C")), ({"integrity": "md5"}, ("md5", "none"))],
)
def test_another_configuration_is_refused_in_a_sentence_that_names_the_difference(
    peer: dict[str, Any], names: tuple[str, str]
) -> None:
    bench = Bench().attach()
    bench.meet(**peer)
    assert all(name in bench.status["problem"] for name in names)
    assert not [effect for effect in bench.effects if isinstance(effect, e.WantConnection) and not effect.wanted]


def test_the_same_digest_on_both_sides_is_told_and_taken() -> None:
    bench = Bench(options=DrbdOptions(data_integrity_alg="crc32c")).attach()
    bench.meet(integrity="crc32c")
    (told,) = (packet for packet in bench.sent() if isinstance(packet, p.Protocol))
    assert told.integrity_alg == "crc32c"
    bench.meta_done()
    assert bench.status["connection"] == "Connected"


# ---------------------------------------------------------------- without payload


@pytest.mark.parametrize(
    ("features", "unmap", "kind", "flags"),
    [
        (FEATURES, True, p.Trim, p.DataFlag.DISCARD),
        (FEATURES, False, p.Trim, p.DataFlag.DISCARD),
        (ZEROES, True, p.Zeroes, p.DataFlag.DISCARD | p.DataFlag.ZEROES),
        (ZEROES, False, p.Zeroes, p.DataFlag.ZEROES),
    ],
)
def test_a_discard_goes_as_what_the_peer_reads_back_as_zeroes(
    features: int, unmap: bool, kind: type[p.Trim | p.Zeroes], flags: int
) -> None:
    bench = Bench().pair(features=features)
    bench.give(e.AppDiscard(bench.now, bench.token(), 8 * BLOCK, 2 * BLOCK, unmap))
    bench.meta_done()
    (packet,) = (packet for packet in bench.sent() if isinstance(packet, p.Trim | p.Zeroes))
    assert (type(packet), packet.flags) == (kind, flags | p.DataFlag.SEND_WRITE_ACK)
    assert bench.one(e.DiskDiscard).unmap == unmap


def test_a_discard_is_refused_where_the_peer_knows_no_packet_for_it() -> None:
    bench = Bench().pair(features=0)
    token = bench.token()
    bench.give(e.AppDiscard(bench.now, token, 0, EXTENT))
    assert bench.completed() == {token: 95}


def test_the_peers_discards_and_zeroes_are_carried_out_and_acknowledged() -> None:
    bench = _secondary()
    ack = int(p.DataFlag.SEND_WRITE_ACK)
    found = []
    for number, packet in enumerate(
        [
            p.Trim(0, 1, 1, ack | p.DataFlag.DISCARD, EXTENT),
            p.Zeroes(8192, 2, 2, ack | p.DataFlag.ZEROES, BLOCK),
            p.Zeroes(8200, 3, 3, ack | p.DataFlag.ZEROES | p.DataFlag.DISCARD, BLOCK),
        ]
    ):
        bench.packet(packet)
        effect = bench.one(e.DiskDiscard)
        found.append((effect.offset, effect.length, effect.unmap))
        bench.done(effect)
        (answer,) = bench.meta_sent()
        assert (type(answer), answer.block_id, answer.size_bytes) == (p.WriteAck, number + 1, packet.size_bytes)
    assert found == [(0, EXTENT, True), (EXTENT, BLOCK, False), (EXTENT + BLOCK, BLOCK, True)]


def test_the_peers_write_same_fills_the_range() -> None:
    bench = _secondary()
    bench.packet(p.WriteSame(16, 9, 1, int(p.DataFlag.SEND_WRITE_ACK), 8 * BLOCK, 512), "pattern")
    effect = bench.one(e.DiskWriteSame)
    assert (effect.offset, effect.length, effect.buffer) == (2 * BLOCK, 8 * BLOCK, "pattern")
    bench.done(effect)
    assert [type(packet) for packet in bench.meta_sent()] == [p.WriteAck]
    assert bench.one(e.ReleaseBuffer).buffer == "pattern"


# ---------------------------------------------------------------- patience


@pytest.mark.parametrize(("ko_count", "given_up"), [(1, True), (3, False), (0, False)])
def test_a_request_may_stay_unanswered_for_ko_count_timeouts(ko_count: int, given_up: bool) -> None:
    bench = Bench(timeout_ms=400, ping_timeout_ms=100, options=DrbdOptions(ko_count=ko_count)).pair()
    bench.packet(p.PingAck())  # the one of the promotion
    bench.write(5)
    bench.meta_done()
    for _ in range(60):  # its pings are answered
        bench.tick(10)
        for packet in bench.meta_sent():
            if isinstance(packet, p.Ping):
                bench.packet(p.PingAck())
    assert bool(bench.take(e.DropConnection)) == given_up
    for _ in range(90):
        bench.tick(10)
        for packet in bench.meta_sent():
            if isinstance(packet, p.Ping):
                bench.packet(p.PingAck())
    assert (bench.status["connection"] == "Connected") == (ko_count == 0)
