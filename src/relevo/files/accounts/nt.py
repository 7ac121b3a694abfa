"""What Windows' logins (NTLMv2) compare: the NT hash, MD4 of a password in UTF-16 (RFC 1320; MS-NLMP 3.3.1). Pure.

Whoever has this hash can log in over SMB: it is kept only where SMB is switched on, with the mode of the accounts, and
crosses a network only sealed. OpenSSL 3 offers MD4 no more, so it stands here.
"""

from __future__ import annotations

import hmac
import re
import secrets
import struct
from collections.abc import Callable
from typing import Any

DIGITS = 32
_HASH = re.compile(rf"[0-9A-F]{{{DIGITS}}}")
_NONCE_BYTES = 16
_HASH_BYTES = 16
_MASK = 0xFFFFFFFF
_START = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
_IN_ORDER = tuple(range(16))
_BY_COLUMNS = (0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)
_BY_BITS = (0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15)


def _choose(x: int, y: int, z: int) -> int:
    return (x & y) | (~x & z)


def _majority(x: int, y: int, z: int) -> int:
    return (x & y) | (x & z) | (y & z)


def _parity(x: int, y: int, z: int) -> int:
    return x ^ y ^ z


_ROUNDS: tuple[tuple[Callable[[int, int, int], int], int, tuple[int, ...], tuple[int, ...]], ...] = (
    (_choose, 0, _IN_ORDER, (3, 7, 11, 19)),
    (_majority, 0x5A827999, _BY_COLUMNS, (3, 5, 9, 13)),
    (_parity, 0x6ED9EBA1, _BY_BITS, (3, 9, 11, 15)),
)


def md4(data: bytes) -> bytes:
    """The MD4 digest, 16 bytes."""
    padded = data + b"\x80" + bytes((55 - len(data)) % 64) + struct.pack("<Q", 8 * len(data))
    state = _START
    for begin in range(0, len(padded), 64):
        words = struct.unpack_from("<16I", padded, begin)
        a, b, c, d = state
        for mix, constant, places, shifts in _ROUNDS:
            for number, place in enumerate(places):
                value = (a + mix(b, c, d) + words[place] + constant) & _MASK
                shift = shifts[number % 4]
                a, b, c, d = d, (value << shift | value >> (32 - shift)) & _MASK, b, c
        state = ((state[0] + a) & _MASK, (state[1] + b) & _MASK, (state[2] + c) & _MASK, (state[3] + d) & _MASK)
    return struct.pack("<4I", *state)


def nt_hash(password: str) -> str:
    """The NT hash of a password, as Samba writes it: 32 hexadecimal digits in upper case."""
    return md4(password.encode("utf-16-le", "surrogatepass")).hex().upper()


def is_nt_hash(text: str) -> bool:
    """Whether a text is an NT hash."""
    return _HASH.fullmatch(text) is not None


def seal(key: bytes, text: str) -> str:
    """An NT hash as it may cross a network: added to what only the key yields for a fresh nonce.

    Hides it and does not protect it from changes: the order that carries it is signed.
    """
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return (nonce + _combined(key, nonce, bytes.fromhex(text))).hex()


def unseal(key: bytes, sealed: str) -> str:
    """The NT hash of a sealed one.

    Raises:
        ValueError: it is none.
    """
    raw = bytes.fromhex(sealed)
    if len(raw) != _NONCE_BYTES + _HASH_BYTES:
        raise ValueError("not a sealed hash")
    return _combined(key, raw[:_NONCE_BYTES], raw[_NONCE_BYTES:]).hex().upper()


def opened(key: bytes, order: dict[str, Any]) -> dict[str, Any]:
    """An order from the other server, its NT hash unsealed; what is none is refused where orders are read."""
    if not order.get("nt"):
        return order
    try:
        return {**order, "nt": unseal(key, str(order["nt"]))}
    except ValueError:
        return {**order, "nt": "sealed by nobody"}


def _combined(key: bytes, nonce: bytes, data: bytes) -> bytes:
    stream = hmac.digest(key, b"relevo: sealed NT hash" + nonce, "sha256")
    return bytes(left ^ right for left, right in zip(data, stream, strict=False))
