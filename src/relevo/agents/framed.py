"""One request and one answer over TCP, each after four bytes that hold its length: how SMB and NFS are asked."""

from __future__ import annotations

import asyncio

from relevo.agents.base import AgentFailed

_LENGTH_BYTES = 4
_LENGTH = 0x7FFF_FFFF
"""The highest bit is no length: in RPC's record marking it says that this is the last fragment."""


async def exchange(server: str, port: int, request: bytes, limit_s: float, most_bytes: int, host: str) -> bytes:
    """Connect, ask and hang up.

    Args:
        server: what it is called in a sentence: `SMB`, `NFS`.
        port: where it listens.
        request: with the four bytes that go before it.
        limit_s: for all of it.
        most_bytes: of a longer answer only these are read.
        host: address or name.

    Returns:
        The answer without the four bytes.

    Raises:
        AgentFailed: nobody answers within the limit.
    """
    try:
        async with asyncio.timeout(limit_s):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(request)
                length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES), "big") & _LENGTH
                return await reader.readexactly(min(length, most_bytes))
            finally:
                writer.close()
    except (OSError, EOFError, TimeoutError) as error:
        why = getattr(error, "strerror", "") or "no answer"
        raise AgentFailed(f"The {server} server on port {port} does not answer ({why}).", "See its log.") from error
