"""A server's disk, seen from the lab: made, served while its machine is on, and made to forget when the power goes."""

from __future__ import annotations

import os
import pathlib
import signal

from relevo.base.control import DaemonUnreachable, Message
from relevo.device.connection import abort_at
from relevo.device.mount import connection_minor, umount
from relevo.lab.errors import LabFailed
from relevo.lab.folder import LabFolder
from relevo.lab.process import Process, arguments, marked, wait_until
from relevo.lab.scene import MIRROR

CRASH_LIMIT_S = 5.0
"""How long the test disk may take to forget; then it is killed, which keeps everything that was written."""
END_LIMIT_S = 5.0


class Disk:
    """The disk of one server; `plain` is the image file itself, `testdisk` a process that serves it."""

    def __init__(self, folder: LabFolder, machine: str) -> None:
        self._lab = folder
        self._machine = machine
        self._folder = folder.machine(machine)
        self.image = folder.image(machine)
        self._served = self._folder / "disk" / MIRROR

    def create(self) -> None:
        """A new disk of zeros."""
        options = self._lab.options()
        (self._folder / "disk").mkdir(parents=True, exist_ok=True)
        fd = os.open(self.image, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, options.disk_bytes)
            if options.disk == "plain":  # asynchronous I/O waits where a file has holes
                os.posix_fallocate(fd, 0, options.disk_bytes)
        finally:
            os.close(fd)

    @property
    def mounted(self) -> bool:
        """Whether the test disk is there."""
        return connection_minor(self._served) is not None

    def power_on(self) -> pathlib.Path:
        """The file, on the host, that is the disk while its machine is on.

        Raises:
            LabFailed: it cannot be served.
        """
        options = self._lab.options()
        if options.disk == "plain":
            return self.image
        self.power_off()
        self._lab.spawn("relevo.lab.testdisk", str(self._folder), str(options.disk_bytes))
        boots = self._lab.load(f"machines/{self._machine}/boots.json", 0) + 1
        self._lab.save(f"machines/{self._machine}/boots.json", boots)
        return self._served

    def stats(self) -> Message | None:
        """What the test disk counts; None for a plain disk and while the machine is off."""
        if self._process() is None:
            return None
        return self._lab.ask(self._folder / "disk.sock", "stats", timeout_s=CRASH_LIMIT_S)

    def crash(self) -> Message | None:
        """Refuse all I/O from now on and forget a part of what was not flushed; what it says about that.

        What is forgotten follows from the lab's seed, the machine and how often it was switched on.
        """
        process = self._process()
        if process is None:
            return None
        boots = self._lab.load(f"machines/{self._machine}/boots.json", 0)
        seed = f"{self._lab.options().seed}/{self._machine}/{boots}"
        try:
            return self._lab.ask(self._folder / "disk.sock", "crash", timeout_s=CRASH_LIMIT_S, seed=seed)
        except DaemonUnreachable:
            self._abort()
            process.send(signal.SIGKILL)
            return None

    def power_off(self) -> None:
        """Take the served file away, when no machine uses it any more; the test disk ends by that.

        Raises:
            LabFailed: it does not end.
        """
        process = self._process()
        if self.mounted and not self._unmount():
            self._abort()
            umount(self._served, lazy=True)
        for left in [process] if process is not None else self._stray():
            # Some process of the host may hold a copy of the mount, so the unmount alone does not always end it.
            left.send(signal.SIGTERM)
            if not left.wait_gone(END_LIMIT_S):
                left.send(signal.SIGKILL)
                if not left.wait_gone(END_LIMIT_S):
                    raise LabFailed(f"The disk of {self._machine} (process {left.pid}) does not end.")
        for name in ("disk.json", "disk.sock"):
            (self._folder / name).unlink(missing_ok=True)

    def _unmount(self) -> bool:
        """Unmount it; a user that is just ending is given a moment."""

        def gone() -> bool:
            try:
                umount(self._served)
            except OSError:
                return False
            return not self.mounted

        return wait_until(gone, END_LIMIT_S)

    def _abort(self) -> None:
        abort_at(self._served)

    def _process(self) -> Process | None:
        return self._lab.process(f"machines/{self._machine}/disk.json")

    def _stray(self) -> list[Process]:
        """Test disks of this machine that left no record, because they or their starter were killed."""
        return [found for found in marked(self._lab.path) if str(self._folder) in arguments(found.pid)]

    def destroy(self) -> None:
        """End it in whatever state it is; for `lab down`."""
        self._abort()
        for found in self._stray():
            found.send(signal.SIGKILL)
        self.power_off()
