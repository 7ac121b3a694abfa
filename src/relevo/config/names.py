"""What may be the name of a cluster, node, link, mirror, service or resource: names become parts of file names."""

from __future__ import annotations

import re

MAX_NAME_LENGTH = 64
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME_LENGTH - 1}}}")


MAX_HOST_LENGTH = 253
NO_HOST = "is no address or name of a machine."
HOST_REMEDY = "Write such as 192.168.0.30, fd00::30 or witness.example.org."


def is_host(text: str) -> bool:
    """Whether a text can be looked up as the address or the name of a machine: what cannot raises more than OSError."""
    if not text.isprintable() or " " in text or len(text) > MAX_HOST_LENGTH:
        return False
    try:
        text.encode("idna")  # as getaddrinfo does
    except UnicodeError:
        return False
    return True


def is_name(text: str) -> bool:
    """Whether a text may be a name."""
    return _NAME.fullmatch(text) is not None
