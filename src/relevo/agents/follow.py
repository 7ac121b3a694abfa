"""What the agents of Samba and Ganesha share: following the accounts, files that are whole, a port of their own."""

from __future__ import annotations

import asyncio
import errno
import os
import pathlib
import socket
from collections.abc import Awaitable, Callable

import structlog

from relevo.agents.base import AgentFailed
from relevo.base.control import awatch
from relevo.base.errors import RelevoError

MODE = 0o600
_AGAIN_S = 1.0
"""After the file service has gone away."""
_log = structlog.get_logger()


class Follower:
    """Has the accounts applied now and after each change, until it is closed.

    Args:
        resource: its id, for sentences.
        files: control socket of the file service.
        apply: makes the server know them.

    Attributes:
        trouble: a sentence on why they could not be applied; empty when they could.
    """

    def __init__(self, resource: str, files: pathlib.Path, apply: Callable[[], Awaitable[None]]) -> None:
        self.trouble = ""
        self._resource = resource
        self._files = files
        self._apply = apply
        self._task: asyncio.Task[None] | None = None

    def follow(self) -> None:
        """Begin, if it has not begun."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._keep_up())

    async def close(self) -> None:
        """Follow them no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self.trouble = ""

    async def _keep_up(self) -> None:
        while True:
            try:
                async for said in awatch(self._files, "accounts"):
                    if said["open"]:
                        await self._apply()
                        self.trouble = ""
            except (RelevoError, OSError) as error:
                self.trouble = f"{self._resource}: the accounts could not be applied. {error}"
                _log.warning("accounts_not_applied", resource=self._resource, why=str(error))
            await asyncio.sleep(_AGAIN_S)


def replace_file(path: pathlib.Path, data: bytes) -> None:
    """A file that is there whole or not at all; what lies in /run needs no fsync."""
    beside = path.with_name(f"{path.name}.new")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, MODE)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
    beside.replace(path)


def require_port(resource: str, port: int, remedy: str) -> None:
    """Refuse when another program listens on a port.

    Raises:
        AgentFailed: it does.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("0.0.0.0", port))  # noqa: S104 - as the server will
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise AgentFailed(f"{resource}: port {port} cannot be had ({error.strerror}).") from error
            raise AgentFailed(f"{resource}: another program has port {port}.", remedy) from error
