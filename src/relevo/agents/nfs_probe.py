"""Ask an NFS server for nothing: procedure 0 of version 4 over TCP. It answers when its threads take requests.

Source: RFC 5531 (RPC: record marking, call, reply), RFC 7530 15.1 (NULL).
"""

from __future__ import annotations

import secrets
import struct

from relevo.agents.base import AgentFailed
from relevo.agents.framed import exchange

NFS_PROGRAM, NFS_VERSION, NULL = 100_003, 4, 0
ANSWER_MAX_BYTES = 1 << 12
_CALL = struct.Struct(">IIIIIIIIII")
_REPLY = struct.Struct(">IIIIII")
_LAST_FRAGMENT = 0x8000_0000
_RPC_VERSION = 2
_REPLIED, _ACCEPTED, _SUCCESS = 1, 0, 0


def request(number: int) -> bytes:
    """A NULL call with its record mark; `number` is the transaction's."""
    call = _CALL.pack(number, 0, _RPC_VERSION, NFS_PROGRAM, NFS_VERSION, NULL, 0, 0, 0, 0)
    return struct.pack(">I", _LAST_FRAGMENT | len(call)) + call


def check(answer: bytes, number: int) -> None:
    """Refuse what is no success of a call; `answer` without its record mark.

    Raises:
        AgentFailed: it is something else.
    """
    if len(answer) < _REPLY.size:
        raise AgentFailed("What answers is no NFS server.", "See which program has the port: ss -ltnp.")
    found, kind, accepted, _, _, status = _REPLY.unpack_from(answer)
    if (found, kind) != (number, _REPLIED):
        raise AgentFailed("What answers is no NFS server.", "See which program has the port: ss -ltnp.")
    if (accepted, status) != (_ACCEPTED, _SUCCESS):
        raise AgentFailed(f"The NFS server refuses version {NFS_VERSION} (status {status}).", "See its log.")


async def null_call(port: int, limit_s: float, host: str = "127.0.0.1") -> None:
    """Call and hang up.

    Raises:
        AgentFailed: nobody answers as an NFS server within the limit.
    """
    number = secrets.randbits(32)
    check(await exchange("NFS", port, request(number), limit_s, ANSWER_MAX_BYTES, host), number)
