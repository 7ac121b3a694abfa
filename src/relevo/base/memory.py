"""What a process on which others wait asks for: memory that is never swapped out, and not to be killed for memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import resource

import structlog

_MCL_CURRENT = 1
_MCL_FUTURE = 2
_CAP_IPC_LOCK = 14
_OOM_NEVER = -1000
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


def escape_oom_killer() -> int:
    """Put this process out of the OOM killer's reach; its children are too, until `give_back_to_oom_killer`.

    Returns:
        the oom_score_adj that it had, -1000 to 1000; where the change is refused it still has it, which the log says.
    """
    place = pathlib.Path("/proc/self/oom_score_adj")
    before = int(place.read_text())
    try:
        place.write_text(str(_OOM_NEVER))
    except OSError as error:
        _log.info("not_granted", what="oom_score_adj", error=error.strerror)
    return before


def give_back_to_oom_killer(pid: int, oom_score_adj: int) -> None:
    """Let a child count like any other process; one that has ended already is fine.

    Args:
        pid: the child, not yet waited for.
        oom_score_adj: what its parent had before `escape_oom_killer`.
    """
    with contextlib.suppress(OSError):  # a zombie's cannot be written; raising one's own child's score is never refused
        pathlib.Path(f"/proc/{pid}/oom_score_adj").write_text(str(oom_score_adj))


def _capabilities() -> int:
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0
