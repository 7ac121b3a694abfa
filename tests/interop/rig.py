"""One guest with the kernel's drbd and a namespace for ours, on one bridge; used by one case after the other.

All names carry the number of the process that made them: runs at the same time do not meet, and what a run that was
killed has left is taken away by the next one (`sweep`).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import re
import shutil
import signal
import tempfile

from guest import Guest
from guest_image import Image

from mirror_pair import run

PREFIX = "ri"
NETWORK_BITS = 24
OURS_NAME, KERNEL_NAME = "nodo1", "nodo2"
LOW, HIGH = "10.27.0.1", "10.27.0.2"
DOWN_LIMIT_S = 20.0
_numbers = itertools.count()
_FOLDERS = pathlib.Path("/dev/shm")
"""Where disks lie: a file system that can do direct I/O (tmpfs can, from Linux 6.6 on)."""


class Rig:
    """Namespaces, bridge, cables and the guest, with a disk of `disk_bytes` and perhaps another one."""

    def __init__(self, image: Image, disk_bytes: int, more: pathlib.Path | None = None) -> None:
        self.disk_bytes = disk_bytes
        name = f"{PREFIX}{os.getpid()}-{next(_numbers)}"
        self.ours = f"{name}o"
        self._switch = f"{name}s"
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=_FOLDERS))
        self._cable()
        disk = self.folder / "kernel.disk"
        empty(disk, disk_bytes)
        address = f"{HIGH}/{NETWORK_BITS}"
        self.guest = Guest(image, self.folder, self._switch, "guest", KERNEL_NAME, address, disk, more)

    def _cable(self) -> None:
        for namespace in (self._switch, self.ours):
            run("ip", "netns", "add", namespace)
            run("ip", "-n", namespace, "link", "set", "lo", "up")
        run("ip", "-n", self._switch, "link", "add", "bridge", "type", "bridge", "stp_state", "0", "forward_delay", "0")
        run("ip", "-n", self._switch, "link", "set", "bridge", "up")
        peer = ("peer", "name", "eth1", "netns", self.ours)
        run("ip", "-n", self._switch, "link", "add", "ours", "type", "veth", *peer)
        run("ip", "-n", self._switch, "link", "set", "ours", "master", "bridge", "up")
        run("ip", "-n", self.ours, "link", "set", "eth1", "up")

    def start_guest(self) -> None:
        """Switch the guest on and plug its card in."""
        self.guest.start()
        run("ip", "-n", self._switch, "link", "set", "guest", "up")
        self.heal()

    def cut(self) -> None:
        """Silence between the two: no packet passes, no connection is closed."""
        run("ip", "-n", self._switch, "link", "set", "guest", "nomaster")

    def heal(self) -> None:
        """Packets pass again."""
        run("ip", "-n", self._switch, "link", "set", "guest", "master", "bridge")

    def slow(self, rate: str | None) -> None:
        """Bound what passes in either direction; None: no bound."""
        for card in ("guest", "ours"):
            tc = ("ip", "netns", "exec", self._switch, "tc", "qdisc")
            if rate is None:
                run(*tc, "del", "dev", card, "root", check=False)
            else:
                run(*tc, "replace", "dev", card, "root", "tbf", "rate", rate, "burst", "8kb", "latency", "60s")

    def replace_disk(self, disk_bytes: int) -> None:
        """Another, empty disk for the guest, which is off."""
        self.disk_bytes = disk_bytes
        empty(self.guest.disk, disk_bytes)

    def begin(self, *, ours_is_lower: bool) -> None:
        """Ready for a case: the guest runs, knows nothing of drbd, both have their addresses, its disk is empty."""
        if not self.guest.running:
            self.start_guest()
        ours, kernel = (LOW, HIGH) if ours_is_lower else (HIGH, LOW)
        self.guest.run(
            f"ip addr flush dev eth0; ip addr add {kernel}/{NETWORK_BITS} dev eth0; echo 3 > /proc/sys/vm/drop_caches"
        )
        run("ip", "-n", self.ours, "addr", "flush", "dev", "eth1")
        run("ip", "-n", self.ours, "addr", "add", f"{ours}/{NETWORK_BITS}", "dev", "eth1")
        empty(self.guest.disk, self.disk_bytes)

    def end(self) -> bool:
        """After a case: whether the rig can be used again."""
        guest = self.guest
        if not guest.running or guest.hung or guest.outgrown:
            return False
        self.heal()
        self.slow(None)
        with contextlib.suppress(AssertionError):
            status, _ = guest.call("umount /mnt 2>/dev/null; drbdsetup down r0", limit_s=DOWN_LIMIT_S)
            return not status
        return False

    def close(self) -> None:
        """Take everything away."""
        self.guest.cut_power()
        for namespace in (self.ours, self._switch):
            _remove(namespace)
        shutil.rmtree(self.folder, ignore_errors=True)


def empty(path: pathlib.Path, size: int) -> None:
    """A file of that size, all holes."""
    with path.open("r+b" if path.exists() else "wb") as file:
        file.truncate(0)
        file.truncate(size)


def _remove(namespace: str) -> None:
    for pid in run("ip", "netns", "pids", namespace, check=False).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    run("ip", "netns", "del", namespace, check=False)


def sweep() -> None:
    """Take away what runs that are no more have left behind."""
    for namespace in re.findall(rf"^({PREFIX}\d+-\d+[os])\b", run("ip", "netns", "list"), re.MULTILINE):
        if not _alive(namespace):
            _remove(namespace)
    for folder in _FOLDERS.glob(f"{PREFIX}*-*-*"):
        if not _alive(folder.name):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(name: str) -> bool:
    found = re.match(rf"{PREFIX}(\d+)-", name)
    return found is None or pathlib.Path(f"/proc/{found[1]}").exists()


class Rigs:
    """The rigs of one run: each is lent to one case at a time."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self._free: dict[int, Rig] = {}

    def lend(self, disk_bytes: int) -> Rig:
        """A rig whose guest's disk has this size."""
        return self._free.pop(disk_bytes, None) or Rig(self.image, disk_bytes)

    def give_back(self, rig: Rig, *, usable: bool) -> None:
        """After a case; a rig that is not usable any more is taken down."""
        if usable and rig.disk_bytes not in self._free and rig.end():
            self._free[rig.disk_bytes] = rig
        else:
            rig.close()

    def close(self) -> None:
        """Take all of them down."""
        while self._free:
            self._free.popitem()[1].close()
