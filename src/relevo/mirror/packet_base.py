"""Numbers, limits, errors and the base of all packets of DRBD's protocol."""

from __future__ import annotations

import enum
from typing import ClassVar

import msgspec

from relevo.base.errors import RelevoError

SECTOR_BYTES = 512
MAX_PAYLOAD_BYTES = 1 << 20
"""The largest block I/O of protocols from 100 on."""
MAX_CONTROL_BYTES = 4096
"""A packet without payload fits into this, header included."""
ALGORITHM_BYTES = 64
CHALLENGE_BYTES = 64
MAX_CHALLENGE_BYTES = 128
MAX_DIGEST_BYTES = 64
SYNCER_ID = 0xFFFF_FFFF_FFFF_FFFF
"""`block_id` of everything that belongs to a resync."""
ID_IN_SYNC = 4711
"""`block_id` of a verify's result: both copies are equal there."""
ID_OUT_OF_SYNC = 4712
"""`block_id` of a verify's result: they are not."""


UPGRADE_REMEDY = "Check that the peer speaks DRBD protocol 101."


class ProtocolError(RelevoError):
    """The peer sent something that protocol 101 does not allow."""


class BadLength(ProtocolError):
    """A packet's length does not fit its command."""


class BadField(ProtocolError):
    """A field of a packet holds what it cannot."""


class UnknownPacket(ProtocolError):
    """A command that this side does not know, or that does not belong on this socket."""


class Command(enum.IntEnum):
    """Packet numbers (drbd_protocol.h)."""

    DATA = 0x00
    DATA_REPLY = 0x01
    RS_DATA_REPLY = 0x02
    BARRIER = 0x03
    BITMAP = 0x04
    UNPLUG_REMOTE = 0x07
    DATA_REQUEST = 0x08
    RS_DATA_REQUEST = 0x09
    PROTOCOL = 0x0B
    UUIDS = 0x0C
    SIZES = 0x0D
    STATE = 0x0E
    SYNC_UUID = 0x0F
    AUTH_CHALLENGE = 0x10
    AUTH_RESPONSE = 0x11
    STATE_CHG_REQ = 0x12
    PING = 0x13
    PING_ACK = 0x14
    RECV_ACK = 0x15
    WRITE_ACK = 0x16
    RS_WRITE_ACK = 0x17
    SUPERSEDED = 0x18
    NEG_ACK = 0x19
    NEG_DREPLY = 0x1A
    NEG_RS_DREPLY = 0x1B
    BARRIER_ACK = 0x1C
    STATE_CHG_REPLY = 0x1D
    OV_REQUEST = 0x1E
    OV_REPLY = 0x1F
    OV_RESULT = 0x20
    CSUM_RS_REQUEST = 0x21
    RS_IS_IN_SYNC = 0x22
    SYNC_PARAM89 = 0x23
    COMPRESSED_BITMAP = 0x24
    DELAY_PROBE = 0x27
    OUT_OF_SYNC = 0x28
    RS_CANCEL = 0x29
    CONN_ST_CHG_REQ = 0x2A
    CONN_ST_CHG_REPLY = 0x2B
    RETRY_WRITE = 0x2C
    PROTOCOL_UPDATE = 0x2D
    TRIM = 0x31
    RS_THIN_REQ = 0x32
    RS_DEALLOCATED = 0x33
    WSAME = 0x34
    ZEROES = 0x36
    INITIAL_META = 0xFFF1
    INITIAL_DATA = 0xFFF2
    CONNECTION_FEATURES = 0xFFFE


MAY_IGNORE = 0x100
"""Commands above this that nobody knows are skipped (the handshake's own lie far above)."""


class Feature(enum.IntFlag):
    """What P_CONNECTION_FEATURES offers beyond the protocol's number."""

    TRIM = 1
    THIN_RESYNC = 2
    WSAME = 4  # also: P_SIZES carries queue limits, and one more rule compares generations
    WZEROES = 8
    WISH_FIRST = 1 << 30
    """Ours alone: whoever discards by order goes before the after-sb policies. A kernel does not take it up."""


class DataFlag(enum.IntFlag):
    """`flags` of `Data`, `Trim` and `Zeroes`."""

    RW_SYNC = 2
    MAY_SET_IN_SYNC = 4
    FUA = 16
    FLUSH = 32
    DISCARD = 64
    SEND_RECEIVE_ACK = 128
    SEND_WRITE_ACK = 256
    WSAME = 512
    ZEROES = 1024


class Packet(msgspec.Struct, frozen=True, gc=False):
    """What all packets share: their number on the wire."""

    command: ClassVar[Command]
