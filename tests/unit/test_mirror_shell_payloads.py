"""Payloads between two processes: their digests (data-integrity-alg), and word when they have left."""

from __future__ import annotations

import hashlib
import random
import socket
from collections.abc import Iterator

import pytest

from relevo.device.buffers import Buffer, BufferPool
from relevo.mirror import packets as p
from relevo.mirror import wire
from relevo.mirror.crc32c import crc32c
from relevo.mirror.digests import ALGORITHMS, UnknownAlgorithm, digest
from relevo.mirror.loop import Loop, now_ms
from relevo.mirror.sockets import Stream, resize

LIMIT_MS = 10_000
BLOCK = 4096


class End:
    """One end of a link, and what came out of it."""

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        self.pool = BufferPool(16 << 20)
        self.got: list[tuple[p.Packet, bytes | None]] = []
        self.failures: list[str] = []
        self.stream = Stream(loop, sock, wire.DATA_COMMANDS, self.pool, self._take, self.failures.append)
        self.stream.decoder.header = wire.Header.H100
        self.stream.start()

    def _take(self, packet: p.Packet, buffer: Buffer | None) -> None:
        self.got.append((packet, None if buffer is None else bytes(buffer.view)))
        if buffer is not None:
            buffer.release()

    def buffer(self, data: bytes) -> Buffer:
        made = self.pool.take(len(data))
        assert made is not None
        made.view[:] = data
        return made


@pytest.fixture
def link() -> Iterator[tuple[Loop, End, End]]:
    loop = Loop()
    one, two = socket.socketpair()
    for sock in (one, two):
        sock.settimeout(0)
    ends = End(loop, one), End(loop, two)
    yield loop, *ends
    for end in ends:
        end.stream.close()
    loop.close()


def turn(loop: Loop, *ends: End, count: int = 1) -> None:
    """Serve until the last end has got so many packets, or has failed."""
    end = now_ms() + LIMIT_MS
    while len(ends[-1].got) < count and not ends[-1].failures:
        assert now_ms() < end
        for each in ends:
            each.stream.flush()
        loop.round(20)


# ---------------------------------------------------------------- digests


def test_digests_are_those_of_the_kernels_crypto_api() -> None:
    assert digest("sha1")(b"abc").hex() == "a9993e364706816aba3e25717850c26c9cd0d89d"  # FIPS 180
    assert digest("crc32c")(b"123456789") == bytes.fromhex("839206e3")  # RFC 3720: check value e3069283
    with pytest.raises(UnknownAlgorithm, match="crc99"):
        digest("crc99")


def test_a_sum_does_not_depend_on_how_it_is_cut_into_pieces() -> None:
    data = random.Random(3).randbytes(300_001)

    def plain(data: bytes) -> int:
        crc = 0
        for byte in data:
            crc ^= byte
            for _ in range(8):
                crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        return crc

    for length in (0, 1, 255, 256, 257, 4096, 4097, 5000):
        assert crc32c(data[:length]) == plain(data[:length])
    assert crc32c(data) == plain(data)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_payloads_travel_with_their_digests(link: tuple[Loop, End, End], algorithm: str) -> None:
    loop, one, two = link
    for end in (one, two):
        end.stream.protect(digest(algorithm))
    data = random.Random(1).randbytes(3 * BLOCK)
    one.stream.send_with_payload(p.Data(8, 1, 1, 0, len(data)), one.buffer(data), release=True)
    one.stream.send(p.Trim(0, 2, 2, 0, BLOCK))
    one.stream.send_with_payload(p.WriteSame(0, 3, 3, 0, 8 * BLOCK, 512), one.buffer(data[:512]), release=True)
    turn(loop, one, two, count=3)
    assert [(type(packet), payload) for packet, payload in two.got] == [
        (p.Data, data),
        (p.Trim, None),
        (p.WriteSame, data[:512]),
    ]
    assert not two.failures


def test_a_payload_that_was_changed_on_the_way_is_never_handed_over(link: tuple[Loop, End, End]) -> None:
    loop, one, two = link
    two.stream.protect(digest("sha256"))
    data = b"a" * BLOCK
    head = wire.encode(p.Data(8, 1, 1, 0, BLOCK), digest=hashlib.sha256(data).digest())
    for payload in (data, b"b" + data[1:]):
        one.stream._sock.sendall(head + payload)
        turn(loop, one, two, count=len(two.got) + 1)
    assert [payload for _, payload in two.got] == [data]
    assert "digest" in two.failures[0]


# ---------------------------------------------------------------- out of the process


def test_word_comes_when_a_packet_has_left_and_not_before(link: tuple[Loop, End, End]) -> None:
    loop, one, two = link
    left: list[int] = []
    data = bytes(1 << 20)
    for number in range(8):  # more than the sockets hold
        packet = p.Data(0, number, number, 0, len(data))
        one.stream.send_with_payload(packet, one.buffer(data), release=False, sent=lambda n=number: left.append(n))
    one.stream.send(p.Trim(0, 8, 8, 0, BLOCK), sent=lambda: left.append(8))
    assert left == []
    one.stream.flush()
    assert 8 not in left, "the peer has not read yet"
    turn(loop, one, two, count=9)
    assert left == list(range(9))


def test_a_long_row_goes_out_corked_and_whole(link: tuple[Loop, End, End]) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    one = socket.create_connection(listener.getsockname())
    two, _ = listener.accept()
    listener.close()
    resize(one, 1 << 16, 0)
    assert one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) >= 1 << 16
    for sock in (one, two):
        sock.settimeout(0)
    loop = link[0]
    sender, receiver = End(loop, one), End(loop, two)
    sender.stream.cork = True
    for number in range(300):
        sender.stream.send(p.Barrier(number))
    turn(loop, sender, receiver, count=300)
    assert [packet.number for packet, _ in receiver.got if isinstance(packet, p.Barrier)] == list(range(300))
    assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK) == 0
    sender.stream.close()
    receiver.stream.close()
