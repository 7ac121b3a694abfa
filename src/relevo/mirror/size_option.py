"""`size`: the device is not larger than this, whatever the disks have room for; the smaller of both sides' counts.

As in drbd (u_size): one that is larger than the disks has no effect, and a mirror in use never becomes smaller.
"""

from __future__ import annotations

from relevo.base.units import format_bytes
from relevo.config.drbd_options import DrbdOptions
from relevo.mirror.state import SECTOR_BYTES

_ALIGN_SECTORS = 8


def limit(options: DrbdOptions, peer_sectors: int = 0) -> int:
    """The limit in sectors, whole blocks; 0: there is none.

    Args:
        options: this side's.
        peer_sectors: the peer's limit; 0: it has none, or is not known.
    """
    limits = [sectors for sectors in (options.size_bytes // SECTOR_BYTES, peer_sectors) if sectors]
    return min(limits) // _ALIGN_SECTORS * _ALIGN_SECTORS if limits else 0


def limited(sectors: int, options: DrbdOptions, peer_sectors: int = 0) -> int:
    """How much of so many sectors may be used."""
    return min(sectors, limit(options, peer_sectors) or sectors)


def too_small(size_sectors: int, options: DrbdOptions, peer_sectors: int = 0) -> str:
    """Why the limit cannot be kept by a mirror of that size, as a sentence; empty: it can."""
    limit_sectors = limit(options, peer_sectors)
    if not limit_sectors or limit_sectors >= size_sectors:
        return ""
    whose = "The peer's" if limit(options) != limit_sectors else "This side's"
    return (
        f"{whose} option size ({format_bytes(limit_sectors * SECTOR_BYTES)}) is smaller than the mirror "
        f"({format_bytes(size_sectors * SECTOR_BYTES)}), which cannot become smaller."
    )
