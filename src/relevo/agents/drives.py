"""What the agents of Samba and Ganesha do alike: run a server over the folders and accounts of the file service.

The file service says who may do what (`drives` on its control socket, and `accounts` after each change); the agent
writes that down as its server reads it, runs the server, and has it read again what has changed.
"""

from __future__ import annotations

import abc
import asyncio
import shutil

import msgspec
import structlog

from relevo.agents import processes
from relevo.agents.aside import aside
from relevo.agents.base import RUNNING, STOPPED, Agent, AgentFailed, Health, StartContext, State, failed
from relevo.agents.daemon import ask
from relevo.agents.follow import Follower, require_port
from relevo.agents.smb_conf import Drives
from relevo.base.paths import Paths
from relevo.config.model import NfsResource, SmbResource

FOLDER_MODE = 0o700
LIMIT_SHARE = 0.9
"""Of an operation's time, for what is done in it: the rest is for saying what went wrong."""
_POLL_S = 0.05
"""Between attempts to reach a server that starts: it sends no event."""
_CLEAR_LIMIT_S = 5.0
_log = structlog.get_logger()


class DriveAgent(Agent, abc.ABC):
    """Runs one server for one files resource.

    Args:
        resource: which.
        paths: the folders of this server.
        kind: `smb` or `nfs`; the folder in /run is named after it.
        program: as sentences call it.
        log: its log file in that folder.
        rival: what else may have its port, and how to end that.
    """

    def __init__(
        self, resource: SmbResource | NfsResource, paths: Paths, *, kind: str, program: str, log: str, rival: str
    ) -> None:
        super().__init__(resource.id)
        self._files = paths.socket(f"files-{resource.files}")
        self._run = paths.run / f"{kind}-{resource.files}"
        self._port = resource.port
        self._operation = resource.operation
        self._program = program
        self._see_log = f"See {self._run}/{log}."
        self._rival = rival
        self._applying = asyncio.Lock()
        self._follower = Follower(self.id, self._files, self._apply)

    async def start(self, context: StartContext) -> None:  # noqa: ARG002 - these servers know no epochs
        """Write the configuration, run the server, wait until it answers; one that runs already is taken over.

        Raises:
            AgentFailed: it is not installed, somebody else has the port, or it does not start.
            RelevoError: the file service does not tell its accounts.
        """
        limit_s = self._operation.start_timeout_ms / 1000 * LIMIT_SHARE
        try:
            async with asyncio.timeout(limit_s):
                await self._bring_up(limit_s)
        except TimeoutError:
            raise AgentFailed(f"{self.id}: {self._program} does not answer.", self._see_log) from None
        self._follower.follow()

    async def monitor(self) -> Health:
        """The server answers, and knows the accounts as they are."""
        health = await self.probe()
        if health.state is State.RUNNING:
            self._follower.follow()
            if self._follower.trouble:
                return failed(self._follower.trouble)
        return health

    async def probe(self) -> Health:
        """The server runs and answers; nothing is changed."""
        if await aside(self._main) is None:
            left = await aside(lambda: processes.marked(self._run))
            return failed(f"{self.id}: {self._program} has died and left processes.") if left else STOPPED
        try:
            await self._call(self._operation.monitor_timeout_ms / 1000 * LIMIT_SHARE)
        except AgentFailed as error:
            return failed(f"{self.id}: {error}")
        return RUNNING

    async def close(self) -> None:
        """Follow the accounts no more; the server goes on as it is."""
        await self._follower.close()

    async def _bring_up(self, limit_s: float) -> None:
        await self._require_parts()
        main = await aside(self._main)
        if main is None:  # what a dead one has left would use the same locks
            await processes.end_all(lambda: processes.marked(self._run), _CLEAR_LIMIT_S)
            await aside(lambda: shutil.rmtree(self._run, ignore_errors=True))
        await self._apply()
        if main is None:
            await aside(lambda: require_port(self.id, self._port, self._rival))
            await self._spawn(limit_s)
        await self._answering(limit_s)

    async def _answering(self, limit_s: float) -> None:
        while True:
            try:
                await self._call(limit_s)
            except AgentFailed:
                if not await aside(lambda: processes.marked(self._run)):
                    raise AgentFailed(f"{self.id}: {self._program} has ended at once.", self._see_log) from None
                await asyncio.sleep(_POLL_S)
            else:
                return

    async def _apply(self) -> None:
        """Have the server know what the file service says; nothing is done when it does already."""
        async with self._applying:
            answer = await ask(self._files, "drives", limit_s=self._operation.start_timeout_ms / 1000)
            drives = msgspec.convert({key: value for key, value in answer.items() if key != "ok"}, Drives)
            if await self._make_known(drives):
                shares = len(drives.offered())
                _log.info("drives_applied", resource=self.id, generation=drives.generation, shares=shares)

    @abc.abstractmethod
    def _main(self) -> int | None:
        """The server's first process."""

    @abc.abstractmethod
    async def _require_parts(self) -> None:
        """Refuse when something is not installed. Raises AgentFailed."""

    @abc.abstractmethod
    async def _spawn(self, limit_s: float) -> None:
        """Start the server. Raises AgentFailed."""

    @abc.abstractmethod
    async def _call(self, limit_s: float) -> None:
        """Ask it something. Raises AgentFailed when it does not answer."""

    @abc.abstractmethod
    async def _make_known(self, drives: Drives) -> bool:
        """Write down what is told, and have a server that runs read it; False when it knows that already."""
