"""Agent of NFS: NFS-Ganesha over folders of the file service, for the hosts that relevo.toml names.

Which folder a share is, and which number a user has, is told by the file service as for network drives (`smb.py`).
"""

from __future__ import annotations

import pathlib
import signal

from relevo.agents import nfs_conf, processes
from relevo.agents.aside import aside
from relevo.agents.base import AgentFailed, Health, State
from relevo.agents.drives import FOLDER_MODE, LIMIT_SHARE, DriveAgent
from relevo.agents.follow import replace_file
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


class NfsAgent(DriveAgent):
    """Runs ganesha.nfsd for one files resource."""

    def __init__(self, resource: NfsResource, paths: Paths) -> None:
        rival = "If it is the kernel's NFS server: systemctl disable --now nfs-server."
        super().__init__(resource, paths, kind="nfs", program=PROGRAM, log="log", rival=rival)
        self._conf = self._run / "ganesha.conf"
        self._settings = NfsSettings(
            root=resource.root,
            state=resource.root / STATE_FOLDER,
            port=resource.port,
            grace_s=resource.grace_ms // 1000,
            exports=resource.exports,
        )
        self._missing: list[str] = []

    async def stop(self) -> None:
        """End ganesha.

        Raises:
            AgentFailed: it does not end.
        """
        await self.close()
        limit_s = self._operation.stop_timeout_ms / 1000 * LIMIT_SHARE
        left = await processes.end_all(lambda: processes.marked(self._run), limit_s)
        if left:
            raise AgentFailed(f"{self.id}: {PROGRAM} does not end: {left}.", "See what it waits for: ps.")

    async def monitor(self) -> Health:
        """As of every such server; a share that is not told of is said."""
        health = await super().monitor()
        if health.state is State.RUNNING and self._missing:
            return Health(State.RUNNING, f"{self.id}: {' '.join(self._missing)}")
        return health

    def _main(self) -> int | None:
        return next(iter(processes.marked(self._run)), None)

    async def _require_parts(self) -> None:
        await aside(self._look_for_parts)

    def _look_for_parts(self) -> None:
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
            raise AgentFailed(f"{self.id}: {PROGRAM} does not start: {done.words}.", self._see_log)

    async def _call(self, limit_s: float) -> None:
        await null_call(self._port, limit_s)

    async def _make_known(self, drives: Drives) -> bool:
        self._missing = nfs_conf.missing(drives, self._settings)
        text = nfs_conf.ganesha_conf(drives, self._settings).encode()
        if await aside(self._applied) == text:
            return False
        await aside(lambda: self._write(text))
        if (main := await aside(self._main)) is not None:
            processes.tell(main, signal.SIGHUP)  # it reads its exports again
        return True

    def _applied(self) -> bytes:
        return self._conf.read_bytes() if self._conf.exists() else b""

    def _write(self, text: bytes) -> None:
        self._run.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
        self._settings.state.mkdir(FOLDER_MODE, exist_ok=True)
        replace_file(self._conf, text)
