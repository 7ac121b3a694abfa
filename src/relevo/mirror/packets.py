"""The packets of DRBD 8.4, protocol 101, as classes (how they lie in bytes: `bodies`, `wire`).

Sectors are 512 bytes. `block_id` and barrier numbers are opaque: a peer only gives them back unchanged.

The payload of `Data`, `DataReply` and `ResyncReply` is not part of the class: `size_bytes` says how much follows (of
`WriteSame`: `pattern_bytes`).
"""

from __future__ import annotations

from relevo.mirror.handshake_packets import (
    AuthChallenge,
    AuthResponse,
    BitmapWords,
    CompressedBitmap,
    ConnectionFeatures,
    ConnStateChangeReply,
    ConnStateChangeRequest,
    DelayProbe,
    Protocol,
    ProtocolUpdate,
    QueueLimits,
    Sizes,
    StateChangeReply,
    StateChangeRequest,
    StateWord,
    SyncParam,
    SyncUuid,
    UuidFlag,
    Uuids,
)
from relevo.mirror.packet_base import (
    ALGORITHM_BYTES,
    CHALLENGE_BYTES,
    ID_IN_SYNC,
    ID_OUT_OF_SYNC,
    MAX_CHALLENGE_BYTES,
    MAX_CONTROL_BYTES,
    MAX_DIGEST_BYTES,
    MAX_PAYLOAD_BYTES,
    MAY_IGNORE,
    SECTOR_BYTES,
    SYNCER_ID,
    UPGRADE_REMEDY,
    BadField,
    BadLength,
    Command,
    DataFlag,
    Feature,
    Packet,
    ProtocolError,
    UnknownPacket,
)

__all__ = [
    "ALGORITHM_BYTES",
    "CHALLENGE_BYTES",
    "ID_IN_SYNC",
    "ID_OUT_OF_SYNC",
    "MAX_CHALLENGE_BYTES",
    "MAX_CONTROL_BYTES",
    "MAX_DIGEST_BYTES",
    "MAX_PAYLOAD_BYTES",
    "MAY_IGNORE",
    "SECTOR_BYTES",
    "SYNCER_ID",
    "UPGRADE_REMEDY",
    "AuthChallenge",
    "AuthResponse",
    "BadField",
    "BadLength",
    "Barrier",
    "BarrierAck",
    "BitmapWords",
    "BlockAck",
    "ChecksumRequest",
    "Command",
    "CompressedBitmap",
    "ConnStateChangeReply",
    "ConnStateChangeRequest",
    "ConnectionFeatures",
    "Data",
    "DataFlag",
    "DataReply",
    "DataRequest",
    "DelayProbe",
    "Feature",
    "InitialData",
    "InitialMeta",
    "NegAck",
    "NegDataReply",
    "NegResyncReply",
    "OutOfSync",
    "Packet",
    "Ping",
    "PingAck",
    "Protocol",
    "ProtocolError",
    "ProtocolUpdate",
    "QueueLimits",
    "ReceiveAck",
    "ResyncCancel",
    "ResyncDeallocated",
    "ResyncInSync",
    "ResyncReply",
    "ResyncRequest",
    "ResyncWriteAck",
    "RetryWrite",
    "Sizes",
    "StateChangeReply",
    "StateChangeRequest",
    "StateWord",
    "Superseded",
    "SyncParam",
    "SyncUuid",
    "ThinRequest",
    "Trim",
    "UnknownPacket",
    "UnplugRemote",
    "UuidFlag",
    "Uuids",
    "VerifyReply",
    "VerifyRequest",
    "VerifyResult",
    "WriteAck",
    "WriteSame",
    "Zeroes",
]


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
