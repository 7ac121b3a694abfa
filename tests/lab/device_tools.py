"""Served devices for tests: always under a watchdog from outside, and nothing is left of them whatever happens."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from relevo.device import loop
from relevo.device.connection import abort_at
from relevo.device.mount import FILE_SYSTEM_TYPE, umount

DISK_BYTES = 64 << 20
LIMIT_S = 60.0
POLL_S = 0.02
WATCHDOG = """
import pathlib, sys, threading
import device_tools
done = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
if not done.wait(float(sys.argv[1])):
    device_tools.abort_below(pathlib.Path(sys.argv[2]))
    sys.exit(1)
"""
WORKER = """
import os, pathlib, signal, sys
from relevo.device.backing import open_backing
from relevo.device.fuse import FuseFile
from relevo.device.keeper_client import KeeperClient
from relevo.device.serve import PassThrough, Runner

disk, fd = pathlib.Path(sys.argv[1]), int(sys.argv[2])
keeper = KeeperClient(fd)
if keeper.resume and disk.with_name("deadly").exists():
    os.kill(os.getpid(), signal.SIGKILL)
if keeper.resume and disk.with_name("stuck").exists():
    signal.pause()
backing = open_backing(disk)
runner = Runner()
if keeper.resume:
    frontend = FuseFile(keeper.resume[0].size, adopted=keeper.resume[1])
    frontend.resend()
    keeper.serving()
else:
    frontend = FuseFile(backing.size_bytes)
    keeper.attach(frontend.fileno(), backing.size_bytes)
    while True:
        try:
            frontend.receive()
            break
        except PermissionError:
            signal.sigtimedwait((), 0.002)
server = PassThrough(runner, frontend, backing, gone=lambda: None)

def replies():
    for reply in keeper.receive():
        print(reply.no, "ok" if reply.ok else reply.error, reply.device, flush=True)
        if reply.device and frontend.can_resend and disk.with_name("hold").exists():
            keeper.hold(frontend.fileno())

def orders():
    for word in sys.stdin.readline().split():
        if word.isdigit():
            os.truncate(disk, int(word))
            frontend.size_bytes = int(word)
            keeper.grow(int(word))
        else:
            keeper.detach(force=word == "force")
runner.watch(keeper.fileno(), replies)
runner.watch(sys.stdin.fileno(), orders)
with runner.stopped_by_signals():
    runner.run()
"""


def sh(*command: str, limit_s: float = LIMIT_S) -> str:
    """Run a command; what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def grow_ext4(device: pathlib.Path, point: pathlib.Path) -> None:
    """Make the ext4 mounted at `point` as large as its device.

    Mounted, which needs CAP_SYS_RESOURCE; where that is not granted, between an unmount and a mount.
    """
    done = subprocess.run(["resize2fs", str(device)], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode == 0:
        return
    assert "Permission denied" in done.stderr, done.stderr
    sh("umount", str(point))
    sh("e2fsck", "-f", "-p", str(device))
    sh("resize2fs", str(device))
    sh("mount", str(device), str(point))


def wait_for(happened: Callable[[], object], what: str, limit_s: float = 20.0) -> None:
    """Wait for a state of the kernel that is announced nowhere."""
    end = time.monotonic() + limit_s
    while not happened():
        assert time.monotonic() < end, f"{what} did not come to pass"
        time.sleep(POLL_S)


def mounts_below(folder: pathlib.Path) -> list[tuple[pathlib.Path, str, int]]:
    """(path, type, minor number) of what is mounted below a folder, the newest first."""
    found = []
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if fields[4].startswith(f"{folder}/"):
            found.append((pathlib.Path(fields[4]), after.split()[0], int(fields[2].partition(":")[2])))
    return found[::-1]


def abort_below(folder: pathlib.Path) -> None:
    """Abort every FUSE connection mounted below a folder: whoever waits for it goes on, with an error."""
    for path, kind, _ in mounts_below(folder):
        if kind == FILE_SYSTEM_TYPE:
            abort_at(path)


@contextlib.contextmanager
def guarded(folder: pathlib.Path, prefix: str) -> Iterator[None]:
    """Nothing mounted below `folder`, and no loop device named `prefix`…, survives this; a hang ends after LIMIT_S."""
    command = [sys.executable, "-c", WATCHDOG, str(LIMIT_S), str(folder)]
    path = os.pathsep.join(sys.path)
    watchdog = subprocess.Popen(command, stdin=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path})
    try:
        yield
        assert mounts_below(folder) == []
        assert loop.find(prefix, folder) == ()
    finally:
        abort_below(folder)
        for path_, _, _ in mounts_below(folder):
            with contextlib.suppress(OSError):
                umount(path_, lazy=True)
        watchdog.communicate()
        wait_for(lambda: loop.find(prefix, folder) == (), "the end of the loop devices")
        assert watchdog.returncode == 0, "the watchdog had to end this test"


class Server:
    """`python -m relevo.device.serve` in a process of its own."""

    def __init__(self, folder: pathlib.Path, size_bytes: int = DISK_BYTES) -> None:
        self.disk = folder / "disk"
        self.path = folder / "served"
        self.loops: list[loop.Loop] = []
        with self.disk.open("wb") as file:
            file.truncate(size_bytes)
        command = [sys.executable, "-m", "relevo.device.serve", str(self.disk), str(self.path)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("serving")

    def attach(self, node: pathlib.Path, name: str) -> loop.Loop:
        """A loop device over the served file, held by the test and not by the server."""
        fd = os.open(self.path, os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
        try:
            assert os.fstat(fd).st_size == self.disk.stat().st_size
            self.loops.append(loop.attach(fd, node, name))
            return self.loops[-1]
        finally:
            os.close(fd)

    def end(self) -> int:
        """SIGTERM: it unmounts and ends."""
        self.process.terminate()
        self.process.communicate(timeout=20)
        return self.process.returncode

    def kill(self) -> None:
        """SIGKILL; harmless when it has ended."""
        self.process.kill()
        self.process.communicate(timeout=20)


@contextlib.contextmanager
def served(folder: pathlib.Path, prefix: str) -> Iterator[Server]:
    """A disk of DISK_BYTES that is served."""
    with guarded(folder, prefix):
        server = Server(folder)
        try:
            yield server
            assert server.end() == 0
        finally:
            server.kill()
            for device in server.loops:
                device.abandon()


KEEPER = """
import pathlib, sys
from relevo.base import log
from relevo.device import held
from relevo.device.keeper import KEEPER_FD, Keeper
held.RESUME_LIMIT_S = 1.0
log.set_up("keeper")
name, folder, worker, disk = sys.argv[1:]
sys.exit(Keeper(name, pathlib.Path(folder), stop_grace_s=1.0).run([sys.executable, "-c", worker, disk, KEEPER_FD]))
"""


class Kept:
    """A keeper, with a worker that serves a disk.

    Files beside the disk make the worker behave in other ways: `hold` lets the device outlive it, with `deadly` every
    worker that takes over dies at once, with `stuck` it does nothing.
    """

    def __init__(self, folder: pathlib.Path, name: str) -> None:
        self.folder = folder / "run"
        self.name = name
        self.disk = folder / "disk"
        self.device = self.folder / "device"
        if not self.disk.exists():
            with self.disk.open("wb") as file:
                file.truncate(DISK_BYTES)
        command = [sys.executable, "-c", KEEPER, name, str(self.folder), WORKER, str(self.disk)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)

    def line(self) -> list[str]:
        """What the worker says about the keeper's next reply: number, outcome, device."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()

    def order(self, word: str) -> list[str]:
        """`detach` or `force`; the outcome."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return self.line()

    def worker(self) -> int:
        """The worker's process id."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        assert len(children) == 1, children
        return int(children[0])

    def end(self) -> int:
        """SIGTERM; the exit status."""
        self.process.terminate()
        self.process.communicate(timeout=20)
        return self.process.returncode

    def kill(self) -> None:
        """SIGKILL to the keeper; harmless when it has ended."""
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=20)


@contextlib.contextmanager
def kept(folder: pathlib.Path, name: str) -> Iterator[Kept]:
    """A keeper whose device is there."""
    with guarded(folder, name):
        keeper = Kept(folder, name)
        try:
            assert keeper.line() == ["1", "ok", str(keeper.device)]
            yield keeper
        finally:
            keeper.kill()
