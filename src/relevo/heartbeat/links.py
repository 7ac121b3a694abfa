"""The sockets of the heartbeats: one UDP socket for each link, and news about network cards."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import socket
import struct
from collections.abc import Callable

import structlog

from relevo.config.model import Link

RECEIVE_BYTES = 1 << 16
DATAGRAMS_AT_ONCE = 64
"""So many datagrams are read from a socket before others get their turn."""

_SIOCGIFFLAGS = 0x8913
_IFREQ = struct.Struct("16sH22x")
_IFF_UP, _IFF_RUNNING = 0x1, 0x40
_IP_MREQN = struct.Struct("=4s4si")
"""Group, own address (any), index of the network card."""
_RTMGRP_LINK = 1
_SO_BINDTODEVICE = 25
_log = structlog.get_logger()


class LinkSocket:
    """Sends and receives on one link; survives that its card goes down, vanishes and returns.

    `refresh` looks at the card and opens the socket (again) when that is needed.

    Args:
        link: which one.
        readable: called by the event loop when datagrams wait.
    """

    def __init__(self, link: Link, readable: Callable[[LinkSocket], None]) -> None:
        self.link = link
        self.up = False
        self._readable = readable
        self._index = 0
        self._socket: socket.socket | None = None
        self._failing = False

    def refresh(self) -> None:
        """Bring socket and `up` in line with the card as it is now."""
        try:
            index = socket.if_nametoindex(self.link.interface)
        except OSError:
            index = 0
        if index != self._index or (index and self._socket is None):
            self.close()
            if index:
                self._open(index)
        self.up = self._socket is not None and self._carrier()

    def _open(self, index: int) -> None:
        try:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError as error:
            self._complain("link_not_opened", error)
            return
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, self.link.interface.encode())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            if self.link.multicast is not None:
                self._join(sock, index, self.link.multicast.packed)
            # no SO_REUSEADDR: a second heartbeat program on the same port and card has to fail, not to steal datagrams
            sock.bind(("0.0.0.0", self.link.port))  # noqa: S104 - bound to one network card
        except OSError as error:
            sock.close()
            self._complain("link_not_opened", error)
            return
        self._socket, self._index, self._failing = sock, index, False
        asyncio.get_running_loop().add_reader(sock, self._readable, self)

    def _join(self, sock: socket.socket, index: int, group: bytes) -> None:
        """Hear a group on this card, and send to it from here; our own datagrams do not come back."""
        there = _IP_MREQN.pack(group, bytes(4), index)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, there)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, there)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, self.link.multicast_ttl)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)

    def _carrier(self) -> bool:
        assert self._socket is not None
        request = _IFREQ.pack(self.link.interface.encode(), 0)
        try:
            answer = fcntl.ioctl(self._socket, _SIOCGIFFLAGS, request)
        except OSError:
            return False
        flags = _IFREQ.unpack(answer)[1]
        return bool(flags & _IFF_UP and flags & _IFF_RUNNING)

    def send(self, datagram: bytes, address: str) -> None:
        """Send one datagram; a link that cannot is no error, the others are there for that."""
        if self._socket is None:
            return
        try:
            self._socket.sendto(datagram, (address, self.link.port))
            self._failing = False
        except BlockingIOError:
            pass  # the queue of the card is full: lost, like any datagram may be
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.ENXIO):
                self.close()  # the card is gone; refresh opens again when it is back
            self._complain("send_failed", error, to=address)

    def _complain(self, event: str, error: OSError, **what: str) -> None:
        if not self._failing:  # once until it works again
            self._failing = True
            _log.warning(event, link=self.link.name, interface=self.link.interface, error=error.strerror, **what)

    def receive(self) -> list[tuple[bytes, str]]:
        """The datagrams that wait, with the addresses they say they come from."""
        received: list[tuple[bytes, str]] = []
        while self._socket is not None and len(received) < DATAGRAMS_AT_ONCE:
            try:
                datagram, (address, _) = self._socket.recvfrom(RECEIVE_BYTES)
            except BlockingIOError:
                break
            except OSError as error:  # a pending error of the socket (ENETDOWN): reading it has cleared it
                _log.info("receive_failed", link=self.link.name, error=error.strerror)
                break
            received.append((datagram, address))
        return received

    def close(self) -> None:
        """Close the socket; `refresh` may open it again."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
        self._socket, self._index, self.up = None, 0, False


class LinkNews:
    """Calls `changed` when any network card changes (netlink); what changed is for `LinkSocket.refresh` to see."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._socket.bind((0, _RTMGRP_LINK))
        asyncio.get_running_loop().add_reader(self._socket, self._wake)

    def _wake(self) -> None:
        try:
            while self._socket.recv(RECEIVE_BYTES):
                pass
        except OSError:
            pass  # nothing waits any more, or news were lost for want of room: the look at the cards makes up for it
        self._changed()

    def close(self) -> None:
        """Hear no more news."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
