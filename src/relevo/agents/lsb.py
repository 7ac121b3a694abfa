"""Agent for init scripts (Linux Standard Base), and for Heartbeat's own, which take arguments before the action."""

from __future__ import annotations

from relevo.agents.base import RUNNING, STOPPED, Agent, AgentFailed, Health, StartContext, failed
from relevo.agents.tools import Finished, run_tool
from relevo.config.model import LsbResource

RUNS, NOT_RUNNING = 0, frozenset({1, 2, 3})
"""Exit statuses of `status`: it runs; it is dead and left a note or a lock, or it was stopped."""
_WORDS_SHOWN = 300


class LsbAgent(Agent):
    """Runs one script."""

    def __init__(self, resource: LsbResource) -> None:
        super().__init__(resource.id)
        self._resource = resource

    async def start(self, context: StartContext) -> None:  # noqa: ARG002 - no script knows epochs
        """Start; what runs already is fine with every script that keeps to the standard.

        Raises:
            AgentFailed: the script is not there, fails or takes too long.
        """
        if not self._resource.script.exists():
            raise AgentFailed(f"{self.id}: there is no script {self._resource.script}.", "Install what has it.")
        await self._act("start", self._resource.operation.start_timeout_ms)

    async def stop(self) -> None:
        """Stop; a script that is not there has started nothing.

        Raises:
            AgentFailed: it fails or takes too long: then it may still run.
        """
        if self._resource.script.exists():
            await self._act("stop", self._resource.operation.stop_timeout_ms)

    async def monitor(self) -> Health:
        """Ask the script for its status."""
        if not self._resource.script.exists():
            return STOPPED
        try:
            done = await self._run("status", self._resource.operation.monitor_timeout_ms)
        except AgentFailed as error:
            return failed(str(error))
        if done.status == RUNS:
            return RUNNING
        return STOPPED if done.status in NOT_RUNNING else failed(str(self._failure("status", done)))

    async def _act(self, action: str, limit_ms: int) -> None:
        done = await self._run(action, limit_ms)
        if done.status:
            raise self._failure(action, done)

    async def _run(self, action: str, limit_ms: int) -> Finished:
        resource = self._resource
        # under a systemd a script would hand over to it, and that would not be the program that is watched here
        environment = {"SYSTEMCTL_SKIP_REDIRECT": "1", "_SYSTEMCTL_SKIP_REDIRECT": "1"}
        words = (str(resource.script), *resource.arguments, action)
        return await run_tool(*words, limit_s=limit_ms / 1000, environment=environment)

    def _failure(self, action: str, done: Finished) -> AgentFailed:
        said = done.words[-_WORDS_SHOWN:] if done.output.strip() else "it said nothing"
        what = f"{self.id}: `{self._resource.script} {action}` ended with status {done.status}: {said}"
        return AgentFailed(what, "Look into the program's own log as well.")
