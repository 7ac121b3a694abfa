"""The watchdog that resets a server whose node daemon hangs: `[watchdog]` of relevo.toml (ha.cf: watchdog).

The arithmetic, which `read_watchdog` holds a configuration to. A node that hangs at the moment t was petted at t or
before, so it is reset at t + timeout at the latest. Its last heartbeat left keepalive before t at the earliest, so the
other node calls it dead at t - keepalive + deadtime at the earliest, and whatever else that one waits for then (a lease
of the witness, fencing) comes on top. Reset before taken over therefore means: timeout <= deadtime - keepalive.
"""

from __future__ import annotations

import pathlib

import msgspec

from relevo.base.units import format_duration_ms
from relevo.config.table import Table

LEAST_TIMEOUT_MS = 3000
"""A healthy node daemon pets once a second; what is shorter than three times that would reset a busy server."""
MAX_TIMEOUT_MS = 60_000
"""What every driver takes (softdog's own default), and the default where deadtime leaves more."""
_SECOND_MS = 1000


class WatchdogDevice(msgspec.Struct, frozen=True, kw_only=True):
    """What resets this server when it is not petted.

    Attributes:
        device: `/dev/watchdog`, of hardware or of the module softdog; the same path on each node.
        timeout_ms: unpetted for so long it resets; whole seconds.
        longest_ms: with a longer timeout the other node might take over first.
    """

    device: pathlib.Path
    timeout_ms: int
    longest_ms: int


def longest_timeout_ms(keepalive_ms: int, deadtime_ms: int) -> int:
    """The longest timeout that resets a node that hangs before another one takes over (see above)."""
    return deadtime_ms - keepalive_ms


def read_watchdog(root: Table, keepalive_ms: int, deadtime_ms: int) -> WatchdogDevice | None:
    """The section; None when it is left out, or when it cannot be understood."""
    if not root.has("watchdog"):
        return None
    table = root.table("watchdog")
    longest_ms = longest_timeout_ms(keepalive_ms, deadtime_ms)
    default_ms = max(LEAST_TIMEOUT_MS, min(MAX_TIMEOUT_MS, longest_ms // _SECOND_MS * _SECOND_MS))
    found = WatchdogDevice(
        device=table.absolute_path("device", "/dev/watchdog"),
        timeout_ms=table.duration_ms("timeout", default_ms),
        longest_ms=longest_ms,
    )
    if table.sound:
        _check(table, found, keepalive_ms)
    table.finish()
    return found if table.sound else None


def _check(table: Table, found: WatchdogDevice, keepalive_ms: int) -> None:
    least, longest = format_duration_ms(LEAST_TIMEOUT_MS), format_duration_ms(found.longest_ms)
    if found.longest_ms < LEAST_TIMEOUT_MS:
        deadtime = format_duration_ms(LEAST_TIMEOUT_MS + keepalive_ms)
        table.wrong(
            "timeout",
            "has no room: a node that hangs must be reset before the other one takes over, which is within deadtime "
            f"less keepalive ({longest}), and a watchdog needs {least}.",
            f'Write deadtime = "{deadtime}" or longer; 10 s leave some room.',
        )
    elif found.timeout_ms > found.longest_ms:
        table.wrong(
            "timeout",
            f"is longer than deadtime less keepalive ({longest}): the other node would take over before a node that "
            "hangs is reset, so it would protect nothing.",
            "Write a shorter timeout, or a longer deadtime.",
        )
    elif found.timeout_ms < LEAST_TIMEOUT_MS:
        table.wrong("timeout", "is so short that a busy server would be reset.", f'Write at least "{least}".')
    elif found.timeout_ms % _SECOND_MS:
        table.wrong("timeout", "is no whole number of seconds, which is all that watchdogs know.", "Write seconds.")
