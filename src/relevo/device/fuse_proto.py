"""The part of the FUSE kernel protocol (include/uapi/linux/fuse.h, version 7.38) that one regular file needs.

Everything is in the machine's byte order and natural alignment. Bytes in, values out; no descriptor is touched here.
"""

from __future__ import annotations

import enum
import stat
import struct

MAJOR = 7
MINOR = 38
ROOT_NODE = 1
MAX_IO_BYTES = 1 << 20  # largest read or write, as offered at INIT
MAX_PAGES = MAX_IO_BYTES // 4096
MAX_BACKGROUND = 256
ATTRIBUTES_VALID_S = 315_360_000  # ten years: LOOP_GET_STATUS64 must never have to ask the server
FILE_HANDLE = 1
NAME_MAX = 255

UNIQUE_RESEND = 1 << 63
"""Set in `unique` of a request that the kernel hands over again; its answer carries it as well."""
NOTIFY_RESEND = 7
"""`FUSE_NOTIFY_RESEND`: hand over again what is not answered (Linux 6.9, where INIT offers HAS_RESEND)."""

FATTR_SIZE = 1 << 3
FOPEN_DIRECT_IO = 1 << 0
FOPEN_NOFLUSH = 1 << 5
FOPEN_PARALLEL_DIRECT_WRITES = 1 << 6
FALLOC_KEEP_SIZE = 0x01
FALLOC_PUNCH_HOLE = 0x02
FALLOC_ZERO_RANGE = 0x10


class Opcode(enum.IntEnum):
    """`enum fuse_opcode`: those that a regular file can meet."""

    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    FLUSH = 25
    INIT = 26
    ACCESS = 34
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43


class InitFlag(enum.IntFlag):
    """Capabilities agreed upon at INIT."""

    ASYNC_READ = 1 << 0
    BIG_WRITES = 1 << 5
    ASYNC_DIO = 1 << 15
    MAX_PAGES = 1 << 22
    INIT_EXT = 1 << 30  # there is a second word of flags
    HAS_RESEND = 1 << 39  # in the second word; it needs no consent


WANTED_FLAGS = InitFlag.ASYNC_READ | InitFlag.BIG_WRITES | InitFlag.ASYNC_DIO | InitFlag.MAX_PAGES

# struct fuse_in_header: len, opcode, unique, nodeid, uid, gid, pid, total_extlen, padding
IN_HEADER = struct.Struct("=IIQQIIIHH")
# The header with fuse_read_in or fuse_write_in behind it, as the hot path reads it: len, opcode, unique, (nodeid …
# padding, fh), offset, size, (read_flags or write_flags, lock_owner, flags, padding)
IO_REQUEST = struct.Struct("=IIQ32xQI20x")
INIT_IN = struct.Struct("=IIIII")  # major, minor, max_readahead, flags, flags2 (unused words follow)
FALLOCATE_IN = struct.Struct("=QQQII")  # fh, offset, length, mode, padding
SETATTR_IN = struct.Struct("=IIQQ")  # valid, padding, fh, size (times, mode, owner follow)

OUT_HEADER = struct.Struct("=IiQ")  # len, error (negative errno), unique
WRITE_REPLY = struct.Struct("=IiQII")  # header, then fuse_write_out: size, padding
# major, minor, max_readahead, flags, max_background, congestion_threshold, max_write, time_gran, max_pages,
# map_alignment, flags2, max_stack_depth, 6 unused words
INIT_OUT = struct.Struct("=IIIIHHIIHHII24x")
OPEN_OUT = struct.Struct("=QII")  # fh, open_flags, backing_id
# attr_valid, attr_valid_nsec, dummy; ino, size, blocks, atime, mtime, ctime, atimensec, mtimensec, ctimensec,
# mode, nlink, uid, gid, rdev, blksize, flags
ATTR_OUT = struct.Struct("=QIIQQQQQQIIIIIIIIII")
# blocks, bfree, bavail, files, ffree, bsize, namelen, frsize, padding, 6 spare words
STATFS_OUT = struct.Struct("=QQQQQIIII24x")

IN_HEADER_BYTES = IN_HEADER.size
IO_REQUEST_BYTES = IO_REQUEST.size
OUT_HEADER_BYTES = OUT_HEADER.size
assert (IN_HEADER_BYTES, IO_REQUEST_BYTES, OUT_HEADER_BYTES) == (40, 80, 16)
assert (INIT_OUT.size, ATTR_OUT.size, STATFS_OUT.size) == (64, 104, 80)


def init_reply(kernel_flags: int, max_readahead: int) -> bytes:
    """Body of the answer to INIT: what of the kernel's offer is taken."""
    flags = kernel_flags & WANTED_FLAGS
    threshold = MAX_BACKGROUND * 3 // 4
    return INIT_OUT.pack(
        MAJOR, MINOR, max_readahead, flags, MAX_BACKGROUND, threshold, MAX_IO_BYTES, 1, MAX_PAGES, 0, 0, 0
    )


def offers_resend(flags: int, flags2: int) -> bool:
    """Whether the kernel's INIT says that it can hand over again what was not answered."""
    offered = flags | (flags2 << 32 if flags & InitFlag.INIT_EXT else 0)
    return bool(offered & InitFlag.HAS_RESEND)


def resend_notice() -> bytes:
    """What is written to /dev/fuse to have every request that was read and not answered handed over again."""
    return OUT_HEADER.pack(OUT_HEADER_BYTES, NOTIFY_RESEND, 0)


def open_reply() -> bytes:
    """Body of the answer to OPEN: no page cache, no FLUSH at close, writes in parallel."""
    return OPEN_OUT.pack(FILE_HANDLE, FOPEN_DIRECT_IO | FOPEN_NOFLUSH | FOPEN_PARALLEL_DIRECT_WRITES, 0)


def attributes_reply(size_bytes: int, block_bytes: int) -> bytes:
    """Body of the answer to GETATTR and SETATTR: a regular file that only root may use."""
    mode = stat.S_IFREG | 0o600
    times = (0,) * 6
    return ATTR_OUT.pack(
        ATTRIBUTES_VALID_S, 0, 0, ROOT_NODE, size_bytes, -(-size_bytes // 512), *times, mode, 1, 0, 0, 0, block_bytes, 0
    )


def statfs_reply(size_bytes: int, block_bytes: int) -> bytes:
    """Body of the answer to STATFS: the loop device takes its discard granularity from the block size here."""
    return STATFS_OUT.pack(size_bytes // block_bytes, 0, 0, 1, 0, block_bytes, NAME_MAX, block_bytes, 0)
