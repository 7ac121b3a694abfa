"""The other node runs an original Heartbeat 3: what that means for the plan.

An original takes part in no plan. It takes and gives the services that prefer one node together, and only in a
handshake that the heartbeats carry out (`heartbeat/handover.py`). So a plan wishes, and starts or stops only what the
handshake allows.
"""

from __future__ import annotations

import msgspec

from relevo.config.model import Service
from relevo.manager.model import Alive, Decision, Plan, ServiceFacts, ServiceState, Snapshot
from relevo.manager.standing import Standing


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What this node says of its services, as groups of those that prefer the same node: `ours` and `theirs`.

    The fields are those of `relevo.heartbeat.handover.Told`.
    """

    active: frozenset[str] = frozenset()
    started: frozenset[str] = frozenset()
    moving: frozenset[str] = frozenset()
    wants: frozenset[str] = frozenset()
    gives: frozenset[str] = frozenset()
    able: frozenset[str] = frozenset()
    giving: frozenset[str] = frozenset()
    ready: bool = False
    leaving: bool = False
    our_keys: tuple[str, ...] = ()
    their_keys: tuple[str, ...] = ()
    number: int = 0


def group_of(snapshot: Snapshot, service: Service) -> str:
    """`ours` or `theirs`: the group of a service, by the node that it prefers."""
    return "ours" if service.prefer == snapshot.me else "theirs"


def start_waits_for(snapshot: Snapshot, service: Service) -> str:
    """Why it may not be started here yet; empty when it may."""
    other = snapshot.original
    if other is None or (other.current and group_of(snapshot, service) in other.claims):
        return ""
    return f"{other.node} (Heartbeat 3) has to be told first"


def stop_waits_for(snapshot: Snapshot, service: Service, decision: Decision) -> str:
    """Why it may not be stopped here yet for the original to have it; empty when it may."""
    other, view = snapshot.original, snapshot.nodes[snapshot.me]
    if other is None or decision.target != other.node or group_of(snapshot, service) in other.giving:
        return ""
    leaving = view.facts is not None and view.facts.leaving
    if leaving or snapshot.nodes[other.node].alive is not Alive.ALIVE:
        return ""
    if other.legacy:
        return legacy_takes(other.node, snapshot.me)
    return f"{other.node} (Heartbeat 3) has not agreed yet to take it"


def legacy_takes(node: str, me: str) -> str:
    """When an original with auto_failback legacy takes what belongs here, as half a sentence."""
    return (
        f"{node} (Heartbeat 3 with auto_failback legacy) takes what belongs on {me} only when {me} has said goodbye "
        "(relevo leave)"
    )


def together(snapshot: Snapshot, decisions: dict[str, Decision]) -> dict[str, Decision]:
    """The decisions, with every service of a group going to the original when one of them does."""
    other = snapshot.original
    if other is None:
        return decisions
    going = {
        group_of(snapshot, snapshot.services[name]): name
        for name, decision in decisions.items()
        if decision.target == other.node
    }
    changed = dict(decisions)
    for name, decision in decisions.items():
        group = group_of(snapshot, snapshot.services[name])
        if group in other.giving and decision.target != other.node:
            reason = f"{other.node} (Heartbeat 3) has been asked to take it, and has agreed."
        elif group in going and decision.target == snapshot.me:
            reason = f"It goes to {other.node} with {going[group]}: Heartbeat 3 moves them together."
        else:
            continue
        changed[name] = msgspec.structs.replace(decision, target=other.node, reason=reason, remedy="", blocked=False)
    return changed


def wishes(snapshot: Snapshot, plan: Plan) -> Wishes:
    """What the heartbeats are told; only for two nodes of which one is this."""
    mine = snapshot.nodes[snapshot.me].facts
    assert mine is not None
    services: dict[str, list[Service]] = {"ours": [], "theirs": []}
    for service in snapshot.services.values():
        if snapshot.me in snapshot.hosts[service.name]:
            services[group_of(snapshot, service)].append(service)

    def state(service: Service) -> ServiceState:
        return mine.services.get(service.name, ServiceFacts(state=ServiceState.STOPPED)).state

    def targets(group: str) -> set[str | None]:
        return {plan.decisions[one.name].target for one in services[group] if one.name in plan.decisions}

    def some(*states: ServiceState) -> frozenset[str]:
        return frozenset(group for group, parts in services.items() if any(state(one) in states for one in parts))

    others = snapshot.nodes.keys() - {snapshot.me}
    gives = frozenset(group for group in services if targets(group) & others)
    running = ServiceState.STARTED
    return Wishes(
        active=some(
            *(ServiceState.UNKNOWN, ServiceState.STARTING, running, ServiceState.STOPPING, ServiceState.FAILED)
        ),
        started=frozenset(group for group, parts in services.items() if all(state(one) is running for one in parts)),
        moving=some(ServiceState.STARTING, ServiceState.STOPPING),
        wants=frozenset(group for group in services if snapshot.me in targets(group)) - gives,
        gives=gives,
        able=frozenset(group for group, parts in services.items() if all(_is_able(snapshot, one) for one in parts)),
        giving=snapshot.original.giving if snapshot.original is not None else frozenset(),
        ready=mine.ready,
        leaving=mine.leaving,
        our_keys=_keys(services["ours"]),
        their_keys=_keys(services["theirs"]),
    )


def _keys(services: list[Service]) -> tuple[str, ...]:
    """The first words of their lines in haresources; none unless every one is known."""
    known = tuple(one.haresources for one in services)
    return known if all(known) else ()


def _is_able(snapshot: Snapshot, service: Service) -> bool:
    standing = Standing(snapshot, service, snapshot.me)
    refuses = standing.absence or standing.reluctance or standing.unready_data
    return not refuses and not snapshot.record.maintains(service.name)
