"""Agent of network drives: Samba's smbd over the shares and accounts of the file service.

The file service says who may do what (`drives` on its control socket, and `accounts` after each change); this agent
writes that down as smbd reads it (`smb_conf.py`), runs smbd and has it read again what has changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import shutil
import signal

import msgspec
import structlog

from relevo.agents import processes, smb_conf
from relevo.agents.aside import aside
from relevo.agents.base import RUNNING, STOPPED, Agent, AgentFailed, Health, StartContext, State, failed
from relevo.agents.daemon import ask
from relevo.agents.follow import MODE, Follower, replace_file, require_port
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
_FOLDER_MODE = 0o700
_POLL_S = 0.05
"""Between attempts to reach a server that starts: it sends no event."""
_TOOL_LIMIT_S = 10.0
_LIMIT_SHARE = 0.9
_log = structlog.get_logger()


class SmbAgent(Agent):
    """Runs smbd for one files resource.

    Attributes:
        conf: the configuration that smbd reads.
    """

    def __init__(self, resource: SmbResource, paths: Paths) -> None:
        super().__init__(resource.id)
        self._resource = resource
        self._files = paths.socket(f"files-{resource.files}")
        self._run = paths.run / f"smb-{resource.files}"
        self._settings = Settings(
            run=self._run,
            state=resource.root / STATE_FOLDER,
            port=resource.port,
            workgroup=resource.workgroup,
            encrypt=resource.encrypt,
            durable=resource.durable,
        )
        self.conf = self._run / "smb.conf"
        self._applying = asyncio.Lock()
        self._follower = Follower(self.id, self._files, self._apply)

    async def start(self, context: StartContext) -> None:  # noqa: ARG002 - smbd knows no epochs
        """Write the configuration, run smbd, wait until it answers; one that runs already is taken over.

        Raises:
            AgentFailed: Samba is not installed, somebody else has the port, or smbd does not start.
            RelevoError: the file service does not tell its accounts.
        """
        limit_s = self._resource.operation.start_timeout_ms / 1000 * _LIMIT_SHARE
        try:
            async with asyncio.timeout(limit_s):
                await self._bring_up(limit_s)
        except TimeoutError:
            raise AgentFailed(f"{self.id}: smbd does not answer.", f"See {self._run}/log.smbd.") from None
        self._follower.follow()

    async def _bring_up(self, limit_s: float) -> None:
        wrapper = await self._installed()
        main = await aside(self._main)
        if main is None:
            await self._clear_run()
        await self._apply()
        if main is None:
            remedy = "If it is the system's own Samba: systemctl disable --now smbd nmbd."
            await aside(lambda: require_port(self.id, self._resource.port, remedy))
            await self._spawn(wrapper, limit_s)
        await self._answering(limit_s)

    async def stop(self) -> None:
        """End smbd and everything it has started.

        Raises:
            AgentFailed: something of it is left.
        """
        await self.close()
        limit_s = self._resource.operation.stop_timeout_ms / 1000 * _LIMIT_SHARE
        main = await aside(self._main)
        if main is not None:  # it takes its own processes with it, in order
            await processes.end([main], signal.SIGTERM, limit_s / 4)
        left = await processes.end_all(lambda: processes.marked(self._run), limit_s / 2)
        if left:
            raise AgentFailed(f"{self.id}: processes of smbd do not end: {left}.", "See what they wait for: ps.")

    async def monitor(self) -> Health:
        """smbd answers a client's first question, and knows the accounts as they are."""
        health = await self.probe()
        if health.state is State.RUNNING:
            self._follower.follow()
            if self._follower.trouble:
                return failed(self._follower.trouble)
        return health

    async def probe(self) -> Health:
        """smbd runs and answers; nothing is changed."""
        if await aside(self._main) is None:
            left = await aside(lambda: processes.marked(self._run))
            return failed(f"{self.id}: smbd has died and left processes.") if left else STOPPED
        try:
            await negotiate(self._resource.port, self._resource.operation.monitor_timeout_ms / 1000 * _LIMIT_SHARE)
        except AgentFailed as error:
            return failed(f"{self.id}: {error}")
        return RUNNING

    async def close(self) -> None:
        """Follow the accounts no more; smbd goes on as it is."""
        await self._follower.close()

    # --- smbd ---------------------------------------------------------------------------------------------------------

    def _main(self) -> int | None:
        return processes.main_of(self._run / "smbd.pid", self._run)

    async def _installed(self) -> pathlib.Path:
        """The library that gives smbd its users; refuses when something is missing."""
        try:
            built = await run_tool("smbd", "-b", limit_s=_TOOL_LIMIT_S)
        except AgentFailed as error:
            raise AgentFailed(f"{self.id}: {error.what}", INSTALL) from error
        said = built.output.decode(errors="replace").splitlines()
        folder = next((line.partition("MODULESDIR: ")[2] for line in said if "MODULESDIR: " in line), "")
        return await aside(lambda: self._look_for_parts(pathlib.Path(folder) / "vfs"))

    def _look_for_parts(self, modules: pathlib.Path) -> pathlib.Path:
        for name in MODULES:
            if not (modules / f"{name}.so").exists():
                raise AgentFailed(f"{self.id}: Samba's module {name} is not there ({modules}).", INSTALL)
        for folder in _LIBRARIES:
            for found in (*pathlib.Path(folder).glob(WRAPPER), *pathlib.Path(folder).glob(f"*/{WRAPPER}")):
                return found
        raise AgentFailed(f"{self.id}: the library {WRAPPER} is not installed.", INSTALL)

    async def _clear_run(self) -> None:
        """End what a dead smbd has left: two of them would use the same locks."""
        await processes.end_all(lambda: processes.marked(self._run), _TOOL_LIMIT_S / 2)
        await aside(lambda: shutil.rmtree(self._run, ignore_errors=True))

    async def _spawn(self, wrapper: pathlib.Path, limit_s: float) -> None:
        environment = {
            "LD_PRELOAD": str(wrapper),
            "NSS_WRAPPER_PASSWD": str(self._run / "passwd"),
            "NSS_WRAPPER_GROUP": str(self._run / "group"),
            processes.MARK: str(self._run),
        }
        done = await run_tool(*START, "smbd", "-D", "-s", str(self.conf), limit_s=limit_s, environment=environment)
        if done.status:
            raise AgentFailed(f"{self.id}: smbd does not start: {done.words}.", f"See {self._run}/log.smbd.")

    async def _answering(self, limit_s: float) -> None:
        while True:
            try:
                await negotiate(self._resource.port, limit_s)
            except AgentFailed:
                if not await aside(lambda: processes.marked(self._run)):
                    raise AgentFailed(f"{self.id}: smbd has ended at once.", f"See {self._run}/log.smbd.") from None
                await asyncio.sleep(_POLL_S)
            else:
                return

    # --- accounts -----------------------------------------------------------------------------------------------------

    async def _apply(self) -> None:
        """Have smbd know what the file service says; nothing is done when it does already."""
        limit_s = self._resource.operation.start_timeout_ms / 1000
        async with self._applying:
            answer = await ask(self._files, "drives", limit_s=limit_s)
            drives = msgspec.convert({key: value for key, value in answer.items() if key != "ok"}, Drives)
            before = await aside(self._applied)
            if before == drives:
                return
            await aside(lambda: self._write(drives))
            if before is not None and await aside(self._main) is not None:
                await self._have_read(before, drives)
            await aside(lambda: self._remember(drives))
            _log.info("drives_applied", resource=self.id, generation=drives.generation, shares=len(drives.offered()))

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
            folder.mkdir(_FOLDER_MODE, parents=True, exist_ok=True)
        state.mkdir(_FOLDER_MODE, exist_ok=True)
        replace_file(self._run / "passwd", smb_conf.passwd(drives).encode())
        replace_file(self._run / "group", smb_conf.group(drives).encode())
        write_durably(state / "smbpasswd", smb_conf.smbpasswd(drives).encode(), MODE)
        for share in drives.offered():
            link, target = self._settings.roots / share.name, self._resource.root.joinpath(*share.path)
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
