"""Asks the ping targets by ICMP echo and keeps a `Watch` on the answers; no thread, no program is started for it."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address

import structlog

from relevo.base.icmp import MAX_NUMBER, echo_reply, echo_request
from relevo.config.ping import Ping
from relevo.manager.model import Reach
from relevo.node.reach import Watch

NONCE_BYTES = 16
"""What a question carries and an answer has to bring back: an answer cannot be made by who did not see the question."""
_MAX_PACKET_BYTES = 1 << 16
_MAX_READS = 256
"""Packets that are read at once before others have their turn."""
_SOL_RAW, _ICMP_FILTER = 255, 1
_ONLY_REPLIES = struct.pack("=I", 0xFFFF_FFFF & ~1)
"""linux/socket.h, linux/icmp.h: a bit for each type that is kept away; echo replies are type 0."""
_log = structlog.get_logger()


class Pinger:
    """The ping targets of this server.

    Args:
        settings: what is asked.
        now_ms: this server's clock.
        changed: called when a word has changed.

    Attributes:
        trouble: why nothing can be asked, one sentence; empty when it can.
    """

    def __init__(self, settings: Ping, now_ms: Callable[[], int], changed: Callable[[], None]) -> None:
        self._settings = settings
        self._now_ms = now_ms
        self._changed = changed
        self._watch = Watch(settings, now_ms())
        self._told: dict[str, Reach] = {}
        self._names: dict[IPv4Address, list[str]] = {}
        for name, addresses in settings.targets.items():
            for address in addresses:
                self._names.setdefault(address, []).append(name)
        self._identifier = int.from_bytes(os.urandom(2))
        self._nonce = os.urandom(NONCE_BYTES)
        self._sequence = 0
        self.trouble = ""

    def words(self) -> dict[str, Reach]:
        """The word on each target now."""
        return self._watch.look(self._now_ms())

    async def run(self) -> None:
        """Ask until cancelled; does nothing where there are no targets."""
        if not self._settings.targets:
            return
        while True:
            try:
                with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
                    await self._use(sock)
            except OSError as error:
                self._note(f"The ping targets cannot be asked: {error.strerror or error}. Run as root.")
            await asyncio.sleep(self._settings.interval_ms / 1000)
            self._tell()

    async def _use(self, sock: socket.socket) -> None:
        sock.settimeout(0)
        sock.setsockopt(_SOL_RAW, _ICMP_FILTER, _ONLY_REPLIES)
        loop = asyncio.get_running_loop()
        loop.add_reader(sock, self._hear, sock)
        self._note("")
        try:
            while True:
                self._ask(sock)
                for _ in range(2):  # words change by time too, and the sooner both servers know the better
                    await asyncio.sleep(self._settings.interval_ms / 2000)
                    self._tell()
        finally:
            loop.remove_reader(sock)

    def _ask(self, sock: socket.socket) -> None:
        self._sequence = (self._sequence + 1) & MAX_NUMBER
        packet = echo_request(self._identifier, self._sequence, self._nonce)
        for address in self._names:
            try:
                sock.sendto(packet, (str(address), 0))
            except OSError:  # no route, no carrier: it is not reached, and silence says so
                continue

    def _hear(self, sock: socket.socket) -> None:
        for _ in range(_MAX_READS):
            try:
                packet = sock.recv(_MAX_PACKET_BYTES)
            except OSError:  # nothing more; or what a question met on its way, which silence says as well
                break
            reply = echo_reply(packet)
            if reply is not None and reply.identifier == self._identifier and reply.data == self._nonce:
                for name in self._names.get(reply.source, ()):
                    self._watch.answered(name, self._now_ms())
        self._tell()

    def _tell(self) -> None:
        words = self.words()
        if words != self._told:
            for name, word in words.items():
                if self._told.get(name) is not word:
                    _log.info("ping_target", target=name, word=str(word))
            self._told = words
            self._changed()

    def _note(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            self._changed()
            if trouble:
                _log.warning("pings_impossible", why=trouble)
