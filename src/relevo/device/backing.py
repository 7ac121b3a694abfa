"""The disk below: a partition, a volume or a file, opened for direct I/O and for nobody else."""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import fcntl
import mmap
import os
import pathlib
import stat
import struct

from relevo.base.errors import RelevoError
from relevo.base.units import format_bytes
from relevo.device.frontend import DiscardKind

SYSFS_BLOCK = pathlib.Path("/sys/dev/block")
_BLKSSZGET = 0x1268
_SECTOR_BYTES = 512
_PAGE_BYTES = 4096
_KEEP_SIZE = 0x01
_PUNCH_HOLE = 0x02
_ZERO_RANGE = 0x10
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong]


class BackingUnusable(RelevoError):
    """A backing disk is missing, in use, not a disk, or cannot do direct I/O."""


class BackingInUse(BackingUnusable):
    """A backing disk is mounted or opened exclusively by another process."""


@dataclasses.dataclass(frozen=True, slots=True)
class Backing:
    """An open backing disk.

    Attributes:
        fd: descriptor with O_DIRECT | O_RDWR, closed on exec.
        path: where it was opened.
        size_bytes: its size.
        block_bytes: offsets, lengths and addresses of direct I/O are multiples of this (512 or 4096).
        is_block_device: a block device, else a regular file.
        can_discard: `discard` gives space back cheaply; otherwise do not offer it.
    """

    fd: int
    path: pathlib.Path
    size_bytes: int
    block_bytes: int
    is_block_device: bool
    can_discard: bool

    def close(self) -> None:
        """Give the disk back."""
        os.close(self.fd)


def open_backing(path: pathlib.Path, part: range | None = None) -> Backing:
    """Open a disk for direct I/O, alone. Holes of a regular file are allocated first: asynchronous I/O blocks on them.

    Args:
        path: a block device or a regular file.
        part: bytes of it that are wanted alone: the rest may be used by others that ask for their parts.

    Raises:
        BackingInUse: somebody else uses it, or that part of it.
        BackingUnusable: missing, neither file nor block device, or no direct I/O there.
    """
    try:
        kind = path.stat().st_mode
        if not (stat.S_ISBLK(kind) or stat.S_ISREG(kind)):
            raise BackingUnusable(f"{path} is neither a block device nor a file.", "Name a partition, volume or file.")
        exclusive = os.O_EXCL if stat.S_ISBLK(kind) and part is None else 0
        fd = os.open(path, os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC | exclusive)
    except OSError as error:
        raise _open_error(path, error) from error
    try:
        if part is not None:
            _claim(fd, path, part)
        if stat.S_ISBLK(kind):
            return _block_device(fd, path)
        return _regular_file(fd, path, part)
    except BaseException:
        os.close(fd)
        raise


def _open_error(path: pathlib.Path, error: OSError) -> BackingUnusable:
    if error.errno == errno.EBUSY:
        return BackingInUse(f"{path} is in use.", "Unmount it, or stop what holds it open.")
    if error.errno == errno.EINVAL:
        return BackingUnusable(f"{path} cannot do direct I/O.", "Use a file system that can, such as ext4 or xfs.")
    return BackingUnusable(f"{path} cannot be opened ({error.strerror}).", "Check the name of the disk.")


def _claim(fd: int, path: pathlib.Path, part: range) -> None:
    """Lock a part of a disk for as long as it is open."""
    wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, part.start, len(part), 0)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, wanted)
    except OSError as error:
        if error.errno not in {errno.EAGAIN, errno.EACCES}:
            raise
        raise BackingInUse(
            f"Bytes {part.start} to {part.stop} of {path} are in use.", "Give each mirror an index of its own."
        ) from error


def _block_device(fd: int, path: pathlib.Path) -> Backing:
    (block_bytes,) = struct.unpack("=i", fcntl.ioctl(fd, _BLKSSZGET, bytes(4)))
    size_bytes = os.lseek(fd, 0, os.SEEK_END)
    return Backing(fd, path, size_bytes, block_bytes, is_block_device=True, can_discard=_device_can_discard(fd))


def _regular_file(fd: int, path: pathlib.Path, part: range | None) -> Backing:
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if part is None else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BackingInUse(f"{path} is in use.", "Stop what holds it open.") from error
    size_bytes = os.fstat(fd).st_size
    if size_bytes == 0:
        raise BackingUnusable(f"{path} is empty.", "Give it its size with truncate -s.")
    if part is None:
        allocate(fd, path, size_bytes)
    else:
        allocate(fd, path, min(part.stop, size_bytes), part.start)
    return Backing(
        fd, path, size_bytes, _direct_block_bytes(fd, path), is_block_device=False, can_discard=_file_can_discard(fd)
    )


def allocate(fd: int, path: pathlib.Path, end: int, begin: int = 0) -> None:
    """Give every block of [begin, end) of a file its place on the disk; what is there stays.

    Raises:
        BackingUnusable: no space left, or a sparse file on a file system that cannot do it.
    """
    missing = end - begin - os.fstat(fd).st_blocks * _SECTOR_BYTES
    if begin == 0 and missing <= 0:
        return
    below = os.fstatvfs(fd)
    free = below.f_bavail * below.f_frsize
    if missing > free:  # the attempt would fill the file system to the last block before it fails
        raise BackingUnusable(
            f"{path} has holes of {format_bytes(missing)}, and its file system only {format_bytes(free)} for them.",
            "Use a smaller file, or a block device.",
        )
    try:
        _fallocate(fd, 0, begin, end - begin)
    except OSError as error:
        raise BackingUnusable(
            f"{path} has holes that cannot be filled ({error.strerror}).", "Write it fully, for example with dd."
        ) from error


def discard(fd: int, offset: int, length: int, kind: DiscardKind) -> None:
    """Make a range read as zeros, in the cheapest way the disk has. Blocks until done.

    A block device gives the space back when it can do so with zeros as the outcome (BLKDISCARD promises none and is not
    used). A file keeps its blocks, as unwritten ones, where its file system can: asynchronous I/O blocks on holes.

    Raises:
        OSError: EOPNOTSUPP when there is no way but to write zeros, else as the disk reports.
    """
    first, second = _ZERO_RANGE, _PUNCH_HOLE
    if kind is DiscardKind.UNMAP and stat.S_ISBLK(os.fstat(fd).st_mode):
        first, second = second, first
    try:
        _fallocate(fd, first | _KEEP_SIZE, offset, length)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        _fallocate(fd, second | _KEEP_SIZE, offset, length)


def _fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    while _libc.fallocate(fd, mode, offset, length) < 0:
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


def _direct_block_bytes(fd: int, path: pathlib.Path) -> int:
    """The smallest block that direct I/O takes here, found out by reading."""
    with mmap.mmap(-1, _PAGE_BYTES) as page:
        for block_bytes in (_SECTOR_BYTES, _PAGE_BYTES):
            with memoryview(page) as whole, whole[:block_bytes] as view:
                try:
                    os.preadv(fd, [view], 0)
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise BackingUnusable(
                            f"{path} cannot be read ({error.strerror}).", "Check the disk."
                        ) from error
                    continue
                return block_bytes
    raise BackingUnusable(f"{path} cannot do direct I/O in blocks of {_PAGE_BYTES} bytes.", "Use another disk.")


def _file_can_discard(fd: int) -> bool:
    behind = -(-os.fstat(fd).st_size // _PAGE_BYTES) * _PAGE_BYTES
    try:
        _fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, behind, _PAGE_BYTES)  # beyond the end: changes nothing
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        return False
    return True


def requests_at_once(fd: int) -> int | None:
    """How many requests the disk's queue in the kernel takes before whoever brings more has to wait; None: not known.

    Args:
        fd: a block device, or a file, which lies on one.
    """
    found = os.fstat(fd)
    try:
        return int((_queue(found.st_rdev if stat.S_ISBLK(found.st_mode) else found.st_dev) / "nr_requests").read_text())
    except (OSError, ValueError):
        return None


def _queue(number: int) -> pathlib.Path:
    """Where sysfs describes the queue of a block device."""
    device = (SYSFS_BLOCK / f"{os.major(number)}:{os.minor(number)}").resolve()
    queue = device / "queue"
    return queue if queue.is_dir() else device.parent / "queue"  # a partition


def _device_can_discard(fd: int) -> bool:
    queue = _queue(os.fstat(fd).st_rdev)
    try:
        limits = [int((queue / name).read_text()) for name in ("discard_max_bytes", "write_zeroes_max_bytes")]
    except (OSError, ValueError):
        return False
    return all(limit > 0 for limit in limits)
