"""Where systemd has a unit for a daemon, the daemon is started through it: with its limits, and in its own place."""

from __future__ import annotations

import subprocess

from relevo.agents.systemd_bus import RUNS_HERE

LIMIT_S = 30.0


def start_unit(unit: str) -> bool:
    """Start a unit; False when systemd does not run here, has no such unit, or cannot start it."""
    if not RUNS_HERE.exists():
        return False
    try:
        return _systemctl("show", "--property", "LoadState", "--value", unit) == "loaded" and (
            _systemctl("start", unit) is not None
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


def _systemctl(*words: str) -> str | None:
    done = subprocess.run(["systemctl", *words], capture_output=True, timeout=LIMIT_S, check=False)
    return done.stdout.decode().strip() if done.returncode == 0 else None
