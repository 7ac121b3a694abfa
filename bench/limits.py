"""Sizes and time limits that the measurements share."""

CHUNK_BYTES = 4 << 20
READY_LIMIT_S = 60.0
"""How long another program may take to be ready."""
