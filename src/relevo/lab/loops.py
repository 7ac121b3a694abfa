"""Loop devices are one set for the whole host: which are a lab's, and how to be rid of them."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import struct
from collections.abc import Iterable, Iterator

_LOOP_CLR_FD = 0x4C01
_LOOP_GET_STATUS64 = 0x4C05
# struct loop_info64 of linux/loop.h: device, inode, rdevice, offset, sizelimit, number, two of encryption, flags, name…
_INFO = struct.Struct("=5Q4I64s64s32s2Q")
_NAME_FIELD = 9


@dataclasses.dataclass(frozen=True, slots=True)
class Loop:
    """A bound loop device.

    Attributes:
        path: /dev/loopN on the host.
        minor: the minor number of the file system that its file lies on.
        name: what its owner wrote into lo_file_name; it outlives the file.
    """

    path: pathlib.Path
    minor: int
    name: str

    @property
    def bound(self) -> bool:
        """Whether it still has a file."""
        return pathlib.Path(f"/sys/block/{self.path.name}/loop/backing_file").exists()

    def detach(self) -> None:
        """Let go of its file; the kernel does it when the last user closes the device."""
        with contextlib.suppress(OSError):
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.ioctl(fd, _LOOP_CLR_FD)
            finally:
                os.close(fd)


def bound() -> Iterator[Loop]:
    """All loop devices of the host that have a file."""
    for folder in pathlib.Path("/sys/block").glob("loop*/loop/backing_file"):
        path = pathlib.Path("/dev") / folder.parents[1].name
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            info = bytearray(_INFO.size)
            fcntl.ioctl(fd, _LOOP_GET_STATUS64, info)
        except OSError:
            continue
        finally:
            os.close(fd)
        fields = _INFO.unpack(info)
        name = fields[_NAME_FIELD].split(b"\0")[0]
        yield Loop(path, os.minor(fields[0]), name.decode(errors="replace"))


def of_connections(minors: Iterable[int]) -> list[Loop]:
    """The loop devices whose files are served over these FUSE connections."""
    wanted = set(minors)
    return [loop for loop in bound() if loop.minor in wanted] if wanted else []
