"""The few Linux system calls that Python 3.11 lacks, by ctypes. Standard library only: PID 1 of a node imports it."""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000
CLONE_NODE = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
"""What a machine of the lab has of its own."""

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_CAP_SYS_BOOT = 22

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def unshare(flags: int) -> None:
    """Leave the given namespaces for new ones (a new PID namespace is the children's). Raises OSError."""
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(fd: int, flags: int) -> None:
    """Enter the namespaces behind `fd`: one of /proc/PID/ns, or several of a pidfd's process. Raises OSError."""
    _checked(_libc.setns(ctypes.c_int(fd), ctypes.c_int(flags)), "setns")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). Raises OSError with the target as its file name."""
    result = _libc.mount(
        os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), os.fsencode(data) or None
    )
    _checked(result, target)


def umount(target: str, flags: int = 0) -> None:
    """umount2(2). Raises OSError with the target as its file name."""
    _checked(_libc.umount2(os.fsencode(target), ctypes.c_int(flags)), target)


def enter_root(new_root: str) -> None:
    """Make a mounted directory the root of this mount namespace and let go of the old one. Raises OSError."""
    os.chdir(new_root)
    _checked(_libc.pivot_root(b".", b"."), new_root)
    umount(".", MNT_DETACH)
    os.chdir("/")


def die_with_parent(signal: int) -> None:
    """Have `signal` sent to this process when the thread that started it ends. Raises OSError."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal), 0, 0, 0), "prctl")


def never_reboot() -> None:
    """Take the right to reboot from everything that this process executes: `reboot -f` would kill PID 1 unprepared.

    Raises:
        OSError: not allowed here.
    """
    _checked(_libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(_CAP_SYS_BOOT), 0, 0, 0), "prctl")
