"""Takes the mirror process's protection against a full memory away, for the comparison."""

from __future__ import annotations

from relevo.mirror import process

process.become_resident = lambda: None
