"""The packets of DRBD 8.4, protocol 101, as classes (how they lie in bytes: `bodies`, `wire`).

Sectors are 512 bytes. `block_id` and barrier numbers are opaque: a peer only gives them back unchanged.

The payload of `Data`, `DataReply` and `ResyncReply` is not part of the class: `size_bytes` says how much follows (of
`WriteSame`: `pattern_bytes`).
"""

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


class Data(Packet, frozen=True, gc=False):
    """An application's write; `size_bytes` of payload follow. `block_id` comes back in the acknowledgement."""

    command = Command.DATA
    sector: int
    block_id: int
    seq_num: int
    flags: int
    size_bytes: int


class DataReply(Packet, frozen=True, gc=False):
    """What a `DataRequest` asked for; `size_bytes` of payload follow."""

    command = Command.DATA_REPLY
    sector: int
    block_id: int
    seq_num: int
    flags: int
    size_bytes: int


class ResyncReply(Packet, frozen=True, gc=False):
    """What a `ResyncRequest` asked for; `size_bytes` of payload follow."""

    command = Command.RS_DATA_REPLY
    sector: int
    block_id: int
    seq_num: int
    flags: int
    size_bytes: int


class Trim(Packet, frozen=True, gc=False):
    """Discard `size_bytes` from `sector` on; acknowledged and counted like a write."""

    command = Command.TRIM
    sector: int
    block_id: int
    seq_num: int
    flags: int
    size_bytes: int


class Zeroes(Packet, frozen=True, gc=False):
    """Write zeroes; with DISCARD in the flags the blocks may be deallocated as long as they read as zeroes."""

    command = Command.ZEROES
    sector: int
    block_id: int
    seq_num: int
    flags: int
    size_bytes: int


class WriteSame(Packet, frozen=True, gc=False):
    """Fill `size_bytes` with one block, again and again; `pattern_bytes` of payload follow: that block."""

    command = Command.WSAME
    sector: int
    block_id: int
    seq_num: int
    flags: int
    size_bytes: int
    pattern_bytes: int


class DataRequest(Packet, frozen=True, gc=False):
    """A read by a Primary without a usable disk."""

    command = Command.DATA_REQUEST
    sector: int
    block_id: int
    size_bytes: int


class ResyncRequest(Packet, frozen=True, gc=False):
    """The sync target asks for blocks."""

    command = Command.RS_DATA_REQUEST
    sector: int
    block_id: int
    size_bytes: int


class ThinRequest(Packet, frozen=True, gc=False):
    """As `ResyncRequest`; the answer may be `ResyncDeallocated` when all is zero."""

    command = Command.RS_THIN_REQ
    sector: int
    block_id: int
    size_bytes: int


class ChecksumRequest(Packet, frozen=True, gc=False):
    """As `ResyncRequest`, with the digest of what the target has; the answer may be `ResyncInSync`."""

    command = Command.CSUM_RS_REQUEST
    sector: int
    block_id: int
    size_bytes: int
    digest: bytes


class VerifyRequest(Packet, frozen=True, gc=False):
    """Online verify: what is the digest of these blocks on your side?"""

    command = Command.OV_REQUEST
    sector: int
    block_id: int
    size_bytes: int


class VerifyReply(Packet, frozen=True, gc=False):
    """The digest that a `VerifyRequest` asked for."""

    command = Command.OV_REPLY
    sector: int
    block_id: int
    size_bytes: int
    digest: bytes


class OutOfSync(Packet, frozen=True, gc=False):
    """The sender changed blocks that it did not send: mark them."""

    command = Command.OUT_OF_SYNC
    sector: int
    size_bytes: int


class ResyncDeallocated(Packet, frozen=True, gc=False):
    """Blocks asked for by `ThinRequest` hold nothing but zeroes."""

    command = Command.RS_DEALLOCATED
    sector: int
    size_bytes: int


class Barrier(Packet, frozen=True, gc=False):
    """The writes before it on the data socket form an epoch, now closed. `number` is opaque."""

    command = Command.BARRIER
    number: int


class BarrierAck(Packet, frozen=True, gc=False):
    """All `set_size` writes of an epoch are on stable storage."""

    command = Command.BARRIER_ACK
    number: int
    set_size: int


class BlockAck(Packet, frozen=True, gc=False):
    """What the acknowledgements share: which block, and a number that counts acknowledgements."""

    sector: int
    block_id: int
    size_bytes: int
    seq_num: int


class ReceiveAck(BlockAck, frozen=True, gc=False):
    """A write has arrived (protocol B)."""

    command = Command.RECV_ACK


class WriteAck(BlockAck, frozen=True, gc=False):
    """A write is on the peer's disk (protocol C)."""

    command = Command.WRITE_ACK


class ResyncWriteAck(BlockAck, frozen=True, gc=False):
    """A resynchronised block is on the target's disk; also: a write that made its blocks equal."""

    command = Command.RS_WRITE_ACK


class Superseded(BlockAck, frozen=True, gc=False):
    """A write lost against a concurrent one (two Primaries)."""

    command = Command.SUPERSEDED


class RetryWrite(BlockAck, frozen=True, gc=False):
    """A write has to be sent again (two Primaries)."""

    command = Command.RETRY_WRITE


class NegAck(BlockAck, frozen=True, gc=False):
    """The peer's disk refused a write."""

    command = Command.NEG_ACK


class NegDataReply(BlockAck, frozen=True, gc=False):
    """The peer cannot read what `DataRequest` asked for."""

    command = Command.NEG_DREPLY


class NegResyncReply(BlockAck, frozen=True, gc=False):
    """The source cannot read what `ResyncRequest` asked for."""

    command = Command.NEG_RS_DREPLY


class ResyncCancel(BlockAck, frozen=True, gc=False):
    """The source drops a `ResyncRequest`; ask again later."""

    command = Command.RS_CANCEL


class ResyncInSync(BlockAck, frozen=True, gc=False):
    """The digest of a `ChecksumRequest` was equal."""

    command = Command.RS_IS_IN_SYNC


class VerifyResult(BlockAck, frozen=True, gc=False):
    """What comparing digests said: `block_id` is `ID_IN_SYNC` or `ID_OUT_OF_SYNC`."""

    command = Command.OV_RESULT


class UnplugRemote(Packet, frozen=True, gc=False):
    """A hint: start on what was sent."""

    command = Command.UNPLUG_REMOTE


class Ping(Packet, frozen=True, gc=False):
    """Are you there?"""

    command = Command.PING


class PingAck(Packet, frozen=True, gc=False):
    """I am."""

    command = Command.PING_ACK


class InitialData(Packet, frozen=True, gc=False):
    """First packet on the socket that becomes the data socket."""

    command = Command.INITIAL_DATA


class InitialMeta(Packet, frozen=True, gc=False):
    """First packet on the socket that becomes the meta socket."""

    command = Command.INITIAL_META


class ConnectionFeatures(Packet, frozen=True, gc=False):
    """Protocol versions and features that the sender knows."""

    command = Command.CONNECTION_FEATURES
    protocol_min: int
    features: int
    protocol_max: int


class AuthChallenge(Packet, frozen=True, gc=False):
    """Random bytes to be signed with the shared secret."""

    command = Command.AUTH_CHALLENGE
    challenge: bytes


class AuthResponse(Packet, frozen=True, gc=False):
    """HMAC of the receiver's challenge."""

    command = Command.AUTH_RESPONSE
    response: bytes


class Protocol(Packet, frozen=True, gc=False):
    """Settings that must agree. `protocol`: 1 is A, 2 is B, 3 is C. `conn_flags`: 1 discard my data, 2 dry run."""

    command = Command.PROTOCOL
    protocol: int
    after_sb_0p: int
    after_sb_1p: int
    after_sb_2p: int
    conn_flags: int
    two_primaries: int
    integrity_alg: str


class ProtocolUpdate(Protocol, frozen=True, gc=False):
    """As `Protocol`, within an established connection."""

    command = Command.PROTOCOL_UPDATE


class SyncParam(Packet, frozen=True, gc=False):
    """How the sender resynchronises (SYNC_PARAM89 in its form of protocol 95 and later). `rate` is in KiB/s."""

    command = Command.SYNC_PARAM89
    rate: int
    verify_alg: str
    csums_alg: str
    c_plan_ahead: int
    c_delay_target: int
    c_fill_target: int
    c_max_rate: int


class QueueLimits(msgspec.Struct, frozen=True, gc=False):
    """The backing disk's limits, sizes in bytes."""

    physical_block_bytes: int
    logical_block_bytes: int
    alignment_offset: int
    io_min_bytes: int
    io_opt_bytes: int
    discard_enabled: int
    discard_zeroes_data: int
    write_same_capable: int


class Sizes(Packet, frozen=True, gc=False):
    """Sizes in sectors: the backing disk's, the configured one, the one in use. `limits` needs Feature.WSAME."""

    command = Command.SIZES
    disk_sectors: int
    user_sectors: int
    current_sectors: int
    max_bio_bytes: int
    queue_order_type: int
    dds_flags: int
    limits: QueueLimits | None = None


class Uuids(Packet, frozen=True, gc=False):
    """Generation identifiers, the number of set bits, and flags (see `UuidFlag`)."""

    command = Command.UUIDS
    current: int
    bitmap: int
    history0: int
    history1: int
    bits: int
    flags: int


class UuidFlag(enum.IntFlag):
    """`flags` of `Uuids`."""

    DISCARD_MY_DATA = 1
    CRASHED_PRIMARY = 2
    INCONSISTENT = 4
    SKIP_INITIAL_SYNC = 8


class StateWord(Packet, frozen=True, gc=False):
    """The sender's state; `word` as in `states.State`."""

    command = Command.STATE
    word: int


class SyncUuid(Packet, frozen=True, gc=False):
    """The source's new bitmap generation; the target takes it as its current one."""

    command = Command.SYNC_UUID
    uuid: int


class StateChangeRequest(Packet, frozen=True, gc=False):
    """May I change the bits of `mask` to those of `value`?"""

    command = Command.STATE_CHG_REQ
    mask: int
    value: int


class StateChangeReply(Packet, frozen=True, gc=False):
    """1 is yes; anything else a refusal's number (as a signed 32-bit number)."""

    command = Command.STATE_CHG_REPLY
    retcode: int


class ConnStateChangeRequest(Packet, frozen=True, gc=False):
    """As `StateChangeRequest`, for the whole connection (orderly disconnect)."""

    command = Command.CONN_ST_CHG_REQ
    mask: int
    value: int


class ConnStateChangeReply(Packet, frozen=True, gc=False):
    """As `StateChangeReply`."""

    command = Command.CONN_ST_CHG_REPLY
    retcode: int


class BitmapWords(Packet, frozen=True, gc=False):
    """The next little-endian 64-bit words of the sender's bitmap."""

    command = Command.BITMAP
    words: bytes


class CompressedBitmap(Packet, frozen=True, gc=False):
    """The next bits of the sender's bitmap as runs (see `vli`). `encoding` is the packet's first byte."""

    command = Command.COMPRESSED_BITMAP
    encoding: int
    code: bytes


class DelayProbe(Packet, frozen=True, gc=False):
    """Measures a queue's delay; ignored."""

    command = Command.DELAY_PROBE
    seq_num: int
    offset_us: int
