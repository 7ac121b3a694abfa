"""From the daemons' JSON to what the arbiter and the manager read."""

from __future__ import annotations

import msgspec
import structlog

from relevo.base.control import Message
from relevo.config.model import Config, MirrorResource
from relevo.manager.model import Alive, BadFacts, MirrorFacts, NodeFacts, NodeView, decode_facts

_ALIVE = {"init": Alive.ALIVE, "up": Alive.ALIVE, "active": Alive.ALIVE, "dead": Alive.DEAD, "left": Alive.LEFT}
_log = structlog.get_logger()


def mirror_facts(status: Message | None) -> MirrorFacts | None:
    """What the status of a mirror's daemon tells; None when it does not answer, or not in a way that is understood."""
    if status is None:
        return None
    try:
        return msgspec.convert(status, MirrorFacts)
    except msgspec.ValidationError as error:
        _log.warning("bad_mirror_status", why=str(error))
        return None


def peer_view(peer: Message) -> NodeView:
    """A peer as the heartbeats tell of it."""
    return NodeView(
        alive=_ALIVE.get(peer["state"], Alive.UNKNOWN), late=bool(peer["late"]), facts=_facts(peer["facts"])
    )


def _facts(told: object) -> NodeFacts | None:
    if told is None:
        return None
    try:
        return decode_facts(told)
    except BadFacts as error:
        _log.warning("bad_facts", why=str(error))
        return None


def peer_views(config: Config, me: str, heartbeat: Message | None) -> dict[str, NodeView]:
    """Every other node; unknown while the heartbeats do not answer."""
    peers = heartbeat["peers"] if heartbeat is not None else {}
    return {
        node.name: peer_view(peers[node.name]) if node.name in peers else NodeView(alive=Alive.UNKNOWN)
        for node in config.peers_of(me)
    }


def hosts(config: Config) -> dict[str, tuple[str, ...]]:
    """Service -> the nodes that have a disk for each of its mirrors, sorted by name."""
    found = {}
    for service in config.services.values():
        needed = {resource.mirror for resource in service.resources if isinstance(resource, MirrorResource)}
        found[service.name] = tuple(sorted(node.name for node in config.nodes.values() if needed <= set(node.disks)))
    return found
