"""Agent of a mirror: Primary is running, Secondary is stopped."""

from __future__ import annotations

from relevo.agents.base import RUNNING, STOPPED, Agent, AgentFailed, Health, StartContext, State, failed
from relevo.agents.daemon import ask, ask_if_there
from relevo.base.control import DaemonUnreachable
from relevo.base.paths import Paths
from relevo.config.model import MirrorResource
from relevo.device.held import Pause

UP_TO_DATE = "UpToDate"


class MirrorAgent(Agent):
    """Promotes and demotes through the control socket of the mirror's own process."""

    def __init__(self, resource: MirrorResource, paths: Paths) -> None:
        super().__init__(resource.id)
        self._name = resource.mirror
        self._operation = resource.operation
        self._socket = paths.socket(f"mirror-{resource.mirror}")
        self._pause = Pause(paths.device_folder(resource.mirror))

    async def start(self, context: StartContext) -> None:
        """Become Primary under the epoch of the vote.

        Raises:
            Refused: the mirror says no (the peer is Primary, the data is not up to date, the epoch is denied).
            DaemonUnreachable: its process does not answer.
            AgentFailed: it promoted without a device.
        """
        limit_s = self._operation.start_timeout_ms / 1000
        words = {"force": context.force, "epoch": context.epoch, "linked": context.linked}
        answer = await ask(self._socket, "primary", limit_s=limit_s, **words)
        if not answer.get("device"):
            raise AgentFailed(f"Mirror {self._name} is Primary but has no device.", "See its log.")

    async def stop(self) -> None:
        """Become Secondary. A mirror whose process does not run has no device, so it is no Primary.

        Except for the moment in which a new process takes over a device in use: that one is asked.

        Raises:
            Refused: the device is in use.
            DaemonUnreachable: its process runs but does not answer.
        """
        limit_s = self._operation.stop_timeout_ms / 1000
        if await ask_if_there(self._socket, "secondary", limit_s=limit_s) is None and self._pause.lasts():
            await ask(self._socket, "secondary", limit_s=limit_s)

    async def monitor(self) -> Health:
        """Primary, with a device, and its own disk in use. A process that is being replaced under it is a pause."""
        try:
            limit_s = self._operation.monitor_timeout_ms / 1000
            status = await ask_if_there(self._socket, "status", limit_s=limit_s)
        except DaemonUnreachable as error:
            return failed(str(error))
        if status is None and self._pause.lasts():
            return Health(State.RUNNING, f"Mirror {self._name} is being taken over by a new process.")
        self._pause.over()
        if status is None:
            return Health(State.STOPPED, f"The process of mirror {self._name} does not run.")
        if status["role"] != "Primary":
            return STOPPED
        problem = str(status.get("problem") or "")
        if not status.get("device"):
            return failed(problem or f"Mirror {self._name} is Primary but has no device.")
        if status["disk"] != UP_TO_DATE:
            return failed(problem or f"Mirror {self._name} is Primary on a disk that is {status['disk']}.")
        if status.get("suspended"):
            return Health(State.RUNNING, f"Mirror {self._name} holds back writes until it may go on alone.")
        return Health(State.RUNNING, problem) if problem else RUNNING
