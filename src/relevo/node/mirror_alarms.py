"""What a person has to know of the mirrors: one copy left and why, copies that differ, I/O that is held. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from relevo.base.control import Message
from relevo.base.units import format_bytes
from relevo.manager.model import UP_TO_DATE

COPIES = 2
"""A mirror is on two disks."""
_FILLED = frozenset({"SyncTarget", "SyncSource", "WFBitMapS", "WFBitMapT"})
_HELD = frozenset({"PausedSyncS", "PausedSyncT"})


def mirror_alarms(mirrors: Message, silent: frozenset[str]) -> list[str]:
    """The alarms, each with what to do where there is something to do.

    Args:
        mirrors: mirror -> node -> what it told (see `status_of`); a node that tells nothing of it is not there.
        silent: nodes that are not heard now, or have left.
    """
    found: list[str] = []
    for name, sides in mirrors.items():
        found.extend(_held(name, sides))
        current = [node for node, side in sides.items() if side["disk"] == UP_TO_DATE]
        if len(current) < COPIES:
            where = f"only {current[0]} has" if current else "no server is known to have"
            why = "".join(f" {sentence}" for sentence in _why(name, sides, silent))
            found.append(f"Mirror {name}: {where} a current copy. The next failure stops the service.{why}")
        elif sentence := _differ(name, sides):
            found.append(sentence)
    return found


def _held(name: str, sides: Message) -> Iterator[str]:
    for node, side in sides.items():
        if side["io_suspended"]:
            yield (
                f"Mirror {name} on {node}: what is read and written is held (suspend-io), and whoever uses the files "
                f"waits. To let it go on, there: relevo mirror resume-io {name}"
            )


def _why(name: str, sides: Message, silent: frozenset[str]) -> Iterator[str]:
    """What keeps the other copy from being current, and the command that mends it, where one does."""
    for node in sorted(silent):
        yield f"{node} is not there."
    if len(sides) == COPIES and all(
        side["connection"] == "WFConnection" and not side["problem"] for side in sides.values()
    ):
        yield (
            f"{' and '.join(sides)} look for each other in vain: is the link between their mirrors cut? "
            "To see which: relevo check --links"
        )
    for node, side in sides.items():
        if side["split_brain"]:
            return  # an alarm of its own says what to do
        if side["disk"] == "Diskless":
            yield f"{node} uses no disk. When that is in order, there: relevo mirror attach {name}"
        elif side["connection"] == "StandAlone":
            yield f"{node} does not look for its peer. To connect them again, there: relevo mirror connect {name}"
        elif side["disk"] != UP_TO_DATE and side["connection"] in _FILLED:
            yield f"The copy on {node} is being brought up to date: {_left(side)} to go."
        elif side["disk"] != UP_TO_DATE and side["connection"] in _HELD:
            yield (
                f"The copy on {node} waits to be brought up to date ({_left(side)}): its resync is held. "
                f"relevo mirror status {name} says on which side; there: relevo mirror resume-sync {name}"
            )


def _left(side: Message) -> str:
    return format_bytes(side["out_of_sync_bytes"])


def _differ(name: str, sides: Message) -> str:
    """Both copies count as current, and a comparison has found that they are not the same."""
    differing = max(side["out_of_sync_bytes"] for side in sides.values())
    primary = next((node for node, side in sides.items() if side["role"] == "Primary"), None)
    if not differing or any(side["connection"] != "Connected" for side in sides.values()) or primary is None:
        return ""
    other = next(node for node in sides if node != primary)
    return (
        f"Mirror {name}: the copies differ in {format_bytes(differing)}, as a comparison has found (relevo mirror "
        f"verify). What {primary} serves is read from its own copy. If that is the right one, there: relevo mirror "
        f"resync {name} writes it over the other one. If {other} has the right one: relevo move SERVICE {other} first, "
        "then the same there."
    )
