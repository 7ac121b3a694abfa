"""The activity log on disk: a ring of 4 KiB transactions that says which extents of 4 MiB may be different on the peer.

Pure: bytes in, transactions out. Which extent is active, and when a transaction has to be stable, is not decided here.
Layout: docs/internals/mirror-disk.md.
"""

from __future__ import annotations

import array
import contextlib
import struct
import sys
from collections.abc import Sequence

import msgspec

from relevo.base.errors import RelevoError
from relevo.mirror.crc32c import crc32c, find_damaged_byte
from relevo.mirror.events import AlTransaction

MAGIC = 0x69CB65A2
BLOCK_BYTES = 4096
EXTENT_BYTES = 4 << 20
UPDATES_MAX = 64
CONTEXT_MAX = 919
SLOTS_MAX = 0xFFFE
UNUSED = 0xFFFF_FFFF
"""Extent number of a slot that holds none."""
_NO_SLOT = 0xFFFF
_TYPE_UPDATE = 0
_TYPE_INITIALIZED = 0xFFFF
_HEAD = struct.Struct(">IIIHHHH16x")
_UPDATES_AT = _HEAD.size
_EXTENTS_AT = _UPDATES_AT + 2 * UPDATES_MAX
_CONTEXT_AT = _EXTENTS_AT + 4 * UPDATES_MAX
_CRC_AT = 8
_NUMBER_MASK = 0xFFFF_FFFF
_RESYNC = "Resynchronise the whole disk."
assert _CONTEXT_AT + 4 * CONTEXT_MAX == BLOCK_BYTES


class ActivityLogCorrupt(RelevoError):
    """The activity log does not say which extents were active: only a full resync makes the copies equal again."""


class Replay(msgspec.Struct, frozen=True):
    """What a log says.

    Attributes:
        extents: those that were active when the newest transaction was written, or just before.
        number: that transaction's number; 0 when there is none.
    """

    extents: frozenset[int]
    number: int


def _big_endian(typecode: str, values: Sequence[int]) -> bytes:
    packed = array.array(typecode, values)
    if sys.byteorder == "little":
        packed.byteswap()
    return packed.tobytes()


def encode_transaction(transaction: AlTransaction) -> bytes:
    """A transaction's block."""
    updates, context = transaction.updates, transaction.context
    assert len(updates) <= UPDATES_MAX
    assert len(context) <= CONTEXT_MAX
    assert transaction.context_size <= SLOTS_MAX
    spare = UPDATES_MAX - len(updates)
    body = b"".join(
        (
            _big_endian("H", [slot for slot, _ in updates]) + b"\xff\xff" * spare,
            _big_endian("I", [extent for _, extent in updates]) + b"\xff\xff\xff\xff" * spare,
            _big_endian("I", context) + b"\xff\xff\xff\xff" * (CONTEXT_MAX - len(context)),
        )
    )
    fields = (_TYPE_UPDATE, len(updates), transaction.context_size, transaction.context_start)
    total = crc32c(_HEAD.pack(MAGIC, transaction.number, 0, *fields) + body)
    return _HEAD.pack(MAGIC, transaction.number, total, *fields) + body


def initialized_block() -> bytes:
    """The block that fills a log in which nothing is active."""
    head = _HEAD.pack(MAGIC, 0, 0, _TYPE_INITIALIZED, 0, 0, 0)
    total = crc32c(head.ljust(BLOCK_BYTES, b"\0"))
    return _HEAD.pack(MAGIC, 0, total, _TYPE_INITIALIZED, 0, 0, 0).ljust(BLOCK_BYTES, b"\0")


def decode_transaction(block: bytes) -> AlTransaction | None:
    """The transaction in a block; None when it is one of `initialized_block`.

    Raises:
        ActivityLogCorrupt: magic number, sum or type is wrong.
    """
    magic, number, total, kind, n_updates, slots, first_slot = _HEAD.unpack_from(block)
    if len(block) != BLOCK_BYTES or magic != MAGIC:
        raise ActivityLogCorrupt("A block of the activity log does not begin with its magic number.")
    cleared = block[:_CRC_AT] + bytes(4) + block[_CRC_AT + 4 :]
    if crc32c(cleared) != total:
        raise ActivityLogCorrupt("A block of the activity log has a wrong checksum.")
    if kind == _TYPE_INITIALIZED:
        return None
    if kind != _TYPE_UPDATE or n_updates > UPDATES_MAX:
        raise ActivityLogCorrupt(f"A block of the activity log is of the unknown type {kind:#x}.")
    numbers = struct.unpack_from(f">{n_updates}H", block, _UPDATES_AT)
    extents = struct.unpack_from(f">{n_updates}I", block, _EXTENTS_AT)
    context = struct.unpack_from(f">{CONTEXT_MAX}I", block, _CONTEXT_AT)
    used = max(0, min(CONTEXT_MAX, slots - first_slot))
    return AlTransaction(number, tuple(zip(numbers, extents, strict=True)), slots, first_slot, context[:used])


def repair(block: bytes) -> bytes | None:
    """A block of which a single byte went bad, as it was; None: it is torn, or worse.

    Without that a damaged newest transaction could not be told from one that was being written when the power failed,
    and what it says would count as in sync.
    """
    cleared = block[:_CRC_AT] + bytes(4) + block[_CRC_AT + 4 :]
    computed, stored = crc32c(cleared), int.from_bytes(block[_CRC_AT : _CRC_AT + 4], "big")
    syndrome = computed ^ stored
    if sum(syndrome >> shift & 0xFF != 0 for shift in (0, 8, 16, 24)) == 1:  # the sum itself
        return block[:_CRC_AT] + computed.to_bytes(4, "big") + block[_CRC_AT + 4 :]
    found = find_damaged_byte(syndrome, len(block))
    if found is None or _CRC_AT <= found[0] < _CRC_AT + 4:
        return None
    place, change = found
    return block[:place] + bytes([block[place] ^ change]) + block[place + 1 :]


def ring_block(number: int, stripes: int, stripe_blocks: int) -> int:
    """Which block of the log a transaction's number belongs into."""
    position = number % (stripes * stripe_blocks)
    return position % stripes * stripe_blocks + position // stripes


def replay(log: bytes, stripes: int = 1, stripe_blocks: int = 8) -> Replay:
    """What the slots held when the newest transaction was written; `log` is the whole ring as it lies on the disk.

    One torn block is expected after a power cut, where the transaction after the newest belongs: it was not stable, so
    nothing was written on its word. Anywhere else an unreadable block was stable once, and what it alone said is lost.
    A block in which a single byte went bad is mended by its checksum. One torn block in a thousand looks like that too:
    when the newest was mended, what held before it counts as well.

    Raises:
        ActivityLogCorrupt: another block is unreadable, or the transactions are no unbroken row.
    """
    size = stripes * stripe_blocks
    found: list[AlTransaction] = []
    mended: set[int] = set()
    unreadable: list[int] = []
    for position in range(size):
        at = ring_block(position, stripes, stripe_blocks) * BLOCK_BYTES
        block = log[at : at + BLOCK_BYTES]
        try:
            transaction = decode_transaction(block)
        except (ActivityLogCorrupt, struct.error):
            transaction = _mended(block, position, size)
            if transaction is None:
                unreadable.append(position)
            else:
                mended.add(transaction.number)
        if transaction is not None:
            found.append(transaction)
    newest = _newest(found)
    if len(unreadable) > 1:
        raise ActivityLogCorrupt(f"{len(unreadable)} blocks of the activity log are unreadable.", _RESYNC)
    if found and unreadable and unreadable != [((newest + 1) & _NUMBER_MASK) % size]:
        raise ActivityLogCorrupt("A block of the activity log that was stable is unreadable.", _RESYNC)
    return _replayed(found, newest, doubtful=newest in mended)


def _mended(block: bytes, position: int, size: int) -> AlTransaction | None:
    """The transaction of which a single byte went bad, if that is what happened: it has to belong where it lies."""
    whole = repair(block) if len(block) == BLOCK_BYTES else None
    if whole is None:
        return None
    with contextlib.suppress(ActivityLogCorrupt):
        transaction = decode_transaction(whole)
        if transaction is not None and transaction.number % size == position:
            return transaction
    return None


def _newest(found: Sequence[AlTransaction]) -> int:
    """The number written last; numbers begin anew at 2^32. 0 when there is none."""
    newest = found[0].number if found else 0
    for transaction in found:
        if (transaction.number - newest) & _NUMBER_MASK < 1 << 31:
            newest = transaction.number
    return newest


def _replayed(found: list[AlTransaction], newest: int, *, doubtful: bool) -> Replay:
    """Replay all from the oldest on; of a newest one that is doubtful, what held before it counts too."""
    found.sort(key=lambda transaction: (newest - transaction.number) & _NUMBER_MASK, reverse=True)
    held: dict[int, int] = {}
    before: set[int] = set()
    for following, transaction in enumerate(found, 1 - len(found)):
        if (newest + following - transaction.number) & _NUMBER_MASK:
            raise ActivityLogCorrupt("A transaction of the activity log is missing.", _RESYNC)
        if doubtful and transaction.number == newest:
            before.update(held.values())
        held.update(enumerate(transaction.context, transaction.context_start))
        held.update(transaction.updates)
    return Replay(frozenset(before.union(held.values()) - {UNUSED}), newest)


def newest_number(log: bytes) -> int:
    """The number of the newest readable transaction of a log, so that a new one can go on from there."""
    found: list[AlTransaction] = []
    for at in range(0, len(log), BLOCK_BYTES):
        with contextlib.suppress(ActivityLogCorrupt, struct.error):
            transaction = decode_transaction(log[at : at + BLOCK_BYTES])
            if transaction is not None:
                found.append(transaction)
    return _newest(found)
