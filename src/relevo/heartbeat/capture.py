"""Where heartbeats to be shown come from: a network card that is listened to, or recorded traffic (pcap).

Listening disturbs nobody: a packet socket sees what comes and goes, and no port is opened.
"""

from __future__ import annotations

import gzip
import pathlib
import socket
import struct
import time
from collections.abc import Iterator

import msgspec

from relevo.base.errors import RelevoError

MAX_PACKET_BYTES = 65_535
MAX_RECORD_BYTES = 1 << 18
_ETH_P_IP = 0x0800
_UDP = 17
_IPV4_HEADER_BYTES, _UDP_HEADER_BYTES = 20, 8
_ETHERNET, _RAW, _COOKED = 1, 101, 113
_LINK_BYTES = {_ETHERNET: 14, _RAW: 0, _COOKED: 16}
_TYPE_AT = {_ETHERNET: 12, _COOKED: 14}
_MAGICS = {b"\xd4\xc3\xb2\xa1": ("<", 1000), b"\xa1\xb2\xc3\xd4": (">", 1000)}
_MAGICS |= {b"\x4d\x3c\xb2\xa1": ("<", 1_000_000), b"\xa1\xb2\x3c\x4d": (">", 1_000_000)}
_GZIP = b"\x1f\x8b"


class CaptureUnusable(RelevoError):
    """A recording cannot be read, or a card cannot be listened to."""


class Datagram(msgspec.Struct, frozen=True):
    """A UDP datagram: when it passed (milliseconds since 1970), on which card if that is known, from whom to whom."""

    at_ms: int
    interface: str
    source: str
    target: str
    payload: bytes


def datagram_of(packet: bytes, port: int, at_ms: int, interface: str) -> Datagram | None:
    """What an IPv4 packet carries to a UDP port; None: something else, or a part only."""
    if len(packet) < _IPV4_HEADER_BYTES or packet[0] >> 4 != 4 or packet[9] != _UDP:
        return None
    header_bytes = (packet[0] & 15) * 4
    fragment = int.from_bytes(packet[6:8]) & 0x3FFF
    if fragment or len(packet) < header_bytes + _UDP_HEADER_BYTES:
        return None
    _, to, length, _ = struct.unpack_from(">4H", packet, header_bytes)
    payload = packet[header_bytes + _UDP_HEADER_BYTES : header_bytes + length]
    if to != port or len(payload) != length - _UDP_HEADER_BYTES:
        return None
    return Datagram(at_ms, interface, socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20]), payload)


def recorded(path: pathlib.Path, port: int) -> Iterator[Datagram]:
    """The datagrams of a pcap file (packed with gzip or not).

    Raises:
        CaptureUnusable: it is none, or it ends in the middle of a packet.
    """
    try:
        data = path.read_bytes()
        if data.startswith(_GZIP):
            data = gzip.decompress(data)
    except (OSError, EOFError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CaptureUnusable(f"{path} cannot be read ({why}).", "Name a file that tcpdump -w has made.") from error
    order, per_ms = _MAGICS.get(data[:4], ("", 0))
    if not order or len(data) < 24:
        raise CaptureUnusable(f"{path} is no pcap file.", "Name a file that tcpdump -w has made.")
    (link,) = struct.unpack_from(f"{order}I", data, 20)
    if link not in _LINK_BYTES:
        raise CaptureUnusable(f"{path} was recorded on a link of type {link}.", "Record on one network card.")
    position = 24
    while position < len(data):
        if position + 16 > len(data):
            raise CaptureUnusable(f"{path} ends in the middle of a packet.", "Record anew.")
        seconds, fraction, kept, _ = struct.unpack_from(f"{order}4I", data, position)
        position += 16
        if kept > MAX_RECORD_BYTES or position + kept > len(data):
            raise CaptureUnusable(f"{path} ends in the middle of a packet.", "Record anew.")
        frame = data[position : position + kept]
        position += kept
        if link in _TYPE_AT and int.from_bytes(frame[_TYPE_AT[link] : _TYPE_AT[link] + 2]) != _ETH_P_IP:
            continue
        found = datagram_of(frame[_LINK_BYTES[link] :], port, seconds * 1000 + fraction // per_ms, "")
        if found is not None:
            yield found


def live(interface: str | None, port: int) -> Iterator[Datagram]:
    """What comes and goes on a network card (None: on all of them), without end.

    Raises:
        CaptureUnusable: there is no such card, or this user may not listen.
    """
    protocol = 0 if interface else socket.htons(_ETH_P_IP)  # 0: nothing comes before it is bound to its card
    try:
        listening = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, protocol)
    except OSError as error:
        raise CaptureUnusable(f"The network cannot be listened to ({error.strerror}).", "Run this as root.") from error
    with listening:
        if interface:
            try:
                listening.bind((interface, _ETH_P_IP))
            except OSError as error:
                what = f"{interface} cannot be listened to ({error.strerror})."
                raise CaptureUnusable(what, "Name a card of this machine, as `ip link` shows them.") from error
        while True:
            packet, (card, *_) = listening.recvfrom(MAX_PACKET_BYTES)
            found = datagram_of(packet, port, time.time_ns() // 1_000_000, card)
            if found is not None:
                yield found
