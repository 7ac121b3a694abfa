"""What is mounted here and who uses it, told by /proc without touching the file system in question."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re

_OCTAL = re.compile(r"\\([0-7]{3})")
_MNT_ID = re.compile(rb"^mnt_id:\s*(\d+)$", re.MULTILINE)
_DEVICE_COLUMN = 3
_PATH_COLUMN = 5
_MAX_FDINFO_BYTES = 1 << 14
BAD_SUPER_OPTIONS = frozenset({"ro", "shutdown", "emergency_ro"})
"""How the kernel names a file system that takes no more writes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo (source: proc_pid_mountinfo(5))."""

    id: int
    parent: int
    device: tuple[int, int]
    point: str
    options: frozenset[str]
    fstype: str
    source: str
    super_options: frozenset[str]

    @property
    def writable(self) -> bool:
        """Whether the file system takes writes here, as far as the kernel says."""
        return "ro" not in self.options and not self.super_options & BAD_SUPER_OPTIONS


def parse_mountinfo(text: str) -> tuple[Mount, ...]:
    """The mounts of a mountinfo text, in its order: of two at one place the later lies on top."""
    return tuple(_parse_line(line) for line in text.splitlines() if line)


def _parse_line(line: str) -> Mount:
    front, _, back = line.partition(" - ")
    number, parent, device, _, point, options, *_ = front.split(" ")
    fstype, source, super_options = back.split(" ", 2)
    major, minor = device.split(":")
    return Mount(
        id=int(number),
        parent=int(parent),
        device=(int(major), int(minor)),
        point=_unescape(point),
        options=frozenset(options.split(",")),
        fstype=fstype,
        source=_unescape(source),
        super_options=frozenset(super_options.split(",")),
    )


def _unescape(text: str) -> str:
    # What is escaped are single bytes; paths may be any bytes.
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def mounts() -> tuple[Mount, ...]:
    """Everything that is mounted in this mount namespace."""
    return parse_mountinfo(pathlib.Path("/proc/self/mountinfo").read_text(errors="surrogateescape"))


def mounted_at(point: pathlib.Path) -> Mount | None:
    """What is mounted at a place, the topmost if several; None if nothing is."""
    # Only the parent is resolved: following the last part would ask the file system that is mounted there.
    real = str(point.parent.resolve() / point.name)
    return next((mount for mount in reversed(mounts()) if mount.point == real), None)


def mounts_below(mount: Mount) -> tuple[Mount, ...]:
    """The mounts that lie on a mount and keep it busy."""
    return tuple(other for other in mounts() if other.parent == mount.id)


@dataclasses.dataclass(frozen=True, slots=True)
class User:
    """A process that keeps a mount busy.

    Attributes:
        pid: its process id.
        started: its start in clock ticks since boot: with the id it names one process for ever.
        name: its short name.
    """

    pid: int
    started: int
    name: str


def users_of(mount: Mount) -> tuple[User, ...]:
    """The processes that keep a mount busy: open files, working or root folder, program, mapped files.

    Reads only /proc: a hung file system cannot hang this, a process in a page fault (its `maps`) can; call it aside.
    """
    own = os.getpid()
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and int(entry) != own]  # noqa: PTH208
    return tuple(user for pid in pids if _uses(pid, mount) and (user := identify(pid)) is not None)


def identify(pid: int) -> User | None:
    """The process that has a process id now; None when there is none."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    name, _, rest = stat.partition("(")[2].rpartition(")")
    fields = rest.split()
    return None if fields[0] in "ZX" else User(pid, int(fields[19]), name)


def _uses(pid: int, mount: Mount) -> bool:
    try:
        return _has_open(pid, mount) or _stands_in(pid, mount) or _has_mapped(pid, mount)
    except OSError:
        return False  # it has ended while we looked, or is a kernel thread


def _has_open(pid: int, mount: Mount) -> bool:
    folder = f"/proc/{pid}/fdinfo"
    for name in os.listdir(folder):  # noqa: PTH208 - many small names: no Path objects
        with contextlib.suppress(OSError), open(f"{folder}/{name}", "rb") as file:  # noqa: PTH123
            match = _MNT_ID.search(file.read(_MAX_FDINFO_BYTES))
            if match and int(match[1]) == mount.id:
                return True
    return False


def _stands_in(pid: int, mount: Mount) -> bool:
    inside = mount.point.rstrip("/") + "/"
    for link in ("cwd", "root", "exe"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/{pid}/{link}").removesuffix(" (deleted)")  # noqa: PTH115
            if target == mount.point or target.startswith(inside):
                return True
    return False


def _has_mapped(pid: int, mount: Mount) -> bool:
    device = b"%02x:%02x" % mount.device
    with open(f"/proc/{pid}/maps", "rb") as file:  # noqa: PTH123
        return any(line.split(None, _PATH_COLUMN)[_DEVICE_COLUMN] == device for line in file)
