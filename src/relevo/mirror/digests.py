"""Digests of blocks, by the names of the kernel's crypto API, as drbd.conf has them: sha1, sha256, md5, crc32c, others.

A digest is over the bytes of the payload alone, without a key. That of crc32c is the sum with all bits of its start and
its end inverted, as RFC 3720 has it, little endian: what the kernel's `crc32c` gives.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable

from relevo.base.errors import RelevoError
from relevo.config.drbd_options import DIGESTS
from relevo.mirror.crc32c import crc32c

Digest = Callable[[bytes | bytearray | memoryview], bytes]
ALGORITHMS = DIGESTS
"""Names that `digest` knows."""
_ALL_ONES = 0xFFFF_FFFF


class UnknownAlgorithm(RelevoError):
    """The configuration names a digest that does not exist here."""


def digest(name: str) -> Digest:
    """The function that makes the digest of that name.

    Raises:
        UnknownAlgorithm: there is none.
    """
    if name == "crc32c":
        return _crc32c
    if name not in ALGORITHMS:
        raise UnknownAlgorithm(f"There is no digest {name!r} here.", f"Known: {', '.join(ALGORITHMS)}.")
    inner = name.replace("-", "_")
    return lambda data: hashlib.new(inner, data, usedforsecurity=False).digest()


def _crc32c(data: bytes | bytearray | memoryview) -> bytes:
    """The raw sum starts at 0: four inverted bytes in front stand for the start, and the end is inverted."""
    first = bytes(byte ^ 0xFF for byte in data[:4])
    if len(first) < 4:
        first += b"\xff" * (4 - len(first))  # shorter than its start value: never a block
    return struct.pack("<I", crc32c(first + bytes(data[4:])) ^ _ALL_ONES)
