"""What makes the mirror process dependable under load: memory locked, out of the OOM killer's reach, preferred.

Each of these may be refused by the system; then the process goes on without, and says so once.
"""

from __future__ import annotations

import gc
import os
import pathlib

import structlog

from relevo.base.memory import lock_memory

_OOM_NEVER = "-1000"
_NICE = -10
_log = structlog.get_logger()


def become_resident() -> None:
    """Lock all memory, present and future; protect against the OOM killer; run before others; no garbage scans.

    The data path makes no reference cycles that matter: what exists now is never scanned again.
    """
    lock_memory()
    for what, attempt in (("oom_score_adj", _protect), ("nice", lambda: os.nice(_NICE))):
        try:
            attempt()
        except OSError as error:
            _log.info("not_granted", what=what, error=error.strerror)
    gc.collect()
    gc.freeze()


def _protect() -> None:
    pathlib.Path("/proc/self/oom_score_adj").write_text(_OOM_NEVER)
