"""Tell clients of a server that died that their connections are gone, at once and not when they next speak.

A client that only waits for an answer sends nothing, so nothing tells it. It gets a segment in the dead server's name
whose numbers cannot be right, and answers, as RFC 9293 (3.10.7.4) asks, with what it expects. That answer reaches this
server, which knows no such connection, and its kernel ends it with a RST that fits. The numbers of the connection need
not be known, only the two ends (the idea is CTDB's).
"""

from __future__ import annotations

import dataclasses
import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv4Address

import msgspec

_IP = struct.Struct("!BBHHHBBH4s4s")
_TCP = struct.Struct("!HHIIBBHHH")
_PSEUDO = struct.Struct("!4s4sBBH")
_VERSION_AND_WORDS = 0x45
_TCP_WORDS = 5 << 4
_ACK = 0x10
_TTL = 64
_WINDOW = 1234
"""Of no meaning: the segment is dropped for its numbers."""


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Connection:
    """One TCP connection of a server's address with a client."""

    address: IPv4Address
    port: int
    client: IPv4Address
    client_port: int


def connections_of(told: object) -> list[Connection]:
    """The connections that the file service tells: address, port, client, its port, as JSON has them.

    Raises:
        ValueError: that is no such list.
    """
    try:
        found = msgspec.convert(told, list[tuple[str, int, str, int]])
    except msgspec.ValidationError as error:
        raise ValueError(f"no list of connections ({error})") from error
    return [Connection(IPv4Address(one[0]), one[1], IPv4Address(one[2]), one[3]) for one in found]


def segment(connection: Connection) -> bytes:
    """The packet: IP header and an empty TCP segment (ACK) with the numbers 0."""
    ends = (connection.address.packed, connection.client.packed)
    ports = (connection.port, connection.client_port)
    length = _IP.size + _TCP.size
    ip = _IP.pack(_VERSION_AND_WORDS, 0, length, 0, 0, _TTL, socket.IPPROTO_TCP, 0, *ends)
    bare = _TCP.pack(*ports, 0, 0, _TCP_WORDS, _ACK, _WINDOW, 0, 0)
    total = checksum(_PSEUDO.pack(*ends, 0, socket.IPPROTO_TCP, _TCP.size) + bare)
    return ip + _TCP.pack(*ports, 0, 0, _TCP_WORDS, _ACK, _WINDOW, total, 0)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def tickle(connections: Iterable[Connection]) -> int:
    """Send one segment for each connection; returns how many could be sent.

    Raises:
        OSError: no raw socket may be had.
    """
    count = 0
    with socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW) as sock:
        for connection in connections:
            try:
                sock.sendto(segment(connection), (str(connection.client), 0))
            except OSError:
                continue  # no way to this client just now
            count += 1
    return count
