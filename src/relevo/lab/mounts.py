"""Mount tables of processes. Standard library only: PID 1 of a machine imports it."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator

_ESCAPES = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}


@dataclasses.dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system.

    Attributes:
        minor: the minor number of its device; it names a FUSE connection.
        point: where it is mounted.
        kind: its type.
    """

    minor: int
    point: str
    kind: str

    @property
    def fuse(self) -> bool:
        """Whether a process serves it."""
        return self.kind == "fuse" or self.kind.startswith("fuse.")


def mounts(pid: int | str = "self") -> Iterator[Mount]:
    """What a process has mounted, in the order of mounting; nothing when it is gone. Format: proc_pid_mountinfo(5)."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        fields = line.split(" ")
        point = fields[4]
        for escape, character in _ESCAPES.items():
            point = point.replace(escape, character)
        yield Mount(int(fields[2].partition(":")[2]), point, fields[fields.index("-") + 1])


def fuse_minors(pid: int | str = "self") -> set[int]:
    """The FUSE connections that a process has mounted."""
    return {mount.minor for mount in mounts(pid) if mount.fuse}
