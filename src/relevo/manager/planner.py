"""`plan`: from a snapshot to where each service belongs, why, and what this node has to do next for it.

Level-triggered: it compares what is with what should be, remembers nothing, and answers the same to the same snapshot.
Each node plans for all and acts only for itself. Two nodes whose knowledge differs for a moment may disagree for that
moment; what must not happen then is kept apart by rules that need no agreement: nothing starts here while an alive peer
has not declared it stopped, and no mirror is promoted without the arbiter's permission.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from relevo.base.units import format_duration_ms
from relevo.config.model import MirrorResource, Service
from relevo.manager.model import (
    UNUSABLE,
    UP_TO_DATE,
    Action,
    Alive,
    Decision,
    NodeFacts,
    Plan,
    Record,
    ResourceState,
    ServiceState,
    Snapshot,
    Step,
    Verdict,
)
from relevo.manager.original import start_waits_for, stop_waits_for, together
from relevo.manager.reach import gain, hindrance, listed, lost
from relevo.manager.record import OBEYED_BY_ALL, obeyed, settled, unaware, with_forced
from relevo.manager.standing import Standing, mirrors_of
from relevo.manager.steps import Work, steps_of
from relevo.manager.together import Places, in_order, is_active, is_started, needs_of

NOTHING_TO_FORCE = "nothing_to_force"
"""The arbiter's rule for a copy that cannot be used at all."""


def plan(snapshot: Snapshot) -> Plan:
    """What follows from a snapshot."""
    told = [view.facts.record for view in snapshot.nodes.values() if view.facts is not None]
    record = settled(snapshot.record, told, by=snapshot.me, shared=snapshot.shared)
    snapshot = msgspec.structs.replace(snapshot, record=obeyed(record, snapshot))
    decisions: dict[str, Decision] = {}
    steps: list[Step] = []
    wanted: set[str] = set()
    fence: dict[str, str] = {}
    places = Places(snapshot)
    found: dict[str, dict[str, Standing]] = {}
    for service in in_order(snapshot):
        if snapshot.me not in snapshot.hosts[service.name]:
            continue
        standings = found[service.name] = _standings(snapshot, service, places)
        decisions[service.name] = _decide(snapshot, service, standings)
        places.decided(service, decisions[service.name])
    decisions = together(snapshot, decisions)
    targets = {name: decision.target for name, decision in decisions.items()}
    for name, standings in sorted(found.items()):
        service, decision = snapshot.services[name], decisions[name]
        work = _in_turn(snapshot, service, targets, _work(snapshot, service, standings, decision))
        decisions[name] = _explained(decision, work)
        fence |= _fences(snapshot, service, standings)
        steps += work.steps
        if not snapshot.record.maintains(name):
            wanted |= _wanted(service, standings[snapshot.me]) if decision.target == snapshot.me else set()
            record = _without_done_force(record, snapshot, service, standings)
    return Plan(
        steps=tuple(steps),
        decisions=decisions,
        wanted=frozenset(wanted),
        record=record,
        alarms=_alarms(snapshot, record),
        fence=fence,
        maintained=frozenset(name for name in snapshot.services if snapshot.record.maintains(name)),
    )


def _standings(snapshot: Snapshot, service: Service, places: Places) -> dict[str, Standing]:
    standings = {node: Standing(snapshot, service, node) for node in snapshot.hosts[service.name]}
    for node, standing in standings.items():
        standing.objection = places.objection(service, node)
    return standings


def _in_turn(snapshot: Snapshot, service: Service, targets: dict[str, str | None], work: Work) -> Work:
    """The work, or who has to go first: what it needs starts before it and stops after it."""
    if not work.steps:
        return work
    if work.steps[0].action is Action.START:
        for name in needs_of(service):
            where = [targets[name]] if name in targets else list(snapshot.nodes)
            if not any(node is not None and is_started(snapshot, name, node) for node in where):
                return Work(waits_for=f"{name}, which it needs, is not started yet")
        return work
    if targets[service.name] == snapshot.me:
        return work  # something of it has failed and is started again
    here = snapshot.nodes[snapshot.me]
    for name, other in sorted(snapshot.services.items()):
        if service.name in needs_of(other) and is_active(here, name) and targets.get(name) != snapshot.me:
            return Work(waits_for=f"{name}, which needs it, has not stopped yet")
    return work


def _without_done_force(record: Record, snapshot: Snapshot, service: Service, standings: dict[str, Standing]) -> Record:
    """Without the word of a person that has been carried out, or cannot be: an old one would surprise everybody."""
    mine = standings[snapshot.me]
    done = mine.state is ServiceState.STARTED or (not mine.active and mine.permission().rule == NOTHING_TO_FORCE)
    if record.forced.get(service.name) == snapshot.me and done:
        return with_forced(record, service.name, None, by=snapshot.me)
    return record


def _wanted(service: Service, mine: Standing) -> set[str]:
    """The mirrors of which this node shall become Primary and of which it is not in charge yet."""
    resources = mine.told.resources if mine.told is not None else {}
    parts = [part for part in service.resources if isinstance(part, MirrorResource)]
    return {part.mirror for part in parts if resources.get(part.id) is not ResourceState.STARTED}


def _decide(snapshot: Snapshot, service: Service, standings: dict[str, Standing]) -> Decision:
    """Where the service belongs."""
    mine = standings[snapshot.me]
    if not mine.known:
        return Decision(service=service.name, target=None, reason=f"{snapshot.me} is still looking what runs here.")
    if snapshot.record.maintains(service.name):
        return _in_maintenance(service, standings)
    forced = snapshot.record.forced.get(service.name)
    if forced in standings and not standings[forced].absence and not _is_vain(standings[forced], standings):
        return Decision(service=service.name, target=forced, reason=f"A person forces it onto {forced}.")
    active = [standing for standing in standings.values() if standing.active]
    if len(active) > 1:
        # an original that meets us again stops everything by itself
        original = snapshot.original.node if snapshot.original is not None else ""
        winner = max(active, key=lambda standing: (standing.node != original, standing.claim))
        others = ", ".join(standing.node for standing in active if standing is not winner)
        return Decision(
            service=service.name, target=winner.node, reason=f"It runs twice; {winner.node} keeps it, {others} stops."
        )
    if active:
        return _stay_or_move(snapshot, service, active[0], standings)
    return _place(snapshot, service, standings)


def _in_maintenance(service: Service, standings: dict[str, Standing]) -> Decision:
    """Where it is now is where it stays, whatever that is."""
    active = [standing for standing in standings.values() if standing.active]
    stays = [standing.node for standing in active if not standing.must_stop]
    goes = [
        f"it stops on {standing.node} all the same: {standing.must_stop}" for standing in active if standing.must_stop
    ]
    where = f"it is on {' and '.join(stays)}" if stays else "it runs nowhere"
    return Decision(
        service=service.name,
        target=stays[0] if stays else None,
        reason=f"In maintenance nothing is started, stopped or restarted: {'; '.join([where, *goes])}.",
        remedy=f"End it with: relevo maintenance off {service.name}.",
    )


def obstacles(snapshot: Snapshot, service: Service) -> dict[str, str]:
    """Node -> why it could not take the service over at this moment; empty when it could."""
    told = [view.facts.record for view in snapshot.nodes.values() if view.facts is not None]
    record = obeyed(settled(snapshot.record, told, by=snapshot.me, shared=snapshot.shared), snapshot)
    snapshot = msgspec.structs.replace(snapshot, record=record)
    places = Places(snapshot)
    decisions = plan(snapshot).decisions
    for other in in_order(snapshot):
        if other.name == service.name:
            break
        if other.name in decisions:
            places.decided(other, decisions[other.name])
    standings = _standings(snapshot, service, places).values()
    return {one.node: one.absence or one.reluctance or one.unready_data for one in standings}


def _fences(snapshot: Snapshot, service: Service, standings: dict[str, Standing]) -> dict[str, str]:
    """The nodes on which a stop of the service failed, if this one can have it once they are off."""
    mine = standings[snapshot.me]
    able = mine.known and not mine.active and not (mine.absence or mine.reluctance or mine.unready_data)
    if not able or snapshot.record.maintains(service.name):
        return {}
    return {
        one.node: f"{one.blocked} of {service.name} could not be stopped there."
        for one in standings.values()
        if one.blocked and one.alive is Alive.ALIVE and one.node in snapshot.fenceable
    }


def _is_vain(chosen: Standing, standings: dict[str, Standing]) -> bool:
    """Whether a forced move would only stop what runs, or keep it from running where it can.

    The chosen node may not use its copy, force or not.
    """
    word = chosen.permission()
    elsewhere = any(standing.active for standing in standings.values() if standing is not chosen)
    vain = word.verdict is Verdict.NO and (elsewhere or word.rule == NOTHING_TO_FORCE)
    return vain and not chosen.active


def _stay_or_move(snapshot: Snapshot, service: Service, holder: Standing, standings: dict[str, Standing]) -> Decision:
    """It runs on one node: is there a reason to go, and someone to take it?"""
    heirs = [one for one in _in_order(snapshot, service, standings) if one is not holder]
    obstacles = [(heir, heir.absence or heir.reluctance or heir.unready_data) for heir in heirs]
    ready = [heir for heir, obstacle in obstacles if not obstacle]
    cause = holder.renounces or holder.reluctance
    if cause and ready:
        return Decision(service=service.name, target=ready[0].node, reason=f"It moves to {ready[0].node}: {cause}.")
    hindrance = "; ".join(obstacle for _, obstacle in obstacles) or "there is no other node for it"
    if holder.renounces:
        reason = f"It stops: {cause}, and {hindrance}."
        return Decision(service=service.name, target=None, reason=reason, remedy=holder.wake)
    if cause:
        reason = f"It stays on {holder.node} although {cause}: {hindrance}."
        return Decision(
            service=service.name, target=holder.node, reason=reason, remedy=f"Repair {heirs[0].node}." if heirs else ""
        )
    for heir in ready:
        if gained := gain(holder.facts, heir.facts):
            reason = f"It moves to {heir.node}: {holder.node} has lost {gained}, which {heir.node} reaches."
            return Decision(service=service.name, target=heir.node, reason=reason)
    home = _home(snapshot, service, standings)
    if holder.node == home or home not in standings:
        reason = f"It runs on {holder.node}{_although_lost(holder, obstacles)}."
        return Decision(service=service.name, target=holder.node, reason=reason)
    obstacle = _failback_obstacle(snapshot, service, holder, standings[home])
    if obstacle:
        reason = f"It runs on {holder.node} and stays there: {obstacle}."
        remedy = _split_remedy(service, holder) if holder.split else ""
        return Decision(service=service.name, target=holder.node, reason=reason, remedy=remedy)
    why = "a person moved it there" if _is_moved(snapshot, service) else "where it belongs"
    verb = "goes" if _is_moved(snapshot, service) else "goes back"
    return Decision(service=service.name, target=home, reason=f"It {verb} to {home}, {why}: its data is up to date.")


def _although_lost(holder: Standing, obstacles: list[tuple[Standing, str]]) -> str:
    """That it stays although ping targets are lost, and why; empty when none is."""
    names = lost(holder.facts)
    if not names:
        return ""
    why = "; ".join(obstacle or f"{heir.node} is no better off" for heir, obstacle in obstacles)
    return f" although it has lost {listed(names)}: {why or 'there is no other node for it'}"


def _is_moved(snapshot: Snapshot, service: Service) -> bool:
    return snapshot.record.moved.get(service.name) in snapshot.hosts[service.name]


def _home(snapshot: Snapshot, service: Service, standings: dict[str, Standing]) -> str:
    """The node where the service belongs: where a person moved it, else where the configuration wants it."""
    moved = snapshot.record.moved.get(service.name)
    return moved if moved in standings else service.prefer


def _failback_obstacle(snapshot: Snapshot, service: Service, holder: Standing, home: Standing) -> str:
    moved = _is_moved(snapshot, service)
    if not service.auto_failback and not moved:
        return "it goes back only by hand"
    if home.absence or home.reluctance or home.unready_data:
        return home.absence or home.reluctance or home.unready_data
    if home.unsettled or holder.unsettled:
        return home.unsettled or holder.unsettled
    if holder.state not in {ServiceState.STARTED, ServiceState.STOPPING}:  # stopping: it may be on its way already
        return f"it is {holder.state} on {holder.node}"
    hashes = {standing.facts.config_hash for standing in (holder, home) if standing.facts is not None}
    if hashes != {snapshot.config_hash}:
        return "the configurations of the nodes differ"
    on_its_way = holder.state is ServiceState.STOPPING
    if away := hindrance(home.node, home.facts, holder.facts, strict=not moved and not on_its_way):
        return away
    return "" if moved or on_its_way else _too_early(snapshot, service, home)


def _too_early(snapshot: Snapshot, service: Service, home: Standing) -> str:
    """Why it is not the time to go back; empty when it is. What has begun is not turned round by the clock."""
    if snapshot.ready_ms.get(home.node, 0) < service.failback_delay_ms:
        return f"it goes back once {home.node} has been ready for {format_duration_ms(service.failback_delay_ms)}"
    window = service.failback_window
    if window is not None and not window.contains(snapshot.local_minute):
        return f"it goes back between {window.text.replace('-', ' and ')} only"
    return ""


def _split_remedy(service: Service, holder: Standing) -> str:
    names = ", ".join(mirrors_of(service))
    return f"Keep one copy of {names} with `relevo mirror resolve --keep NODE`, for instance {holder.node}."


def _in_order(snapshot: Snapshot, service: Service, standings: dict[str, Standing]) -> list[Standing]:
    """The nodes in the order in which they are asked: where it belongs first, else where it ran last.

    A node that has lost a ping target which another one reaches comes after it, if that one could take it over now.
    """
    belongs = _home(snapshot, service, standings)
    able = [one for one in standings.values() if not (one.absence or one.reluctance or one.unready_data)]

    def rank(standing: Standing) -> tuple[bool, bool, int, str]:
        epoch = standing.told.epoch if standing.told is not None else 0
        home = standing.node == belongs
        worse = any(gain(standing.facts, one.facts) for one in able)
        return (
            (worse, not home, -epoch, standing.node)
            if service.auto_failback or _is_moved(snapshot, service)
            else (worse, False, -epoch, ("" if home else standing.node))
        )

    return sorted(standings.values(), key=rank)


def _place(snapshot: Snapshot, service: Service, standings: dict[str, Standing]) -> Decision:
    """It runs nowhere: the first node that can have it."""
    silent = [one for one in standings.values() if not one.known]
    if silent:
        names = " and ".join(one.node for one in silent)
        waiting = f"Waiting until {names} " + ("tell" if len(silent) > 1 else "tells") + " whether it runs there."
        return Decision(service=service.name, target=None, reason=waiting)
    order = _in_order(snapshot, service, standings)
    if any(one.split for one in order):
        order = sorted(order, key=lambda one: one.claim, reverse=True)
    refusals: list[Decision] = []
    for reluctant in (False, True):
        for one in order:
            if bool(one.reluctance) is not reluctant:
                continue
            if one.absence:
                refusals.append(Decision(service=service.name, target=None, reason=f"{one.absence}.", remedy=one.wake))
                continue
            word = one.permission()
            although = f" (although {one.reluctance})" if reluctant else ""
            if word.verdict is Verdict.YES:
                reason = f"It starts on {one.node}{although}: {word.reason}"
                return Decision(service=service.name, target=one.node, reason=reason)
            if word.verdict is Verdict.WAIT:
                reason = f"{one.node} waits: {word.reason}"
                return Decision(service=service.name, target=None, reason=reason)
            reason = f"{one.node} may not run it: {word.reason}"
            refusals.append(Decision(service=service.name, target=None, reason=reason, remedy=word.remedy))
    wakes = [one.wake for one in order if one.wake and UP_TO_DATE in {part.disk for part in one.mirrors if part}]
    remedy = next((word for word in (*wakes, *(refusal.remedy for refusal in refusals)) if word), "")
    reason = " ".join(refusal.reason for refusal in refusals)
    return Decision(service=service.name, target=None, reason=reason, remedy=remedy, blocked=True)


def _work(snapshot: Snapshot, service: Service, standings: dict[str, Standing], decision: Decision) -> Work:
    """What this node does about the decision."""
    mine = standings[snapshot.me]
    told = mine.told
    if told is None or not mine.known:
        return Work()
    if snapshot.record.maintains(service.name):
        return steps_of(snapshot, service, told, here=False) if mine.active and mine.must_stop else Work()
    others = [standing for standing in standings.values() if standing is not mine]
    here = decision.target == snapshot.me
    winner = standings[decision.target] if decision.target is not None else None
    if not here and mine.active and winner is not None and winner.active and winner.target != winner.node:
        return Work(waits_for=f"{winner.node} has not said yet that it keeps it")
    if not here and mine.active and (waits := stop_waits_for(snapshot, service, decision)):
        return Work(waits_for=waits)
    if here and not mine.active:
        for other in others:
            if not other.known and not _is_forced_past(snapshot, service, other):
                return Work(waits_for=f"{other.node} has not told whether it runs there")
            if other.active:
                return Work(waits_for=f"{other.node} has not stopped it yet")
        if waits := start_waits_for(snapshot, service):
            return Work(waits_for=waits)
    return steps_of(snapshot, service, told, here=here)


def _is_forced_past(snapshot: Snapshot, service: Service, other: Standing) -> bool:
    """A person may pass over a node that was never heard, not over one that is alive."""
    return snapshot.record.forced.get(service.name) == snapshot.me and other.alive is Alive.UNKNOWN


def _explained(decision: Decision, work: Work) -> Decision:
    if not work.waits_for:
        return decision
    reason = f"{decision.reason.removesuffix('.')}; {work.waits_for}."
    return msgspec.structs.replace(
        decision, reason=reason, remedy=decision.remedy or work.remedy, blocked=decision.blocked or work.blocked
    )


def _of_configuration(snapshot: Snapshot, name: str, facts: NodeFacts) -> Iterator[str]:
    """Another file on another server, or a daemon that has not read its own yet: these are mended differently."""
    told = (view.facts for view in snapshot.nodes.values() if view.alive is Alive.ALIVE and view.facts is not None)
    agreed = all(other.config_hash == snapshot.config_hash for other in told)
    back = "" if agreed else " Until then services do not go back."
    if facts.unread == UNUSABLE:
        yield f"relevo.toml on {name} has been changed and is wrong now: relevo check there says where.{back}"
    elif facts.unread:
        yield (
            f"{name} has not read its changed relevo.toml yet: relevo check there, then restart its daemons "
            f"(systemctl restart relevo-heartbeat relevo-node).{back}"
        )
    own = snapshot.nodes[snapshot.me].facts
    here = snapshot.config_hash if own is None else own.file_hash
    if name != snapshot.me and UNUSABLE not in {facts.unread, here} and facts.file_hash != here:
        yield (
            f"relevo.toml on {name} says something else than the one on {snapshot.me}: copy the right one to the other "
            f"server, and restart the daemons there.{back}"
        )


def _alarms(snapshot: Snapshot, record: Record) -> tuple[str, ...]:
    alarms: list[str] = []
    split: dict[str, list[str]] = {}
    older = unaware(snapshot)
    if older and any(getattr(record, name) for name in OBEYED_BY_ALL):
        names = " and ".join(older)
        alarms.append(f"Bans and moves rest until {names} runs this version of Relevo too: it does not know them.")
    for name, view in sorted(snapshot.nodes.items()):
        facts = view.facts
        if facts is None or view.alive is not Alive.ALIVE:
            continue
        alarms += _of_configuration(snapshot, name, facts)
        for service, told in sorted(facts.services.items()):
            if blocked := [part for part, state in sorted(told.resources.items()) if state is ResourceState.BLOCKED]:
                fenced = f"{name} is fenced where another server can take over." if name in snapshot.fenceable else ""
                what = fenced or f"No other server starts {service}: nothing can switch {name} off."
                alarms.append(f"{' and '.join(blocked)} of {service} could not be stopped on {name}. {what}")
        for mirror, state in sorted(facts.mirrors.items()):
            if state is not None and state.split_brain:
                split.setdefault(mirror, []).append(name)
            if state is not None and state.problem and not (state.split_brain and _ONLY_THAT in state.problem):
                alarms.append(f"The mirror {mirror} on {name}: {state.problem}")
    alarms.extend(_split(mirror, nodes) for mirror, nodes in split.items() if mirror not in record.kept)
    alarms.extend(_being_resolved(mirror, keeper) for mirror, keeper in sorted(record.kept.items()))
    return tuple(alarms)


_ONLY_THAT = "(split brain)."
"""How a mirror's sentence ends that says no more than that."""


def _being_resolved(mirror: str, keeper: str) -> str:
    return (
        f"Split brain of mirror {mirror}: it is being resolved. What {keeper} changed stays; the other side gives its "
        "changes up when they are kept."
    )


def _split(mirror: str, nodes: list[str]) -> str:
    where = f"{' and '.join(nodes)} were" if len(nodes) > 1 else f"{nodes[0]} and its peer were"
    return (
        f"Split brain of mirror {mirror}: {where} changed apart, and nothing is given up by itself. "
        f"relevo mirror resolve {mirror} --keep NODE --dry-run says who would lose how much; without --dry-run it is "
        "done."
    )
