"""Agent of NFS: NFS-Ganesha over folders of the file service, for the hosts that relevo.toml names.

Which folder a share is, and which number a user has, is told by the file service as for network drives (`smb.py`).
"""

from __future__ import annotations

import asyncio
import pathlib
import shutil
import signal

import msgspec
import structlog

from relevo.agents import nfs_conf, processes
from relevo.agents.aside import aside
from relevo.agents.base import RUNNING, STOPPED, Agent, AgentFailed, Health, StartContext, State, failed
from relevo.agents.daemon import ask
from relevo.agents.follow import Follower, replace_file, require_port
from relevo.agents.nfs_conf import NfsSettings
from relevo.agents.nfs_probe import null_call
from relevo.agents.smb_conf import Drives
from relevo.agents.tools import run_tool
from relevo.base.paths import Paths
from relevo.config.model import NfsResource

STATE_FOLDER = pathlib.Path(".relevo/nfs")
"""Below the root: which clients had something open, so that they may claim it again after a failover."""
PROGRAM = "ganesha.nfsd"
INSTALL = "Install nfs-ganesha and nfs-ganesha-vfs."
_LIBRARIES = ("/usr/lib/ganesha", "/usr/lib64/ganesha", "/usr/lib")
_FOLDER_MODE = 0o700
_POLL_S = 0.05
"""Between attempts to reach a server that starts: it sends no event."""
_LIMIT_SHARE = 0.9
_log = structlog.get_logger()


class NfsAgent(Agent):
    """Runs ganesha.nfsd for one files resource."""

    def __init__(self, resource: NfsResource, paths: Paths) -> None:
        super().__init__(resource.id)
        self._resource = resource
        self._files = paths.socket(f"files-{resource.files}")
        self._run = paths.run / f"nfs-{resource.files}"
        self._conf = self._run / "ganesha.conf"
        self._settings = NfsSettings(
            root=resource.root,
            state=resource.root / STATE_FOLDER,
            port=resource.port,
            grace_s=resource.grace_ms // 1000,
            exports=resource.exports,
        )
        self._applying = asyncio.Lock()
        self._missing: list[str] = []
        self._follower = Follower(self.id, self._files, self._apply)

    async def start(self, context: StartContext) -> None:  # noqa: ARG002 - ganesha knows no epochs
        """Write the configuration, run ganesha, wait until it answers; one that runs already is taken over.

        Raises:
            AgentFailed: it is not installed, somebody else has the port, or it does not start.
            RelevoError: the file service does not tell its shares.
        """
        limit_s = self._resource.operation.start_timeout_ms / 1000 * _LIMIT_SHARE
        try:
            async with asyncio.timeout(limit_s):
                await self._bring_up(limit_s)
        except TimeoutError:
            raise AgentFailed(f"{self.id}: {PROGRAM} does not answer.", f"See {self._run}/log.") from None
        self._follower.follow()

    async def stop(self) -> None:
        """End ganesha.

        Raises:
            AgentFailed: it does not end.
        """
        await self.close()
        limit_s = self._resource.operation.stop_timeout_ms / 1000 * _LIMIT_SHARE
        left = await processes.end_all(lambda: processes.marked(self._run), limit_s)
        if left:
            raise AgentFailed(f"{self.id}: {PROGRAM} does not end: {left}.", "See what it waits for: ps.")

    async def monitor(self) -> Health:
        """ganesha answers a call, and knows the shares as they are."""
        health = await self.probe()
        if health.state is not State.RUNNING:
            return health
        self._follower.follow()
        if self._follower.trouble:
            return failed(self._follower.trouble)
        return Health(State.RUNNING, f"{self.id}: {' '.join(self._missing)}") if self._missing else RUNNING

    async def probe(self) -> Health:
        """ganesha runs and answers; nothing is changed."""
        if await aside(self._main) is None:
            return STOPPED
        try:
            await null_call(self._resource.port, self._resource.operation.monitor_timeout_ms / 1000 * _LIMIT_SHARE)
        except AgentFailed as error:
            return failed(f"{self.id}: {error}")
        return RUNNING

    async def close(self) -> None:
        """Follow the shares no more; ganesha goes on as it is."""
        await self._follower.close()

    def _main(self) -> int | None:
        return next(iter(processes.marked(self._run)), None)

    async def _bring_up(self, limit_s: float) -> None:
        await aside(self._require_parts)
        main = await aside(self._main)
        if main is None:
            await aside(lambda: shutil.rmtree(self._run, ignore_errors=True))
        await self._apply()
        if main is None:
            remedy = "If it is the kernel's NFS server: systemctl disable --now nfs-server."
            await aside(lambda: require_port(self.id, self._resource.port, remedy))
            await self._spawn(limit_s)
        await self._answering(limit_s)

    def _require_parts(self) -> None:
        found = any(
            next(pathlib.Path(folder).glob(pattern), None)
            for folder in _LIBRARIES
            for pattern in ("libfsalvfs.so", "*/ganesha/libfsalvfs.so")
        )
        if not found:
            raise AgentFailed(f"{self.id}: NFS-Ganesha and its VFS module are not installed.", INSTALL)

    async def _spawn(self, limit_s: float) -> None:
        argv = (PROGRAM, "-f", str(self._conf), "-p", f"{self._run}/pid", "-L", f"{self._run}/log", "-N", "WARN")
        done = await run_tool(*argv, limit_s=limit_s, environment={processes.MARK: str(self._run)})
        if done.status:
            raise AgentFailed(f"{self.id}: {PROGRAM} does not start: {done.words}.", f"See {self._run}/log.")

    async def _answering(self, limit_s: float) -> None:
        while True:
            try:
                await null_call(self._resource.port, limit_s)
            except AgentFailed:
                if await aside(self._main) is None:
                    raise AgentFailed(f"{self.id}: {PROGRAM} has ended at once.", f"See {self._run}/log.") from None
                await asyncio.sleep(_POLL_S)
            else:
                return

    async def _apply(self) -> None:
        """Have ganesha know what the file service says; nothing is done when it does already."""
        limit_s = self._resource.operation.start_timeout_ms / 1000
        async with self._applying:
            answer = await ask(self._files, "drives", limit_s=limit_s)
            drives = msgspec.convert({key: value for key, value in answer.items() if key != "ok"}, Drives)
            self._missing = nfs_conf.missing(drives, self._settings)
            text = nfs_conf.ganesha_conf(drives, self._settings).encode()
            if await aside(self._applied) == text:
                return
            await aside(lambda: self._write(text))
            if (main := await aside(self._main)) is not None:
                processes.tell(main, signal.SIGHUP)  # it reads its exports again
            _log.info("exports_applied", resource=self.id, generation=drives.generation)

    def _applied(self) -> bytes:
        return self._conf.read_bytes() if self._conf.exists() else b""

    def _write(self, text: bytes) -> None:
        self._run.mkdir(_FOLDER_MODE, parents=True, exist_ok=True)
        self._settings.state.mkdir(_FOLDER_MODE, exist_ok=True)
        replace_file(self._conf, text)
