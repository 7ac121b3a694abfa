"""Checksums in HTTP fields (RFC 9530): Content-Digest, Repr-Digest, Want-Repr-Digest; SHA-256 only. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping

from relevo.files.errors import FilesError

ALGORITHM = "sha-256"
SHA256_BYTES = 32
_MEMBER = re.compile(r"(?:^|,)\s*sha-256\s*=\s*:([A-Za-z0-9+/=\s]*):\s*(?:;[^,]*)?(?=,|$)", re.IGNORECASE)
_WANTED = re.compile(r"(?:^|,)\s*sha-256(?:\s*=\s*(\d+))?\s*(?=,|$)", re.IGNORECASE)


def field(digest: bytes) -> str:
    """The value of a digest field."""
    return f"{ALGORITHM}=:{base64.b64encode(digest).decode()}:"


def parse(value: str) -> bytes | None:
    """The SHA-256 in a digest field; None when it carries only other algorithms.

    Raises:
        FilesError: 400, the field names SHA-256 but is damaged.
    """
    match = _MEMBER.search(value)
    if match is None:
        if ALGORITHM in value.lower():
            raise FilesError(400, "bad_digest")
        return None
    try:
        digest = base64.b64decode(match[1], validate=True)
    except (binascii.Error, ValueError) as error:
        raise FilesError(400, "bad_digest") from error
    if len(digest) != SHA256_BYTES:
        raise FilesError(400, "bad_digest")
    return digest


def announced(headers: Mapping[str, str]) -> bytes | None:
    """What an upload of a whole file says its SHA-256 is.

    Raises:
        FilesError: 400, damaged, or two fields that contradict each other.
    """
    found = {parse(headers[name]) for name in ("Content-Digest", "Repr-Digest") if name in headers} - {None}
    if len(found) > 1:
        raise FilesError(400, "bad_digest")
    return next(iter(found), None)


def wanted(headers: Mapping[str, str]) -> bool:
    """Whether the client asks for the SHA-256 (a preference of 0 means no)."""
    match = _WANTED.search(headers.get("Want-Repr-Digest", ""))
    return match is not None and match[1] != "0"
