"""What lies over /proc/sysrq-trigger in a machine: whoever writes `b`, `c` or `o` there cuts that machine's power.

The kernel's own file would take the whole host along. Each machine has a FIFO of its own in its place, and one process
of this module outside of it, which reads the FIFO and does what `relevo lab crash` does. It ends with the machine.
"""

from __future__ import annotations

import contextlib
import pathlib
import sys

from relevo.lab import fifo
from relevo.lab.fifo import Reader
from relevo.lab.process import Process

STAND_IN = "run/sysrq-trigger"
"""Where a machine finds the FIFO too: on a kernel without a trigger it is the only place."""
FIFO = "sysrq"
"""The FIFO's name in the folder of a machine."""
LOG = "sysrq.log"
FATAL = b"bco"
"""Restart, crash, power off: the letters that the kernel obeys at once (admin-guide/sysrq.rst). Others do nothing."""


def make_fifo(machine: pathlib.Path, switches: pathlib.Path) -> None:
    """Put a fresh FIFO into a machine's folder, before the machine is switched on.

    Args:
        machine: its folder; its last part is the machine's name.
        switches: where the same FIFO is found under that name, as the machine's power switch.
    """
    fifo.make(machine / FIFO)
    switches.mkdir(mode=0o700, exist_ok=True)
    switch = switches / machine.name
    switch.unlink(missing_ok=True)
    switch.hardlink_to(machine / FIFO)


def main(argv: list[str]) -> None:
    """Watch until the machine is off. Arguments: the lab's folder, the machine's name, its PID 1's number and start."""
    folder, name = pathlib.Path(argv[1]), argv[2]
    process = Process(int(argv[3]), int(argv[4]))
    machine = folder / "machines" / name
    reader = Reader(machine, FIFO, LOG, process)
    while process.alive():
        written = reader.wait()
        if set(written) & set(FATAL):
            sys.stderr.write(f"{name} wrote {written!r} to its sysrq-trigger: its power is cut\n")
            crash(folder, name)
            return


def crash(folder: pathlib.Path, name: str) -> None:
    """Cut a machine's power, from a process of the lab; one that is off already is no error."""
    from relevo.lab.errors import MachineOff
    from relevo.lab.lab import Lab

    with contextlib.suppress(MachineOff):
        Lab(folder).crash(name)


if __name__ == "__main__":
    main(sys.argv)
