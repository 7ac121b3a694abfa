"""Packets of the kernel's DRBD decode, and encode to the same bytes; what is wrong is refused by name."""

from __future__ import annotations

import collections
import contextlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror_pcap import tcp_streams
from relevo.mirror import packets as p
from relevo.mirror import wire
from relevo.mirror.states import Connection, Disk, Role, State

PADDED = (p.ResyncRequest, p.DataRequest, p.ThinRequest, p.OutOfSync)
"""The kernel leaves whatever lies in memory in the last four bytes of these."""
CAPTURES = ["drbd-complete-connection.pcap.gz", "drbd-linkloss-bitmap-resync.pcap.gz"]


def decode_stream(stream: bytes, pieces: random.Random | None = None) -> tuple[list[tuple[p.Packet, bytes]], bytes]:
    """All packets of one socket's stream with their payloads, and the same encoded again."""
    meta = stream[4:6] == b"\xff\xf1" or (stream[:4] != b"\x83\x74\x02\x67" and _looks_like_meta(stream))
    commands = wire.META_COMMANDS | {p.Command.INITIAL_META} if meta else wire.DATA_COMMANDS
    decoder = wire.Decoder(frozenset(commands), _first_header(stream))
    found: list[tuple[p.Packet, bytes]] = []
    again = bytearray()
    at = 0
    while True:
        packet = decoder.next_packet()
        if packet is None:
            if at == len(stream):
                return found, bytes(again)
            size = pieces.randint(1, 9000) if pieces else 65536
            at += decoder.feed(stream[at : at + size])
            continue
        payload = bytearray(wire.payload_bytes(packet))
        view = memoryview(payload)
        while decoder.payload_left:
            count = decoder.take_payload(view)
            view = view[count:]
            if not count:
                if at == len(stream):
                    return found, bytes(again)
                at += decoder.feed(stream[at : at + 65536])
        encoded = bytearray(wire.encode(packet, decoder.header))
        if isinstance(packet, PADDED):
            encoded[-4:] = stream[len(again) + len(encoded) - 4 : len(again) + len(encoded)]
        again += encoded + payload
        found.append((packet, bytes(payload)))
        if isinstance(packet, (p.ConnectionFeatures, p.InitialMeta)):
            decoder.header = wire.Header.H100


def _first_header(stream: bytes) -> wire.Header:
    return wire.Header.H80 if stream[:4] == b"\x83\x74\x02\x67" else wire.Header.H100


def _looks_like_meta(stream: bytes) -> bool:
    return int.from_bytes(stream[6:8], "big") in wire.META_COMMANDS


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (CAPTURES[0], {"Data": 30, "WriteAck": 30, "BarrierAck": 5, "ResyncReply": 4}),
        (CAPTURES[1], {"ResyncRequest": 20, "ResyncReply": 20, "ResyncWriteAck": 20, "CompressedBitmap": 2}),
    ],
)
def test_every_captured_packet_encodes_to_its_own_bytes(name: str, expected: dict[str, int]) -> None:
    counts: collections.Counter[str] = collections.Counter()
    for stream in tcp_streams(name).values():
        found, again = decode_stream(stream)
        assert found
        assert stream.startswith(again)
        assert len(stream) - len(again) < 1 << 20  # a capture may stop within a packet
        counts.update(type(packet).__name__ for packet, _ in found)
    assert all(counts[kind] >= least for kind, least in expected.items()), counts


def test_the_complete_connection_has_every_step() -> None:
    kinds = set()
    for stream in tcp_streams(CAPTURES[0]).values():
        kinds |= {type(packet) for packet, _ in decode_stream(stream)[0]}
    assert kinds >= {
        p.InitialData,
        p.InitialMeta,
        p.ConnectionFeatures,
        p.AuthChallenge,
        p.AuthResponse,
        p.Protocol,
        p.SyncParam,
        p.Sizes,
        p.Uuids,
        p.StateWord,
        p.CompressedBitmap,
        p.SyncUuid,
        p.ResyncRequest,
        p.ResyncReply,
        p.ResyncWriteAck,
        p.UnplugRemote,
        p.Ping,
        p.PingAck,
        p.ConnStateChangeRequest,
        p.ConnStateChangeReply,
    }


def test_pieces_of_any_size_give_the_same_packets() -> None:
    for number, stream in enumerate(tcp_streams(CAPTURES[0]).values()):
        assert decode_stream(stream, random.Random(number)) == decode_stream(stream)


def test_fields_of_the_captured_connection() -> None:
    streams = tcp_streams(CAPTURES[0])
    packets = [packet for stream in streams.values() for packet, _ in decode_stream(stream)[0]]
    features = next(packet for packet in packets if isinstance(packet, p.ConnectionFeatures))
    assert features == p.ConnectionFeatures(86, 15, 101)
    sizes = next(packet for packet in packets if isinstance(packet, p.Sizes))
    assert sizes.disk_sectors == 2099056
    assert sizes.limits is not None
    assert sizes.limits.discard_enabled == 1
    words = [packet.word for packet in packets if isinstance(packet, p.StateWord)]
    assert State.unpack(0x0000D081) == State(
        role=Role.PRIMARY, conn=Connection.WF_CONNECTION, disk=Disk.UP_TO_DATE, pdsk=Disk.UNKNOWN
    )
    assert [State.unpack(word).pack() for word in words] == words


@given(st.binary(min_size=1, max_size=200), st.sampled_from(list(wire.Header)))
def test_noise_gives_an_error_of_the_protocol_or_waits(noise: bytes, header: wire.Header) -> None:
    decoder = wire.Decoder(wire.DATA_COMMANDS, header)
    decoder.feed(noise)
    with contextlib.suppress(p.ProtocolError):
        assert decoder.next_packet() is None or len(noise) >= 8


U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)


@given(U64, U64, U32, U32)
def test_acknowledgements_and_requests_round_trip(sector: int, block_id: int, size: int, seq: int) -> None:
    meta: list[p.Packet] = [p.WriteAck(sector, block_id, size, seq), p.NegAck(sector, block_id, size, seq), p.Ping()]
    data: list[p.Packet] = [
        p.Trim(sector, block_id, seq, p.DataFlag.DISCARD, size),
        p.ResyncRequest(sector, block_id, size),
        p.OutOfSync(sector, size),
        p.Barrier(seq),
        p.Uuids(sector, block_id, 1, 2, 3, 0),
        p.Protocol(3, 0, 0, 0, 1, 0, "sha1"),
    ]
    for commands, sent in ((wire.META_COMMANDS, meta), (wire.DATA_COMMANDS, data)):
        decoder = wire.Decoder(commands, wire.Header.H100)
        decoder.feed(b"".join(wire.encode(packet) for packet in sent))
        assert [decoder.next_packet() for _ in sent] == sent
        assert decoder.next_packet() is None


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (bytes(16), wire.BadMagic),
        (bytes.fromhex("8620ec20 0000 0003 00000008 00000001") + bytes(8), p.BadField),
        (bytes.fromhex("8620ec20 0001 0003 00000008 00000000") + bytes(8), p.BadField),
        (bytes.fromhex("8620ec20 0000 0003 00000007 00000000") + bytes(7), p.BadLength),
        (bytes.fromhex("8620ec20 0000 0016 00000018 00000000") + bytes(24), p.UnknownPacket),
        (bytes.fromhex("8620ec20 0000 00ff 00000000 00000000"), p.UnknownPacket),
        (bytes.fromhex("8620ec20 0000 0000 00200018 00000000") + bytes(24), p.BadLength),
        (bytes.fromhex("8620ec20 0000 0000 00000019 00000000") + bytes(25), p.BadLength),
        (bytes.fromhex("8620ec20 0000 0000 00000017 00000000") + bytes(23), p.BadLength),
        (bytes.fromhex("8620ec20 0000 0004 00001000 00000000") + bytes(4096), p.BadLength),
    ],
)
def test_what_is_wrong_is_refused_by_name(raw: bytes, error: type[Exception]) -> None:
    decoder = wire.Decoder(wire.DATA_COMMANDS, wire.Header.H100)
    decoder.feed(raw)
    with pytest.raises(error):
        decoder.next_packet()


def test_a_packet_that_may_be_ignored_is_skipped_piece_by_piece() -> None:
    decoder = wire.Decoder(wire.DATA_COMMANDS, wire.Header.H100)
    stranger = bytes.fromhex("8620ec20 0000 0111 00030000 00000000") + bytes(0x30000)
    stream = stranger + wire.encode(p.Barrier(7))
    at, seen = 0, []
    while at < len(stream):
        at += decoder.feed(stream[at : at + 50_000])
        while (packet := decoder.next_packet()) is not None:
            seen.append(packet)
    assert seen == [p.Barrier(7)]


def test_a_large_payload_can_be_received_past_the_decoder() -> None:
    decoder = wire.Decoder(wire.DATA_COMMANDS, wire.Header.H100)
    payload = random.Random(1).randbytes(1 << 20)
    decoder.feed(wire.encode(p.Data(8, 1, 2, 0x102, len(payload))) + payload[:1000])
    packet = decoder.next_packet()
    assert packet == p.Data(8, 1, 2, 0x102, 1 << 20)
    buffer = bytearray(1 << 20)
    assert decoder.take_payload(memoryview(buffer)) == 1000
    buffer[1000:] = payload[1000:]
    decoder.payload_came(len(payload) - 1000)
    assert buffer == payload
    decoder.feed(wire.encode(p.UnplugRemote()))
    assert decoder.next_packet() == p.UnplugRemote()
