"""What schemathesis has to be told: parts of a resumable upload are bytes. It runs in an environment of its own."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.serializer("application/offset+octet-stream")
def as_bytes(ctx: Any, value: Any) -> bytes:
    """The bytes themselves."""
    return value if isinstance(value, bytes) else str(value).encode()
