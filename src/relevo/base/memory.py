"""Memory that is never swapped out: what a process on which others wait asks for."""

from __future__ import annotations

import ctypes
import os
import pathlib
import resource

import structlog

_MCL_CURRENT = 1
_MCL_FUTURE = 2
_CAP_IPC_LOCK = 14
_libc = ctypes.CDLL(None, use_errno=True)
_log = structlog.get_logger()


def lock_memory() -> None:
    """Lock all memory of this process, present and future; where that is refused, say so and go on.

    Without the capability, locking what is to come would make it fail at the limit: then nothing is locked.
    """
    capable = _capabilities() >> _CAP_IPC_LOCK & 1
    if not capable and resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] != resource.RLIM_INFINITY:
        _log.warning("memory_not_locked", remedy="Raise LimitMEMLOCK of this service.")
    elif _libc.mlockall(_MCL_CURRENT | _MCL_FUTURE) < 0:
        _log.warning("memory_not_locked", error=os.strerror(ctypes.get_errno()))


def _capabilities() -> int:
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0
