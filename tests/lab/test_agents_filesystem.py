"""The file system agent on a real loop device over a plain file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from agents_inside import inside, sh

from relevo.agents.base import AgentFailed, StartContext, State
from relevo.agents.filesystem import FilesystemAgent
from relevo.agents.mounts import mounted_at
from relevo.config.model import FilesystemResource, Operation
from relevo.device import loop

CONTEXT = StartContext(epoch=1)
SIZE_BYTES = 32 << 20
STUBBORN = (
    "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
)
POLITE = "import signal, sys; held = open(sys.argv[1], 'w'); print('ready', flush=True); signal.pause()"
MAPPED = (
    "import mmap, os, signal, sys; fd = os.open(sys.argv[1], os.O_RDWR); m = mmap.mmap(fd, 4096); os.close(fd); "
    "print('ready', flush=True); signal.pause()"
)

SERVER = """
import pathlib, sys
from relevo.device.backing import open_backing
from relevo.device.buffers import BufferPool
from relevo.device.fuse import POOL_BYTES, FuseFile
from relevo.device.mount import mount_fuse_file
from relevo.device.serve import PassThrough, Runner
backing = open_backing(pathlib.Path(sys.argv[1]))
frontend = FuseFile(backing.size_bytes, BufferPool(POOL_BYTES))
mount_fuse_file(frontend.fileno(), pathlib.Path(sys.argv[2]))
runner = Runner()
server = PassThrough(runner, frontend, backing)
print("serving", flush=True)
runner.run()
"""


def agent(device: pathlib.Path, point: pathlib.Path, stop_ms: int = 4000, fstype: str = "ext4") -> FilesystemAgent:
    async def source() -> pathlib.Path:
        return device

    operation = Operation(stop_timeout_ms=stop_ms)
    resource = FilesystemResource(id="filesystem", mirror="r0", mountpoint=point, fstype=fstype, operation=operation)  # type: ignore[arg-type]
    return FilesystemAgent(resource, source)


@contextlib.contextmanager
def volume(folder: pathlib.Path, *, made: bool = True) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
    """A loop device over a file (with an ext4 on it if `made`), and a place to mount it."""
    folder.mkdir(parents=True, exist_ok=True)
    disk, point = folder / "disk", folder / "mnt"
    with disk.open("wb") as file:
        file.truncate(SIZE_BYTES)
    device = sh("losetup", "--find", "--show", str(disk))
    try:
        if made:
            sh("mkfs.ext4", "-q", device)
        yield pathlib.Path(device), point
    finally:
        while mounted_at(point) is not None:
            sh("umount", str(point))
        sh("losetup", "--detach", device)


def scribble(device: pathlib.Path) -> None:
    device.write_bytes(b"strange" + bytes(1 << 16))


def make_folders(point: pathlib.Path) -> None:
    """Change the file system until it cannot store it."""
    fd = os.open(point, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for number in range(100):
            (point / f"folder{number}").mkdir()
            os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def process(code: str, *argv: str, cwd: pathlib.Path) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen([sys.executable, "-c", code, *argv], stdout=subprocess.PIPE, text=True, cwd=cwd)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        yield child
    finally:
        child.kill()
        child.communicate()


@inside
def test_mounts_adopts_and_unmounts(tmp_path: pathlib.Path) -> None:
    async def scene(device: pathlib.Path, point: pathlib.Path) -> None:
        own = agent(device, point)
        assert (await own.probe()).state is State.STOPPED
        await own.start(CONTEXT)
        assert (await own.monitor()).state is State.RUNNING
        (point / "file").write_text("content")
        mount = mounted_at(point)
        assert mount is not None
        assert "noatime" in mount.options
        assert "errors=remount-ro" in mount.super_options
        await agent(device, point).start(CONTEXT)  # adopts
        assert mounted_at(point) == mount
        await own.stop()
        assert mounted_at(point) is None
        await own.stop()
        await own.start(CONTEXT)
        assert (point / "file").read_text() == "content"
        await own.stop()

    with volume(tmp_path) as (device, point):
        asyncio.run(scene(device, point))


@inside
def test_never_makes_a_file_system(tmp_path: pathlib.Path) -> None:
    async def scene(device: pathlib.Path, point: pathlib.Path) -> None:
        with pytest.raises(AgentFailed, match=r"is blank.*relevo volume format r0"):
            await agent(device, point).start(CONTEXT)
        scribble(device)
        with pytest.raises(AgentFailed, match=r"no file system that is known.*relevo volume format r0"):
            await agent(device, point).start(CONTEXT)
        sh("mkfs.ext4", "-q", "-F", str(device))
        with pytest.raises(AgentFailed, match="holds ext4, not xfs"):
            await agent(device, point, fstype="xfs").start(CONTEXT)
        missing = pathlib.Path("/run/there-is-no-device")
        with pytest.raises(AgentFailed, match="is not there"):
            await agent(missing, point).start(CONTEXT)
        assert mounted_at(point) is None

    with volume(tmp_path, made=False) as (device, point):
        asyncio.run(scene(device, point))


@inside
def test_asks_users_then_kills_them(tmp_path: pathlib.Path) -> None:
    async def scene(own: FilesystemAgent, point: pathlib.Path) -> None:
        await own.start(CONTEXT)
        (point / "mapped").write_bytes(bytes(4096))
        with (
            process(POLITE, str(point / "open"), cwd=pathlib.Path("/")) as polite,
            process(MAPPED, str(point / "mapped"), cwd=pathlib.Path("/")) as mapped,
            process(STUBBORN, cwd=point) as stubborn,
            process(STUBBORN, cwd=pathlib.Path("/")) as bystander,
        ):
            await own.stop()
            assert mounted_at(point) is None
            assert polite.wait() == -signal.SIGTERM
            assert mapped.wait() == -signal.SIGTERM
            assert stubborn.wait() == -signal.SIGKILL
            assert bystander.poll() is None

    with volume(tmp_path) as (device, point):
        asyncio.run(scene(agent(device, point, stop_ms=2000), point))


@inside
def test_gives_up_with_a_sentence_and_never_lazily(tmp_path: pathlib.Path) -> None:
    async def scene(own: FilesystemAgent, point: pathlib.Path) -> None:
        await own.start(CONTEXT)
        below = point / "below"
        below.mkdir()
        sh("mount", "-t", "tmpfs", "none", str(below))
        with pytest.raises(AgentFailed, match=r"the mount .*/below"):
            await own.stop()
        assert mounted_at(point) is not None
        sh("umount", str(below))
        with volume(point / "inner", made=False), pytest.raises(AgentFailed, match="the kernel"):
            await own.stop()
        assert (await own.monitor()).state is State.RUNNING
        await own.stop()

    with volume(tmp_path) as (device, point):
        asyncio.run(scene(agent(device, point, stop_ms=1000), point))


@inside
def test_monitor_sees_a_read_only_remount(tmp_path: pathlib.Path) -> None:
    async def scene(own: FilesystemAgent, point: pathlib.Path) -> None:
        await own.start(CONTEXT)
        sh("mount", "-o", "remount,ro", str(point))
        health = await own.monitor()
        assert health.state is State.FAILED
        assert "read-only" in health.reason
        with pytest.raises(AgentFailed, match="takes no writes"):
            await own.start(CONTEXT)
        await own.stop()
        await own.start(CONTEXT)
        assert (await own.monitor()).state is State.RUNNING
        await own.stop()

    with volume(tmp_path) as (device, point):
        asyncio.run(scene(agent(device, point), point))


@inside
def test_repairs_what_is_marked_as_damaged(tmp_path: pathlib.Path) -> None:
    async def scene(device: pathlib.Path, point: pathlib.Path) -> None:
        sh("debugfs", "-w", "-R", "set_super_value state 2", str(device))
        assert "with errors" in sh("dumpe2fs", "-h", str(device))
        await agent(device, point).start(CONTEXT)
        await agent(device, point).stop()
        assert "Filesystem state:         clean\n" in sh("dumpe2fs", "-h", str(device))
        sh("debugfs", "-w", "-R", "clri <2>", str(device))
        sh("debugfs", "-w", "-R", "set_super_value state 2", str(device))
        with pytest.raises(AgentFailed, match="does not repair it"):
            await agent(device, point).start(CONTEXT)
        assert mounted_at(point) is None

    with volume(tmp_path) as (device, point):
        asyncio.run(scene(device, point))


@inside
def test_a_dying_disk_is_seen_and_can_be_unmounted(tmp_path: pathlib.Path) -> None:
    async def scene(own: FilesystemAgent, point: pathlib.Path, folder: pathlib.Path) -> None:
        await own.start(CONTEXT)
        assert (await own.monitor()).state is State.RUNNING
        os.truncate(folder / "volume" / "disk", 0)
        with contextlib.suppress(OSError), (folder / "ballast").open("wb") as file:
            while True:
                file.write(bytes(1 << 16))  # in the end the disk has room for nothing: every write fails
        with pytest.raises(OSError, match=r"Input/output|Read-only"):
            make_folders(point)
        health = await own.monitor()
        assert health.state is State.FAILED
        assert "read-only" in health.reason
        await own.stop()
        assert mounted_at(point) is None

    small = tmp_path / "small"
    small.mkdir()
    sh("mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES // 2}", "none", str(small))
    with volume(small / "volume") as (device, point):
        asyncio.run(scene(agent(device, point), point, small))


@inside
def test_refuses_a_place_where_something_else_is_mounted(tmp_path: pathlib.Path) -> None:
    async def scene(own: FilesystemAgent, point: pathlib.Path) -> None:
        sh("mount", "--mkdir", "-t", "tmpfs", "none", str(point))
        with pytest.raises(AgentFailed, match="another device is mounted"):
            await own.start(CONTEXT)

    with volume(tmp_path) as (device, point):
        asyncio.run(scene(agent(device, point), point))


@contextlib.contextmanager
def served(disk: pathlib.Path, path: pathlib.Path) -> Iterator[subprocess.Popen[str]]:
    """A process that serves a disk as a file at a path, as a mirror does."""
    path.touch()
    argv = [sys.executable, "-c", SERVER, str(disk), str(path)]
    server = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("serving")
        yield server
    finally:
        server.kill()
        server.communicate()
        sh("umount", str(path))


@inside
def test_the_process_below_is_killed(tmp_path: pathlib.Path) -> None:
    async def scene(own: FilesystemAgent, point: pathlib.Path, server: subprocess.Popen[str]) -> None:
        await own.start(CONTEXT)
        await asyncio.to_thread(make_folders, point)
        with process(STUBBORN, cwd=point):
            server.kill()
            server.wait()
            with pytest.raises(OSError, match=r"Input/output|Read-only"):
                await asyncio.to_thread(make_folders, point / "folder1")
            assert (await own.monitor()).state is State.FAILED
            assert (await own.probe()).state is State.FAILED
            await own.stop()
        assert mounted_at(point) is None

    disk, path, point = tmp_path / "disk", tmp_path / "served", tmp_path / "mnt"
    disk.write_bytes(bytes(SIZE_BYTES))
    with served(disk, path) as server:
        fd = os.open(path, os.O_RDWR)
        device = loop.attach(fd, tmp_path / "device", "relevo-test-agents")
        os.close(fd)
        try:
            sh("mkfs.ext4", "-q", str(device.node))
            asyncio.run(scene(agent(device.node, point, stop_ms=2000), point, server))
        finally:
            device.abandon()
