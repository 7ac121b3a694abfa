"""A server's /dev/watchdog in the lab: a FIFO, and a process outside of the server that reads it.

The first byte starts it. Unpetted for the timeout it does what `relevo lab crash` does; a `V` as the last byte stops it
(magic close, as <linux/watchdog.h> drivers have it). It ends with the machine.
"""

from __future__ import annotations

import pathlib
import sys
import time

from relevo.lab import fifo
from relevo.lab.fifo import Reader
from relevo.lab.process import Process
from relevo.lab.sysrq import crash

FIFO = "watchdog"
"""The FIFO's name in the folder of a machine."""
LOG = "watchdog.log"
MAGIC = b"V"


def make_fifo(machine: pathlib.Path) -> pathlib.Path:
    """Put a fresh FIFO into a machine's folder, before the machine is switched on."""
    path = machine / FIFO
    fifo.make(path)
    return path


def main(argv: list[str]) -> None:
    """Watch until the machine is off.

    Arguments: the lab's folder, the machine's name, its PID 1's number and start, the timeout in milliseconds.
    """
    folder, name, timeout_s = pathlib.Path(argv[1]), argv[2], int(argv[5]) / 1000
    process = Process(int(argv[3]), int(argv[4]))
    machine = folder / "machines" / name
    reader = Reader(machine, FIFO, LOG, process)
    due_s: float | None = None
    while process.alive():
        written = reader.wait(None if due_s is None else due_s - time.monotonic())
        if written:
            due_s = None if written.endswith(MAGIC) else time.monotonic() + timeout_s
        elif due_s is not None and time.monotonic() >= due_s:
            sys.stderr.write(f"{name} has not petted its watchdog for {timeout_s:g} s: its power is cut\n")
            crash(folder, name)
            return


if __name__ == "__main__":
    main(sys.argv)
