"""Which service would better move, judged by how long programs wait for the processor or the disk on each server."""

from __future__ import annotations

import msgspec

from relevo.manager.model import Alive, ServiceState, Snapshot
from relevo.manager.planner import obstacles

WORTH_PERCENT = 25
"""So much more must the fuller server wait than the other one: less is noise, and each move is a short gap."""


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """A service that would better move.

    Attributes:
        service: which; empty when none would.
        node: where to.
        reason: one sentence: why this one, or why none.
    """

    service: str = ""
    node: str = ""
    reason: str


def propose(snapshot: Snapshot) -> Proposal:
    """One move at most: its effect has to be measured before the next one."""
    told = {
        name: view.facts.pressure
        for name, view in snapshot.nodes.items()
        if view.facts is not None and view.facts.pressure is not None and view.alive is Alive.ALIVE
    }
    if len(told) < 2:
        return Proposal(reason=f"Only {' and '.join(told) or 'no server'} tells how busy it is.")
    by_wait = sorted(told, key=lambda name: (told[name], name))  # two different ones, also where they wait alike
    busy, calm = by_wait[-1], by_wait[0]
    figures = f"programs wait {told[busy]} % of the time on {busy}, {told[calm]} % on {calm}"
    if told[busy] - told[calm] < WORTH_PERCENT:
        return Proposal(reason=f"No move is worth its gap: {figures}.")
    facts = snapshot.nodes[busy].facts
    services = facts.services if facts is not None else {}
    running = [
        name for name, one in services.items() if one.state is ServiceState.STARTED and name in snapshot.services
    ]
    if len(running) < 2:
        return Proposal(reason=f"{busy} is the busier one ({figures}), but its only service would take that along.")
    # The least important first: whoever matters most is not interrupted.
    for name in sorted(running, key=lambda one: (snapshot.services[one].priority, one)):
        if name not in snapshot.record.moved and obstacles(snapshot, snapshot.services[name]).get(calm) == "":
            return Proposal(service=name, node=calm, reason=f"{name} would better run on {calm}: {figures}.")
    return Proposal(reason=f"{busy} is the busier one ({figures}), but none of its services can move to {calm} now.")
