"""Processes of a lab: known by number and start time, found by a mark in their command line, awaited by pidfd."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator

MARK = "--relevo-lab="
"""Every process that serves a lab carries `--relevo-lab=FOLDER` as one of its arguments, and nothing else does."""
_READY = b"ready"
_START_FIELD = 19  # of /proc/PID/stat, counted from the state, which is field 0 after the command's parenthesis


def _stat(pid: int) -> tuple[str, int] | None:
    """(state letter, start time in clock ticks since boot) of a process."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[_START_FIELD])


@dataclasses.dataclass(frozen=True, slots=True)
class Process:
    """One process of the host; the start time (clock ticks since boot) tells it from a later one of the same number."""

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process that has this number now, if it is alive."""
        found = _stat(pid)
        return None if found is None or found[0] in "ZX" else cls(pid, found[1])

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        return Process.of(self.pid) == self

    @property
    def only_waits(self) -> bool:
        """Whether it is ending, has given its namespaces back and sleeps until its children have been reaped.

        One that ends but hangs in an unmount is in state D, not S.
        """
        found = _stat(self.pid)
        return found == ("S", self.start) and not pathlib.Path(f"/proc/{self.pid}/ns/mnt").exists()

    def send(self, number: signal.Signals) -> None:
        """Send a signal if it is still there."""
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(self.pid)
            try:
                if self.alive():
                    signal.pidfd_send_signal(fd, number)
            finally:
                os.close(fd)

    def wait_gone(self, limit_s: float) -> bool:
        """Wait until it has ended; False when it has not within the limit."""
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            if not self.alive():
                return True
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            return bool(poll.poll(limit_s * 1000))
        finally:
            os.close(fd)


def pid_namespace(pid: int) -> int | None:
    """The inode of the PID namespace that a process lives in; works for dying processes too."""
    try:
        return pathlib.Path(f"/proc/{pid}/ns/pid").stat().st_ino
    except OSError:
        return None


def everything() -> Iterator[Process]:
    """All living processes that are visible from here."""
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdecimal() and (found := Process.of(int(entry.name))) is not None:
            yield found


def arguments(pid: int) -> list[str]:
    """The command line of a process; empty when it has none any more."""
    try:
        data = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(part) for part in data.split(b"\0")]


def marked(folder: pathlib.Path) -> list[Process]:
    """The processes that serve the lab in `folder`, this one excluded."""
    wanted = f"{MARK}{folder}"
    return [found for found in everything() if found.pid != os.getpid() and wanted in arguments(found.pid)]


def inside(namespaces: set[int]) -> list[Process]:
    """The processes that live in one of these PID namespaces."""
    return [found for found in everything() if pid_namespace(found.pid) in namespaces]


def wait_until(condition: Callable[[], bool], limit_s: float, step_s: float = 0.01) -> bool:
    """Ask again and again for something in the kernel that no event tells; False when the limit is reached first."""
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(step_s)
    return True


class Birth:
    """The moment between fork and readiness of a daemon: its starter waits for `ready`.

    The starter's exit status is 0 after `ready`, 1 when the daemon ended before.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()

    def await_ready(self) -> int:
        """In the starter: the exit status with which it should end."""
        os.close(self._writer)
        return 0 if os.read(self._reader, len(_READY)) == _READY else 1

    def ready(self, log: int) -> None:
        """In the daemon: all is well; from now on its output goes to the open file `log`."""
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        for fd in (1, 2):
            os.dup2(log, fd)
        os.close(self._reader)
        os.write(self._writer, _READY)
        os.close(self._writer)


def become_daemon() -> Birth:
    """Fork; the parent waits and exits, the child goes on in a session of its own and must call `ready`."""
    birth = Birth()
    if os.fork():
        sys.stdout.flush()
        os._exit(birth.await_ready())
    os.setsid()
    return birth


def open_log(path: pathlib.Path) -> int:
    """A file to append to, for a daemon's output."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
