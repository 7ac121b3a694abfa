"""Who is connected, kept on the volume: after a power cut the other server tells them that they no longer are."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import IPv4Address

import msgspec
import structlog

from relevo.agents import sockdiag
from relevo.agents.tickle import Connection
from relevo.base.errors import RelevoError
from relevo.files.accounts import store
from relevo.files.volume import Volume

LOOK_S = 2.0
"""How often it is looked who is connected: who came later than that is told by nobody."""
MAX_CLIENTS = 4096
_log = structlog.get_logger()
Told = tuple[str, int, str, int]


class Clients:
    """Keeps the list while the volume is open.

    Args:
        addresses: those that move with the service.

    Attributes:
        former: who was connected when the volume was last in use, here or on the other server.
    """

    def __init__(self, addresses: Iterable[IPv4Address] = ()) -> None:
        self.addresses = tuple(addresses)
        self.former: tuple[Told, ...] = ()
        self._task: asyncio.Task[None] | None = None

    def load(self, volume: Volume) -> None:
        """Take what the volume says (in a thread); a list that cannot be read is an empty one."""
        self.former = ()
        with contextlib.suppress(msgspec.DecodeError):
            self.former = msgspec.json.decode(store.load_clients(volume) or b"[]", type=tuple[Told, ...])

    def start(self, save: Callable[[bytes], Awaitable[object]]) -> None:
        """The volume is open; `save` stores the list."""
        if self.addresses:
            self._task = asyncio.create_task(self._keep(save))

    async def stop(self, limit_s: float) -> None:
        """The volume is about to be closed; a list that is being saved is waited for within the limit."""
        if self._task is not None:
            self._task.cancel()
            ended, _ = await asyncio.wait({self._task}, timeout=limit_s)
            if ended:
                self._task = None

    async def _keep(self, save: Callable[[bytes], Awaitable[object]]) -> None:
        saved: set[Connection] = set()
        while True:
            now = _connected(self.addresses)
            if not now <= saved:  # who has gone may stay in it: a packet to nobody does no harm
                try:
                    await save(msgspec.json.encode([_told(one) for one in sorted(now)]))
                    saved = now
                except RelevoError as error:
                    _log.warning("clients_not_saved", why=str(error))
            await asyncio.sleep(LOOK_S)


def _connected(addresses: Iterable[IPv4Address]) -> set[Connection]:
    try:
        found = [one for address in addresses for one in sockdiag.established(address)]
    except OSError as error:
        _log.warning("clients_unknown", why=os.strerror(error.errno or 0))
        return set()
    return set(found[:MAX_CLIENTS])


def _told(one: Connection) -> Told:
    return str(one.address), one.port, str(one.client), one.client_port
