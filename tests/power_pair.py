"""A pair of mirrors whose disks forget what was not flushed when the power goes, with a file system and writers on top.

One seed is one course of events: who loses the power, when, and what the disks forget. A run is `Course(folder, fstype,
seed).run()`, which raises `Lost` when something is missing that was acknowledged, or when a file system is damaged.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import mmap
import os
import pathlib
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from mirror_pair import Pair, Side, run
from relevo.base.durable import sync_fd
from relevo.device.connection import abort_at
from relevo.device.mount import umount
from relevo.mirror.create import create_metadata
from volume_writers import MISSING, VolumeWriters, found, lost_uploads

FAST = 'timeout = "8 s"\nping_interval = "1 s"\nping_timeout = "6 s"\nconnect_interval = "200 ms"\n'
"""A dead server's link ends by its reset. A live one that a busy machine holds up must not be given up: alone, with
`alone = "risk"`, it would acknowledge what the other one, which is promoted after the cut, cannot have."""
DISK_BYTES = {"ext4": 96 << 20, "xfs": 352 << 20}
WRITERS = 3
VOLUME_WRITERS = 3
BLOCK_BYTES = 4096
UNSAFE_BLOCKS = 512
WORK_S = (0.1, 1.2)
SERVER = """
import os, pathlib, socket, sys
from relevo.device.fuse import FuseFile
from relevo.base.durable import sync_fd
from relevo.device.mount import connection_minor, mount_fuse_file
from relevo.lab.testdisk import Server, VolatileDisk
os.chdir(sys.argv[1])
image = os.open("disk.img", os.O_RDWR | os.O_CLOEXEC)
pathlib.Path("disk.sock").unlink(missing_ok=True)
listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
listener.bind("disk.sock")
listener.listen()
frontend = FuseFile(os.fstat(image).st_size)
place = pathlib.Path(sys.argv[1]) / "served"
mount_fuse_file(frontend.fileno(), place, source="relevo-test-disk")
print("ready", flush=True)
Server(frontend, VolatileDisk(image), listener, connection_minor(place)).run()
"""


class Lost(AssertionError):
    """Something is missing, or damaged."""


class VolatileStore:
    """One server's disk: an image, and the process that serves it while the power is on."""

    def __init__(self, folder: pathlib.Path, size_bytes: int) -> None:
        folder.mkdir()
        self._folder = folder
        self.path = folder / "served"
        with (folder / "disk.img").open("wb") as image:
            image.truncate(size_bytes)
        self._process: subprocess.Popen[str] | None = None

    def power_on(self) -> None:
        command = [sys.executable, "-c", SERVER, str(self._folder)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def forget(self, seed: str) -> None:
        """Refuse everything from now on, and lose a part of what was not flushed."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(10)
            here = os.open(self._folder, os.O_PATH | os.O_DIRECTORY)
            try:  # the folder's name may be longer than a socket's may be
                sock.connect(f"/proc/self/fd/{here}/disk.sock")
            finally:
                os.close(here)
            sock.sendall(json.dumps({"do": "crash", "seed": seed}).encode() + b"\n")
            assert json.loads(sock.makefile("rb").readline())["ok"]

    def power_off(self) -> None:
        """The end of the process; harmless when it has ended."""
        if self._process is None:
            return
        abort_at(self.path)
        umount(self.path, lazy=True)
        self._process.kill()
        self._process.communicate()
        self._process = None


class PowerPair(Pair):
    """A pair on volatile stores."""

    def __init__(self, folder: pathlib.Path, fstype: str, limit_s: float) -> None:
        self.stores: dict[str, VolatileStore] = {}
        self._bytes = DISK_BYTES[fstype]
        super().__init__(folder, limit_s=limit_s, mirror=FAST, disk_bytes=8 << 20)
        for side in self.sides.values():
            store = self.stores[side.name] = VolatileStore(side.folder / "store", self._bytes)
            store.power_on()
            side.disk = store.path
            create_metadata(side.disk, zeroed=True)
        for side in self.sides.values():
            self.configure(side, mirror=FAST)

    def cut_power(self, sides: list[Side], seed: str) -> None:
        """The disks forget, then everything on these servers is gone."""
        for side in sides:
            self.stores[side.name].forget(f"{seed}/{side.name}")
        for side in sides:
            side.kill()
            umount(side.folder / "mnt", lazy=True)
        for side in sides:
            self.stores[side.name].power_off()

    def power_on(self, side: Side) -> None:
        self.stores[side.name].power_on()
        side.start()

    def close(self) -> None:
        for side in self.sides.values():
            umount(side.folder / "mnt", lazy=True)
        super().close()
        for store in self.stores.values():
            store.power_off()


class Writers:
    """Each writes files of its own, and notes those that an fsync has made safe.

    By a descriptor of the root, not by its name: that means a folder of the machine's own disk as soon as the mount is
    taken away, and what is written there would count as safe.
    """

    def __init__(
        self, root: pathlib.Path, seed: str, known: dict[str, set[str]], offsets: dict[str, tuple[int, str]]
    ) -> None:
        self._folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._root = pathlib.Path(f"/proc/self/fd/{self._folder}")
        self.safe = known
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(number, seed)) for number in range(WRITERS)]
        self._threads.append(threading.Thread(target=self._write_unsafely, args=(seed,)))
        self._served = VolumeWriters(self._root, known, offsets)
        for number in range(VOLUME_WRITERS):
            self._threads.append(threading.Thread(target=self._change, args=(number, seed)))
        self.unexpected: list[str] = []
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Wait for them; the device has to be gone or answering."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._served.volume.close()
        os.close(self._folder)

    def _write(self, number: int, seed: str) -> None:
        chance = random.Random(f"{seed}/{number}")
        with self._until_the_cut():
            while not self._stop.is_set():
                self._one(number, chance)

    def _change(self, number: int, seed: str) -> None:
        chance = random.Random(f"{seed}/volume/{number}")
        with self._until_the_cut():
            while not self._stop.is_set():
                self._served.run(number, chance)

    @contextlib.contextmanager
    def _until_the_cut(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in {errno.EIO, errno.EROFS, errno.ESHUTDOWN, errno.ENODEV, errno.ENOENT}:
                self.unexpected.append(repr(error))

    def _write_unsafely(self, seed: str) -> None:
        """Straight to the device and never flushed: what the disks then have to forget. Nobody may count on it."""
        chance = random.Random(seed)
        with self._until_the_cut(), mmap.mmap(-1, BLOCK_BYTES) as page:
            fd = os.open(self._root / "unsafe", os.O_RDWR | os.O_CREAT | os.O_DIRECT | os.O_CLOEXEC)
            try:
                os.posix_fallocate(fd, 0, UNSAFE_BLOCKS * BLOCK_BYTES)
                while not self._stop.is_set():
                    page[:8] = chance.randbytes(8)
                    os.pwrite(fd, page, chance.randrange(UNSAFE_BLOCKS) * BLOCK_BYTES)
            finally:
                os.close(fd)

    def _one(self, number: int, chance: random.Random) -> None:
        """A new file, or one written anew beside the old one and put in its place."""
        name = f"{number}-{chance.randrange(12)}"
        content = chance.randbytes(chance.choice((10, 4096, 30_000, 200_000)))
        new = self._root / f"{name}.new"
        with new.open("wb", buffering=0) as file:
            file.write(content)
            sync_fd(file.fileno())
        digest = hashlib.sha256(content).hexdigest()
        self.safe[name] = self.safe.get(name, {MISSING}) | {digest}  # one of them, until the folder is on the disk
        new.replace(self._root / name)
        folder = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            sync_fd(folder)
        finally:
            os.close(folder)
        self.safe[name] = {digest}


class Course:
    """Some power cuts in a row on one pair.

    Args:
        folder: an empty one.
        fstype: ext4 or xfs.
        seed: what happens.
        cuts: how many times the power goes.
        limit_s: when the watchdog steps in.
    """

    def __init__(self, folder: pathlib.Path, fstype: str, seed: int, cuts: int = 1, limit_s: float = 120.0) -> None:
        self._fstype = fstype
        self._seed = seed
        self._cuts = cuts
        self._chance = random.Random(seed)
        self._epoch = 0
        self._safe: dict[str, set[str]] = {}
        self._offsets: dict[str, tuple[int, str]] = {}
        self.pair = PowerPair(folder, fstype, limit_s)

    def run(self) -> None:
        """All of it.

        Raises:
            Lost: a file that was fsynced is not there as it was, or a file system is damaged.
        """
        try:
            self._run()
        finally:
            self.pair.close()

    def _run(self) -> None:
        pair = self.pair
        pair.start()
        primary, other = pair.one, pair.two
        run(*(("mkfs.xfs", "-q") if self._fstype == "xfs" else ("mkfs.ext4", "-q")), str(self._promote(primary)))
        for number in range(self._cuts):
            seed = f"{self._seed}/{number}"
            target = self._mount(primary)
            writers = Writers(target, seed, self._safe, self._offsets)
            time.sleep(self._chance.uniform(*WORK_S))  # the moment of the cut is what this is about
            both = self._chance.random() < 0.5
            pair.cut_power([primary, other] if both else [primary], seed)
            writers.stop()
            if writers.unexpected:
                raise Lost(f"writers met {writers.unexpected}")
            if both:
                pair.power_on(other)
                pair.power_on(primary)
                pair.wait_in_sync()
            else:
                primary, other = other, primary
            self._promote(primary)
            self._check(primary)
            if not both:
                pair.power_on(other)
                pair.wait_in_sync(60)
        primary.call("secondary")
        if pair.one.data_bytes() != pair.two.data_bytes():
            raise Lost("the copies differ")

    def _promote(self, side: Side) -> pathlib.Path:
        self._epoch += 1
        return side.promote(self._epoch)

    def _mount(self, side: Side) -> pathlib.Path:
        target = side.folder / "mnt"
        target.mkdir(exist_ok=True)
        # The dead server's mount may still be known to this kernel, which it would not be to another one's.
        options = ("-o", "nouuid") if self._fstype == "xfs" else ()
        run("mount", "-t", self._fstype, *options, str(side.device), str(target))
        return target

    def _check(self, side: Side) -> None:
        """The journal is replayed, every file is there, and then a checker finds nothing."""
        target = self._mount(side)
        try:
            for name, allowed in self._safe.items():
                there = found(target, name)
                if there not in allowed:
                    raise Lost(f"{name} is {there}, not {' or '.join(allowed)}")
                self._safe[name] = {there}
            if lost := lost_uploads(target, self._offsets):
                raise Lost("; ".join(lost))
        finally:
            run("umount", str(target))
        checker = ("xfs_repair", "-n") if self._fstype == "xfs" else ("e2fsck", "-fn")
        done = subprocess.run([*checker, str(side.device)], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise Lost(f"{checker[0]}: {done.stdout}{done.stderr}")
