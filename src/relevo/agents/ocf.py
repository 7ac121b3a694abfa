"""Agent for the agents of the Open Cluster Framework: programs of other people, run as Pacemaker runs them.

An action is the program with one word, its parameters in the environment, and its answer an exit status (resource agent
API 1.0). Programs that it starts go on when it has ended.
"""

from __future__ import annotations

import pathlib

from relevo.agents import ocf_meta
from relevo.agents.base import RUNNING, STOPPED, Agent, AgentFailed, Health, StartContext, failed
from relevo.agents.ocf_meta import MetaData
from relevo.agents.tools import Finished, run_tool
from relevo.config.model import OcfResource

ROOT = pathlib.Path("/usr/lib/ocf")
TEMPORARY = pathlib.Path("/run/resource-agents")
META_LIMIT_S = 20.0
SUCCESS, UNIMPLEMENTED, NOT_RUNNING = 0, 3, 7
MEANINGS = {
    1: "failed",
    2: "refuses its parameters",
    3: "does not know this action",
    4: "may not do this",
    5: "misses something that has to be installed",
    6: "is configured wrongly",
    7: "is not running",
    8: "runs as the promoted one",
    9: "failed as the promoted one",
}
_WORDS_SHOWN = 300
_REASON = b"ocf-exit-reason:"
"""With that a line begins by which an agent says why, to people."""


class OcfAgent(Agent):
    """Runs one resource through its agent.

    Args:
        resource: which agent, with which parameters.
        root: OCF_ROOT.
    """

    def __init__(self, resource: OcfResource, root: pathlib.Path = ROOT) -> None:
        super().__init__(resource.id)
        self._resource = resource
        self._root = root
        self._program = root / "resource.d" / resource.provider / resource.agent
        self._meta: MetaData | None = None

    async def start(self, context: StartContext) -> None:  # noqa: ARG002 - no agent of this kind knows epochs
        """Look whether the parameters fit, have the agent look, start.

        Raises:
            AgentFailed: it is not installed, refuses, fails, or takes too long.
        """
        operation = self._resource.operation
        await self._check_parameters()
        done = await self._run("validate-all", operation.start_timeout_ms)
        if done.status not in {SUCCESS, UNIMPLEMENTED}:
            raise self._failure("validate-all", done)
        done = await self._run("start", operation.start_timeout_ms)
        if done.status != SUCCESS:
            raise self._failure("start", done)

    async def stop(self) -> None:
        """Stop; an agent that is not installed has started nothing.

        Raises:
            AgentFailed: it fails or takes too long: then it may still run.
        """
        if not self._program.exists():
            return
        done = await self._run("stop", self._resource.operation.stop_timeout_ms)
        if done.status not in {SUCCESS, NOT_RUNNING}:
            raise self._failure("stop", done)

    async def monitor(self) -> Health:
        """Ask the agent."""
        return await self._look(self._resource.operation.monitor_interval_ms)

    async def probe(self) -> Health:
        """Ask the agent once (interval 0 says so to it)."""
        return await self._look(0)

    async def _look(self, interval_ms: int) -> Health:
        if not self._program.exists():
            return STOPPED
        try:
            done = await self._run("monitor", self._resource.operation.monitor_timeout_ms, interval_ms)
        except AgentFailed as error:
            return failed(str(error))
        if done.status == SUCCESS:
            return RUNNING
        return STOPPED if done.status == NOT_RUNNING else failed(str(self._failure("monitor", done)))

    async def _check_parameters(self) -> None:
        if self._meta is None:
            if not self._program.exists():
                raise AgentFailed(
                    f"{self.id}: there is no agent {self._program}.",
                    "Install the package that has it (resource-agents).",
                )
            done = await run_tool(str(self._program), "meta-data", limit_s=META_LIMIT_S, environment=self._variables(0))
            self._meta = ocf_meta.parse(done.output)
        found = ocf_meta.mistakes(self._meta, self._resource.parameters)
        if found:
            raise AgentFailed(f"{self.id} ({self._name}): {found[0]}", "Correct relevo.toml on both servers.")

    @property
    def _name(self) -> str:
        return f"ocf:{self._resource.provider}:{self._resource.agent}"

    async def _run(self, action: str, limit_ms: int, interval_ms: int = 0) -> Finished:
        _make_temporary()
        variables = self._variables(limit_ms) | {"OCF_RESKEY_CRM_meta_interval": str(interval_ms)}
        return await run_tool(str(self._program), action, limit_s=limit_ms / 1000, environment=variables)

    def _variables(self, limit_ms: int) -> dict[str, str]:
        """The environment of an action."""
        resource = self._resource
        return {
            "OCF_ROOT": str(self._root),
            "OCF_RA_VERSION_MAJOR": "1",
            "OCF_RA_VERSION_MINOR": "1",
            "OCF_RESOURCE_INSTANCE": resource.id,
            "OCF_RESOURCE_TYPE": resource.agent,
            "OCF_RESOURCE_PROVIDER": resource.provider,
            "OCF_RESKEY_CRM_meta_timeout": str(limit_ms),
            "OCF_RESKEY_CRM_meta_name": resource.id,
            "HA_RSCTMP": str(TEMPORARY),
            **{f"OCF_RESKEY_{name}": value for name, value in resource.parameters.items()},
        }

    def _failure(self, action: str, done: Finished) -> AgentFailed:
        what = MEANINGS.get(done.status, f"ended with status {done.status}")
        reasons = [line.removeprefix(_REASON) for line in done.output.splitlines() if line.startswith(_REASON)]
        said = Finished(done.status, reasons[-1]).words if reasons else done.words
        said = said[-_WORDS_SHOWN:] if done.output.strip() else "it said nothing"
        return AgentFailed(f"{self.id} ({self._name}) {what} at {action}: {said}", "Look into its own log as well.")


def _make_temporary() -> None:
    """The folder of the agents' own notes, which is gone with each boot."""
    TEMPORARY.mkdir(mode=0o755, exist_ok=True)
