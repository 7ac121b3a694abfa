"""What to do about an error, as it has to be typed here: with the mirror's name, by whoever decides.

A mirror's process does not know whether a node daemon decides over it. Pure.
"""

from __future__ import annotations

from relevo.base.control import DaemonUnreachable, Refused
from relevo.base.errors import RelevoError
from relevo.mirror.errors import named

_MOVE = "A service uses it here. To have it on the other server first: relevo move SERVICE."
_ALONE = (
    "Bring the other server up and let them connect; if its data is lost for good, or if both disks are new and this "
    "one shall fill the other: "
)
_DECIDED = {
    "StillPrimary": _MOVE,
    "LastCopy": _MOVE,
    "DeviceBusy": _MOVE,
    "InUse": "End what runs on this server first: relevo leave, then systemctl stop relevo.target.",
}
"""Where a node daemon decides: it would make the mirror Primary again, and `down` only leaves the peer there."""
_BY_HAND = {
    "DataNotUpToDate": f"{_ALONE}relevo mirror primary --force NAME.",
    "NeverInUse": f"{_ALONE}relevo mirror primary --force NAME.",
}
"""Where nobody does: there is no `relevo force`."""


def advised(error: RelevoError, mirror: str, *, decided: bool) -> str:
    """The sentences about an error of a mirror.

    Args:
        error: what happened.
        mirror: the mirror's name, which stands for NAME in what is advised.
        decided: a node daemon decides here.
    """
    kind = error.error if isinstance(error, Refused) else type(error).__name__
    remedy = (_DECIDED if decided else _BY_HAND).get(kind, error.remedy)
    if isinstance(error, DaemonUnreachable):
        remedy = "Start it: " + ("systemctl start relevo-mirror@NAME." if decided else "relevo mirror up NAME.")
    return f"{error.what} {named(remedy, mirror)}".strip()
