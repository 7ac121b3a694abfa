"""Loop devices with direct I/O, made and taken away by ioctl(2) alone (include/uapi/linux/loop.h).

Loop devices are global to a kernel while /dev may be private to a container: the way to a device is made where the
caller wants it. Ours carry a name (`lo_file_name`) by which they are found again even when the path of their backing
file reads `/`. All are autoclear: when their last user closes, whatever happened to us, the kernel takes them away.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
import pathlib
import stat
import struct
import time

from relevo.base.errors import RelevoError

DEV = pathlib.Path("/dev")
CONTROL = DEV / "loop-control"
SYSFS = pathlib.Path("/sys/block")
MAJOR = 7
CONTROL_NUMBER = (10, 237)
BLOCK_BYTES = 4096
NAME_BYTES = 63
MAX_ATTEMPTS = 32  # LOOP_CTL_GET_FREE only proposes: another process may be quicker
DETACH_WAIT_S = 2.0
ABANDON_WAIT_S = 0.1  # the kernel detaches within the last close; a mounted one is not worth waiting for
DETACH_POLL_S = 0.01

_LOOP_CONFIGURE = 0x4C0A
_LOOP_CLR_FD = 0x4C01
_LOOP_GET_STATUS64 = 0x4C05
_LOOP_SET_CAPACITY = 0x4C07
_LOOP_CTL_GET_FREE = 0x4C82
_NOT_BOUND = frozenset({errno.ENXIO, errno.ENODEV})
_FLAG_AUTOCLEAR = 4
_FLAG_DIRECT_IO = 16
# The fields of struct loop_info64 are, in order: device, inode, rdevice, offset, sizelimit, number, encrypt_type,
# encrypt_key_size, flags, file_name, crypt_name, encrypt_key and the two words of init.
INFO = struct.Struct("=QQQQQIIII64s64s32s2Q")
CONFIG = struct.Struct(f"=II{INFO.size}s64x")  # struct loop_config: fd, block_size, info, reserved
assert (INFO.size, CONFIG.size) == (232, 304)


class LoopUnavailable(RelevoError):
    """No loop device could be made."""


class DeviceBusy(RelevoError):
    """A device is mounted or held open and cannot be taken away."""


@dataclasses.dataclass(frozen=True, slots=True)
class LoopInfo:
    """A bound loop device.

    Attributes:
        number: N of loopN, also its minor number.
        name: the name given to `attach`, or the path that losetup(8) wrote there.
        backing_device: device number of the file system of the backing file.
        direct_io: its I/O bypasses the page cache.
        autoclear: it goes away with its last user.
    """

    number: int
    name: str
    backing_device: int
    direct_io: bool
    autoclear: bool


class Loop:
    """A loop device of ours, held open by this process. Made by `attach`."""

    def __init__(self, number: int, name: str, node: pathlib.Path, fd: int) -> None:
        self.number = number
        self.name = name
        self.node = node
        self._fd = fd

    def detach(self) -> None:
        """Take the device and its node away.

        Raises:
            DeviceBusy: it is mounted or open elsewhere; it stays as it was.
        """
        busy = DeviceBusy(f"{self.node} is in use.", "Unmount its file system, or end what holds it open.")
        try:
            claim = os.open(self.node, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise busy from error
            raise
        self._close()
        os.close(claim)
        if not wait_until_free(self.number, self.name, self.node.parent):
            try:
                self._fd = os.open(self.node, os.O_RDWR | os.O_CLOEXEC)
            except OSError as error:
                if error.errno not in _NOT_BOUND:
                    raise
            else:
                raise busy
        self.node.unlink(missing_ok=True)

    def grow(self) -> None:
        """Take over the size that the file below has now; whoever uses the device goes on.

        Raises:
            OSError: the device is gone.
        """
        fcntl.ioctl(self._fd, _LOOP_SET_CAPACITY, 0)

    def abandon(self) -> bool:
        """Let go of the device whatever its state, and remove its node; True when it is gone already.

        Otherwise the kernel takes it away when the last user has unmounted or closed it.
        """
        self._close()
        self.node.unlink(missing_ok=True)
        return wait_until_free(self.number, self.name, self.node.parent, ABANDON_WAIT_S)

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def attach(backing_fd: int, node: pathlib.Path, name: str) -> Loop:
    """Make a loop device with direct I/O and blocks of 4096 bytes over an open file, and its device node at `node`.

    Args:
        backing_fd: the file, opened O_RDWR; the kernel keeps a reference of its own.
        node: where the link to the device, or its node, is made (replaced when present).
        name: what it is found by later, at most `NAME_BYTES` bytes.

    Raises:
        LoopUnavailable: none is free, or the file cannot do direct I/O.
    """
    encoded = name.encode()
    if len(encoded) > NAME_BYTES:
        raise ValueError(f"loop name {name!r} has more than {NAME_BYTES} bytes")
    info = INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, _FLAG_AUTOCLEAR | _FLAG_DIRECT_IO, encoded, b"", b"", 0, 0)
    config = CONFIG.pack(backing_fd, BLOCK_BYTES, info)
    for _ in range(MAX_ATTEMPTS):
        number = _propose(node.parent)
        make_node(node, number)
        try:
            fd = os.open(node, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in _NOT_BOUND or error.errno == errno.EBUSY:
                continue
            raise
        try:
            fcntl.ioctl(fd, _LOOP_CONFIGURE, config)
            if not _status(fd).direct_io:
                raise LoopUnavailable(f"loop{number} cannot do direct I/O.", "The server must offer direct I/O.")
        except OSError as error:
            os.close(fd)
            if error.errno == errno.EBUSY:
                continue
            node.unlink(missing_ok=True)
            raise LoopUnavailable(f"loop{number} cannot be set up ({error.strerror}).", "See the log.") from error
        except LoopUnavailable:
            fcntl.ioctl(fd, _LOOP_CLR_FD)
            os.close(fd)
            node.unlink(missing_ok=True)
            raise
        return Loop(number, name, node, fd)
    node.unlink(missing_ok=True)
    raise LoopUnavailable(f"No loop device was free in {MAX_ATTEMPTS} attempts.", "Detach unused ones (losetup -a).")


def _propose(folder: pathlib.Path) -> int:
    """A number that was free a moment ago; the kernel makes the device when there is none."""
    control = CONTROL
    if not control.exists():  # a private /dev
        control = folder / "loop-control"
        if not control.exists():
            os.mknod(control, stat.S_IFCHR | 0o600, os.makedev(*CONTROL_NUMBER))
    try:
        fd = os.open(control, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise LoopUnavailable(f"{control} cannot be opened ({error.strerror}).", "Load the module loop.") from error
    try:
        return fcntl.ioctl(fd, _LOOP_CTL_GET_FREE)
    finally:
        os.close(fd)


def make_node(node: pathlib.Path, number: int) -> None:
    """Make (or replace) the way to loopN: a link to its node in /dev, or a node of its own where /dev is private.

    A link first, because /run is mounted nodev on many systems and a node there could not be opened.
    """
    beside = node.with_name(f"{node.name}.new")
    beside.unlink(missing_ok=True)
    standard = DEV / f"loop{number}"
    if _is_loop(standard, number):
        beside.symlink_to(standard)
    else:
        os.mknod(beside, stat.S_IFBLK | 0o600, os.makedev(MAJOR, number))
    beside.replace(node)


def _is_loop(path: pathlib.Path, number: int) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    return stat.S_ISBLK(found.st_mode) and found.st_rdev == os.makedev(MAJOR, number)


def _status(fd: int) -> LoopInfo:
    fields = INFO.unpack(fcntl.ioctl(fd, _LOOP_GET_STATUS64, bytes(INFO.size)))
    device, number, flags, name = fields[0], fields[5], fields[8], fields[9]
    text = name.split(b"\0", 1)[0].decode(errors="replace")
    return LoopInfo(number, text, device, bool(flags & _FLAG_DIRECT_IO), bool(flags & _FLAG_AUTOCLEAR))


def is_bound(number: int) -> bool:
    """Whether loopN has a backing file."""
    return (SYSFS / f"loop{number}" / "loop").is_dir()


def find(prefix: str, folder: pathlib.Path) -> tuple[LoopInfo, ...]:
    """The bound loop devices whose name starts with `prefix`.

    Only those that could be ours (autoclear, direct I/O) are opened: asking for the state of another may block on its
    file system.

    Args:
        prefix: the start of the names given to `attach`.
        folder: where device nodes may be made for a moment.
    """
    found = []
    for entry in sorted(SYSFS.glob("loop*/loop")):
        number = int(entry.parent.name.removeprefix("loop"))
        if _attribute(entry, "autoclear") != "1" or _attribute(entry, "dio") != "1":
            continue
        info = _look_at(number, folder)
        if info is not None and info.name.startswith(prefix):
            found.append(info)
    return tuple(found)


def _attribute(entry: pathlib.Path, name: str) -> str:
    try:
        return (entry / name).read_text().strip()
    except OSError:
        return ""


def _look_at(number: int, folder: pathlib.Path) -> LoopInfo | None:
    node = folder / f".loop{number}-{os.getpid()}"
    make_node(node, number)
    try:
        fd = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    finally:
        node.unlink(missing_ok=True)
    try:
        return _status(fd)
    except OSError:
        return None
    finally:
        os.close(fd)


def wait_until_free(number: int, name: str, folder: pathlib.Path, timeout_s: float = DETACH_WAIT_S) -> bool:
    """Wait until loopN has gone from under this name; the kernel announces it nowhere. False after the time limit."""
    limit = time.monotonic() + timeout_s
    while is_bound(number):
        if time.monotonic() > limit:
            info = _look_at(number, folder)
            return info is None or info.name != name  # somebody else took the number at once
        time.sleep(DETACH_POLL_S)
    return True
