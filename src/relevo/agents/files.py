"""Agent of the file service: its process is always there (warm); running means that it serves the volume."""

from __future__ import annotations

from relevo.agents.base import RUNNING, STOPPED, Agent, Health, StartContext, State, failed
from relevo.agents.daemon import ask, ask_if_there
from relevo.base.control import DaemonUnreachable, Refused
from relevo.base.paths import Paths
from relevo.config.model import FilesResource


class FilesAgent(Agent):
    """Opens and closes the volume through the control socket of the file service's own process."""

    def __init__(self, resource: FilesResource, paths: Paths) -> None:
        super().__init__(resource.id)
        self._operation = resource.operation
        self._socket = paths.socket(f"files-{resource.id}")

    async def start(self, context: StartContext) -> None:  # noqa: ARG002 - files need no epoch
        """Serve the volume that is mounted now.

        Raises:
            Refused: the service says why it cannot.
            DaemonUnreachable: its process does not answer.
        """
        await ask(self._socket, "open", limit_s=self._operation.start_timeout_ms / 1000)

    async def stop(self) -> None:
        """Let go of the volume. A service whose process does not run has no file open.

        Raises:
            Refused: the service says why it cannot.
            DaemonUnreachable: its process runs but does not answer.
        """
        await ask_if_there(self._socket, "close", limit_s=self._operation.stop_timeout_ms / 1000)

    async def quiesce(self) -> None:
        """Finish what is nearly finished and turn away the rest; `stop` takes what remains."""
        await ask_if_there(self._socket, "quiesce", limit_s=self._operation.stop_timeout_ms / 1000)

    async def monitor(self) -> Health:
        """The process answers and says that the volume is open."""
        try:
            limit_s = self._operation.monitor_timeout_ms / 1000
            status = await ask_if_there(self._socket, "status", limit_s=limit_s)
        except (DaemonUnreachable, Refused) as error:
            return failed(str(error))
        if status is None:
            return Health(State.STOPPED, f"The process of {self.id} does not run.")
        state, problem = str(status["state"]), str(status.get("problem") or "")
        if problem:
            return failed(problem)
        if state == "open":
            return RUNNING
        return STOPPED if state == "closed" else failed(f"The file service {self.id} is {state}.")
