"""Byte streams of the TCP connections in a capture (classic pcap, Ethernet, IPv4)."""

from __future__ import annotations

import gzip
import pathlib
import struct

DATA = pathlib.Path(__file__).parent / "data"
Flow = tuple[bytes, int, bytes, int]


def tcp_streams(name: str) -> dict[Flow, bytes]:
    """Flow (source address, port, destination address, port) -> what was sent, in order, gaps cut the rest off."""
    segments: dict[Flow, dict[int, bytes]] = {}
    first: dict[Flow, int] = {}
    raw = gzip.decompress((DATA / name).read_bytes())
    at = 24
    while at < len(raw):
        _, _, captured, _ = struct.unpack_from("<4I", raw, at)
        frame = raw[at + 16 : at + 16 + captured]
        at += 16 + captured
        if frame[12:14] != b"\x08\x00" or frame[23] != 6:
            continue
        header = 14 + (frame[14] & 15) * 4
        end = 14 + struct.unpack_from(">H", frame, 16)[0]
        sport, dport, seq = struct.unpack_from(">HHI", frame, header)
        flow = (frame[26:30], sport, frame[30:34], dport)
        syn = frame[header + 13] & 2
        payload = frame[header + (frame[header + 12] >> 4) * 4 : end]
        if syn:
            first[flow] = seq + 1
            segments[flow] = {}
        if payload:
            first.setdefault(flow, seq)
            segments.setdefault(flow, {})
            old = segments[flow].get((seq - first[flow]) & 0xFFFFFFFF, b"")
            if len(payload) > len(old):
                segments[flow][(seq - first[flow]) & 0xFFFFFFFF] = payload
    return {flow: _join(parts) for flow, parts in segments.items() if parts}


def _join(parts: dict[int, bytes]) -> bytes:
    stream = bytearray()
    for offset in sorted(parts):
        if offset > len(stream):
            break
        if offset + len(parts[offset]) > len(stream):
            stream += parts[offset][len(stream) - offset :]
    return bytes(stream)
