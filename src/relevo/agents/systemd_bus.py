"""systemd's manager over the system bus: the few calls of org.freedesktop.systemd1 that an agent needs.

The interface is that of org.freedesktop.systemd1(5). A connection lasts for one operation: a bus that is restarted
costs nothing but the operation under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from relevo.base.errors import RelevoError

SOCKET = pathlib.Path("/run/dbus/system_bus_socket")
RUNS_HERE = pathlib.Path("/run/systemd/system")
"""Exists where systemd is PID 1 (sd_booted(3))."""
LEAVE = "relevo-leave.service"
"""The unit whose end is the orderly leave: those of services are ordered before it, so that they end after it."""
_NAME = "org.freedesktop.systemd1"
_PATH = "/org/freedesktop/systemd1"
_MANAGER = f"{_NAME}.Manager"
_UNIT = f"{_NAME}.Unit"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_BUS = "org.freedesktop.DBus"
_JOBS = f"type='signal',sender='{_NAME}',interface='{_MANAGER}',member='JobRemoved'"
_SERVICE = ".service"
_JOB_DONE = "done"
NOT_FOUND = "not-found"


class BusFailed(RelevoError):
    """systemd cannot be asked: there is no bus, or it hung up."""


class Denied(RelevoError):
    """systemd says no.

    Attributes:
        name: the D-Bus name of the error.
    """

    def __init__(self, name: str, what: str) -> None:
        super().__init__(what)
        self.name = name


class JobFailed(RelevoError):
    """A job (a start, a stop) has ended with another result than `done`.

    Attributes:
        result: canceled, timeout, failed, dependency, skipped, …
    """

    def __init__(self, unit: str, result: str) -> None:
        super().__init__(f"The job of {unit} ended with result {result!r}.")
        self.result = result


class Unit(msgspec.Struct, frozen=True):
    """What systemd says of a unit.

    Attributes:
        load: loaded, not-found, masked, bad-setting, error.
        active: active, reloading, inactive, failed, activating, deactivating.
        sub: finer, by the kind of unit: running, exited, auto-restart, …
        file: whether something starts it at boot: enabled, disabled, static, masked, …
        result: of a service: success, exit-code, signal, timeout, oom-kill, …
        status: of a service: exit status, or number of the signal, of its main process.
        stop_limit_ms: of a service: after which systemd kills what does not stop; 0 where there is none.
    """

    load: str
    active: str
    sub: str
    file: str
    result: str = ""
    status: int = 0
    stop_limit_ms: int = 0


@contextlib.asynccontextmanager
async def manager(socket: pathlib.Path = SOCKET) -> AsyncIterator[Manager]:
    """A connection to systemd.

    Args:
        socket: of the system bus.

    Raises:
        BusFailed: there is none.
    """
    from dbus_fast.aio import MessageBus
    from dbus_fast.errors import AuthError

    try:
        bus = await MessageBus(bus_address=f"unix:path={socket}").connect()
    except (OSError, EOFError, AuthError) as error:
        raise BusFailed(f"The system bus at {socket} does not answer ({error}).", "Is dbus running?") from error
    found = Manager(bus)
    watch = asyncio.create_task(found.notice_the_end())
    try:
        await found.listen()
        yield found
    finally:
        watch.cancel()
        bus.disconnect()


class Manager:
    """systemd, connected."""

    def __init__(self, bus: Any) -> None:
        self._bus = bus
        self._ended: dict[str, str] = {}
        self._news = asyncio.Event()
        bus.add_message_handler(self._heard)

    async def listen(self) -> None:
        """Have the ends of jobs told."""
        await self._call("AddMatch", "s", _JOBS, name=_BUS, path="/org/freedesktop/DBus", interface=_BUS)
        await self._call("Subscribe")

    async def notice_the_end(self) -> None:
        """Wake whoever waits for a job when the bus hangs up."""
        with contextlib.suppress(OSError, EOFError):
            await self._bus.wait_for_disconnect()
        self._news.set()

    async def leaving(self) -> bool:
        """Whether this server is on its way down, or systemd is having Relevo leave."""
        answer = await self._call("Get", "ss", _MANAGER, "SystemState", interface=_PROPERTIES)
        return bool(answer.value == "stopping") or (await self.look(LEAVE)).active == "deactivating"

    async def look(self, unit: str) -> Unit:
        """The state of a unit, which is loaded for that."""
        path = await self._call("LoadUnit", "s", unit)
        read = await self._properties(path, _UNIT)
        service = await self._properties(path, f"{_NAME}.Service") if unit.endswith(_SERVICE) else {}
        limit_us = service.get("TimeoutStopUSec", 0)
        return Unit(
            load=read["LoadState"],
            active=read["ActiveState"],
            sub=read["SubState"],
            file=read.get("UnitFileState", ""),
            result=service.get("Result", ""),
            status=service.get("ExecMainStatus", 0),
            stop_limit_ms=0 if limit_us == 2**64 - 1 else limit_us // 1000,
        )

    async def start(self, unit: str) -> None:
        """Start a unit and wait until its job has ended.

        Raises:
            JobFailed: it has not started.
            Denied: it cannot be started.
        """
        await self._job("StartUnit", unit, "replace")

    async def stop(self, unit: str) -> None:
        """Stop a unit and wait until its job has ended.

        While systemd has Relevo leave, every job of the unit waits until it has left: this one must not.

        Raises:
            JobFailed: it has not stopped.
        """
        await self._job("StopUnit", unit, "ignore-dependencies" if await self.leaving() else "replace")

    async def reset_failed(self, unit: str) -> None:
        """Forget that a unit has failed, and how often it was started."""
        await self._call("ResetFailedUnit", "s", unit)

    async def reload(self) -> None:
        """Have changed unit files read."""
        await self._call("Reload")

    async def _properties(self, path: str, interface: str) -> dict[str, Any]:
        found = await self._call("GetAll", "s", interface, path=path, interface=_PROPERTIES)
        return {name: variant.value for name, variant in found.items()}

    async def _job(self, member: str, unit: str, mode: str) -> None:
        path = await self._call(member, "ss", unit, mode)
        while path not in self._ended:
            self._news.clear()
            if not self._bus.connected:
                raise BusFailed(f"The system bus hung up while {unit} was waited for.", "Is dbus running?")
            await self._news.wait()
        result = self._ended.pop(path)
        if result != _JOB_DONE:
            raise JobFailed(unit, result)

    def _heard(self, message: Any) -> None:
        if message.member == "JobRemoved" and message.interface == _MANAGER:
            _, path, _, result = message.body
            self._ended[path] = result
            self._news.set()

    async def _call(
        self,
        member: str,
        signature: str = "",
        *body: object,
        path: str = _PATH,
        interface: str = _MANAGER,
        name: str = _NAME,
    ) -> Any:
        from dbus_fast import Message, MessageType

        message = Message(
            destination=name, path=path, interface=interface, member=member, signature=signature, body=list(body)
        )
        try:
            answer = await self._bus.call(message)
        except (OSError, EOFError) as error:
            raise BusFailed(f"systemd does not answer ({error}).", "Is dbus running?") from error
        if answer.message_type is MessageType.ERROR:
            raise Denied(answer.error_name, str(answer.body[0]) if answer.body else answer.error_name)
        return answer.body[0] if answer.body else None
