"""FUSE connections of a lab: the one cure for a process that waits for a dead one is to abort its connection.

A connection is named by the minor number of its file system's device (`stat -c %d`). Minors are reused at once, so one
that is remembered counts only while the processes that used it are there.
"""

from __future__ import annotations

from collections.abc import Iterable

from relevo.device.mount import abort_connection, list_connections


def abort(minors: Iterable[int]) -> None:
    """End these connections: every request in flight and every later one fails. One that is gone is no error."""
    for minor in set(minors):
        abort_connection(minor)


def living(minors: Iterable[int]) -> set[int]:
    """Those of the connections that the kernel still has."""
    wanted = set(minors)
    return wanted & list_connections() if wanted else wanted
