"""The links between mirrors, as the node daemon minds them: one that ended is suspect, one that was left comes back."""

from __future__ import annotations

from collections.abc import Mapping

from relevo.base.control import Message
from relevo.config.model import Config
from relevo.manager.model import Alive, MirrorFacts
from relevo.manager.standing import LIVE
from relevo.node.duties import Duties

Mirrors = Mapping[str, MirrorFacts | None]


def look_again(duties: Duties, mirrors: Mirrors, heartbeat: Message | None) -> None:
    """Mirrors that left their peers together with this node look for them again once it is back.

    Args:
        duties: what the daemons are asked.
        mirrors: those of this node.
        heartbeat: the heartbeat daemon's state; None when it does not answer.
    """
    if heartbeat is None or heartbeat.get("state") == Alive.LEFT:
        return
    for name, mirror in mirrors.items():
        if mirror is not None and mirror.left:
            duties.begin(f"mirror-{name}", "connect")


def suspect_lost(duties: Duties, *, config: Config, me: str, before: Mirrors, now: Mirrors) -> None:
    """A mirror's connection that ended is a reason to look for its peer at once, and for nothing more."""
    for name, mirror in now.items():
        earlier = before.get(name)
        if mirror is None or earlier is None or earlier.connection not in LIVE or mirror.connection in LIVE:
            continue
        for peer in config.peers_of(me):
            if name in peer.disks:
                duties.begin("heartbeat", "suspect", peer=peer.name)
