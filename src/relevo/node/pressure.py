"""How busy this server is: the kernel's pressure stall information."""

from __future__ import annotations

import pathlib

FOLDER = pathlib.Path("/proc/pressure")
STEP_PERCENT = 5
"""Smaller changes are not told: facts travel with the heartbeats."""


def pressure(folder: pathlib.Path = FOLDER) -> int | None:
    """The part of the last minute in which some program waited for the processor or the disk, in percent.

    Args:
        folder: where the kernel tells it.

    Returns:
        The higher of both; None where the kernel does not tell (before Linux 4.20, or `psi=0`).
    """
    found = []
    for name in ("cpu", "io"):
        try:
            words = (folder / name).read_text().split()
        except OSError:
            continue
        found += [float(word.removeprefix("avg60=")) for word in words[:4] if word.startswith("avg60=")]
    return round(max(found)) if found else None


class Pressure:
    """What is told of it: the last figure until it has changed by `STEP_PERCENT`."""

    def __init__(self, folder: pathlib.Path = FOLDER) -> None:
        self._folder = folder
        self._told: int | None = None

    def look(self) -> int | None:
        """The figure to tell now."""
        now = pressure(self._folder)
        if now is None or self._told is None or abs(now - self._told) >= STEP_PERCENT:
            self._told = now
        return self._told
