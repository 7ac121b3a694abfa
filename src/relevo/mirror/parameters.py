"""What the two sides tell each other of their settings before they compare their copies."""

from __future__ import annotations

from relevo.mirror import packets as p
from relevo.mirror.state import SECTOR_BYTES, Settings

MAX_RATE_KIB = 4 << 20
"""The highest rate that can be told (drbd: RESYNC_RATE_MAX): no bound. A kernel takes 0 for a standstill."""
_TENTH_MS = 100


def sync_param(settings: Settings) -> p.SyncParam:
    """P_SYNC_PARAM89. A kernel takes over what is said here for its own resync controller."""
    options = settings.options
    return p.SyncParam(
        _rate_kib(settings.resync_rate_bytes),
        options.verify_alg,
        options.csums_alg,
        options.c_plan_ahead_ms // _TENTH_MS,
        options.c_delay_target_ms // _TENTH_MS,
        options.c_fill_target_bytes // SECTOR_BYTES,
        _rate_kib(options.c_max_rate_bytes),
    )


def _rate_kib(rate_bytes: int) -> int:
    return max(1, min(MAX_RATE_KIB, rate_bytes >> 10)) if rate_bytes else MAX_RATE_KIB


def sync_disagreement(mine: p.SyncParam, theirs: p.SyncParam) -> str:
    """What differs although it must not, as a sentence; empty: nothing."""
    for name, here, there in (
        ("verify-alg", mine.verify_alg, theirs.verify_alg),
        ("csums-alg", mine.csums_alg, theirs.csums_alg),
    ):
        if here != there:
            return f"The peer's {name} is {there or 'not set'}, this side's is {here or 'not set'}."
    return ""
