"""Agent of network drives: Samba's smbd over the shares and accounts of the file service.

The file service says who may do what (`drives` on its control socket, and `accounts` after each change); this agent
writes that down as smbd reads it (`smb_conf.py`), runs smbd and has it read again what has changed.
"""

from __future__ import annotations

import contextlib
import pathlib
import signal

import msgspec

from relevo.agents import processes, smb_conf
from relevo.agents.aside import aside
from relevo.agents.base import AgentFailed
from relevo.agents.drives import FOLDER_MODE, LIMIT_SHARE, DriveAgent
from relevo.agents.follow import MODE, replace_file
from relevo.agents.smb_conf import Drives, Settings
from relevo.agents.smb_probe import negotiate
from relevo.agents.tools import Finished, run_tool
from relevo.base.durable import write_durably
from relevo.base.paths import Paths
from relevo.config.model import SmbResource

STATE_FOLDER = pathlib.Path(".relevo/smb")
"""Below the root of the files resource; the file service hides what is in `.relevo`."""
START = ("setpriv", "--securebits", "+no_setuid_fixup")
"""smbd takes on each user's number and keeps its capabilities (capabilities(7): SECBIT_NO_SETUID_FIXUP)."""
WRAPPER = "libnss_wrapper.so"
MODULES = ("fake_perms", "syncops")
INSTALL = "Install samba, samba-vfs-modules and libnss-wrapper."
_LIBRARIES = ("/usr/lib", "/usr/lib64", "/lib")
_TOOL_LIMIT_S = 10.0


class SmbAgent(DriveAgent):
    """Runs smbd for one files resource.

    Attributes:
        conf: the configuration that smbd reads.
    """

    def __init__(self, resource: SmbResource, paths: Paths) -> None:
        rival = "If it is the system's own Samba: systemctl disable --now smbd nmbd."
        super().__init__(resource, paths, kind="smb", program="smbd", log="log.smbd", rival=rival)
        self._root = resource.root
        self._settings = Settings(
            run=self._run,
            state=resource.root / STATE_FOLDER,
            port=resource.port,
            workgroup=resource.workgroup,
            encrypt=resource.encrypt,
            durable=resource.durable,
        )
        self.conf = self._run / "smb.conf"
        self._wrapper = pathlib.Path()

    async def stop(self) -> None:
        """End smbd and everything it has started.

        Raises:
            AgentFailed: something of it is left.
        """
        await self.close()
        limit_s = self._operation.stop_timeout_ms / 1000 * LIMIT_SHARE
        main = await aside(self._main)
        if main is not None:  # it takes its own processes with it, in order
            await processes.end([main], signal.SIGTERM, limit_s / 4)
        left = await processes.end_all(lambda: processes.marked(self._run), limit_s / 2)
        if left:
            raise AgentFailed(f"{self.id}: processes of smbd do not end: {left}.", "See what they wait for: ps.")

    # --- smbd ---------------------------------------------------------------------------------------------------------

    def _main(self) -> int | None:
        return processes.main_of(self._run / "smbd.pid", self._run)

    async def _require_parts(self) -> None:
        try:
            built = await run_tool("smbd", "-b", limit_s=_TOOL_LIMIT_S)
        except AgentFailed as error:
            raise AgentFailed(f"{self.id}: {error.what}", INSTALL) from error
        said = built.output.decode(errors="replace").splitlines()
        folder = next((line.partition("MODULESDIR: ")[2] for line in said if "MODULESDIR: " in line), "")
        self._wrapper = await aside(lambda: self._look_for_parts(pathlib.Path(folder) / "vfs"))

    def _look_for_parts(self, modules: pathlib.Path) -> pathlib.Path:
        """The library that gives smbd its users; refuses when something is missing."""
        for name in MODULES:
            if not (modules / f"{name}.so").exists():
                raise AgentFailed(f"{self.id}: Samba's module {name} is not there ({modules}).", INSTALL)
        for folder in _LIBRARIES:
            for found in (*pathlib.Path(folder).glob(WRAPPER), *pathlib.Path(folder).glob(f"*/{WRAPPER}")):
                return found
        raise AgentFailed(f"{self.id}: the library {WRAPPER} is not installed.", INSTALL)

    async def _spawn(self, limit_s: float) -> None:
        environment = {
            "LD_PRELOAD": str(self._wrapper),
            "NSS_WRAPPER_PASSWD": str(self._run / "passwd"),
            "NSS_WRAPPER_GROUP": str(self._run / "group"),
            processes.MARK: str(self._run),
        }
        done = await run_tool(*START, "smbd", "-D", "-s", str(self.conf), limit_s=limit_s, environment=environment)
        if done.status:
            raise AgentFailed(f"{self.id}: smbd does not start: {done.words}.", self._see_log)

    async def _call(self, limit_s: float) -> None:
        await negotiate(self._port, limit_s)

    # --- accounts -----------------------------------------------------------------------------------------------------

    async def _make_known(self, drives: Drives) -> bool:
        before = await aside(self._applied)
        if before == drives:
            return False
        await aside(lambda: self._write(drives))
        if before is not None and await aside(self._main) is not None:
            await self._have_read(before, drives)
        await aside(lambda: self._remember(drives))
        return True

    def _applied(self) -> Drives | None:
        """What smbd was told last; None: nothing that can be read."""
        with contextlib.suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode((self._run / "applied.json").read_bytes(), type=Drives)
        return None

    def _remember(self, drives: Drives) -> None:
        replace_file(self._run / "applied.json", msgspec.json.encode(drives))

    def _write(self, drives: Drives) -> None:
        """Everything that smbd reads, each file whole. Users before the shares that name them."""
        state = self._settings.state
        for folder in (self._run, self._settings.roots):
            folder.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
        state.mkdir(FOLDER_MODE, exist_ok=True)
        replace_file(self._run / "passwd", smb_conf.passwd(drives).encode())
        replace_file(self._run / "group", smb_conf.group(drives).encode())
        write_durably(state / "smbpasswd", smb_conf.smbpasswd(drives).encode(), MODE)
        for share in drives.offered():
            link, target = self._settings.roots / share.name, self._root.joinpath(*share.path)
            beside = self._settings.roots / f".{share.name}.new"
            beside.unlink(missing_ok=True)
            beside.symlink_to(target)
            beside.replace(link)
        replace_file(self.conf, smb_conf.smb_conf(drives, self._settings).encode())

    async def _have_read(self, before: Drives, drives: Drives) -> None:
        """smbd and its processes read the configuration again; who may do less is disconnected, and may come back."""
        await self._control("smbd", "reload-config")
        shares, users = smb_conf.withdrawn(before, drives)
        for name in shares:
            await self._control("smbd", "close-share", name)
        if users:
            for pid in await self._sessions(set(users)):
                await self._control(str(pid), "shutdown")

    async def _control(self, *words: str) -> Finished:
        done = await run_tool("smbcontrol", "-s", str(self.conf), *words, limit_s=_TOOL_LIMIT_S)
        if done.status:
            raise AgentFailed(f"{self.id}: smbcontrol {' '.join(words)} failed: {done.words}.")
        return done

    async def _sessions(self, users: set[str]) -> list[int]:
        """The processes that serve somebody of these."""
        argv = ("smbstatus", "-s", str(self.conf), "--json", "--processes")
        done = await run_tool(*argv, limit_s=_TOOL_LIMIT_S)
        if done.status:
            raise AgentFailed(f"{self.id}: smbstatus failed: {done.words}.")
        told = msgspec.json.decode(done.output[done.output.index(b"{") :])
        sessions = told.get("sessions", {}).values()
        return sorted({int(one["server_id"]["pid"]) for one in sessions if one.get("username") in users})
