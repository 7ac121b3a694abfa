"""The root of all errors that reach a user."""

from __future__ import annotations

NOT_JSON = (ValueError, RecursionError)
"""What `msgspec.json.decode` raises for bytes that are not the JSON asked for: not only its own `DecodeError` (a
ValueError), but UnicodeDecodeError for a text that is no UTF-8, and RecursionError for thousands of open brackets."""


class RelevoError(Exception):
    """Something went wrong that a person has to know: one sentence that says what and where, one that says what to do.

    Subclasses are named after what happened (`PeerNotOutdated`, `DiskTooSmall`).

    Args:
        what: one sentence, what happened and where.
        remedy: one sentence, what the user should do; empty when there is nothing to do.
    """

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what} {self.remedy}".strip()
