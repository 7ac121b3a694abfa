"""What the control socket can ask of a resync or a verify, as the core's commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from relevo.base.control import Message
from relevo.base.errors import RelevoError
from relevo.mirror import events as ev
from relevo.mirror.packets import SECTOR_BYTES

SPEEDS: tuple[Literal["auto", "fast", "gentle"], ...] = ("auto", "fast", "gentle")


class BadArgument(RelevoError):
    """A request carries something that it cannot carry."""


def _bytes(arguments: Message, name: str) -> int:
    value = arguments.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadArgument(f"{name} is {value!r}, not a number of sectors.", "Give a whole number from 0 on.")
    return value * SECTOR_BYTES


def _verify(now_ms: int, token: ev.Token, arguments: Message) -> ev.Command:
    first, end = _bytes(arguments, "start_sector"), _bytes(arguments, "stop_sector")
    return ev.Verify(now_ms, token, first, end, bool(arguments.get("repair", False)))


def _speed(now_ms: int, token: ev.Token, arguments: Message) -> ev.Command:
    speed = arguments.get("speed", "auto")
    for known in SPEEDS:
        if speed == known:
            return ev.ResyncSpeed(now_ms, token, known)
    raise BadArgument(f"There is no speed {speed!r}.", f"Known: {', '.join(SPEEDS)}.")


REQUESTS: dict[str, Callable[[int, ev.Token, Message], ev.Command]] = {
    "verify": _verify,
    "verify_stop": lambda now_ms, token, _: ev.StopVerify(now_ms, token),
    "resync": lambda now_ms, token, _: ev.Resync(now_ms, token),
    "resync_speed": _speed,
    "pause_sync": lambda now_ms, token, _: ev.PauseResync(now_ms, token, paused=True),
    "resume_sync": lambda now_ms, token, _: ev.PauseResync(now_ms, token, paused=False),
    "invalidate": lambda now_ms, token, _: ev.Invalidate(now_ms, token, peer=False),
    "invalidate_remote": lambda now_ms, token, _: ev.Invalidate(now_ms, token, peer=True),
}
"""Name -> command. `verify` takes start_sector, stop_sector (0: the end) and repair; `resync_speed` takes speed."""
