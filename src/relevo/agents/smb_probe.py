"""Ask an SMB server which dialect it speaks, as every client does first: the answer comes from a process made for it.

Source: MS-SMB2 2.1 (direct TCP transport), 2.2.1.2 (header), 2.2.3 and 2.2.4 (NEGOTIATE).
"""

from __future__ import annotations

import secrets
import struct

from relevo.agents.base import AgentFailed
from relevo.agents.framed import exchange

DIALECTS = (0x0202, 0x0210, 0x0300, 0x0302)
ANSWER_MAX_BYTES = 1 << 16
_MAGIC = b"\xfeSMB"
_NEGOTIATE = 0
_HEADER = struct.Struct("<4sHHIHHIIQIIQ16s")
_REQUEST = struct.Struct("<HHHHI16sQ")
_ANSWER = struct.Struct("<HHH")
_SIGNING_ENABLED = 1


def request() -> bytes:
    """A NEGOTIATE request, with the length that goes before it."""
    header = _HEADER.pack(_MAGIC, _HEADER.size, 0, 0, _NEGOTIATE, 1, 0, 0, 0, 0, 0, 0, bytes(16))
    body = _REQUEST.pack(36, len(DIALECTS), _SIGNING_ENABLED, 0, 0, secrets.token_bytes(16), 0)
    packet = header + body + struct.pack(f"<{len(DIALECTS)}H", *DIALECTS)
    return struct.pack(">I", len(packet)) + packet


def dialect_of(answer: bytes) -> int:
    """The dialect that a server chose; `answer` without the length that goes before it.

    Raises:
        AgentFailed: it is no answer to a NEGOTIATE, or a refusal.
    """
    if len(answer) < _HEADER.size + _ANSWER.size or answer[:4] != _MAGIC:
        raise AgentFailed("What answers is no SMB server.", "See which program has the port: ss -ltnp.")
    _, _, _, status, command, *_ = _HEADER.unpack_from(answer)
    if command != _NEGOTIATE or status:
        raise AgentFailed(f"The SMB server refuses to negotiate (status 0x{status:08x}).", "See its log.")
    return int(_ANSWER.unpack_from(answer, _HEADER.size)[2])


async def negotiate(port: int, limit_s: float, host: str = "127.0.0.1") -> int:
    """Connect, negotiate and hang up; the dialect.

    Raises:
        AgentFailed: nobody answers as an SMB server within the limit.
    """
    return dialect_of(await exchange("SMB", port, request(), limit_s, ANSWER_MAX_BYTES, host))
