"""What makes the mirror process dependable under load: memory locked, out of the OOM killer's reach, preferred.

When memory is short the kernel writes dirty pages to make room, and those of the mirrored file system come here: this
process must not wait for memory that only it can free. `PR_SET_IO_FLUSHER` (Linux 5.6) says so to the kernel, which
then begins no I/O of file systems for the sake of this process's allocations, and does not hold its writes back.

Each of these may be refused by the system; then the process goes on without, and says so once.
"""

from __future__ import annotations

import ctypes
import gc
import os

import structlog

from relevo.base.memory import escape_oom_killer, lock_memory

_NICE = -10
_PR_SET_IO_FLUSHER = 57
_libc = ctypes.CDLL(None, use_errno=True)
_log = structlog.get_logger()


def become_resident() -> None:
    """Lock all memory, present and future; protect against the OOM killer; run before others; no garbage scans.

    The data path makes no reference cycles that matter: what exists now is never scanned again.
    """
    lock_memory()
    escape_oom_killer()
    attempts = (("io_flusher", _flush_for_others), ("nice", lambda: os.nice(_NICE)))
    for what, attempt in attempts:
        try:
            attempt()
        except OSError as error:
            _log.info("not_granted", what=what, error=error.strerror)
    gc.collect()
    gc.freeze()


def _flush_for_others() -> None:
    if _libc.prctl(_PR_SET_IO_FLUSHER, 1, 0, 0, 0) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
