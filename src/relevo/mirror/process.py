"""What makes the mirror process dependable under load: memory locked, out of the OOM killer's reach, preferred.

Each of these may be refused by the system; then the process goes on without, and says so once.
"""

from __future__ import annotations

import ctypes
import gc
import os
import pathlib
import resource

import structlog

_MCL_CURRENT = 1
_MCL_FUTURE = 2
_CAP_IPC_LOCK = 14
_OOM_NEVER = "-1000"
_NICE = -10
_libc = ctypes.CDLL(None, use_errno=True)
_log = structlog.get_logger()


def become_resident() -> None:
    """Lock all memory, present and future; protect against the OOM killer; run before others; no garbage scans.

    The data path makes no reference cycles that matter: what exists now is never scanned again.
    """
    _lock_memory()
    for what, attempt in (("oom_score_adj", _protect), ("nice", lambda: os.nice(_NICE))):
        try:
            attempt()
        except OSError as error:
            _log.info("not_granted", what=what, error=error.strerror)
    gc.collect()
    gc.freeze()


def _lock_memory() -> None:
    """Without the capability, locking what is to come would make it fail at the limit: then nothing is locked."""
    capable = _capabilities() >> _CAP_IPC_LOCK & 1
    if not capable and resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] != resource.RLIM_INFINITY:
        _log.warning("memory_not_locked", remedy="Raise LimitMEMLOCK of this service.")
        return
    if _libc.mlockall(_MCL_CURRENT | _MCL_FUTURE) < 0:
        _log.warning("memory_not_locked", error=os.strerror(ctypes.get_errno()))


def _capabilities() -> int:
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _protect() -> None:
    pathlib.Path("/proc/self/oom_score_adj").write_text(_OOM_NEVER)
