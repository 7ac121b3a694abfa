"""What may be the name of a cluster, node, link, mirror, service or resource: names become parts of file names."""

from __future__ import annotations

import re

MAX_NAME_LENGTH = 64
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME_LENGTH - 1}}}")


def is_name(text: str) -> bool:
    """Whether a text may be a name."""
    return _NAME.fullmatch(text) is not None
