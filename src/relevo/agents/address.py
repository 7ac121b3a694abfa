"""Agent of a virtual address: on the interface of its link, announced, the last to come and the first to go."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import pathlib
from typing import Any

import structlog
from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from relevo.agents.announcer import Announcer
from relevo.agents.aside import aside
from relevo.agents.base import RUNNING, Agent, AgentFailed, Health, StartContext, State, failed
from relevo.agents.daemon import ask
from relevo.agents.sockdiag import destroy_connections
from relevo.agents.tickle import connections_of, tickle
from relevo.base.errors import RelevoError
from relevo.config.model import AddressResource, Link

LABEL = "relevo"
"""After the interface's name and a colon: tells a person in `ip address` whose address this is."""
MAX_LABEL_LENGTH = 15
ASK_LIMIT_S = 5.0
TELLINGS = 3
TELLING_PAUSE_S = 0.3
"""A packet may be lost, and a client may not have heard yet where the address is now."""
_IFF_UP = 0x1
_log = structlog.get_logger()


@dataclasses.dataclass(frozen=True, slots=True)
class _Seen:
    """What netlink says; `index` is None when there is no such interface."""

    index: int | None
    up: bool
    carrier: bool
    held: bool


class AddressAgent(Agent):
    """Adds and removes one address by netlink.

    Args:
        resource: which address.
        link: where.
        files: control socket of the file service that knows who was connected; None: nobody does.
    """

    def __init__(self, resource: AddressResource, link: Link, files: pathlib.Path | None = None) -> None:
        super().__init__(resource.id)
        self._files = files
        self._telling: asyncio.Task[None] | None = None
        self._interface = link.interface
        self._link = link.name
        self._address = resource.address
        self._interval_s = resource.announce_interval_ms / 1000
        self._announcer: Announcer | None = None
        self._was_whole = False

    async def start(self, context: StartContext) -> None:  # noqa: ARG002 - an address needs no epoch
        """Add the address and announce it: the first announcement leaves before this returns.

        Raises:
            AgentFailed: there is no such interface, it is down or without carrier, or the kernel refuses.
        """
        async with AsyncIPRoute() as netlink:
            seen = await self._look(netlink)
            trouble = self._trouble(seen)
            if seen.index is None or trouble:
                raise AgentFailed(trouble, "Look at the cable and at ip link.")
            if not seen.held:
                await self._add(netlink, seen.index)
        await self._announce(seen.index)
        self._was_whole = True
        if self._files is not None and not seen.held:
            self._telling = asyncio.create_task(self._tell_clients(self._files))

    async def stop(self) -> None:
        """End the connections of the address and remove it.

        Raises:
            AgentFailed: the kernel refuses.
        """
        self._was_whole = False
        await self.close()
        async with AsyncIPRoute() as netlink:
            seen = await self._look(netlink)
            if seen.index is None or not seen.held:
                return
            # Before the address goes: without it the kernel has nothing to send a RST from.
            await aside(self._end_connections)
            try:
                # Without the label: an address that was added by hand has none, and the kernel would pass it over.
                await netlink.addr("del", index=seen.index, **self._identity())
            except NetlinkError as error:
                if error.code not in {errno.EADDRNOTAVAIL, errno.ENODEV}:
                    raise AgentFailed(f"{self._address} cannot be removed from {self._interface}: {error}.") from error
            if (await self._look(netlink)).held:
                raise AgentFailed(f"{self._address} is still on {self._interface}.", "Look at ip address.")

    async def monitor(self) -> Health:
        """The address is there and the link has carrier; announcements go on."""
        try:
            async with AsyncIPRoute() as netlink:
                seen = await self._look(netlink)
            health = self._health(seen)
            whole = health.state is State.RUNNING
            if whole and seen.index is not None:
                await self._announce(seen.index)
        except (NetlinkError, OSError, AgentFailed) as error:
            self._was_whole = False
            return failed(f"{self._address} cannot be looked at on {self._interface}: {error}.")
        if health.state is State.STOPPED:
            await self.close()
        self._was_whole = whole
        return health

    async def probe(self) -> Health:
        """The same, without announcing."""
        try:
            async with AsyncIPRoute() as netlink:
                return self._health(await self._look(netlink))
        except (NetlinkError, OSError) as error:
            return failed(f"{self._address} cannot be looked at on {self._interface}: {error}.")

    async def close(self) -> None:
        """Announce no more; the address stays."""
        telling, self._telling = self._telling, None
        if telling is not None:
            telling.cancel()
        announcer, self._announcer = self._announcer, None
        if announcer is not None:
            await announcer.close()

    def _trouble(self, seen: _Seen) -> str:
        if seen.index is None:
            return f"There is no interface {self._interface} (link {self._link})."
        if not seen.up:
            return f"Interface {self._interface} (link {self._link}) is down."
        return "" if seen.carrier else f"Interface {self._interface} (link {self._link}) has no carrier."

    def _health(self, seen: _Seen) -> Health:
        trouble = self._trouble(seen)
        if not seen.held:
            return Health(State.STOPPED, trouble)
        return failed(trouble) if trouble else RUNNING

    def _identity(self) -> dict[str, Any]:
        return {"address": str(self._address.ip), "prefixlen": self._address.network.prefixlen}

    def _labelled(self) -> dict[str, Any]:
        label = f"{self._interface}:{LABEL}"
        return self._identity() | ({"label": label} if len(label) <= MAX_LABEL_LENGTH else {})

    async def _add(self, netlink: Any, index: int) -> None:
        broadcast = str(self._address.network.broadcast_address)
        try:
            await netlink.addr("add", index=index, broadcast=broadcast, **self._labelled())
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise AgentFailed(f"{self._address} cannot be added to {self._interface}: {error}.") from error

    async def _look(self, netlink: Any) -> _Seen:
        index = None
        with contextlib.suppress(NetlinkError):
            found = await netlink.link("get", ifname=self._interface)
            index = found[0]["index"] if found else None
        if index is None:
            return _Seen(None, up=False, carrier=False, held=False)
        link = found[0]
        carrier = link.get_attr("IFLA_CARRIER") == 1
        held = False
        async for message in await netlink.addr("dump", index=index):
            local = (message.get_attr("IFA_LOCAL"), message["prefixlen"])
            held = held or local == (str(self._address.ip), self._address.network.prefixlen)
        return _Seen(index, up=bool(link["flags"] & _IFF_UP), carrier=carrier, held=held)

    async def _announce(self, index: int) -> None:
        """See to it that announcements go on, with a burst if they did not or the link was away meanwhile."""
        if self._announcer is not None and self._announcer.index != index:
            await self.close()
        if self._announcer is None:
            try:
                self._announcer = Announcer(self._interface, index, self._address.ip, self._interval_s)
            except OSError as error:
                what = f"{self._address.ip} cannot be announced on {self._interface} ({error.strerror})."
                raise AgentFailed(what, "Look at ip link.") from error
        elif not self._was_whole:
            self._announcer.burst()

    async def _tell_clients(self, files: pathlib.Path) -> None:
        """Have the clients of the server that had the address before end their connections with it, and come back."""
        try:
            answer = await ask(files, "clients", limit_s=ASK_LIMIT_S)
            connections = [one for one in connections_of(answer["clients"]) if one.address == self._address.ip]
            for _ in range(TELLINGS if connections else 0):
                count = await aside(lambda: tickle(connections))
                _log.info("clients_told", address=str(self._address.ip), count=count)
                await asyncio.sleep(TELLING_PAUSE_S)
        except (RelevoError, OSError, ValueError) as error:
            _log.warning("clients_not_told", address=str(self._address.ip), why=str(error))

    def _end_connections(self) -> None:
        try:
            count = destroy_connections(self._address.ip)
        except OSError as error:
            _log.info("connections_not_ended", address=str(self._address.ip), error=error.strerror)
        else:
            _log.info("connections_ended", address=str(self._address.ip), count=count)
