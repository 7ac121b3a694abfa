"""ICMP echo over IPv4 (RFC 792): questions and answers as bytes. No socket, no clock."""

from __future__ import annotations

import dataclasses
import struct
from ipaddress import IPv4Address

IP_HEADER_BYTES = 20
"""Of a header without options."""
ICMP_HEADER_BYTES = 8
MAX_NUMBER = (1 << 16) - 1
"""The largest identifier and the largest sequence number."""
_ECHO_REPLY, _ECHO_REQUEST, _IPPROTO_ICMP = 0, 8, 1
_ICMP = struct.Struct("!BBHHH")


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """An echo reply: who answered, with the identifier, the sequence number and the data of the question."""

    source: IPv4Address
    identifier: int
    sequence: int
    data: bytes


def echo_request(identifier: int, sequence: int, data: bytes) -> bytes:
    """The ICMP part of a question, for a raw socket: the kernel puts the IP header before it."""
    packet = _ICMP.pack(_ECHO_REQUEST, 0, 0, identifier, sequence) + data
    return _ICMP.pack(_ECHO_REQUEST, 0, checksum(packet), identifier, sequence) + data


def echo_reply(packet: bytes) -> Reply | None:
    """The echo reply in an IP packet with its header, as a raw socket gives it; None when it is something else."""
    if len(packet) < IP_HEADER_BYTES or packet[9] != _IPPROTO_ICMP:
        return None
    body = packet[(packet[0] & 0x0F) * 4 :]
    if len(body) < _ICMP.size:
        return None
    kind, _, _, identifier, sequence = _ICMP.unpack_from(body)
    if kind != _ECHO_REPLY:
        return None
    return Reply(IPv4Address(packet[12:16]), identifier, sequence, body[_ICMP.size :])


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1])) + (data[-1] << 8 if len(data) & 1 else 0)
    total = (total & 0xFFFF) + (total >> 16)
    return int(~((total & 0xFFFF) + (total >> 16)) & 0xFFFF)
