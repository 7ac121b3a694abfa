"""`ocf:relevo:files`: the file service on the active server. Started: its process serves the volume."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from relevo.agents.base import StartContext, State
from relevo.agents.daemon import is_away
from relevo.agents.files import FilesAgent
from relevo.base.control import DaemonUnreachable, call
from relevo.base.errors import RelevoError
from relevo.cli.context import Context
from relevo.cli.init_system import start_unit
from relevo.cli.node_runs import node_runs
from relevo.cli.ocf.codes import ActionFailed, Code, Given
from relevo.config.model import FilesResource
from relevo.units import FILES, instance

PARAMETER = "name"
START_POLL_S = 0.05
"""The control socket of a new process appears without announcing itself."""


class FilesActions:
    """The actions on one file service.

    Args:
        context: where things lie.
        given: what Pacemaker says.
    """

    def __init__(self, context: Context, given: Given) -> None:
        self._context = context
        self._given = given
        run = context.paths.run
        self._socket = context.paths.socket(f"files-{given.name}")
        self._log = run / f"files-{given.name}.log"
        self._note = run / f"files-{given.name}.pid"

    def actions(self) -> dict[str, Callable[[], Code]]:
        """Name -> what does it."""
        return {"start": self.start, "stop": self.stop, "monitor": self.monitor, "validate-all": self.validate}

    def validate(self) -> Code:
        """Whether this server can have it."""
        self._resource()
        return Code.SUCCESS

    def _resource(self) -> FilesResource:
        from relevo.files.daemon import find

        try:
            resource = find(self._context.config(), self._given.name)
        except RelevoError as error:
            raise ActionFailed(Code.INSTALLED, str(error)) from error
        if node_runs(self._context):
            what = "The node daemon of Relevo runs here, and decides: two managers cannot."
            raise ActionFailed(Code.INSTALLED, what, "Stop relevo-node and relevo-heartbeat on every server.")
        return resource

    def _agent(self) -> FilesAgent:
        return FilesAgent(self._resource(), self._context.paths)

    def _runs(self) -> bool:
        try:
            call(self._socket, "status", timeout_s=self._given.limit_s)
        except DaemonUnreachable as error:
            if is_away(error):
                return False
            raise ActionFailed(Code.GENERIC, error.what, error.remedy) from error
        return True

    def start(self) -> Code:
        """Its process runs and serves what is mounted."""
        agent = self._agent()
        if not self._runs():
            self._start_process()
        asyncio.run(agent.start(StartContext(epoch=0)))
        return Code.SUCCESS

    def _start_process(self) -> None:
        process = None
        if not start_unit(instance(FILES, self._given.name)):
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("ab") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", "relevo", *self._context.arguments(), "files", "run", self._given.name],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            self._note.write_text(f"{process.pid}\n", encoding="ascii")
        end_s = time.monotonic() + self._given.limit_s / 2
        while not self._runs():
            if (process is not None and process.poll() is not None) or time.monotonic() >= end_s:
                raise ActionFailed(Code.GENERIC, f"The file service {self._given.name} does not run.", self._words())
            time.sleep(START_POLL_S)

    def _words(self) -> str:
        said = self._log.read_text(errors="replace").strip().splitlines() if self._log.exists() else []
        return said[-1] if said else f"journalctl -u {instance(FILES, self._given.name)}"

    def stop(self) -> Code:
        """It has let go of the volume; a process that `start` has started is ended. What does not run is stopped."""
        if self._runs():
            for order in ("quiesce", "close"):
                call(self._socket, order, timeout_s=self._given.limit_s)
        self._end_process()
        return Code.SUCCESS

    def _end_process(self) -> None:
        try:
            pid = int(self._note.read_text(encoding="ascii"))
            if self._is_ours(pid):
                os.kill(pid, signal.SIGTERM)
                self._await_end(pid)
        except (OSError, ValueError):
            pass  # nobody has started one, or it is gone
        self._note.unlink(missing_ok=True)

    def _is_ours(self, pid: int) -> bool:
        words = f"\0files\0run\0{self._given.name}\0".encode()
        return words in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()

    def _await_end(self, pid: int) -> None:
        end_s = time.monotonic() + self._given.limit_s / 2
        while self._is_ours(pid):
            if time.monotonic() >= end_s:
                raise ActionFailed(Code.GENERIC, f"Process {pid} of the file service does not end.", str(self._log))
            time.sleep(START_POLL_S)

    def monitor(self) -> Code:
        """It serves the volume, and names no problem."""
        if not self._runs():
            return Code.NOT_RUNNING
        health = asyncio.run(self._agent().monitor())
        if health.state is State.FAILED:
            raise ActionFailed(Code.GENERIC, health.reason)
        return Code.SUCCESS if health.state is State.RUNNING else Code.NOT_RUNNING
