"""End the TCP connections of one local address, so that the other sides learn at once (they get a RST).

Protocol: netlink family NETLINK_SOCK_DIAG, linux/sock_diag.h and linux/inet_diag.h, described in sock_diag(7). A kernel
without CONFIG_INET_DIAG_DESTROY refuses; then the connections end when their other side next sends.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address

from relevo.agents.tickle import Connection

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_SOCK_DESTROY = 21
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP = 0x1, 0x4, 0x300
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBxI")
_REPLY_SOCKET_AT = _HEADER.size + 4
_SOCKET_ID_BYTES = 48
_PORTS = struct.Struct("!HH")
_SOURCE = slice(4, 20)
_DESTINATION = slice(20, 36)
_ESTABLISHED_STATE = 1
_LISTEN_STATE = 10
_ALL_BUT_LISTEN = 0xFFF & ~(1 << _LISTEN_STATE)
_MAPPED = bytes(10) + b"\xff\xff"
_RECEIVE_BYTES = 1 << 17
_GONE = frozenset({errno.ENOENT})


def destroy_connections(address: IPv4Address) -> int:
    """End every TCP connection whose local address this is (also of dual-stack sockets); returns how many.

    Raises:
        OSError: the kernel cannot (EOPNOTSUPP) or may not (EPERM).
    """
    count = 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as sock:
        sock.bind((0, 0))
        for family, source in ((socket.AF_INET, address.packed), (socket.AF_INET6, _MAPPED + address.packed)):
            for identity in list(_connections(sock, family)):
                if identity[_SOURCE].startswith(source):
                    count += _destroy(sock, family, identity)
    return count


def established(address: IPv4Address) -> list[Connection]:
    """The TCP connections of a local address that are open (also those of dual-stack sockets).

    Raises:
        OSError: the kernel cannot tell.
    """
    found = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as sock:
        sock.bind((0, 0))
        for family, begin in ((socket.AF_INET, b""), (socket.AF_INET6, _MAPPED)):
            for identity in _connections(sock, family, 1 << _ESTABLISHED_STATE):
                if identity[_SOURCE].startswith(begin + address.packed):
                    client = IPv4Address(identity[_DESTINATION][len(begin) : len(begin) + 4])
                    port, client_port = _PORTS.unpack_from(identity)
                    found.append(Connection(address, port, client, client_port))
    return found


def _ask(
    sock: socket.socket, kind: int, flags: int, family: int, identity: bytes, states: int = _ALL_BUT_LISTEN
) -> None:
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, states) + identity
    sock.send(_HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST | flags, 0, 0) + body)


def _messages(sock: socket.socket) -> Iterator[tuple[int, bytes]]:
    """The messages of one answer, until the one that ends it."""
    while True:
        data = sock.recv(_RECEIVE_BYTES)
        while data:
            length, kind, *_ = _HEADER.unpack_from(data)
            yield kind, data[:length]
            if kind in {_NLMSG_DONE, _NLMSG_ERROR}:
                return
            data = data[(length + 3) & ~3 :]


def _error_of(message: bytes) -> int:
    return -int(struct.unpack_from("=i", message, _HEADER.size)[0])


def _connections(sock: socket.socket, family: int, states: int = _ALL_BUT_LISTEN) -> Iterator[bytes]:
    _ask(sock, _SOCK_DIAG_BY_FAMILY, _NLM_F_DUMP, family, bytes(_SOCKET_ID_BYTES), states)
    for kind, message in _messages(sock):
        if kind == _NLMSG_ERROR:
            number = _error_of(message)
            raise OSError(number, f"sock_diag: {errno.errorcode.get(number, number)}")
        if kind == _SOCK_DIAG_BY_FAMILY:
            yield message[_REPLY_SOCKET_AT : _REPLY_SOCKET_AT + _SOCKET_ID_BYTES]


def _destroy(sock: socket.socket, family: int, identity: bytes) -> int:
    _ask(sock, _SOCK_DESTROY, _NLM_F_ACK, family, identity)
    for kind, message in _messages(sock):
        if kind == _NLMSG_ERROR:
            number = _error_of(message)
            if number and number not in _GONE:
                raise OSError(number, f"sock_diag: {errno.errorcode.get(number, number)}")
            return 0 if number else 1
    return 0
