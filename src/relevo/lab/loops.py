"""Loop devices are one set for the whole host: a lab knows its own by their names, which carry the cluster's name."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib

from relevo.device import loop

_DEV = pathlib.Path("/dev")
_LOOP_CLR_FD = 0x4C01


def named(cluster: str, machine: str = "") -> tuple[loop.LoopInfo, ...]:
    """The bound loop devices of a cluster, or of one machine of it.

    Ask only when no server of a file below one of them can be stuck: look after its connection was aborted.
    """
    return loop.find(f"relevo:{cluster}:{machine}:" if machine else f"relevo:{cluster}:", _DEV)


def detach(found: loop.LoopInfo) -> None:
    """Let go of its file; where it is still in use, the kernel does it when the last user closes it."""
    with contextlib.suppress(OSError):
        fd = os.open(_DEV / f"loop{found.number}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, _LOOP_CLR_FD)
        finally:
            os.close(fd)
