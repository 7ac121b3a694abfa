"""How many copies of what has just been fsynced there are: the mirror knows."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from relevo.base.control import acall
from relevo.base.errors import RelevoError
from relevo.files.limits import COPIES_TIMEOUT_S

CONNECTED = frozenset({"Connected", "SyncSource", "PausedSyncS", "VerifyS", "VerifyT"})
"""Connection states in which an up-to-date peer disk takes every write."""


def count(status: Mapping[str, Any]) -> int:
    """The number of current copies that a mirror's status stands for: 2 when the peer's disk is up to date."""
    return 2 if status.get("connection") in CONNECTED and status.get("peer_disk") == "UpToDate" else 1


async def ask(socket: pathlib.Path, *, timeout_s: float = COPIES_TIMEOUT_S) -> int:
    """Ask the mirror's daemon. To be called after the fsync: an answer of 2 then covers everything before it.

    A mirror that does not answer vouches for nothing: 1.
    """
    try:
        return count(await acall(socket, "status", timeout_s=timeout_s))
    except RelevoError:
        return 1
