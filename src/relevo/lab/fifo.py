"""A FIFO of a machine, read by a process outside of it that ends with the machine: its sysrq trigger, its watchdog."""

from __future__ import annotations

import contextlib
import os
import pathlib
import select

from relevo.lab.process import Process, become_daemon, open_log

READ_BYTES = 4096


def make(path: pathlib.Path) -> None:
    """Make a fresh one, before the machine is switched on."""
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)


class Reader:
    """The reading side, in a process that becomes a daemon by this.

    Args:
        machine: the machine's folder.
        name: of the FIFO in it.
        log: of the file in it that takes this process's output.
        process: the machine's PID 1.
    """

    def __init__(self, machine: pathlib.Path, name: str, log: str, process: Process) -> None:
        output = open_log(machine / log)
        # A reader alone would see ends of file.
        self._fifo = os.open(machine / name, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        birth = become_daemon()
        self._poll = select.poll()
        with contextlib.suppress(ProcessLookupError):
            self._poll.register(os.pidfd_open(process.pid), select.POLLIN)
        self._poll.register(self._fifo, select.POLLIN)
        birth.ready(output)

    def wait(self, limit_s: float | None = None) -> bytes:
        """What was written, or nothing: the machine has ended, or the time is over."""
        self._poll.poll(None if limit_s is None else max(0.0, limit_s) * 1000 + 1)
        try:
            return os.read(self._fifo, READ_BYTES)
        except BlockingIOError:
            return b""
