"""A server's /dev/watchdog in the lab: a FIFO, and a process outside of the server that reads it.

The first byte starts it. Unpetted for the timeout it does what `relevo lab crash` does; a `V` as the last byte stops it
(magic close, as <linux/watchdog.h> drivers have it). It ends with the machine.
"""

from __future__ import annotations

import os
import pathlib
import select
import sys
import time

from relevo.lab.process import Process, become_daemon, open_log
from relevo.lab.sysrq import crash

FIFO = "watchdog"
"""The FIFO's name in the folder of a machine."""
LOG = "watchdog.log"
MAGIC = b"V"
_READ_BYTES = 4096


def make_fifo(machine: pathlib.Path) -> pathlib.Path:
    """Put a fresh FIFO into a machine's folder, before the machine is switched on."""
    path = machine / FIFO
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)
    return path


def main(argv: list[str]) -> None:
    """Watch until the machine is off.

    Arguments: the lab's folder, the machine's name, its PID 1's number and start, the timeout in milliseconds.
    """
    folder, name, timeout_s = pathlib.Path(argv[1]), argv[2], int(argv[5]) / 1000
    process = Process(int(argv[3]), int(argv[4]))
    machine = folder / "machines" / name
    log = open_log(machine / LOG)
    fifo = os.open(machine / FIFO, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)  # a reader alone would see ends of file
    birth = become_daemon()
    poll = select.poll()
    try:
        poll.register(os.pidfd_open(process.pid), select.POLLIN)
    except ProcessLookupError:
        return
    poll.register(fifo, select.POLLIN)
    birth.ready(log)
    due_s: float | None = None
    while process.alive():
        poll.poll(None if due_s is None else max(0.0, due_s - time.monotonic()) * 1000 + 1)
        written = _read(fifo)
        if written:
            due_s = None if written.endswith(MAGIC) else time.monotonic() + timeout_s
        elif due_s is not None and time.monotonic() >= due_s:
            sys.stderr.write(f"{name} has not petted its watchdog for {timeout_s:g} s: its power is cut\n")
            crash(folder, name)
            return


def _read(fifo: int) -> bytes:
    try:
        return os.read(fifo, _READ_BYTES)
    except BlockingIOError:
        return b""


if __name__ == "__main__":
    main(sys.argv)
