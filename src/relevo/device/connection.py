"""FUSE connections as the kernel's control file system (fusectl) shows them: is one still there, and end it.

A connection is named by the minor number of its file system's device, and that number is given to the next file system
as soon as it is free. So a number is good only for opening: what is kept is a descriptor of the connection's control
directory, which the kernel empties with the connection and never gives to another one.
"""

from __future__ import annotations

import ctypes
import os
import pathlib

from relevo.device.mount import checked, connection_minor

# fsopen, fsconfig and fsmount (Linux 5.2) have the same numbers on every architecture.
_SYS_FSOPEN = 430
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432
_CLOEXEC = 0x1
_FSCONFIG_CMD_CREATE = 6
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_ENOUGH_BYTES = 32

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class Connection:
    """A FUSE connection that is never taken for another one. Made by `connection_at` or `connection_of`.

    Args:
        minor: the number that it has while it is there.
        folder: descriptor of its control directory; closed with this.
    """

    def __init__(self, minor: int, folder: int) -> None:
        self.minor = minor
        self._folder = folder

    def __del__(self) -> None:
        os.close(self._folder)  # shared by whoever may have to abort it, so nobody in particular closes it

    @property
    def alive(self) -> bool:
        """Whether the kernel still has it, aborted or not: something of it is mounted, or in use."""
        fd = self._open("waiting", os.O_RDONLY)
        if fd is None:
            return False
        try:
            return bool(os.read(fd, _ENOUGH_BYTES))
        finally:
            os.close(fd)

    def abort(self) -> bool:
        """Every request in flight and to come fails at once, whatever its server does; False when it is gone.

        Raises:
            OSError: we are not root.
        """
        fd = self._open("abort", os.O_WRONLY)
        if fd is None:
            return False
        try:
            os.write(fd, b"1")
        finally:
            os.close(fd)
        return True

    def _open(self, name: str, flags: int) -> int | None:
        try:
            return os.open(name, flags | os.O_CLOEXEC, dir_fd=self._folder)
        except FileNotFoundError:
            return None


def connection_of(minor: int) -> Connection | None:
    """The connection that has a number now; whoever got the number from a table looks there again afterwards.

    Raises:
        OSError: the kernel has no fusectl, or we are not root.
    """
    control = _open_control()
    try:
        return Connection(minor, os.open(str(minor), _FOLDER, dir_fd=control))
    except FileNotFoundError:
        return None
    finally:
        os.close(control)


def connection_at(path: pathlib.Path) -> Connection | None:
    """The connection mounted at `path` by `mount_fuse_file`; None when none is. Raises OSError as `connection_of`."""
    minor = connection_minor(path)
    while minor is not None:
        found = connection_of(minor)
        again = connection_minor(path)
        if found is not None and again == minor:
            return found
        minor = again
    return None


def abort_at(path: pathlib.Path) -> bool:
    """Abort what `mount_fuse_file` mounted at `path`; False when nothing is. Raises OSError as `connection_of`."""
    connection = connection_at(path)
    return connection is not None and connection.abort()


def _open_control() -> int:
    """The control file system, mounted on no name (fsmount), so that nothing is left over."""
    context = checked(_libc.syscall(_SYS_FSOPEN, b"fusectl", _CLOEXEC))
    try:
        checked(_libc.syscall(_SYS_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0))
        mount = checked(_libc.syscall(_SYS_FSMOUNT, context, _CLOEXEC, 0))
    finally:
        os.close(context)
    try:
        return os.open(".", _FOLDER, dir_fd=mount)
    finally:
        os.close(mount)
