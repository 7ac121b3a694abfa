"""What the pages' scripts say, in English and Spanish; each page fetches those of its own language."""

from __future__ import annotations

SCRIPT: dict[str, tuple[str, str]] = {}
