"""Run before everything else on the machine and never wait for memory; where that is refused, go on without."""

from __future__ import annotations

import os

import structlog

from relevo.base.memory import lock_memory

_PRIORITY = 1
"""The lowest real-time priority is above every ordinary process."""
_log = structlog.get_logger()


def acquire() -> None:
    """Ask for real-time scheduling (not inherited by children or threads) and for locked memory."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(_PRIORITY))
    except OSError as error:
        _log.warning("no_realtime_priority", error=error.strerror)
    lock_memory()
