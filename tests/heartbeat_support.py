"""What the heartbeat tests share: a reader of recorded traffic, keys, and a configuration with two nodes."""

from __future__ import annotations

import gzip
import pathlib
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

from relevo.config.model import AuthKey, AuthKeys, Config, HeartbeatTimings, Link, Node

DATA = pathlib.Path(__file__).parent / "data"
CRC = AuthKey(number=1, method="crc", secret="")
SHA1 = AuthKey(number=2, method="sha1", secret="HI!")
KEYS = {1: CRC, 2: SHA1}
CAPTURES = sorted(DATA.glob("heartbeat-*.pcap.gz"))

_PCAP_HEADER_BYTES = 24
_PCAP_RECORD = struct.Struct("<IIII")
_ETHERNET_BYTES = 14
_IPV4, _UDP = 0x0800, 17
_HEARTBEAT_PORT = 694


def frames(path: pathlib.Path) -> Iterator[tuple[int, bytes]]:
    """The Ethernet frames of a little-endian pcap file, with their times in milliseconds."""
    data = gzip.decompress(path.read_bytes())
    assert data[:4] == b"\xd4\xc3\xb2\xa1", "a little-endian pcap file with microseconds"
    position = _PCAP_HEADER_BYTES
    while position < len(data):
        seconds, microseconds, kept, length = _PCAP_RECORD.unpack_from(data, position)
        assert kept == length, "a frame was cut when it was recorded"
        position += _PCAP_RECORD.size
        yield seconds * 1000 + microseconds // 1000, data[position : position + kept]
        position += kept


def timed_datagrams(path: pathlib.Path) -> Iterator[tuple[int, bytes]]:
    """The payloads of the UDP datagrams to Heartbeat's port, with their times in milliseconds."""
    for at_ms, frame in frames(path):
        if int.from_bytes(frame[12:14]) != _IPV4 or frame[23] != _UDP:
            continue
        start = _ETHERNET_BYTES + (frame[14] & 15) * 4
        port, length = struct.unpack_from(">HH", frame, start + 2)
        if port == _HEARTBEAT_PORT:
            yield at_ms, frame[start + 8 : start + length]


def datagrams(path: pathlib.Path) -> Iterator[bytes]:
    """The same without the times."""
    return (datagram for _, datagram in timed_datagrams(path))


def two_nodes(*, key_text: str = "HI!", deadtime_ms: int = 1200) -> Config:
    """nodo1 and nodo2 on the links `users` (eth0) and `cross` (eth1), with quick timings."""
    networks = {"users": ("eth0", "192.168.0"), "cross": ("eth1", "10.27.0")}
    key = AuthKey(number=1, method="sha256", secret=key_text)
    return Config(
        cluster="prueba",
        nodes={
            f"nodo{number}": Node(
                name=f"nodo{number}",
                addresses={link: IPv4Address(f"{prefix}.{number}") for link, (_, prefix) in networks.items()},
                disks={},
            )
            for number in (1, 2)
        },
        links={
            link: Link(name=link, interface=interface, network=IPv4Network(f"{prefix}.0/24"))
            for link, (interface, prefix) in networks.items()
        },
        heartbeat=HeartbeatTimings(keepalive_ms=200, warntime_ms=600, deadtime_ms=deadtime_ms, initdead_ms=3000),
        authkeys=AuthKeys(signing=key, accepted={1: key}),
        mirrors={},
        services={},
        hash="0" * 64,
    )
