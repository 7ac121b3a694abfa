"""Keeps telling a link where an address is: in a burst, at intervals, and whenever somebody else claims it."""

from __future__ import annotations

import asyncio
import contextlib
from ipaddress import IPv4Address

import structlog

from relevo.agents.arp import ArpSocket

BURST = 5
BURST_PAUSE_S = 0.1
CONFLICT_PAUSE_S = 1.0
"""After a conflict was answered: two hosts that both insist must not flood the link."""
_log = structlog.get_logger()


class Announcer:
    """Announces one address on one interface until it is closed; needs the running event loop.

    Attributes:
        index: of the interface; one that was made anew has another.
        conflicts: how often somebody else claimed the address.

    Raises:
        OSError: no such interface, or not permitted.
    """

    def __init__(self, interface: str, index: int, address: IPv4Address, interval_s: float) -> None:
        self.index = index
        self.conflicts = 0
        self._interface = interface
        self._address = address
        self._interval_s = interval_s
        self._socket = ArpSocket(interface, address)
        self._loop = asyncio.get_running_loop()
        self._heard = asyncio.Event()
        self._wanted = asyncio.Event()
        self._loop.add_reader(self._socket.fileno(), self._hear)
        self.burst()
        self._tasks = [self._loop.create_task(self._announce()), self._loop.create_task(self._defend())]

    def burst(self) -> None:
        """Announce at once, and a few times more in the background."""
        self._send()
        self._wanted.set()

    async def close(self) -> None:
        """Announce no more."""
        self._loop.remove_reader(self._socket.fileno())
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._socket.close()

    def _send(self) -> None:
        try:
            self._socket.announce()
        except OSError as error:  # the monitor tells about the link; the next announcement tries again
            _log.warning("announcement_failed", address=str(self._address), error=error.strerror)

    def _hear(self) -> None:
        try:
            claim = self._socket.claim()
        except OSError as error:  # the interface went down; the socket goes on when it is up again
            _log.warning("arp_socket", interface=self._interface, error=error.strerror)
            return
        if claim is not None:
            self.conflicts += 1
            if not self._heard.is_set():
                _log.warning("address_conflict", address=str(self._address), claimed_by=claim.hardware.hex(":"))
            self._heard.set()

    async def _announce(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s):
                    await self._wanted.wait()
            if not self._wanted.is_set():
                self._send()
                continue
            self._wanted.clear()
            for _ in range(BURST - 1):
                await asyncio.sleep(BURST_PAUSE_S)
                self._send()

    async def _defend(self) -> None:
        while True:
            await self._heard.wait()
            self.burst()
            await asyncio.sleep(CONFLICT_PAUSE_S)
            self._heard.clear()
