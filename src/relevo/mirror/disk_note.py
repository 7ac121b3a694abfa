"""What was last known of a mirror's disk, kept beside it: which copy it is, and how large the disk was.

By it internal meta-data is found again when the disk has grown (it lies where the end was), and a disk that belongs to
another mirror is told from one that is merely new. A note that is missing or unreadable only means less help.
"""

from __future__ import annotations

import pathlib

import msgspec

from relevo.base.durable import write_durably
from relevo.base.errors import RelevoError
from relevo.base.units import format_bytes
from relevo.mirror.layout import DiskTooSmall
from relevo.mirror.metadata import JUST_CREATED, Superblock


class WrongDisk(RelevoError):
    """The disk carries the copy of another mirror."""


class DiskNote(msgspec.Struct, frozen=True):
    """Last known of a disk.

    Attributes:
        device_uuid: names the copy; 0: it has no name.
        disk_bytes: size of the data disk.
    """

    device_uuid: int
    disk_bytes: int

    @classmethod
    def read(cls, path: pathlib.Path) -> DiskNote | None:
        """The note at `path`; None: there is none that can be read."""
        try:
            uuid, size = path.read_text(encoding="ascii").split()
            return cls(int(uuid, 16), int(size))
        except (OSError, ValueError):
            return None

    def write(self, path: pathlib.Path) -> None:
        """Keep it durably.

        Raises:
            OSError: it cannot be written.
        """
        write_durably(path, f"{self.device_uuid:016x} {self.disk_bytes}\n".encode())

    def check(self, superblock: Superblock, path: pathlib.Path, note_path: pathlib.Path) -> None:
        """The disk at `path` is the one that was here before, or a new one.

        Raises:
            WrongDisk: neither.
        """
        new = superblock.current == JUST_CREATED and superblock.size_sectors == 0
        if new or not superblock.device_uuid or not self.device_uuid or superblock.device_uuid == self.device_uuid:
            return
        raise WrongDisk(
            f"{path} carries the copy {superblock.device_uuid:016x}, but this mirror's was {self.device_uuid:016x}.",
            f"Have disks been exchanged? If this is the right one, remove {note_path}.",
        )

    def check_size(self, disk_bytes: int, path: pathlib.Path) -> None:
        """There is no meta-data at the end of the disk: was it larger before?

        Raises:
            DiskTooSmall: it was.
        """
        if disk_bytes < self.disk_bytes:
            raise DiskTooSmall(
                f"{path} has only {format_bytes(disk_bytes)}, and no meta-data at its end; it had "
                f"{format_bytes(self.disk_bytes)}.",
                "Has the disk been replaced by a smaller one, or cut? Use one at least as large.",
            )
