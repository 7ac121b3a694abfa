"""How the bodies of packets lie in bytes: what follows the header.

Everything is big endian, except bitmap words (little endian, carried as bytes). Layouts: docs/internals/mirror-wire.md.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import msgspec

from relevo.mirror import packets as p

Encoder = Callable[[Any], bytes]
Parser = Callable[[bytes], p.Packet]
_ENCODERS: dict[type[p.Packet], Encoder] = {}
_PARSERS: dict[int, Parser] = {}
FIXED: dict[type[p.Packet], str] = {}
"""Classes whose fields, in their order, are those of a struct of this layout."""


def _fixed(cls: type[p.Packet], layout: str) -> None:
    """Register a class whose fields, in their order, are those of a struct."""
    FIXED[cls] = layout
    packing = struct.Struct(">" + layout)
    fields = cls.__struct_fields__

    def encode(packet: Any) -> bytes:
        return packing.pack(*[getattr(packet, field) for field in fields])

    def parse(body: bytes) -> p.Packet:
        if len(body) != packing.size:
            raise p.BadLength(
                f"The peer sent {cls.__name__} with {len(body)} bytes instead of {packing.size}.", p.UPGRADE_REMEDY
            )
        return cls(*packing.unpack(body))

    _ENCODERS[cls] = encode
    _PARSERS[cls.command] = parse


_DATA_HEAD = struct.Struct(">QQII")

_FIXED: dict[str, tuple[type[p.Packet], ...]] = {
    "": (p.UnplugRemote, p.Ping, p.PingAck, p.InitialData, p.InitialMeta),
    "I": (p.StateWord,),
    "i": (p.StateChangeReply, p.ConnStateChangeReply),
    "I4x": (p.Barrier,),
    "II": (p.BarrierAck, p.StateChangeRequest, p.ConnStateChangeRequest, p.DelayProbe),
    "Q": (p.SyncUuid,),
    "QI4x": (p.OutOfSync, p.ResyncDeallocated),
    "QQI4x": (p.DataRequest, p.ResyncRequest, p.ThinRequest, p.VerifyRequest),
    "QQII": (
        *(p.ReceiveAck, p.WriteAck, p.ResyncWriteAck, p.Superseded, p.RetryWrite),
        *(p.NegAck, p.NegDataReply, p.NegResyncReply, p.ResyncCancel, p.ResyncInSync, p.VerifyResult),
    ),
    "QQIII": (p.Trim, p.Zeroes),
    "6Q": (p.Uuids,),
    "III4x56x": (p.ConnectionFeatures,),
}
for _layout, _classes in _FIXED.items():
    for _class in _classes:
        _fixed(_class, _layout)


def _encode_data(packet: p.Data | p.DataReply | p.ResyncReply) -> bytes:
    return _DATA_HEAD.pack(packet.sector, packet.block_id, packet.seq_num, packet.flags)


def _encode_write_same(packet: p.WriteSame) -> bytes:
    return _WRITE_SAME_HEAD.pack(packet.sector, packet.block_id, packet.seq_num, packet.flags, packet.size_bytes)


_WRITE_SAME_HEAD = struct.Struct(">QQIII")
PAYLOAD_HEAD_BYTES = _DATA_HEAD.size
BLOCK_ACK_BYTES = 24
WithPayload = p.Data | p.DataReply | p.ResyncReply
PAYLOAD_CLASSES: dict[int, type[WithPayload]] = {
    p.Command.DATA: p.Data,
    p.Command.DATA_REPLY: p.DataReply,
    p.Command.RS_DATA_REPLY: p.ResyncReply,
}
_ENCODERS.update(dict.fromkeys(PAYLOAD_CLASSES.values(), _encode_data))
_ENCODERS[p.WriteSame] = _encode_write_same
PAYLOAD_HEADS: dict[int, int] = {
    **dict.fromkeys(PAYLOAD_CLASSES, PAYLOAD_HEAD_BYTES),
    p.Command.WSAME: _WRITE_SAME_HEAD.size,
}
"""Packets whose payload is received straight into its buffer, and the bytes of body before it (and before its digest,
where data-integrity-alg asks for one)."""


def parse_payload_head(command: int, head: bytes | memoryview, size_bytes: int) -> WithPayload | p.WriteSame:
    """The packet whose body begins with `head`; `size_bytes` of payload follow.

    Raises:
        p.BadLength: the payload is no whole number of sectors.
    """
    if size_bytes % p.SECTOR_BYTES:
        raise p.BadLength(f"The peer sent {size_bytes} bytes of data, not a whole number of sectors.", p.UPGRADE_REMEDY)
    if command == p.Command.WSAME:
        sector, block_id, seq_num, flags, span = _WRITE_SAME_HEAD.unpack_from(head)
        if not size_bytes or span % size_bytes:
            raise p.BadLength(f"The peer fills {span} bytes with a block of {size_bytes}.", p.UPGRADE_REMEDY)
        return p.WriteSame(sector, block_id, seq_num, flags, span, size_bytes)
    sector, block_id, seq_num, flags = _DATA_HEAD.unpack_from(head)
    return PAYLOAD_CLASSES[command](sector, block_id, seq_num, flags, size_bytes)


def _text(field: bytes) -> str:
    name, _, _ = field.partition(b"\0")
    try:
        return name.decode("ascii")
    except UnicodeDecodeError as error:
        raise p.BadField("The peer named an algorithm in letters that are not ASCII.", p.UPGRADE_REMEDY) from error


_PROTOCOL = struct.Struct(">6I")


def _encode_protocol(packet: p.Protocol) -> bytes:
    head = _PROTOCOL.pack(
        packet.protocol,
        packet.after_sb_0p,
        packet.after_sb_1p,
        packet.after_sb_2p,
        packet.conn_flags,
        packet.two_primaries,
    )
    return head + packet.integrity_alg.encode("ascii") + b"\0"


def _protocol_parser(cls: type[p.Protocol]) -> Parser:
    def parse(body: bytes) -> p.Packet:
        if not _PROTOCOL.size < len(body) <= _PROTOCOL.size + p.ALGORITHM_BYTES or body[-1] != 0:
            raise p.BadLength(f"The peer sent its settings in {len(body)} bytes.", p.UPGRADE_REMEDY)
        return cls(*(*_PROTOCOL.unpack_from(body), _text(body[_PROTOCOL.size :])))

    return parse


_SYNC_PARAM = struct.Struct(f">I{p.ALGORITHM_BYTES}s{p.ALGORITHM_BYTES}s4I")


def _encode_sync_param(packet: p.SyncParam) -> bytes:
    verify, csums = packet.verify_alg.encode("ascii"), packet.csums_alg.encode("ascii")
    plan = (packet.c_plan_ahead, packet.c_delay_target, packet.c_fill_target, packet.c_max_rate)
    return _SYNC_PARAM.pack(packet.rate, verify, csums, *plan)


def _parse_sync_param(body: bytes) -> p.Packet:
    if len(body) != _SYNC_PARAM.size:
        raise p.BadLength(f"The peer sent its resync settings in {len(body)} bytes.", p.UPGRADE_REMEDY)
    rate, verify, csums, *plan = _SYNC_PARAM.unpack(body)
    return p.SyncParam(rate, _text(verify), _text(csums), *plan)


_SIZES = struct.Struct(">QQQIHH")
_LIMITS = struct.Struct(">5I3Bx")


def _encode_sizes(packet: p.Sizes) -> bytes:
    sectors = (packet.disk_sectors, packet.user_sectors, packet.current_sectors)
    head = _SIZES.pack(*sectors, packet.max_bio_bytes, packet.queue_order_type, packet.dds_flags)
    return head if packet.limits is None else head + _LIMITS.pack(*msgspec.structs.astuple(packet.limits))


def _parse_sizes(body: bytes) -> p.Packet:
    limits = None
    if len(body) == _SIZES.size + _LIMITS.size:
        limits = p.QueueLimits(*_LIMITS.unpack_from(body, _SIZES.size))
    elif len(body) != _SIZES.size:
        raise p.BadLength(f"The peer sent its sizes in {len(body)} bytes.", p.UPGRADE_REMEDY)
    return p.Sizes(*(*_SIZES.unpack_from(body), limits))


_BLOCK_REQUEST = struct.Struct(">QQI4x")


def _encode_with_digest(packet: p.ChecksumRequest | p.VerifyReply) -> bytes:
    return _BLOCK_REQUEST.pack(packet.sector, packet.block_id, packet.size_bytes) + packet.digest


def _digest_parser(cls: type[p.ChecksumRequest | p.VerifyReply]) -> Parser:
    def parse(body: bytes) -> p.Packet:
        if not _BLOCK_REQUEST.size < len(body) <= _BLOCK_REQUEST.size + p.MAX_DIGEST_BYTES:
            raise p.BadLength(f"The peer sent {cls.__name__} with {len(body)} bytes.", p.UPGRADE_REMEDY)
        return cls(*(*_BLOCK_REQUEST.unpack_from(body), body[_BLOCK_REQUEST.size :]))

    return parse


def _parse_challenge(body: bytes) -> p.Packet:
    if not p.CHALLENGE_BYTES <= len(body) <= p.MAX_CHALLENGE_BYTES:
        raise p.BadLength(f"The peer sent a challenge of {len(body)} bytes.", p.UPGRADE_REMEDY)
    return p.AuthChallenge(body)


def _parse_response(body: bytes) -> p.Packet:
    if not 0 < len(body) <= p.MAX_DIGEST_BYTES:
        raise p.BadLength(f"The peer answered our challenge with {len(body)} bytes.", p.UPGRADE_REMEDY)
    return p.AuthResponse(body)


_WORD_BYTES = 8


def _parse_bitmap(body: bytes) -> p.Packet:
    if len(body) % _WORD_BYTES:
        raise p.BadLength(f"The peer sent {len(body)} bytes of bitmap, not whole words.", p.UPGRADE_REMEDY)
    return p.BitmapWords(body)


def _parse_compressed(body: bytes) -> p.Packet:
    if not body:
        raise p.BadLength("The peer sent an empty compressed bitmap.", p.UPGRADE_REMEDY)
    return p.CompressedBitmap(body[0], body[1:])


_ENCODERS.update(
    {
        p.Protocol: _encode_protocol,
        p.ProtocolUpdate: _encode_protocol,
        p.SyncParam: _encode_sync_param,
        p.Sizes: _encode_sizes,
        p.ChecksumRequest: _encode_with_digest,
        p.VerifyReply: _encode_with_digest,
        p.AuthChallenge: lambda packet: packet.challenge,
        p.AuthResponse: lambda packet: packet.response,
        p.BitmapWords: lambda packet: packet.words,
        p.CompressedBitmap: lambda packet: bytes((packet.encoding,)) + packet.code,
    }
)
_PARSERS.update(
    {
        p.Command.PROTOCOL: _protocol_parser(p.Protocol),
        p.Command.PROTOCOL_UPDATE: _protocol_parser(p.ProtocolUpdate),
        p.Command.SYNC_PARAM89: _parse_sync_param,
        p.Command.SIZES: _parse_sizes,
        p.Command.CSUM_RS_REQUEST: _digest_parser(p.ChecksumRequest),
        p.Command.OV_REPLY: _digest_parser(p.VerifyReply),
        p.Command.AUTH_CHALLENGE: _parse_challenge,
        p.Command.AUTH_RESPONSE: _parse_response,
        p.Command.BITMAP: _parse_bitmap,
        p.Command.COMPRESSED_BITMAP: _parse_compressed,
    }
)


def encode_body(packet: p.Packet) -> bytes:
    """The bytes after the header, without the payload."""
    return _ENCODERS[type(packet)](packet)


def parse_body(command: int, body: bytes) -> p.Packet:
    """The packet of a whole body (not for the commands of `PAYLOAD_HEADS`).

    Raises:
        p.BadLength: the body does not fit the command.
        p.BadField: a field holds what it cannot.
        p.UnknownPacket: no such command.
    """
    try:
        parser = _PARSERS[command]
    except KeyError:
        raise p.UnknownPacket(f"The peer sent the unknown packet {command:#x}.", p.UPGRADE_REMEDY) from None
    return parser(body)
