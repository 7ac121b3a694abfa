"""The file tree of a machine: an overlay over the host's root with its own /dev, /proc, /sys, /run and /tmp.

Runs inside the machine's new mount namespace, before anything else does. Standard library only: PID 1 imports it.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import stat

from relevo.lab import kernel
from relevo.lab.sysrq import FIFO, STAND_IN

UPPER = "upper"
WORK = "work"
ROOT = "root"
_DEVICES = {
    "null": (1, 3, 0o666),
    "zero": (1, 5, 0o666),
    "full": (1, 7, 0o666),
    "random": (1, 8, 0o666),
    "urandom": (1, 9, 0o666),
    "tty": (5, 0, 0o666),
    "fuse": (10, 229, 0o600),
    "loop-control": (10, 237, 0o600),
}
"""Character devices: name -> (major, minor, mode); numbers from the kernel's admin-guide/devices.txt. No watchdog*."""
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
_SYSRQ_TRIGGER = "proc/sysrq-trigger"
_MASKED_FOLDERS = ("sys/power",)
MASKED_TREES = ("/dev", "/proc", "/sys", "/run", "/tmp")  # noqa: S108 - a name, nothing is put there
"""What of the host's tree no machine sees."""


def build(
    machine: pathlib.Path,
    lab: pathlib.Path,
    *,
    disks: dict[str, str],
    shared: list[str],
    needed: list[str],
    boot_id: str,
) -> None:
    """Make this mount namespace the machine's and enter it.

    Args:
        machine: the machine's folder; its `upper` and `work` are the overlay's.
        lab: the lab's folder, which the machine must not see (others' disks lie there).
        disks: path in the machine -> path on the host of a file to be found there.
        shared: folders of the host that the machine sees at the same path, writable.
        needed: the same, read-only (where the program lies, if the overlay does not show it).
        boot_id: what /proc/sys/kernel/random/boot_id says.

    Raises:
        OSError: a mount was refused; the file name tells which.
    """
    os.umask(0)
    kernel.mount("", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    os.chdir(machine)  # relative names need no quoting in the overlay's options
    kernel.mount("overlay", ROOT, "overlay", 0, f"lowerdir=/,upperdir={UPPER}/{UPPER},workdir={UPPER}/{WORK}")
    root = machine / ROOT
    _pseudo(root)
    _device_files(root / "dev")
    _hide(root, lab)
    for path in needed:
        _bind(path, root, flags=kernel.MS_RDONLY)
    for path in shared:
        _bind(path, root)
    for inside, outside in disks.items():
        _bind(outside, root, at=inside)
    _mask(root, machine / FIFO, boot_id)
    kernel.enter_root(str(root))
    os.umask(0o022)


def _pseudo(root: pathlib.Path) -> None:
    quiet = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("proc", str(root / "proc"), "proc", quiet)
    kernel.mount("sysfs", str(root / "sys"), "sysfs", quiet)
    kernel.mount("tmpfs", str(root / "dev"), "tmpfs", kernel.MS_NOSUID, "mode=755")
    # Device files of mirrors are made under /run, so it allows them.
    kernel.mount("tmpfs", str(root / "run"), "tmpfs", kernel.MS_NOSUID, "mode=755")
    kernel.mount("tmpfs", str(root / "tmp"), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=1777")
    (root / "run/lock").mkdir(mode=0o1777)


def _device_files(dev: pathlib.Path) -> None:
    for name, (major, minor, mode) in _DEVICES.items():
        os.mknod(dev / name, stat.S_IFCHR | mode, os.makedev(major, minor))
    for name, target in _LINKS.items():
        (dev / name).symlink_to(target)
    for name in ("pts", "shm", "mqueue"):
        (dev / name).mkdir()
    kernel.mount("devpts", str(dev / "pts"), "devpts", kernel.MS_NOSUID | kernel.MS_NOEXEC, "newinstance,ptmxmode=0666")
    kernel.mount("tmpfs", str(dev / "shm"), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=1777")
    with contextlib.suppress(OSError):  # a kernel without POSIX message queues
        kernel.mount("mqueue", str(dev / "mqueue"), "mqueue", kernel.MS_NOSUID | kernel.MS_NODEV)


def _below(root: pathlib.Path, path: str) -> pathlib.Path:
    return root / path.lstrip("/")


def _hide(root: pathlib.Path, folder: pathlib.Path) -> None:
    place = _below(root, str(folder))
    place.mkdir(parents=True, exist_ok=True)
    kernel.mount("tmpfs", str(place), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755")


def _bind(outside: str, root: pathlib.Path, *, at: str | None = None, flags: int = 0) -> None:
    place = _below(root, at or outside)
    place.parent.mkdir(parents=True, exist_ok=True)
    if pathlib.Path(outside).is_dir():
        place.mkdir(exist_ok=True)
    else:
        place.touch()
    kernel.mount(outside, str(place), flags=kernel.MS_BIND)
    if flags:
        kernel.mount("", str(place), flags=kernel.MS_BIND | kernel.MS_REMOUNT | flags)


def _mask(root: pathlib.Path, fifo: pathlib.Path, boot_id: str) -> None:
    (root / STAND_IN).touch()
    for name in (STAND_IN, _SYSRQ_TRIGGER):
        if (root / name).exists():
            kernel.mount(str(fifo), str(root / name), flags=kernel.MS_BIND)
    for name in _MASKED_FOLDERS:
        if (root / name).exists():
            kernel.mount("tmpfs", str(root / name), "tmpfs", kernel.MS_RDONLY, "mode=555")
    # The kernel's own is one for all machines and all their boots.
    own = root / "run/boot_id"
    own.write_text(boot_id + "\n")
    kernel.mount(str(own), str(root / "proc/sys/kernel/random/boot_id"), flags=kernel.MS_BIND)
