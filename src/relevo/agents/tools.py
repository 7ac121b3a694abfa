"""Run a system tool with a time limit that holds even when the tool cannot be killed.

A process that waits in the kernel for a dead device (state D) survives SIGKILL until the device answers. So nothing
here waits for the end of a tool whose time is over: it is killed, reported and reaped whenever it goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
import signal
from collections.abc import Mapping

from relevo.agents import outputs
from relevo.agents.base import AgentFailed
from relevo.agents.ledger import LEDGER

MAX_OUTPUT_BYTES = 1 << 20
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


@dataclasses.dataclass(frozen=True, slots=True)
class Finished:
    """How a tool ended.

    Attributes:
        status: exit status; minus the number of the signal that ended it.
        output: what it wrote, standard output and error together.
    """

    status: int
    output: bytes

    @property
    def words(self) -> str:
        """The output as one line of text, for a sentence."""
        return " ".join(self.output.decode(errors="replace").split()) or f"exit status {self.status}"


async def run_tool(
    *argv: str, limit_s: float, environment: Mapping[str, str] | None = None, given: bytes = b""
) -> Finished:
    """Run a tool to its end.

    Args:
        argv: the program (looked up in the system's folders) and its arguments.
        limit_s: how long it may take, in seconds.
        environment: what it finds there besides `ENVIRONMENT`.
        given: its standard input.

    Raises:
        AgentFailed: it is not installed, or its time is over (it has been killed then).
    """
    program = shutil.which(argv[0], path=ENVIRONMENT["PATH"])
    if program is None:
        raise AgentFailed(f"The program {argv[0]} is not installed.", "Install it.")
    output = outputs.create()
    reading = os.memfd_create("input", os.MFD_CLOEXEC)
    try:
        os.pwrite(reading, given, 0)
        child = _Child(program, argv, (reading, output), {**ENVIRONMENT, **(environment or {})})
        status = await _run(child, argv, limit_s)
        return Finished(status, os.pread(output, MAX_OUTPUT_BYTES, 0))
    finally:
        os.close(output)
        os.close(reading)


async def _run(child: _Child, argv: tuple[str, ...], limit_s: float) -> int:
    try:
        async with asyncio.timeout(limit_s):
            return await child.ended()
    except TimeoutError:
        raise AgentFailed(
            f"`{' '.join(argv)}` did not finish within {limit_s:.1f} s and was killed.",
            "If it goes on waiting in the kernel, the device below does not answer.",
        ) from None
    finally:
        child.leave()


class _Child:
    """One child process in a session of its own, watched through a pidfd."""

    def __init__(
        self, program: str, argv: tuple[str, ...], ends: tuple[int, int], environment: Mapping[str, str]
    ) -> None:
        reading, output = ends
        actions = [
            (os.POSIX_SPAWN_DUP2, reading, 0),
            (os.POSIX_SPAWN_DUP2, output, 1),
            (os.POSIX_SPAWN_DUP2, output, 2),
        ]
        # Python ignores SIGPIPE and the daemons may block signals: the tool shall start as from a shell.
        self._pid: int | None = os.posix_spawn(
            program,
            argv,
            environment,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGINT, signal.SIGTERM),
        )
        self._ledger = LEDGER.get()
        if self._ledger is not None:
            self._ledger.begun(self._pid)
        self._pidfd = os.pidfd_open(self._pid)
        self._loop = asyncio.get_running_loop()
        self._status: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(self._pidfd, self._reap)

    async def ended(self) -> int:
        """The exit status, as soon as there is one."""
        return await asyncio.shield(self._status)

    def leave(self) -> None:
        """Kill the process if it still runs; it is reaped when it goes, however late."""
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)

    def _reap(self) -> None:
        assert self._pid is not None, "a process ends once"
        if self._ledger is not None:
            self._ledger.ended(self._pid)
        _, waited = os.waitpid(self._pid, 0)  # at once: its pidfd is readable
        self._pid = None
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._status.set_result(os.waitstatus_to_exitcode(waited))
