"""The other node runs an original Heartbeat 3: what the heartbeats know of it, as the facts of a node.

It publishes none. What it holds is known by group (`heartbeat/handover.py`); its mirrors are known by the link of ours.
"""

from __future__ import annotations

from typing import Any

import msgspec

from relevo.base.control import Message
from relevo.config.model import Config, Service
from relevo.manager.model import (
    RECORD_FORMAT,
    Alive,
    MirrorFacts,
    NodeFacts,
    NodeView,
    Original,
    Permission,
    ResourceState,
    ServiceFacts,
    ServiceState,
    Verdict,
)

_STATES = {
    "unknown": ServiceState.UNKNOWN,
    "held": ServiceState.STARTED,
    "moving": ServiceState.STOPPING,
    "free": ServiceState.STOPPED,
}
PROGRAM = "Heartbeat 3"


def found(config: Config, me: str, heartbeat: Message | None, number: int = 0) -> tuple[Original, Message] | None:
    """The peer that is an original, with what the heartbeats tell of it; None if there is none.

    Args:
        config: the cluster.
        me: this node.
        heartbeat: the state of the heartbeat daemon.
        number: of the last wishes that were published.
    """
    if heartbeat is None:
        return None
    for node in config.peers_of(me):
        told: Any = heartbeat["peers"].get(node.name, {}).get("original")
        if told is not None:
            original = Original(
                node=node.name,
                claims=frozenset(told["claims"]),
                giving=frozenset(told["giving"]),
                declined=frozenset(told["declined"]),
                current=told["told"] == number,
                legacy=bool(told.get("legacy")),
            )
            return original, told
    return None


def view_of(
    config: Config, told: Message, view: NodeView, mirrors: dict[str, MirrorFacts | None], node: str
) -> NodeView:
    """The original as a node that tells what it runs.

    Args:
        config: the cluster.
        told: what the heartbeats say of its resources.
        view: whether it is alive.
        mirrors: those of this node, which see the other end.
        node: its name.
    """
    gone = view.alive in {Alive.DEAD, Alive.LEFT}
    services = {
        service.name: _service(service, "free" if gone else told["groups"][_group(service, node)], node)
        for service in config.services.values()
    }
    reason = "An original Heartbeat does not vote."
    facts = NodeFacts(
        boot_id="",
        config_hash=config.hash,
        ready=True,
        leaving=bool(told["leaving"]),
        services=services,
        mirrors={name: _other_end(mirror) for name, mirror in mirrors.items() if mirror is not None},
        permissions={name: Permission(verdict=Verdict.YES, reason=reason) for name in mirrors},
        record_format=RECORD_FORMAT,
    )
    return msgspec.structs.replace(view, facts=facts)


def _group(service: Service, node: str) -> str:
    """By the node that the service prefers, as seen from here."""
    return "theirs" if service.prefer == node else "ours"


def _service(service: Service, held: str, node: str) -> ServiceFacts:
    state = _STATES[held]
    running = state is ServiceState.STARTED
    parts = {part.id: ResourceState.STARTED if running else ResourceState.STOPPED for part in service.resources}
    return ServiceFacts(state=state, resources=parts, target=node if running else None)


def _other_end(mirror: MirrorFacts) -> MirrorFacts:
    """What the link shows of the peer's copy."""
    return MirrorFacts(
        role=mirror.peer_role,
        peer_role=mirror.role,
        connection=mirror.connection,
        disk=mirror.peer_disk,
        peer_disk=mirror.disk,
    )


def limits(config: Config, node: str) -> list[str]:
    """What an original cannot do, as far as this configuration asks for it: sentences for people."""
    what = f"{node} runs an original Heartbeat 3: it has no vote, and knows nothing of bans, standby and maintenance."
    sentences = [f"{what} All that belongs on one server moves together, by the haresources of {node}."]
    if config.mirrors:
        names = ", ".join(config.mirrors)
        sentences.append(
            f"Mirror {names}: {node} becomes Primary by drbddisk, without asking: when both servers lose sight of each "
            "other it goes on without proof."
        )
    if config.witness is not None:
        sentences.append(f"{node} does not ask the witness; it takes over without its word.")
    ruled = [
        service.name
        for service in config.services.values()
        if service.after or service.along_with or service.apart_from or service.failback_window
    ]
    if ruled:
        sentences.append(
            f"{node} does not keep to after, along_with, apart_from and failback_window of {', '.join(ruled)}."
        )
    return sentences
