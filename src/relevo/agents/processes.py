"""The processes of a server that makes more of itself: found by what they inherit, ended, and waited for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import signal
from collections.abc import Callable

from relevo.agents.aside import aside

MARK = "RELEVO_RESOURCE"
"""In the environment of everything that an agent's server starts: the run folder of the resource."""


def marked(folder: pathlib.Path) -> list[int]:
    """The processes that carry a resource's mark, in their environment or as an argument (some rewrite the former)."""
    mark = f"{MARK}={folder}".encode()
    path = os.fsencode(folder) + b"/"
    return [pid for pid in _all() if mark in _words(pid, "environ") or path in _read(pid, "cmdline")]


def is_marked(pid: int, folder: pathlib.Path) -> bool:
    """Whether a process carries a resource's mark."""
    return f"{MARK}={folder}".encode() in _words(pid, "environ") or os.fsencode(folder) + b"/" in _read(pid, "cmdline")


def main_of(pid_file: pathlib.Path, folder: pathlib.Path) -> int | None:
    """The process that a file names, if it runs and is the resource's."""
    try:
        pid = int(pid_file.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return pid if is_marked(pid, folder) else None


def _all() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]  # noqa: PTH208


def _read(pid: int, name: str) -> bytes:
    try:
        return pathlib.Path("/proc", str(pid), name).read_bytes()
    except OSError:
        return b""


def _words(pid: int, name: str) -> list[bytes]:
    return _read(pid, name).split(b"\0")


async def end_all(find: Callable[[], list[int]], limit_s: float) -> list[int]:
    """SIGTERM, and for the second half of the time SIGKILL, to all that is found; what is left then.

    Looks again until nothing is found: what was ended may have been starting another one.
    """
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while left := await aside(find):
        passed = loop.time() - begun
        if passed >= limit_s:
            return left
        number = signal.SIGTERM if passed < limit_s / 2 else signal.SIGKILL
        until = limit_s / 2 if number is signal.SIGTERM else limit_s
        await end(left, number, until - passed)
    return []


async def end(pids: list[int], number: signal.Signals, limit_s: float) -> None:
    """Send a signal and wait until all are gone, at most for a time."""
    fds = [fd for pid in pids if (fd := _opened(pid)) is not None]
    loop = asyncio.get_running_loop()
    waiting = {fd: loop.create_future() for fd in fds}
    try:
        for fd, future in waiting.items():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, number)
            loop.add_reader(fd, _settle, future)
        if waiting:
            await asyncio.wait(waiting.values(), timeout=max(0.0, limit_s))
    finally:
        for fd in fds:
            loop.remove_reader(fd)
            os.close(fd)


def tell(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended meanwhile."""
    fd = _opened(pid)
    if fd is not None:
        try:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, number)
        finally:
            os.close(fd)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _opened(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None
