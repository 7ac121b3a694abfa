"""Connections that notice within about two seconds that the server has gone, and addresses below a URL."""

from __future__ import annotations

import contextlib
import socket
import urllib.parse
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import yarl

from relevo.files import limits
from relevo.files.client.errors import TransferFailed
from relevo.files.urls import quote

_SCHEMES = frozenset({"http", "https"})


class BadAddress(TransferFailed):
    """A URL that is none."""


def new_socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket whose kernel declares a silent peer dead soon, whatever the program is waiting for.

    TCP_USER_TIMEOUT covers data that is on the way, keep-alive probes the time in which we only wait: a server that
    took the address over answers a probe of a connection it does not know with a reset.
    """
    family, kind, protocol = address[:3]
    sock = socket.socket(family, kind, protocol)
    sock.setblocking(False)  # noqa: FBT003 - its only parameter
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, limits.PROBE_IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, limits.PROBE_INTERVAL_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, limits.PROBES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limits.DEAD_PEER_MS)
    return sock


@contextlib.asynccontextmanager
async def session(
    given: aiohttp.ClientSession | None = None, login: tuple[str, str] | None = None
) -> AsyncIterator[aiohttp.ClientSession]:
    """A session with such sockets, or the one that is given (which stays open); `login`: user name and password."""
    if given is not None:
        yield given
        return
    connector = aiohttp.TCPConnector(limit=0, socket_factory=new_socket)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=limits.CONNECT_S)
    headers = {"User-Agent": "relevo", "Accept": "text/plain"}
    if login is not None:
        headers["Authorization"] = aiohttp.encode_basic_auth(*login)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, headers=headers, auto_decompress=False, trust_env=False
    ) as made:
        yield made


def parse(url: str) -> yarl.URL:
    """The address that a person wrote; `http://` may be left out.

    Raises:
        BadAddress: it is none.
    """
    if "://" not in url:
        url = f"http://{url}"
    try:
        parsed = yarl.URL(url)
    except ValueError as error:
        raise BadAddress(f"{url!r} is not a URL ({error}).") from error
    if parsed.scheme not in _SCHEMES or not parsed.host:
        raise BadAddress(f"{url!r} is not a URL of a file server.", "Write http://ADDRESS/FOLDER/.")
    return parsed.with_query(None).with_fragment(None)


def names_of(url: yarl.URL) -> tuple[str, ...]:
    """The decoded names of an address's path."""
    return tuple(urllib.parse.unquote(part) for part in url.raw_path.split("/") if part)


def below(url: yarl.URL, *names: str, folder: bool = False) -> yarl.URL:
    """The address of names below a folder's address."""
    path = url.raw_path.rstrip("/") + "".join(f"/{quote(name)}" for name in names)
    return url.with_path(path + "/" if folder or not path else path, encoded=True)


def at_root(url: yarl.URL, path: str) -> yarl.URL:
    """Another path at the same server."""
    return url.with_path(path, encoded=True)
