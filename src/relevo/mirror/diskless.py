"""A mirror without a backing disk: what it tells of itself before it has ever had one, and which effects need one."""

from __future__ import annotations

from typing import Any

from relevo.base.control import Message
from relevo.mirror import events as ev

DISK_EFFECTS: tuple[type[Any], ...] = (
    *(ev.DiskRead, ev.DiskReadThin, ev.DiskDigest, ev.DiskWrite, ev.DiskDiscard, ev.DiskFlush),
    *(ev.WriteSuperblock, ev.WriteActivityLog, ev.WriteBitmap, ev.MeasureDisk),
)
"""What needs a backing disk."""
STATUS: Message = {
    "role": "Secondary",
    "peer_role": "Unknown",
    "connection": "StandAlone",
    "disk": "Diskless",
    "peer_disk": "DUnknown",
    "size_bytes": 0,
    "out_of_sync_bytes": 0,
    "resync": None,
    "verify": None,
    "last_verify": None,
    "paused": False,
    "peer_paused": False,
    "counters": None,
    "resync_total_bytes": 0,
    "current_uuid": "0000000000000000",
    "bitmap_uuid": "0000000000000000",
    "history_uuids": ["0000000000000000", "0000000000000000"],
    "meta_flags": 0,
    "split_brain": False,
    "split_brain_own_bytes": 0,
    "split_brain_peer_bytes": 0,
    "suspended": False,
    "io_suspended": False,
    "degraded_at_start": False,
    "was_primary_at_start": False,
    "peer_lost_since_connect": False,
    "outdated": False,
    "left": False,
    "epoch": 0,
    "links": 0,
}
"""What is told while the backing disk cannot be used."""
