"""`relevo check` looks at the watchdog of this server without opening it, which would start it: what sysfs says."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

from relevo.config.model import Config

SYSFS = pathlib.Path("/sys/class/watchdog")
SOFTDOG = "Software Watchdog"
"""The identity of the module softdog."""


def remarks(config: Config, sysfs: pathlib.Path = SYSFS) -> Iterator[str]:
    """What the watchdog does not do on this server, or does too well: a sentence each."""
    if config.watchdog is None:
        return
    device = config.watchdog.device
    if not device.exists():
        yield (
            f"There is no {device} on this server: nothing resets it when its node daemon hangs. Load the driver of "
            "its hardware, or the kernel's own: modprobe softdog."
        )
        return
    known = sysfs / (device.name if device.name != "watchdog" else "watchdog0")
    if _said(known / "identity") == SOFTDOG:
        yield f"{device} is softdog, a part of the kernel: it resets for a node daemon that hangs, not for a kernel."
    if _said(known / "nowayout") == "1":
        yield f"{device} cannot be stopped (nowayout): relevo stopped without a shutdown ends in a reset, too."


def _said(path: pathlib.Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
