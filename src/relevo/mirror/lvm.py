"""Snapshots of logical volumes, for the way back before a resync: made, found and removed by LVM's own programs.

A classic snapshot holds what is overwritten of its origin, and is lost when that is more than its room: it is given as
much as the origin, or what the volume group has left. That is good enough for a way back, and not for what a split
brain gives up, whose blocks are copied. A thin volume's snapshot takes its room from the pool.
"""

from __future__ import annotations

import errno
import os
import pathlib
import stat
import subprocess

import msgspec

from relevo.base.errors import RelevoError

COMMAND_LIMIT_S = 20.0
"""How long one of LVM's programs may take."""
_DM = pathlib.Path("/sys/dev/block")


class SnapshotFailed(RelevoError):
    """LVM cannot make or remove a snapshot; `errno` says why."""

    def __init__(self, errno: int, what: str, remedy: str) -> None:
        super().__init__(what, remedy)
        self.errno = errno


class Volume(msgspec.Struct, frozen=True):
    """A logical volume: its group and name, its size, what the group has left, and whether it is thin."""

    group: str
    name: str
    size_bytes: int
    free_bytes: int
    thin: bool


def volume_of(disk: pathlib.Path) -> Volume | None:
    """The logical volume that a disk is; None: it is none.

    Raises:
        SnapshotFailed: it is one, and LVM does not say which.
        OSError: the disk is not there.
    """
    found = disk.stat()
    if not stat.S_ISBLK(found.st_mode):
        return None
    major, minor = os.major(found.st_rdev), os.minor(found.st_rdev)
    try:
        uuid = (_DM / f"{major}:{minor}" / "dm" / "uuid").read_text()
    except FileNotFoundError:
        return None
    if not uuid.startswith("LVM-"):
        return None
    fields = "vg_name,lv_name,lv_size,vg_free,lv_attr"
    select = f"lv_kernel_major={major} && lv_kernel_minor={minor}"
    text = _run("lvs", "--noheadings", "--units", "b", "--nosuffix", "--separator", "/", "-o", fields, "-S", select)
    parts = text.strip().split("/")
    try:
        group, name, size, free, attributes = parts
        return Volume(group, name, int(size), int(free), attributes.startswith("V"))
    except ValueError:
        raise SnapshotFailed(errno.EIO, f"lvs says nothing of {disk}: {text!r}.", "Run lvs there.") from None


def take(volume: Volume, name: str) -> pathlib.Path:
    """Make a snapshot; returns its device.

    Raises:
        SnapshotFailed: there is no room, or LVM refuses.
    """
    room: tuple[str, ...] = ()
    if not volume.thin:
        if not volume.free_bytes:
            raise SnapshotFailed(
                errno.ENOTSUP,
                f"The volume group {volume.group} has no room left for a snapshot of {volume.name}.",
                "Leave as much of it free as a resync may overwrite.",
            )
        # with its own tables a snapshot is a little larger than what it holds
        whole = volume.free_bytes > volume.size_bytes + volume.size_bytes // 64
        room = ("--extents", "100%ORIGIN" if whole else "100%FREE")
    _run("lvcreate", "--yes", "--snapshot", "--permission", "r", "--name", name, *room, f"{volume.group}/{volume.name}")
    if volume.thin:  # such a snapshot is not active by itself
        _run("lvchange", "--activate", "y", "--ignoreactivationskip", f"{volume.group}/{name}")
    return pathlib.Path("/dev", volume.group, name)


def give_back(device: pathlib.Path) -> None:
    """Remove a snapshot; one that is gone already is no mistake.

    Raises:
        SnapshotFailed: LVM refuses.
    """
    if device.exists():
        _run("lvremove", "--yes", f"{device.parent.name}/{device.name}")


def _run(*command: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_LIMIT_S, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise SnapshotFailed(errno.ENOTSUP, f"{command[0]} is not there.", "Install the package lvm2.") from None
    except subprocess.TimeoutExpired:
        what = f"{command[0]} did not end within {COMMAND_LIMIT_S:.0f} s."
        raise SnapshotFailed(errno.ETIMEDOUT, what, "Look what LVM waits for.") from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"status {done.returncode}"
        raise SnapshotFailed(errno.EIO, f"{command[0]} failed: {said}", f"Try it by hand: {' '.join(command)}")
    return done.stdout
