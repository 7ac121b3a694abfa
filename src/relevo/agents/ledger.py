"""Which tools run for this daemon, written down: what a killed one leaves behind is ended before anything is looked at.

A tool lives in a session of its own and outlives a daemon that is killed (kill -9). An `umount` or the start of a
program would go on beside the next daemon, which has just looked and told the other server that nothing is here.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import pathlib
import signal
from collections.abc import Iterator

import structlog

END_LIMIT_S = 10.0
"""A tool that waits in the kernel for a dead device does not die; so long it is waited for."""
_STARTED_AT = 19
"""Of /proc/PID/stat the 22nd field, `starttime`, counted behind the name (proc_pid_stat(5))."""
_log = structlog.get_logger()


class Ledger:
    """A folder with a file for each tool that runs: its process id is the name, when it started the content.

    Args:
        folder: must not survive a boot. Only one daemon may have it.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder

    def begun(self, pid: int) -> None:
        """A tool runs; not waited for yet."""
        with _noted():
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / str(pid)).write_text(_started_at(pid), encoding="ascii")

    def ended(self, pid: int) -> None:
        """It has ended, and is not reaped yet: nobody else has its id."""
        with _noted():
            (self._folder / str(pid)).unlink(missing_ok=True)

    async def end_leftovers(self, limit_s: float = END_LIMIT_S) -> None:
        """End what an earlier daemon left, with everything in its process group, and wait until it is gone."""
        left = [path for path in (self._folder.iterdir() if self._folder.is_dir() else ()) if path.name.isdigit()]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await asyncio.gather(*(_end(path) for path in left))
        for path in left:
            path.unlink(missing_ok=True)


LEDGER: contextvars.ContextVar[Ledger | None] = contextvars.ContextVar("ledger", default=None)
"""Where the tools of this task are written down; None: nowhere."""


async def _end(path: pathlib.Path) -> None:
    pid = int(path.name)
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not _is_the_same(pid, path):
            return  # the id belongs to another process by now
        _log.warning("tool_left_behind", pid=pid, words=_words(pid))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        gone = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(fd, _settle, gone)
        try:
            await gone
        finally:
            asyncio.get_running_loop().remove_reader(fd)
    finally:
        os.close(fd)


def _settle(gone: asyncio.Future[None]) -> None:
    if not gone.done():
        gone.set_result(None)


def _started_at(pid: int) -> str:
    """When a process started, in ticks since the boot; empty if it is gone."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[_STARTED_AT]


def _is_the_same(pid: int, path: pathlib.Path) -> bool:
    return _started_at(pid) == path.read_text(encoding="ascii")


def _words(pid: int) -> str:
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


@contextlib.contextmanager
def _noted() -> Iterator[None]:
    """What cannot be written down is said: the tool runs all the same."""
    try:
        yield
    except OSError as error:
        _log.warning("tool_not_noted", why=str(error))
