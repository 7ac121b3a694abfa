"""Mounting a `FuseFile` onto a regular file, and unmounting it (`connection.py`: aborting it when its server is stuck).

Plain system calls through ctypes: no mount(8), which may touch paths of its own. `mount_fuse_file` does not wait for
the server: the kernel queues INIT and returns.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pathlib

from relevo.base.errors import RelevoError
from relevo.device.fuse_proto import MAX_IO_BYTES

FILE_SYSTEM_TYPE = "fuse.relevo"
MOUNT_INFO = pathlib.Path("/proc/self/mountinfo")
_MS_NOSUID = 0x2
_MS_NODEV = 0x4
_MS_NOATIME = 0x400
_MNT_DETACH = 0x2
_UMOUNT_NOFOLLOW = 0x8

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]


class MountFailed(RelevoError):
    """A served file could not be mounted or unmounted."""


def checked(result: int) -> int:
    """What a system call by ctypes (use_errno) returned. Raises OSError when it failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def mount_fuse_file(fd: int, path: pathlib.Path, source: str = "relevo") -> None:
    """Mount the connection behind the /dev/fuse descriptor `fd` onto the regular file `path` (made when missing).

    Args:
        fd: `FuseFile.fileno()`, or a duplicate of it.
        path: where the served file appears.
        source: what the mount table shows as its device.

    Raises:
        MountFailed: not root, or the descriptor is already mounted.
    """
    path.touch(mode=0o600)
    options = f"fd={fd},rootmode=100000,user_id=0,group_id=0,max_read={MAX_IO_BYTES}"
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOATIME
    try:
        checked(
            _libc.mount(source.encode(), os.fsencode(path), FILE_SYSTEM_TYPE.encode(), flags, options.encode("ascii"))
        )
    except OSError as error:
        raise MountFailed(f"{path} cannot be mounted ({error.strerror}).", "Run as root, with /dev/fuse.") from error


def umount(path: pathlib.Path, *, lazy: bool = False) -> bool:
    """Unmount what is mounted at `path`; False when nothing is.

    Args:
        path: the mount point.
        lazy: take the name away now and let the kernel finish when the last user is gone. Only for a dead connection.

    Raises:
        OSError: EBUSY when it is in use (never when lazy).
    """
    try:
        checked(_libc.umount2(os.fsencode(path), _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0)))
    except OSError as error:
        if error.errno in {errno.EINVAL, errno.ENOENT}:
            return False
        raise
    return True


def connection_minor(path: pathlib.Path) -> int | None:
    """The minor number that names the FUSE connection mounted at `path`; None when none is.

    Read from the mount table, so a server that does not answer cannot block the caller.
    """
    wanted = _escaped(path)
    minor = None
    for line in MOUNT_INFO.read_bytes().splitlines():
        fields = line.split(b" ")
        if fields[4] == wanted and b" - " + FILE_SYSTEM_TYPE.encode() + b" " in line:
            minor = int(fields[2].partition(b":")[2])  # the last line is the topmost mount
    return minor


def _escaped(path: pathlib.Path) -> bytes:
    escaped = os.fsencode(path)
    for special in b"\\ \t\n":
        escaped = escaped.replace(bytes([special]), b"\\%03o" % special)
    return escaped
