"""What the two sides' settings of a resync have to have in common before they compare their copies."""

from __future__ import annotations

from relevo.config.drbd_options import DrbdOptions
from relevo.mirror import packets as p


def sync_disagreement(mine: DrbdOptions, theirs: p.SyncParam) -> str:
    """What differs although it must not, as a sentence; empty: nothing."""
    for name, here, there in (
        ("verify-alg", mine.verify_alg, theirs.verify_alg),
        ("csums-alg", mine.csums_alg, theirs.csums_alg),
    ):
        if here != there:
            return f"The peer's {name} is {there or 'not set'}, this side's is {here or 'not set'}."
    return ""
