"""Services that need or avoid one another, and servers too small for all: what one's place means to the next.

Decided in the order of importance, each knowing what was decided before it: a server's room goes to the important ones.
"""

from __future__ import annotations

from relevo.config.model import Service
from relevo.manager.model import Alive, Decision, NodeView, ServiceState, Snapshot

_HERE = frozenset({ServiceState.STARTING, ServiceState.STARTED, ServiceState.STOPPING, ServiceState.FAILED})


def needs_of(service: Service) -> tuple[str, ...]:
    """The services that have to be started before it."""
    return (*service.after, service.along_with) if service.along_with else service.after


def in_order(snapshot: Snapshot) -> list[Service]:
    """The services, the important ones first, and what others need before those; of equals by name.

    What an important service needs is as important as that one. Who runs where has no part in it: an order that changes
    with each step would let two services displace one another for ever.
    """
    depth: dict[str, int] = {}
    weight = {name: service.priority for name, service in snapshot.services.items()}

    def dive(name: str) -> int:
        if name not in depth:
            depth[name] = 0  # the configuration has no circles; a wrong one must not end the daemon
            inner = [dive(one) for one in needs_of(snapshot.services[name]) if one in snapshot.services]
            depth[name] = max(inner, default=-1) + 1
        return depth[name]

    for name in sorted(snapshot.services, key=dive, reverse=True):
        for one in needs_of(snapshot.services[name]):
            if one in weight:
                weight[one] = max(weight[one], weight[name])
    return sorted(snapshot.services.values(), key=lambda one: (-weight[one.name], depth[one.name], one.name))


def is_active(view: NodeView, service: str) -> bool:
    """Whether something of a service may be on a node that is there."""
    told = view.facts.services.get(service) if view.facts is not None and view.alive is Alive.ALIVE else None
    return told is not None and told.state in _HERE


def is_started(snapshot: Snapshot, service: str, node: str) -> bool:
    """Whether a service is started on a node that is there."""
    view = snapshot.nodes[node]
    told = view.facts.services.get(service) if view.facts is not None and view.alive is Alive.ALIVE else None
    return told is not None and told.state is ServiceState.STARTED


class Places:
    """What has been decided so far in one plan.

    Args:
        snapshot: what is known.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._targets: dict[str, str | None] = {}
        self._load: dict[str, int] = {}

    def decided(self, service: Service, decision: Decision) -> None:
        """A service has its place."""
        self._targets[service.name] = decision.target
        if decision.target is not None:
            self._load[decision.target] = self._load.get(decision.target, 0) + service.cost

    def objection(self, service: Service, node: str) -> str:
        """Why a service cannot be on a node because of what was decided before; empty when it can."""
        return (
            self._without_company(service, node) or self._in_bad_company(service, node) or self._crowded(service, node)
        )

    def _without_company(self, service: Service, node: str) -> str:
        leader = service.along_with
        if leader not in self._targets:
            return ""
        target = self._targets[leader]
        if target is not None:
            return f"{leader}, with which it runs, belongs on {target}" if target != node else ""
        views = self._snapshot.nodes.values()
        told = [
            view.facts.services.get(leader) for view in views if view.facts is not None and view.alive is Alive.ALIVE
        ]
        gone = all(one is not None and one.state is ServiceState.STOPPED for one in told)
        return f"{leader}, with which it runs, runs nowhere" if gone else ""

    def _in_bad_company(self, service: Service, node: str) -> str:
        for name, target in self._targets.items():
            apart = name in service.apart_from or service.name in self._snapshot.services[name].apart_from
            if apart and target == node:
                return f"{name}, from which it is kept apart, is on {node}"
        return ""

    def _crowded(self, service: Service, node: str) -> str:
        capacity = self._snapshot.capacities.get(node, 0)
        left = capacity - self._load.get(node, 0)
        if not capacity or service.cost <= left:
            return ""
        return f"{node} has no room for it beside more important services: it costs {service.cost}, left {max(0, left)}"
