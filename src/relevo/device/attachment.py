"""One served device as the keeper makes it: mount, loop device and node in a folder of their own.

FOLDER/disk         the FUSE-served file (mount point)
FOLDER/device       link to the loop device in /dev, or a node of its own: this is what gets mounted
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import time

from relevo.device import loop
from relevo.device.connection import Connection, connection_at
from relevo.device.mount import MountFailed, mount_fuse_file, umount

UMOUNT_WAIT_S = 2.0
UMOUNT_POLL_S = 0.01
_MAX_STALE_MOUNTS = 16


class Attachment:
    """A device that is there. Made by `attach`."""

    def __init__(self, folder: pathlib.Path, connection: Connection, size_bytes: int, device: loop.Loop) -> None:
        self.folder = folder
        self.connection = connection
        self.size_bytes = size_bytes
        self._loop = device

    @property
    def device(self) -> pathlib.Path:
        """The path of the block device."""
        return self._loop.node

    @property
    def loop_number(self) -> int:
        """N of loopN."""
        return self._loop.number

    def detach(self) -> None:
        """Take everything away, in order.

        Raises:
            DeviceBusy: it is in use, and stays as it was.
        """
        self._loop.detach()
        _umount_when_free(self.folder / "disk")

    def grow(self, size_bytes: int) -> None:
        """Give the device the size that its server has now. The server must be answering meanwhile.

        Raises:
            OSError: the server or the loop device is gone, or the served file has another size.
        """
        fd = os.open(self.folder / "disk", os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
        try:
            os.ftruncate(fd, size_bytes)  # the kernel asks the server, and knows the new size when it agrees
        finally:
            os.close(fd)
        self._loop.grow()
        self.size_bytes = size_bytes

    def abandon(self) -> None:
        """Take everything away whatever its state: its server is dead, or the caller wants it gone."""
        self._loop.abandon()
        clear_folder(self.folder)


def attach(fuse_fd: int, size_bytes: int, name: str, folder: pathlib.Path) -> Attachment:
    """Mount a FUSE connection, put a loop device over it and make its node. The server must be answering meanwhile.

    Args:
        fuse_fd: a descriptor of the connection; closed here, so that the server alone keeps the connection alive.
        size_bytes: the size that the served file must have.
        name: the loop device's name.
        folder: where everything is made.

    Raises:
        MountFailed, loop.LoopUnavailable: with everything taken back.
        OSError: the server has gone.
    """
    disk = folder / "disk"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        clear_folder(folder)
        mount_fuse_file(fuse_fd, disk, f"relevo:{name}")
    finally:
        os.close(fuse_fd)
    try:
        connection = connection_at(disk)
        if connection is None:
            raise MountFailed(f"{disk} vanished from the mount table.")
        backing = os.open(disk, os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
        try:
            found = os.fstat(backing)  # also brings the size into the kernel before the loop device asks for it
            if os.minor(found.st_dev) != connection.minor or found.st_size != size_bytes:
                raise MountFailed(f"{disk} is not the file that is served.", "See who else mounts there.")
            device = loop.attach(backing, folder / "device", name)
        finally:
            os.close(backing)
    except BaseException:
        clear_folder(folder)
        raise
    return Attachment(folder, connection, size_bytes, device)


def clear_folder(folder: pathlib.Path) -> None:
    """Remove what an earlier life has left in the folder: node and mounts (whose server is dead)."""
    (folder / "device").unlink(missing_ok=True)
    for _ in range(_MAX_STALE_MOUNTS):
        if not umount(folder / "disk", lazy=True):
            return


def _umount_when_free(path: pathlib.Path) -> None:
    """Unmount; the loop device may still be letting go of the file for a moment, which is announced nowhere."""
    limit = time.monotonic() + UMOUNT_WAIT_S
    while time.monotonic() < limit:
        try:
            umount(path)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            time.sleep(UMOUNT_POLL_S)
        else:
            return
    with contextlib.suppress(OSError):
        umount(path, lazy=True)  # no loop device any more: whoever peeks into the file keeps nothing alive that matters
