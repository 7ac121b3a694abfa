"""Packets by which two mirrors come to terms: who they are, what they hold, what changes state. See `packets`."""

from __future__ import annotations

import enum

import msgspec

from relevo.mirror.packet_base import (
    Command,
    Packet,
)


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
