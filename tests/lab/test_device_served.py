"""A file served over /dev/fuse by another process, and a loop device over it, on the real kernel."""

from __future__ import annotations

import errno
import os
import pathlib
import signal
import stat

import pytest
from device_tools import DISK_BYTES, LIMIT_S, mounts_below, served, sh, wait_for

from relevo.device import loop
from relevo.device.alias import Alias
from relevo.device.attachment import Attachment
from relevo.device.backing import BackingInUse, discard, open_backing
from relevo.device.buffers import BufferPool
from relevo.device.connection import connection_at
from relevo.device.frontend import DiscardKind
from relevo.device.fuse import FuseFile
from relevo.device.keeper_orders import Orders
from relevo.device.mount import MountFailed, connection_minor, mount_fuse_file, umount

MIB = 1 << 20
NAME = f"relevo-test:{os.getpid()}:served"
pytestmark = pytest.mark.timeout(LIMIT_S + 60)


def write_direct(path: pathlib.Path, content: bytes, offset: int) -> None:
    buffer = BufferPool(largest_bytes=len(content)).take(len(content))
    assert buffer is not None
    buffer.view[:] = content
    fd = os.open(path, os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
    try:
        assert os.pwritev(fd, [buffer.view], offset) == len(content)
        os.fsync(fd)
    finally:
        os.close(fd)


def read_direct(path: pathlib.Path, length: int, offset: int) -> bytes:
    buffer = BufferPool(largest_bytes=length).take(length)
    assert buffer is not None
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        assert os.preadv(fd, [buffer.view], offset) == length
    finally:
        os.close(fd)
    return bytes(buffer.view)


def test_the_file_is_what_was_written(tmp_path: pathlib.Path) -> None:
    with served(tmp_path, NAME) as server:
        found = server.path.stat()
        assert stat.S_ISREG(found.st_mode)
        assert (found.st_size, found.st_uid, stat.S_IMODE(found.st_mode)) == (DISK_BYTES, 0, 0o600)
        content = os.urandom(3 * MIB)
        write_direct(server.path, content, 0)
        write_direct(server.path, b"tail" * 1024, DISK_BYTES - 4096)
        with server.path.open("r+b", buffering=0) as file:
            with pytest.raises(OSError, match="No space left"):
                os.pwrite(file.fileno(), bytes(4096), DISK_BYTES)
            with pytest.raises(PermissionError):
                file.truncate(4096)
        assert read_direct(server.path, len(content), 0) == content
        assert server.disk.read_bytes()[-4100:] == bytes(4) + b"tail" * 1024


def test_a_loop_device_passes_everything(tmp_path: pathlib.Path) -> None:
    with served(tmp_path, NAME) as server:
        device = server.attach(tmp_path / "device", NAME)
        try:
            assert stat.S_ISBLK(device.node.stat().st_mode)
            (info,) = loop.find(NAME, tmp_path)
            assert (info.number, info.direct_io, info.autoclear) == (device.number, True, True)
            assert os.minor(info.backing_device) == connection_minor(server.path)
            queue = pathlib.Path(f"/sys/block/loop{device.number}/queue")
            assert (queue / "logical_block_size").read_text() == "4096\n"
            assert int((queue / "discard_max_bytes").read_text()) > 0
            write_direct(device.node, b"\x5a" * MIB, 0)
            assert server.disk.read_bytes()[:MIB] == b"\x5a" * MIB
            fd = os.open(device.node, os.O_RDWR | os.O_CLOEXEC)
            discard(fd, 4096, 8192, DiscardKind.UNMAP)
            discard(fd, 65536, 4096, DiscardKind.ZERO)
            os.close(fd)
            expected = bytearray(b"\x5a" * MIB)
            expected[4096:12288] = bytes(8192)
            expected[65536:69632] = bytes(4096)
            assert server.disk.read_bytes()[:MIB] == expected
        finally:
            device.detach()
        assert not device.node.exists()
        assert not loop.is_bound(device.number)


def test_a_file_system_lives_on_it(tmp_path: pathlib.Path) -> None:
    with served(tmp_path, NAME) as server:
        device = server.attach(tmp_path / "device", NAME)
        point = tmp_path / "point"
        point.mkdir()
        content = os.urandom(5 * MIB + 17)
        sh("mkfs.ext4", "-q", str(device.node))
        for _ in range(2):
            sh("mount", str(device.node), str(point))
            (point / "file").write_bytes(content)
            fd = os.open(point / "file", os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
            sh("fstrim", str(point))
            with pytest.raises(loop.DeviceBusy, match="in use"):
                device.detach()
            sh("umount", str(point))
        sh("e2fsck", "-f", "-n", str(device.node))
        sh("mount", "-o", "ro", str(device.node), str(point))
        assert (point / "file").read_bytes() == content
        sh("umount", str(point))
        device.detach()
        sh("e2fsck", "-f", "-n", str(server.disk))


def test_a_device_held_open_is_busy_and_stays(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop.wait_until_free, "__defaults__", (0.2,))
    with served(tmp_path, NAME) as server:
        device = server.attach(tmp_path / "device", NAME)
        fd = os.open(device.node, os.O_RDONLY | os.O_CLOEXEC)
        with pytest.raises(loop.DeviceBusy):
            device.detach()
        os.close(fd)
        assert loop.is_bound(device.number)
        write_direct(device.node, bytes(4096), 0)
        device.detach()


def test_where_dev_is_private_a_node_is_made(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "DEV", tmp_path)
    monkeypatch.setattr(loop, "CONTROL", tmp_path / "no-loop-control")
    with served(tmp_path, NAME) as server:
        device = server.attach(tmp_path / "device", NAME)
        assert not device.node.is_symlink()
        assert device.node.lstat().st_rdev == os.makedev(loop.MAJOR, device.number)
        write_direct(device.node, b"\x11" * 4096, 0)
        assert read_direct(server.path, 4096, 0) == b"\x11" * 4096
        device.detach()


def test_two_devices_at_once_have_two_numbers(tmp_path: pathlib.Path) -> None:
    with served(tmp_path, NAME) as server:
        made = [server.attach(tmp_path / f"device{number}", f"{NAME}:{number}") for number in range(3)]
        assert len({device.number for device in made}) == 3
        assert sorted(info.name for info in loop.find(NAME, tmp_path)) == [f"{NAME}:{number}" for number in range(3)]
        for device in made:
            device.detach()


def test_an_abort_ends_a_stuck_server(tmp_path: pathlib.Path) -> None:
    with served(tmp_path, NAME) as server:
        device = server.attach(tmp_path / "device", NAME)
        connection = connection_at(server.path)
        assert connection is not None
        assert connection.alive
        server.process.send_signal(signal.SIGSTOP)
        child = os.fork()
        if child == 0:
            try:
                write_direct(device.node, b"x" * 4096, 0)
            except OSError as error:
                os._exit(error.errno or 1)
            os._exit(0)
        wait_for(lambda: _state(child) == "D", "a writer that waits")
        assert connection.abort()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == errno.EIO
        assert device.abandon()
        server.process.send_signal(signal.SIGCONT)  # it sees that the connection is closed
        assert server.process.wait(20) == 0
        sh("umount", str(server.path))
        wait_for(lambda: not mounts_below(tmp_path), "the end of the mount")


def _state(pid: int) -> str:
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_dead_server_leaves_an_autoclear_device(tmp_path: pathlib.Path) -> None:
    with served(tmp_path, NAME) as server:
        device = server.attach(tmp_path / "device", NAME)
        point = tmp_path / "point"
        point.mkdir()
        sh("mkfs.ext4", "-q", str(device.node))
        sh("mount", str(device.node), str(point))
        (point / "file").write_bytes(bytes(4096))
        server.kill()
        with pytest.raises(OSError, match=r"Input/output error|Read-only file system|not connected"):
            write_direct(point / "file", bytes(4096), 0)
        assert not device.abandon()
        assert [info.name for info in loop.find(NAME, tmp_path)] == [NAME]
        sh("umount", str(point))
        assert loop.wait_until_free(device.number, NAME, tmp_path)
        sh("umount", str(server.path))
        server.process.returncode = 0


def test_a_block_device_is_a_backing_disk_for_one(tmp_path: pathlib.Path) -> None:
    with served(tmp_path, NAME) as server:
        device = server.attach(tmp_path / "device", NAME)
        backing = open_backing(device.node)
        assert (backing.size_bytes, backing.block_bytes) == (DISK_BYTES, 4096)
        assert backing.is_block_device
        assert backing.can_discard
        with pytest.raises(loop.DeviceBusy):
            device.detach()
        with pytest.raises(BackingInUse, match="in use"):
            open_backing(device.node)
        backing.close()
        device.detach()


def test_mounting_nothing_is_an_error(tmp_path: pathlib.Path) -> None:
    with pathlib.Path(os.devnull).open() as nothing, pytest.raises(MountFailed, match="cannot be mounted"):
        mount_fuse_file(nothing.fileno(), tmp_path / "file")
    assert mounts_below(tmp_path) == []


def test_a_device_is_given_up_whether_it_is_held_or_not(tmp_path: pathlib.Path) -> None:
    """Its worker may not die before its disk answers: whoever uses the device must not wait for that."""
    orders = Orders(NAME, tmp_path, Alias(None))
    disk, other = FuseFile(4096), FuseFile(4096)
    try:
        mount_fuse_file(disk.fileno(), tmp_path / "disk")
        connection = connection_at(tmp_path / "disk")
        assert connection is not None
        orders.attachment = Attachment(tmp_path, connection, 4096, loop.Loop(0, NAME, tmp_path / "device", -1))
        orders.give_up()
        disk.receive()
        assert disk.closed
        umount(tmp_path / "disk")
        mount_fuse_file(other.fileno(), tmp_path / "other")
        orders.give_up()  # the other one has been given its number
        other.receive()
        assert not other.closed
    finally:
        for name in ("disk", "other"):
            umount(tmp_path / name, lazy=True)
        disk.close()
        other.close()
