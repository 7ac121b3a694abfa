"""Packets that nobody should send: random bytes, damaged recordings, sequences by a grammar, against a real core."""

from __future__ import annotations

import os
import random
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirror_pcap import tcp_streams
from relevo.mirror import packets as p
from relevo.mirror import wire
from wire_target import BLOCK, CURRENT, DISK_BYTES, STARTS, Start, Target

_U32_MAX = (1 << 32) - 1
SECTORS = DISK_BYTES // 512
MEMORY_BYTES = 16 << 20
"""What any sequence may allocate at most, beyond the target itself: decoders, bitmaps, and one payload at a time."""
FUZZ = settings(
    max_examples=int(os.environ.get("RELEVO_FUZZ_EXAMPLES", "120")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

_SECTOR = st.one_of(
    st.sampled_from([0, 8, 16, 8192, SECTORS - 8, SECTORS - 1, SECTORS, SECTORS + 8, 1 << 40, (1 << 64) - 1]),
    st.integers(0, SECTORS // 8).map(lambda block: block * 8),
)
_SIZE = st.sampled_from(
    [0, 1, 512, 4096, 8192, 65536, 1 << 20, (1 << 20) + 512, 1 << 30, (1 << 32) - 512, (1 << 32) - 1]
)
_PAYLOAD = st.sampled_from([0, 512, 1024, 4096, 4608, 8192, 131_072, 1 << 20])
_ID = st.sampled_from([0, 1, 2, 3, p.SYNCER_ID, (1 << 64) - 2])
_UUID = st.sampled_from([0, 4, 5, CURRENT, CURRENT | 1, CURRENT - 0x100, CURRENT + 0x100, 0x9999_0000, (1 << 64) - 1])
_U32 = st.one_of(st.integers(0, 8), st.integers(0, (1 << 32) - 1))
_U16 = st.integers(0, (1 << 16) - 1)
_STATE = st.one_of(st.integers(0, (1 << 23) - 1), _U32)
_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "sector": _SECTOR,
    "block_id": _ID,
    "seq_num": _U32,
    "flags": _U32,
    "size_bytes": _SIZE,
    "number": st.integers(0, 6),
    "set_size": st.integers(0, 4),
    "retcode": st.integers(-20, 4),
    "mask": _STATE,
    "value": _STATE,
    "word": _STATE,
    "uuid": _UUID,
    "current": _UUID,
    "bitmap": _UUID,
    "history0": _UUID,
    "history1": _UUID,
    "set_bits": _U32,
    "dds_flags": _U16,
    "queue_order_type": _U16,
    "disk_sectors": _SECTOR,
    "user_sectors": _SECTOR,
    "current_sectors": _SECTOR,
    "max_bio_bytes": _SIZE,
    "protocol": st.integers(0, 4),
    "digest": st.binary(min_size=1, max_size=64),
    "words": st.one_of(
        st.integers(0, 510).map(lambda words: bytes(words * 8)),
        st.integers(1, 510).map(lambda words: b"\xff" * (words * 8)),
    ),
    "encoding": st.integers(0, 255),
    "code": st.binary(max_size=200),
}
_TEXTS = st.sampled_from(["", "sha1", "crc32c", "md5", "x" * 60])


def _packet(cls: type[p.Packet]) -> st.SearchStrategy[p.Packet]:
    fields: dict[str, st.SearchStrategy[Any]] = {}
    for name in cls.__struct_fields__:
        if name.endswith("_alg"):
            fields[name] = _TEXTS
        elif name == "limits":
            fields[name] = st.none()
        elif name == "size_bytes" and cls in {p.Data, p.DataReply, p.ResyncReply}:
            fields[name] = _PAYLOAD
        elif name == "pattern_bytes":
            fields[name] = st.just(512)
        else:
            fields[name] = _FIELDS.get(name, _U32)
    if cls is p.WriteSame:
        fields["size_bytes"] = st.integers(0, 1 << 16).map(lambda sectors: sectors * 512)
    return st.builds(cls, **fields)


_CLASSES = [
    cls
    for command in sorted(wire.DATA_COMMANDS | wire.META_COMMANDS)
    for cls in p.Packet.__subclasses__() + p.BlockAck.__subclasses__() + p.Protocol.__subclasses__()
    if cls is not p.BlockAck
    and getattr(cls, "command", None) == command
    and command < p.Command.INITIAL_META
    and cls not in {p.AuthChallenge, p.AuthResponse, p.ConnectionFeatures}
]
_SENT = st.sampled_from(_CLASSES).flatmap(_packet).map(lambda packet: ("send", packet))
_STEP = st.one_of(
    _SENT,
    _SENT,
    _SENT,
    st.tuples(st.just("write"), st.integers(0, SECTORS // 8 - 4)),
    st.tuples(st.just("flush"), st.just(0)),
    st.tuples(st.just("done"), st.integers(0, 7)),
    st.tuples(st.just("finish"), st.just(0)),
    st.tuples(st.just("tick"), st.sampled_from([1, 60, 600, 7000])),
    st.tuples(st.just("connect"), st.just(0)),
    st.tuples(st.just("hang up"), st.just(0)),
)


def _do(target: Target, kind: str, what: Any) -> None:
    if kind == "send":
        if target.up:
            target.send(what)
    elif kind == "write":
        target.write(what)
    elif kind == "flush":
        target.flush()
    elif kind == "done":
        target.finish_one(what)
    elif kind == "finish":
        target.finish()
    elif kind == "tick":
        target.tick(what)
    elif kind == "connect":
        target.connect()
    else:
        target.hang_up()


def test_the_grammar_knows_every_packet_of_a_conversation() -> None:
    known = {cls.command for cls in _CLASSES}
    greeting = {p.Command.AUTH_CHALLENGE, p.Command.AUTH_RESPONSE}
    wanted = {command for command in wire.DATA_COMMANDS | wire.META_COMMANDS if command < p.Command.INITIAL_META}
    assert wanted - known == greeting


@pytest.mark.parametrize("start", STARTS)
@FUZZ
@given(st.lists(_STEP, max_size=25))
def test_sequences_of_packets_by_a_grammar(start: Start, steps: list[tuple[str, Any]]) -> None:
    target = Target(start)
    for kind, what in steps:
        _do(target, kind, what)
    target.end()


@pytest.mark.parametrize("meta", [False, True])
@FUZZ
@given(st.binary(max_size=600))
def test_random_bytes(meta: bool, stream: bytes) -> None:
    target = Target("secondary")
    target.receive(stream, meta=meta)
    target.end()


@pytest.mark.parametrize("meta", [False, True])
@FUZZ
@given(st.integers(0, 0x40), st.integers(0, 1 << 21), st.binary(max_size=200))
def test_any_body_behind_a_good_header(meta: bool, command: int, length: int, body: bytes) -> None:
    target = Target("secondary")
    target.receive(wire.encode_header(command, min(length, len(body)) if length % 2 else length) + body, meta=meta)
    target.end()


def _recorded() -> list[tuple[bytes, bool]]:
    """What a kernel sent once it was connected, on either socket."""
    found = []
    for name in ("drbd-complete-connection.pcap.gz", "drbd-linkloss-bitmap-resync.pcap.gz"):
        for stream in tcp_streams(name).values():
            begin = stream.find(b"\x86\x20\xec\x20")
            if begin >= 0:
                meta = stream[4:6] == b"\xff\xf1" or (begin == 0 and stream[6:8] in {b"\x00\x13", b"\x00\x14"})
                found.append((stream[begin : begin + 200_000], meta))
    return found


@FUZZ
@given(st.data())
def test_damaged_recordings(data: st.DataObject) -> None:
    stream, meta = data.draw(st.sampled_from(_RECORDED))
    start = data.draw(st.sampled_from(STARTS))
    damaged = bytearray(stream[: data.draw(st.integers(100, 20_000))])
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=12)):
        damaged[place] ^= data.draw(st.integers(1, 255))
    target = Target(start)
    target.receive(bytes(damaged), meta=meta)
    target.end()


_RECORDED = _recorded()


def test_memory_is_bounded_whatever_comes() -> None:
    """A peer that goes on sending: nothing grows with it that is not bounded."""
    rng = random.Random(1)
    target = Target("secondary")
    packets: list[p.Packet] = [
        p.Data(0, 1, 1, 0x102, 1 << 20),
        p.Data(SECTORS - 8, 2, 2, 0x102, BLOCK),
        p.Barrier(1),
        p.UnplugRemote(),
        p.OutOfSync(0, 1 << 31),
        p.ResyncRequest(0, p.SYNCER_ID, 1 << 20),
        p.DataRequest(0, 7, 1 << 20),
        p.Trim(0, 3, 3, 0x40, 1 << 26),
        p.StateWord(0),
        p.DelayProbe(1, 1),
    ]
    tracemalloc.start()
    try:
        for _ in range(3000):
            if not target.up:
                target.connect()
            target.send(rng.choice(packets))
            target.finish()
            target.payloads = [each for each in target.payloads if not each.released]
            target.reads = [each for each in target.reads if not each.released]
            target.now += 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEMORY_BYTES
    target.end()
