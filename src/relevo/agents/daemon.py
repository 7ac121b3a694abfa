"""Ask another daemon of this server, and know whether it is away or only does not answer."""

from __future__ import annotations

import asyncio
import pathlib
from typing import Any

from relevo.base.control import DaemonUnreachable, acall

RETRY_PAUSE_S = 0.05
"""Between attempts to reach a daemon that its init system is restarting: there is no event to wait for."""


def is_away(error: DaemonUnreachable) -> bool:
    """Whether nobody listens: the process does not run. A process that listens and says nothing is not away."""
    return isinstance(error.__cause__, FileNotFoundError | ConnectionRefusedError)


def hung_up(error: DaemonUnreachable) -> bool:
    """Whether the daemon closed the connection without an answer: it has died or is ending."""
    return error.__cause__ is None or isinstance(error.__cause__, ConnectionResetError | BrokenPipeError)


async def ask(path: pathlib.Path, do: str, *, limit_s: float, **arguments: Any) -> dict[str, Any]:
    """Ask a daemon; while it is away (being restarted), try again until the time is over.

    Args:
        path: its control socket.
        do: the request.
        limit_s: for all attempts together, in seconds.
        arguments: of the request.

    Raises:
        DaemonUnreachable: it was away, or did not answer, until the end.
        Refused: it says no.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + limit_s
    while True:
        try:
            return await acall(path, do, timeout_s=max(end - loop.time(), RETRY_PAUSE_S), **arguments)
        except DaemonUnreachable as error:
            if loop.time() + RETRY_PAUSE_S >= end or not (is_away(error) or hung_up(error)):
                raise
        await asyncio.sleep(RETRY_PAUSE_S)


async def ask_if_there(path: pathlib.Path, do: str, *, limit_s: float, **arguments: Any) -> dict[str, Any] | None:
    """Ask a daemon; None when its process does not run.

    One that dies while it is asked is asked again, until nobody listens or somebody answers.

    Raises:
        DaemonUnreachable: it listens, but did not answer in time.
        Refused: it says no.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + limit_s
    while True:
        try:
            return await acall(path, do, timeout_s=max(end - loop.time(), RETRY_PAUSE_S), **arguments)
        except DaemonUnreachable as error:
            if is_away(error):
                return None
            if loop.time() + RETRY_PAUSE_S >= end or not hung_up(error):
                raise
        await asyncio.sleep(RETRY_PAUSE_S)
