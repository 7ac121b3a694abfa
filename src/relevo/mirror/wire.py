"""Packets in and out of byte streams: the three headers, and an incremental decoder that does no I/O.

The first packets of a connection carry the 8-byte header (`Header.H80`); after P_CONNECTION_FEATURES only the 16-byte
one is right (`Header.H100`). `Header.H95` is the one of protocols 95 to 99 for large packets.
"""

from __future__ import annotations

import enum
import operator
import struct
from collections.abc import Callable
from typing import Any

from relevo.mirror import bodies, packets
from relevo.mirror.packets import BadField, BadLength, Command, Packet, ProtocolError, UnknownPacket

MAGIC_80 = 0x83740267
MAGIC_95 = 0x835A
MAGIC_100 = 0x8620EC20
STAGING_BYTES = 128 << 10
"""What the decoder holds: more than one packet without payload, and many small ones with theirs."""
DIRECT_BYTES = 32 << 10
"""From here on the rest of a payload is worth a system call of its own; a smaller one is copied out of the staging."""

_H80 = struct.Struct(">IHH")
_H95 = struct.Struct(">HHI")
_H100 = struct.Struct(">IHHII")
_H100_DATA = struct.Struct(">IHHIIQQII")


class BadMagic(ProtocolError):
    """A header does not begin with its magic number: this is no DRBD, or the streams are out of step."""


class Header(enum.Enum):
    """Which header a stream uses; the value is its size in bytes."""

    H80 = "h80"
    H95 = "h95"
    H100 = "h100"


_MODERN, _MODERN_BYTES = Header.H100, _H100.size
_HEADER_BYTES = {Header.H80: _H80.size, Header.H95: _H95.size, Header.H100: _H100.size}

DATA_COMMANDS = frozenset(
    {
        Command.DATA,
        Command.DATA_REPLY,
        Command.RS_DATA_REPLY,
        Command.BARRIER,
        Command.BITMAP,
        Command.COMPRESSED_BITMAP,
        Command.UNPLUG_REMOTE,
        Command.DATA_REQUEST,
        Command.RS_DATA_REQUEST,
        Command.RS_THIN_REQ,
        Command.CSUM_RS_REQUEST,
        Command.OV_REQUEST,
        Command.OV_REPLY,
        Command.PROTOCOL,
        Command.PROTOCOL_UPDATE,
        Command.SYNC_PARAM89,
        Command.UUIDS,
        Command.SIZES,
        Command.STATE,
        Command.SYNC_UUID,
        Command.AUTH_CHALLENGE,
        Command.AUTH_RESPONSE,
        Command.STATE_CHG_REQ,
        Command.CONN_ST_CHG_REQ,
        Command.OUT_OF_SYNC,
        Command.TRIM,
        Command.ZEROES,
        Command.WSAME,
        Command.RS_DEALLOCATED,
        Command.DELAY_PROBE,
        Command.INITIAL_META,
        Command.INITIAL_DATA,
        Command.CONNECTION_FEATURES,
    }
)
"""What may come on the data socket, and on any socket before it is known which it is."""
META_COMMANDS = frozenset(
    {
        Command.PING,
        Command.PING_ACK,
        Command.RECV_ACK,
        Command.WRITE_ACK,
        Command.RS_WRITE_ACK,
        Command.SUPERSEDED,
        Command.RETRY_WRITE,
        Command.NEG_ACK,
        Command.NEG_DREPLY,
        Command.NEG_RS_DREPLY,
        Command.RS_CANCEL,
        Command.RS_IS_IN_SYNC,
        Command.OV_RESULT,
        Command.BARRIER_ACK,
        Command.STATE_CHG_REPLY,
        Command.CONN_ST_CHG_REPLY,
        Command.DELAY_PROBE,
    }
)
"""What may come on the meta socket."""


def encode_header(command: int, length: int, header: Header = Header.H100, volume: int = 0) -> bytes:
    """The header of a packet with `length` bytes after it."""
    if header is Header.H100:
        return _H100.pack(MAGIC_100, volume, command, length, 0)
    if header is Header.H80:
        return _H80.pack(MAGIC_80, command, length)
    return _H95.pack(MAGIC_95, command, length)


def encode(packet: Packet, header: Header = Header.H100, digest: bytes = b"") -> bytes:
    """Header and body, and the digest of the payload if there is one; the payload itself has to be sent after it."""
    if digest:
        body = bodies.encode_body(packet) + digest
        return encode_header(packet.command, len(body) + payload_bytes(packet), header) + body
    if header is Header.H100:
        quick = _QUICK_ENCODERS.get(type(packet))
        if quick is not None:
            return quick(packet)
        if isinstance(packet, (packets.Data, packets.DataReply, packets.ResyncReply)):
            length = bodies.PAYLOAD_HEAD_BYTES + packet.size_bytes
            return _H100_DATA.pack(
                *(MAGIC_100, 0, packet.command, length, 0),
                *(packet.sector, packet.block_id, packet.seq_num, packet.flags),
            )
    body = bodies.encode_body(packet)
    return encode_header(packet.command, len(body) + payload_bytes(packet), header) + body


def _quick_encoder(cls: type[Packet], layout: str) -> Callable[[Any], bytes]:
    """Header and body of a packet of fixed size in one go: they are what a mirror under load sends most."""
    packing = struct.Struct(_H100.format + layout)
    head = (MAGIC_100, 0, cls.command, packing.size - _H100.size, 0)
    if len(cls.__struct_fields__) < 2:  # attrgetter gives a tuple for two and more

        def encode_short(packet: Any) -> bytes:
            return packing.pack(*head, *[getattr(packet, field) for field in cls.__struct_fields__])

        return encode_short
    fields = operator.attrgetter(*cls.__struct_fields__)

    def encode_fields(packet: Any) -> bytes:
        return packing.pack(*head, *fields(packet))

    return encode_fields


_QUICK_ENCODERS = {cls: _quick_encoder(cls, layout) for cls, layout in bodies.FIXED.items()}
_QUICK_PARSERS = {
    cls.command: (struct.Struct(">" + layout).size, struct.Struct(">" + layout).unpack_from, cls)
    for cls, layout in bodies.FIXED.items()
}


def payload_bytes(packet: Packet) -> int:
    """How much payload follows a packet's body."""
    if isinstance(packet, (packets.Data, packets.DataReply, packets.ResyncReply)):
        return packet.size_bytes
    return packet.pattern_bytes if isinstance(packet, packets.WriteSame) else 0


def decode_header(data: bytes | bytearray | memoryview, offset: int, header: Header) -> tuple[int, int]:
    """Command and length of the header at `offset`, which must be there whole.

    Raises:
        BadMagic: these bytes are no such header.
        BadField: the padding is not zero, or a volume other than 0 is named.
    """
    if header is Header.H100:
        magic, volume, command, length, pad = _H100.unpack_from(data, offset)
        if magic != MAGIC_100:
            raise _bad_magic(magic)
        if pad:
            raise BadField("The padding of a packet's header is not zero.", packets.UPGRADE_REMEDY)
        if volume:
            raise BadField(f"The peer sent a packet for volume {volume}; this mirror has only volume 0.")
        return command, length
    if header is Header.H80:
        magic, command, length = _H80.unpack_from(data, offset)
        if magic != MAGIC_80:
            raise _bad_magic(magic)
        return command, length
    magic, command, length = _H95.unpack_from(data, offset)
    if magic != MAGIC_95:
        raise _bad_magic(magic)
    return command, length


def _bad_magic(magic: int) -> BadMagic:
    return BadMagic(
        f"A packet begins with {magic:#x}, which is no DRBD header.", "Check that a mirror listens on the peer's port."
    )


class Decoder:
    """Cuts one socket's bytes into packets.

    Give it bytes with `feed`, or let the socket write into `space()` and tell with `came`. Then take packets with
    `next_packet` until it answers None. After a packet with a payload, `payload_left` bytes have to be taken before the
    next packet: `take_payload` moves what already lies here, and the rest may be received straight into its own buffer
    and told with `payload_came`.

    Args:
        commands: the packets that may come on this socket.
        header: the header that the stream uses; change the attribute when the peer does.
        max_payload_bytes: larger payloads are refused.
    """

    def __init__(
        self,
        commands: frozenset[Command],
        header: Header = Header.H80,
        max_payload_bytes: int = packets.MAX_PAYLOAD_BYTES,
    ) -> None:
        self.header = header
        self.payload_left = 0
        self.digest_bytes = 0
        """How long the digest is that stands before every payload (data-integrity-alg); 0: there is none."""
        self.digest = b""
        """The digest of the payload under way."""
        self._commands = commands
        self._quick = {command: quick for command, quick in _QUICK_PARSERS.items() if command in commands}
        self._max_payload_bytes = max_payload_bytes
        self._staging = bytearray(STAGING_BYTES)
        self._view = memoryview(self._staging)
        self._start = 0
        self._end = 0
        self._skip = 0

    @property
    def buffered(self) -> int:
        """Bytes here that no packet or payload has taken."""
        return self._end - self._start

    def space(self) -> memoryview:
        """Where the next bytes of the socket go; never empty while packets are taken until there is none."""
        if self._start == self._end:
            self._start = self._end = 0
        elif STAGING_BYTES - self._end < packets.MAX_CONTROL_BYTES:
            rest = self._end - self._start
            self._view[:rest] = bytes(self._view[self._start : self._end])
            self._start, self._end = 0, rest
        return self._view[self._end :]

    def came(self, count: int) -> None:
        """`count` bytes were written into `space()`."""
        self._end += count

    def feed(self, data: bytes | memoryview) -> int:
        """Take bytes in; returns how many (all, unless the staging buffer is full: take packets first)."""
        space = self.space()
        count = min(len(space), len(data))
        space[:count] = data[:count]
        self._end += count
        return count

    def take_payload(self, into: memoryview) -> int:
        """Move what is here of the last packet's payload; returns the number of bytes moved."""
        count = min(self.payload_left, self._end - self._start, len(into))
        if count:
            into[:count] = self._view[self._start : self._start + count]
            self._start += count
            self.payload_left -= count
        return count

    def payload_came(self, count: int) -> None:
        """`count` bytes of the payload were received into its own buffer."""
        assert count <= self.payload_left
        assert self._start == self._end
        self.payload_left -= count

    def next_packet(self) -> Packet | None:
        """The next packet, or None when more bytes are needed.

        Raises:
            ProtocolError: one of its subclasses says what is wrong; the connection is of no use any more.
        """
        assert not self.payload_left, "the payload of the packet before has to be taken first"
        if self.header is _MODERN and not self._skip:
            begin = self._start + _MODERN_BYTES
            if begin > self._end:
                return None
            magic, volume, command, length, pad = _H100.unpack_from(self._staging, self._start)
            quick = self._quick.get(command)
            if quick is not None and magic == MAGIC_100 and not (volume or pad):
                size, unpack, cls = quick
                if length == size and begin + size <= self._end:
                    self._start = begin + size
                    return cls(*unpack(self._staging, begin))
        return self._any_packet()

    def _any_packet(self) -> Packet | None:
        """Of any kind, or a wrong one."""
        while True:
            if self._skip and not self._skipped():
                return None
            size = _HEADER_BYTES[self.header]
            have = self._end - self._start
            if have < size:
                return None
            command, length = decode_header(self._staging, self._start, self.header)
            body_bytes = self._body_bytes(command, length)
            if body_bytes < 0:
                self._start += size
                self._skip = length
                continue
            if have < size + body_bytes:
                return None
            begin = self._start + size
            self._start = begin + body_bytes
            if command in bodies.PAYLOAD_HEADS:
                self.payload_left = length - body_bytes
                if self.digest_bytes:
                    self.digest = bytes(self._view[self._start - self.digest_bytes : self._start])
                return bodies.parse_payload_head(command, self._view[begin : self._start], self.payload_left)
            return bodies.parse_body(command, bytes(self._view[begin : self._start]))

    def _body_bytes(self, command: int, length: int) -> int:
        """How much of the packet has to be here before it can be parsed; negative: skip it."""
        if command not in self._commands:
            if packets.MAY_IGNORE < command < Command.INITIAL_META:
                return -1
            raise UnknownPacket(f"The peer sent the packet {command:#x} where it has no place.", packets.UPGRADE_REMEDY)
        head = bodies.PAYLOAD_HEADS.get(command)
        if head is not None:
            head += self.digest_bytes
            payload = length - head
            if not 0 <= payload <= self._max_payload_bytes:
                raise BadLength(f"The peer sent a packet with {payload} bytes of data.", packets.UPGRADE_REMEDY)
            return head
        if length + _HEADER_BYTES[self.header] > packets.MAX_CONTROL_BYTES:
            name = Command(command).name
            raise BadLength(f"The peer sent {name} with {length} bytes, more than allowed.", packets.UPGRADE_REMEDY)
        return length

    def _skipped(self) -> bool:
        count = min(self._skip, self._end - self._start)
        self._start += count
        self._skip -= count
        return not self._skip
