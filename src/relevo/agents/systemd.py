"""Agent for units of systemd: started, stopped and looked at over D-Bus, as a person does with systemctl."""

from __future__ import annotations

import pathlib

from relevo.agents.base import RUNNING, STOPPED, Agent, AgentFailed, Health, StartContext, State, failed
from relevo.agents.systemd_bus import LEAVE, NOT_FOUND, RUNS_HERE, SOCKET, Denied, JobFailed, Manager, Unit, manager
from relevo.base.errors import RelevoError
from relevo.config.model import SystemdResource

RUNTIME_UNITS = pathlib.Path("/run/systemd/system")
DROP_IN = "50-relevo.conf"
_WORDS = f"""\
# Written by Relevo for as long as this unit is a resource of a service on this server.
[Unit]
# At a shutdown it is stopped by Relevo, in the order of its service, and not before.
Before={LEAVE}
"""
_NO_RESTART = """
[Service]
# Relevo restarts it, or moves it.
Restart=no
"""
_IN_BETWEEN = frozenset({"activating", "deactivating", "reloading", "refreshing", "maintenance"})
"""Somebody has just restarted or reloaded it: what comes of it is seen at the next look."""
_NO_SUCH_UNIT = "org.freedesktop.systemd1.NoSuchUnit"


class SystemdAgent(Agent):
    """Runs one unit.

    Args:
        resource: which unit.
        runs_here: exists where systemd is PID 1.
        socket: of the system bus.
        units: folder of the units that last until the next boot.
    """

    def __init__(
        self,
        resource: SystemdResource,
        *,
        runs_here: pathlib.Path = RUNS_HERE,
        socket: pathlib.Path = SOCKET,
        units: pathlib.Path = RUNTIME_UNITS,
    ) -> None:
        super().__init__(resource.id)
        self._unit = resource.unit
        self._runs_here = runs_here
        self._socket = socket
        self._drop_in = units / f"{resource.unit}.d" / DROP_IN

    async def start(self, context: StartContext) -> None:  # noqa: ARG002 - no unit knows epochs
        """Start; what runs already is taken over.

        Raises:
            AgentFailed: there is no such unit, or it does not start.
            BusFailed: systemd cannot be asked.
        """
        if not self._runs_here.exists():
            raise AgentFailed(f"{self.id}: systemd does not run here.", "Use an agent of type ocf or lsb.")
        async with manager(self._socket) as systemd:
            await self._must_exist(systemd)
            await self._take_over(systemd)
            try:
                await systemd.start(self._unit)
            except (JobFailed, Denied) as error:
                raise await self._failure(systemd, "start", error) from error
            found = await systemd.look(self._unit)
            if found.active == "failed":
                raise AgentFailed(f"{self.id}: {self._unit} failed at start: {_why(found)}", self._where_to_look)
            if found.active == "inactive":
                raise AgentFailed(
                    f"{self.id}: {self._unit} has started and ended at once.",
                    "Only what stays can be a resource (for Type=oneshot: RemainAfterExit=yes).",
                )

    async def stop(self) -> None:
        """Stop, and give it back to systemd; a unit that is not there is stopped.

        Raises:
            AgentFailed: it does not stop.
            BusFailed: systemd cannot be asked.
        """
        if not self._runs_here.exists():
            return
        async with manager(self._socket) as systemd:
            try:
                await systemd.stop(self._unit)
            except Denied as error:
                if error.name != _NO_SUCH_UNIT:
                    raise await self._failure(systemd, "stop", error) from error
            except JobFailed as error:
                raise await self._failure(systemd, "stop", error) from error
            found = await systemd.look(self._unit)
            if found.active not in {"inactive", "failed"}:
                raise AgentFailed(f"{self.id}: {self._unit} is still {found.active}.", self._where_to_look)
            if found.active == "failed":
                await systemd.reset_failed(self._unit)
            if self._drop_in.exists() and not await systemd.leaving():
                self._drop_in.unlink()
                await systemd.reload()

    async def monitor(self) -> Health:
        """Ask systemd for the unit's state."""
        if not self._runs_here.exists():
            return STOPPED
        try:
            async with manager(self._socket) as systemd:
                found = await systemd.look(self._unit)
        except RelevoError as error:
            return failed(f"{self.id}: {error}")
        return self._health(found)

    def _health(self, found: Unit) -> Health:
        if found.active == "active":
            return RUNNING
        if found.active in _IN_BETWEEN:
            return Health(State.RUNNING, f"{self._unit} is {found.active} ({found.sub}).")
        if found.active == "failed":
            return failed(f"{self.id}: {self._unit} has failed: {_why(found)}.")
        return STOPPED

    async def _must_exist(self, systemd: Manager) -> None:
        found = await systemd.look(self._unit)
        if found.load == NOT_FOUND:
            raise AgentFailed(f"{self.id}: systemd has no unit {self._unit}.", "Install what has it.")
        if found.load != "loaded":
            remedy = f"systemctl unmask {self._unit}" if found.load == "masked" else f"systemctl status {self._unit}"
            raise AgentFailed(f"{self.id}: {self._unit} cannot be started: it is {found.load}.", remedy)

    async def _take_over(self, systemd: Manager) -> None:
        """Let systemd neither restart it by itself nor stop it before its turn."""
        words = _WORDS + (_NO_RESTART if self._unit.endswith(".service") else "")
        if self._drop_in.exists() and self._drop_in.read_text(encoding="utf-8") == words:
            return
        self._drop_in.parent.mkdir(parents=True, exist_ok=True)
        self._drop_in.write_text(words, encoding="utf-8")
        await systemd.reload()

    async def _failure(self, systemd: Manager, action: str, error: RelevoError) -> AgentFailed:
        """What to say of a job that failed: the unit's own result says more than the job's."""
        why = error.what
        if isinstance(error, JobFailed):
            found = await systemd.look(self._unit)
            why = f"{_why(found)} (job: {error.result})" if found.active == "failed" else error.what
        return AgentFailed(f"{self.id}: {self._unit} failed at {action}: {why}", self._where_to_look)

    @property
    def _where_to_look(self) -> str:
        return f"journalctl -u {self._unit}"


def _why(found: Unit) -> str:
    return f"{found.result or found.sub}, status {found.status}" if found.status else found.result or found.sub
