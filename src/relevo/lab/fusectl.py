"""FUSE connections of a lab: the one cure for a process that waits for a dead one is to abort its connection.

Which are the lab's is read from mount tables, which show numbers (`stat -c %d`) that are given to another connection,
and to another lab, as soon as they are free. So each is opened first and looked for in the tables once more.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable

from relevo.device.connection import Connection, connection_of
from relevo.lab.mounts import fuse_minors, mounts


def mounted(pid: int) -> list[Connection]:
    """The connections that a process has mounted and this process has not.

    A machine that is just being made still has a copy of the host's mounts, other labs' among them; those do not count.
    """
    found = _open(fuse_minors(pid))
    others, still = fuse_minors(), fuse_minors(pid)
    return [connection for connection in found if connection.minor in still - others]


def mounted_below(folder: pathlib.Path) -> list[Connection]:
    """The connections that this process has mounted below a folder."""

    def below() -> set[int]:
        return {mount.minor for mount in mounts() if mount.fuse and pathlib.Path(mount.point).is_relative_to(folder)}

    found = _open(below())
    still = below()
    return [connection for connection in found if connection.minor in still]


def unclaimed(minors: Iterable[int]) -> list[Connection]:
    """Those connections that no process has mounted: of mounts that were taken away while something still uses them."""
    found = _open(minors)
    pids = [int(path.name) for path in pathlib.Path("/proc").iterdir() if path.name.isdecimal()]
    claimed = set[int]().union(*map(fuse_minors, pids))
    return [connection for connection in found if connection.minor not in claimed]


def abort(connections: Iterable[Connection]) -> None:
    """End these: every request in flight and every later one fails. One that is gone is no error."""
    for connection in connections:
        connection.abort()


def _open(minors: Iterable[int]) -> list[Connection]:
    return [found for minor in sorted(set(minors)) if (found := connection_of(minor)) is not None]
