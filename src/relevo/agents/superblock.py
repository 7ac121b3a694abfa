"""What lies on a block device, told from its first bytes.

Sources: linux Documentation/filesystems/ext4/super.rst (superblock at byte 1024, fields little-endian), xfs_format.h
(`XFSB` at byte 0), btrfs on-disk format (`_BHRfS_M` at byte 65600).
"""

from __future__ import annotations

import dataclasses
import struct

NEEDED_BYTES = 68 << 10
"""Enough for every signature below."""

_EXT_START = 1024
_EXT_MAGIC = 0xEF53
_EXT_STATE = struct.Struct("<HH")
_EXT_STATE_AT = _EXT_START + 0x38
_EXT_FEATURES = struct.Struct("<III")
_EXT_FEATURES_AT = _EXT_START + 0x5C
_VALID, _ERROR = 0x1, 0x2
_COMPAT_HAS_JOURNAL = 0x4
_INCOMPAT_RECOVER = 0x4
_INCOMPAT_EXTENTS = 0x40
_BTRFS_MAGIC_AT = (64 << 10) + 0x40


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """A file system.

    Attributes:
        fstype: `ext4`, `ext3`, `ext2`, `xfs` or `btrfs`.
        recover: its journal has to be replayed, which mounting does.
        check: it is marked as damaged, or was not unmounted and has no journal: e2fsck has to look at it first.
    """

    fstype: str
    recover: bool = False
    check: bool = False


def identify(head: bytes) -> Found | None:
    """The file system whose device begins with these bytes (`NEEDED_BYTES` of them); None if there is none we know."""
    if head.startswith(b"XFSB"):
        return Found("xfs")
    if head[_BTRFS_MAGIC_AT : _BTRFS_MAGIC_AT + 8] == b"_BHRfS_M":
        return Found("btrfs")
    if len(head) < 2 * _EXT_START:
        return None
    magic, state = _EXT_STATE.unpack_from(head, _EXT_STATE_AT)
    if magic != _EXT_MAGIC:
        return None
    compat, incompat, _ = _EXT_FEATURES.unpack_from(head, _EXT_FEATURES_AT)
    journal = bool(compat & _COMPAT_HAS_JOURNAL)
    fstype = "ext4" if incompat & _INCOMPAT_EXTENTS else "ext3" if journal else "ext2"
    return Found(fstype, bool(incompat & _INCOMPAT_RECOVER), bool(state & _ERROR) or not state & _VALID)


def is_blank(head: bytes) -> bool:
    """Whether nothing was ever written there."""
    return not any(head)
