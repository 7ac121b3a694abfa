"""What is asked for at the control socket, as commands of the core."""

from __future__ import annotations

from collections.abc import Callable

from relevo.base.control import Message
from relevo.base.errors import RelevoError
from relevo.mirror import events as ev
from relevo.mirror.command_events import ANY_LINKS
from relevo.mirror.resync_requests import REQUESTS

Maker = Callable[[int, ev.Token, Message], ev.Command]


class UnknownRequest(RelevoError):
    """The control socket was asked for something that does not exist."""


def _flag(arguments: Message, name: str) -> bool:
    return bool(arguments.get(name, False))


def _epoch(arguments: Message) -> int:
    return int(arguments.get("epoch", 0))


def _links(arguments: Message) -> int:
    return int(arguments.get("links", ANY_LINKS))


COMMANDS: dict[str, Maker] = {
    "primary": lambda now, token, given: ev.Promote(
        now, token, _flag(given, "force"), _epoch(given), _flag(given, "linked")
    ),
    "allow_alone": lambda now, token, given: ev.AllowAlone(now, token, _epoch(given), _links(given)),
    "deny_alone": lambda now, token, _: ev.DenyAlone(now, token),
    "secondary": lambda now, token, _: ev.Demote(now, token),
    "outdate": lambda now, token, given: ev.Outdate(now, token, _links(given)),
    "connect": lambda now, token, given: ev.Connect(now, token, _flag(given, "dry_run")),
    "disconnect": lambda now, token, given: ev.Disconnect(now, token, _flag(given, "force")),
    "leave": lambda now, token, _: ev.Leave(now, token),
    "discard": lambda now, token, _: ev.Discard(now, token),
    "keep": lambda now, token, _: ev.Keep(now, token),
    "detach": lambda now, token, _: ev.Detach(now, token),
    "suspend_io": lambda now, token, _: ev.SuspendIo(now, token),
    "resume_io": lambda now, token, _: ev.ResumeIo(now, token),
    "new_current_uuid": lambda now, token, given: ev.NewGeneration(now, token, _flag(given, "clear_bitmap")),
    "resize": lambda now, token, given: ev.Resize(
        now, token, int(given.get("size_bytes", 0)), _flag(given, "assume_clean"), _flag(given, "assume_peer_has_space")
    ),
    "down": lambda now, token, _: ev.Down(now, token),
    **REQUESTS,
}
"""Request -> the command, from the time, who asked and the arguments."""
WITHOUT_CORE = ("status", "watch", "probe", "attach", "adjust")
"""Requests that the process answers by itself."""


def command(name: str, arguments: Message, now_ms: int, token: ev.Token) -> ev.Command:
    """The command of a request.

    Raises:
        UnknownRequest: there is none of that name.
    """
    make = COMMANDS.get(name)
    if make is None:
        known = ", ".join(sorted([*COMMANDS, *WITHOUT_CORE]))
        raise UnknownRequest(f"There is no request {name!r} here.", f"Known: {known}.")
    return make(now_ms, token, arguments)
