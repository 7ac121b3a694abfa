"""A world for the hand-over with an original Heartbeat: our core and plans on one server, a model of it on the other.

One seed is one whole run. What is lost is asked for again and comes late, as both sides do it; the node daemon sees the
heartbeats' state late and is heard late. The checker knows what really runs where.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from ipaddress import IPv4Interface
from typing import Any

import msgspec
from handover_original import OriginalNode

from relevo.config.model import AddressResource, Config, Node, Service
from relevo.heartbeat.handover import Handover
from relevo.heartbeat.handover_words import Group, Told
from relevo.heartbeat.wire import Message
from relevo.manager.model import (
    Action,
    Alive,
    NodeFacts,
    NodeView,
    Record,
    ResourceState,
    ServiceFacts,
    ServiceState,
    Snapshot,
)
from relevo.manager.original import Wishes, wishes
from relevo.manager.planner import plan
from relevo.node import original as originals
from relevo.node import views

OURS, THEIRS = "nodo1", "nodo2"
DEADTIME_MS, INITDEAD_MS = 2000, 5000
TICK_MS = 200
NEAR_MS = (1, 30)
LATE_MS = (60, 2500)
QUIET_MS = 60_000
_STATES = {
    Action.START: (ServiceState.STARTING, ServiceState.STARTED),
    Action.STOP: (ServiceState.STOPPING, ServiceState.STOPPED),
}


def configuration(base: Config, *, auto_failback: bool) -> Config:
    """Two services without a mirror, one at home on each server."""

    def service(name: str, home: str, address: str) -> Service:
        parts = (AddressResource(id="address", address=IPv4Interface(address), link="users"),)
        return Service(name=name, prefer=home, auto_failback=auto_failback, resources=parts)

    services = {"uno": service("uno", OURS, "10.0.0.91/24"), "dos": service("dos", THEIRS, "10.0.0.92/24")}
    nodes = {name: msgspec.structs.replace(node, disks={}) for name, node in base.nodes.items()}
    assert all(isinstance(node, Node) for node in nodes.values())
    return msgspec.structs.replace(base, nodes=nodes, mirrors={}, services=services)


class Ours:
    """One run of our server: heartbeats and node daemon."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.core = world.core()
        self.active = False
        self.peer = "unknown"
        self.services = dict.fromkeys(world.config.services, ServiceState.STOPPED)
        self.steps = dict.fromkeys(self.services, 0)
        self.ready = False
        self.leaving = False
        self.view: dict[str, Any] | None = None
        self.wishes = Wishes(number=world.now_ms * 1000 + 1)
        self.told_number = 0

    def heartbeat(self) -> dict[str, Any]:
        heard = self.peer != "unknown"
        peer = {"state": self.peer, "late": False, "facts": None, "original": self.core.view() if heard else None}
        return {"peers": {THEIRS: peer}}

    def step(self) -> None:
        """What the membership does after each event."""
        self.core.liveness(alive=self.peer == "active")
        for say in self.core.due(self.world.now_ms, active=self.active):
            self.world.send_to_original(self, say.kind, dict(say.fields))
        seen = self.heartbeat()
        self.world.later(self, self.world.dice.randint(1, 20), lambda: self.see(seen))

    def see(self, seen: dict[str, Any]) -> None:
        if seen != self.view:
            self.view = seen
            self.round()

    def round(self) -> None:
        """What the node daemon does."""
        config, world = self.world.config, self.world
        if self.view is None:
            return
        facts = NodeFacts(
            boot_id="b",
            config_hash=config.hash,
            ready=self.ready,
            leaving=self.leaving,
            services={name: self.told_of(name) for name in self.services},
        )
        peers = views.peer_views(config, OURS, self.view)
        found = originals.found(config, OURS, self.view, self.wishes.number)
        if found is not None:
            peers = {THEIRS: originals.view_of(config, found[1], peers[THEIRS], {}, THEIRS)}
        snapshot = Snapshot(
            me=OURS,
            now_ms=world.now_ms,
            config_hash=config.hash,
            services=config.services,
            hosts=dict.fromkeys(config.services, (OURS, THEIRS)),
            nodes={**peers, OURS: NodeView(alive=Alive.ALIVE, facts=facts)},
            record=Record(standby=(OURS,) if world.standby else ()),
            original=found[0] if found is not None else None,
        )
        made = plan(snapshot)
        for name in self.services:
            step = next((step for step in made.steps if step.service == name), None)
            if step is not None and self.services[name] in {ServiceState.STOPPED, ServiceState.STARTED}:
                self.begin(name, step.action)
        seen_mine = NodeView(
            alive=Alive.ALIVE,
            facts=msgspec.structs.replace(facts, services={n: self.told_of(n) for n in self.services}),
        )
        told = wishes(msgspec.structs.replace(snapshot, nodes={**snapshot.nodes, OURS: seen_mine}), made)
        if msgspec.structs.replace(told, number=self.wishes.number) != self.wishes:
            self.wishes = msgspec.structs.replace(told, number=self.wishes.number + 1)
            self.publish()
        if self.leaving and all(state is ServiceState.STOPPED for state in self.services.values()):
            world.ours_left()

    def publish(self) -> None:
        word = msgspec.convert(msgspec.to_builtins(self.wishes), Told)

        def arrive() -> None:
            if word.number > self.told_number:  # one after the other on one socket
                self.told_number = word.number
                self.core.told(word, self.world.now_ms)
                self.step()

        self.world.later(self, self.world.dice.randint(1, 20), arrive)

    def told_of(self, name: str) -> ServiceFacts:
        state = self.services[name] if self.ready else ServiceState.UNKNOWN
        here = state in {ServiceState.STARTED, ServiceState.STOPPING}
        part = ResourceState.STARTED if here else ResourceState.STOPPED
        return ServiceFacts(state=state, step=self.steps[name], resources={"address": part})

    def begin(self, name: str, action: Action) -> None:
        during, after = _STATES[action]
        self.services[name] = during
        self.steps[name] += 1
        if action is Action.START:
            self.world.runs(OURS, name, on=True)

        def end() -> None:
            self.services[name] = after
            if action is Action.STOP:
                self.world.runs(OURS, name, on=False)
            self.round()

        self.world.later(self, self.world.dice.randint(20, 900), end)


class World:
    """Everything."""

    def __init__(self, seed: int, config: Config, *, auto_failback: bool, loss: float = 0.2) -> None:
        self.dice = random.Random(seed)
        self.config = config
        self.now_ms = 0
        self._auto_failback = auto_failback
        self._loss = loss
        self.core: Callable[[], Handover] = Handover
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self._owners: dict[str, set[str]] = {name: set() for name in config.services}
        self.standby = False
        self.ours: Ours | None = None
        self.original: OriginalNode | None = None
        self._number = 0
        self._runs: dict[str, int] = {OURS: 0, THEIRS: 0}
        self._heard_run = 0
        self._left_run = 0
        self.story: list[str] = []

    # --- time ---------------------------------------------------------------------------------------------------------

    def later(self, owner: object | None, delay_ms: int, what: Callable[[], None]) -> None:
        """Call something, unless its owner is gone by then."""

        def call() -> None:
            if owner is None or owner in {self.ours, self.original}:
                what()

        self._count += 1
        heapq.heappush(self._heap, (self.now_ms + delay_ms, self._count, call))

    def pass_ms(self, duration_ms: int) -> None:
        end_ms = self.now_ms + duration_ms
        while self._heap and self._heap[0][0] <= end_ms:
            self.now_ms, _, what = heapq.heappop(self._heap)
            what()
        self.now_ms = end_ms

    def note(self, text: str) -> None:
        self.story.append(f"{self.now_ms:7} {text}")

    # --- what really runs ---------------------------------------------------------------------------------------------

    def runs(self, node: str, service: str, *, on: bool) -> None:
        self.note(f"{node} {'starts' if on else 'has stopped'} {service}")
        owners = self._owners[service]
        (owners.add if on else owners.discard)(node)
        assert len(owners) <= 1, "\n".join([*self.story[-60:], f"{service} runs twice"])

    def places(self) -> dict[str, str]:
        return {name: next(iter(owners), "") for name, owners in self._owners.items()}

    # --- messages -----------------------------------------------------------------------------------------------------

    def _carry(self, sender: str, deliver: Callable[[], None]) -> None:
        run = self._runs[sender]
        lost = self.dice.random() < self._loss
        delay_ms = self.dice.randint(*(LATE_MS if lost else NEAR_MS))

        def arrive() -> None:
            # what was lost can only be sent again by the run that made it, and nothing of an older run is heeded
            if self._runs[sender] == run:
                deliver()

        self.later(None, delay_ms, arrive)

    def send_to_original(self, ours: Ours, kind: str, fields: dict[str, str]) -> None:
        if ours is not self.ours:
            return
        if kind not in {"reqnodes", "starting"}:
            self.note(f"{OURS}: {kind} {fields}")

        def deliver() -> None:
            if self.original is not None and not self.original.ended:
                self.original.heard(kind, fields)

        self._carry(OURS, deliver)

    def send_to_ours(self, kind: str, **fields: str) -> None:
        self._number += 1
        number = self._number
        self.note(f"{THEIRS}: {kind} {fields}")

        def deliver() -> None:
            ours = self.ours
            if ours is None:
                return
            if kind == "shutdone":
                ours.peer = "left"
                self._left_run = self._runs[THEIRS]
            elif ours.peer != "left":
                self.hear(ours)
                told = {**fields, "dest": OURS} if kind == "repnodes" else fields
                ours.core.heard(Message((("t", kind), *told.items())), number, OURS, self.now_ms)
            ours.step()

        self._carry(THEIRS, deliver)

    def hear(self, ours: Ours) -> None:
        """A sign of life."""
        if self._heard_run != self._runs[THEIRS]:
            self._heard_run = self._runs[THEIRS]
            ours.core.begun()
        ours.peer = "active"
        if not ours.active:
            ours.active = True
        ours.core.liveness(alive=True)

    # --- nodes come and go --------------------------------------------------------------------------------------------

    def start_ours(self) -> None:
        assert self.ours is None
        self.note("ours starts")
        self._runs[OURS] += 1
        self._heard_run = 0
        ours = self.ours = Ours(self)
        self.later(ours, 150, lambda: self._ready(ours))
        self.later(ours, 400, lambda: self._heartbeats(ours))
        self.later(ours, INITDEAD_MS, lambda: self._alone(ours))
        self._tick(ours)

    def _tick(self, ours: Ours) -> None:
        ours.step()
        ours.round()
        self.later(ours, TICK_MS, lambda: self._tick(ours))

    def _ready(self, ours: Ours) -> None:
        ours.ready = True
        ours.round()

    def _heartbeats(self, ours: Ours) -> None:
        if self.original is not None and not self.original.ended:
            self.hear(ours)
            ours.step()

    def _alone(self, ours: Ours) -> None:
        if ours.peer == "unknown":
            ours.peer = "dead"
            ours.active = True
            ours.step()

    def crash_ours(self) -> None:
        assert self.ours is not None
        self.note("ours crashes")
        self._gone(OURS)
        self.ours = None
        self._silence(OURS)

    def ours_left(self) -> None:
        assert self.ours is not None
        self.note("ours says goodbye")
        self.ours = None
        original = self.original

        def deliver() -> None:
            if self.original is original and original is not None and not original.ended:
                self.note("the original hears the goodbye")
                original.other_left()

        self.later(None, self.dice.randint(*NEAR_MS), deliver)

    def start_original(self) -> None:
        assert self.original is None or self.original.ended
        self.note("original starts")
        self._runs[THEIRS] += 1
        name_of = {"local": "dos", "foreign": "uno"}
        node: OriginalNode = OriginalNode(
            self.dice,
            lambda delay_ms, what: self.later(node, delay_ms, what),
            self.send_to_ours,
            lambda group, *, on: self.runs(THEIRS, name_of[group], on=on),
            auto_failback=self._auto_failback,
        )
        self.original = node
        self.later(node, 200, lambda: self._status_of_original(node))
        self.later(node, 500, lambda: self._links_up(node, alone=False))
        self.later(node, INITDEAD_MS, lambda: self._links_up(node, alone=True))

    def _status_of_original(self, node: OriginalNode) -> None:
        ours = self.ours
        if ours is not None and not node.ended and (ours.peer != "left" or self._runs[THEIRS] != self._left_run):
            self.hear(ours)
            ours.step()
        self.later(node, TICK_MS, lambda: self._status_of_original(node))

    def _links_up(self, node: OriginalNode, *, alone: bool) -> None:
        if node.state != "init":
            return
        if self.ours is not None:
            node.links_up()
        elif alone:
            node.links_up()
            node.other_died()
        else:
            self.later(node, 300, lambda: self._links_up(node, alone=False))

    def crash_original(self) -> None:
        assert self.original is not None
        self.note("original crashes")
        self._gone(THEIRS)
        self.original = None
        self._silence(THEIRS)

    def _gone(self, node: str) -> None:
        for owners in self._owners.values():
            owners.discard(node)

    def _silence(self, node: str) -> None:
        run = self._runs[node]

        def over() -> None:
            if self._runs[node] != run:
                return
            if node == THEIRS and self.ours is not None:
                self.ours.peer = "dead"
                self.ours.step()
            elif node == OURS and self.original is not None and not self.original.ended:
                self.note("the original counts ours as dead")
                self.original.other_died()

        self.later(None, DEADTIME_MS, over)

    # --- what people do -----------------------------------------------------------------------------------------------

    def trouble(self) -> None:
        """One thing that happens."""
        up, there = self.ours is not None, self.original is not None and not self.original.ended
        choices: list[Callable[[], None]] = [self._turn_standby]
        choices += [self.crash_ours, self._leave] if up else [self.start_ours] * 3
        choices += [self.crash_original, self._stop_original, self._hb_standby] if there else [self.start_original] * 3
        self.dice.choice(choices)()

    def _turn_standby(self) -> None:
        self.standby = not self.standby
        self.note(f"standby {self.standby}")

    def _leave(self) -> None:
        assert self.ours is not None
        self.note("ours leaves")
        self.ours.leaving = True

    def _stop_original(self) -> None:
        assert self.original is not None
        self.note("original stops")
        self.original.shut_down()

    def _hb_standby(self) -> None:
        assert self.original is not None
        # In the middle of a takeover it would be stuck for an hour, which is a fault of the original's own.
        if self.ours is not None and self.original.is_quiet():
            groups = self.dice.choice([frozenset({"local"}), frozenset({"foreign"}), frozenset({"local", "foreign"})])
            self.note(f"hb_standby {sorted(groups)}")
            self.original.hb_standby(groups)

    def calm(self) -> None:
        """Everything is switched on and left alone."""
        self.standby = False
        self.note("calm")
        for _ in range(100):
            self.pass_ms(QUIET_MS // 100)
            if self.ours is None:
                self.start_ours()
            if self.original is None or self.original.ended:
                self.start_original()
        self.pass_ms(QUIET_MS)

    def at_rest(self) -> None:
        """Each service runs, and nothing is on its way."""
        assert self.ours is not None, "\n".join(self.story[-60:])
        view = self.ours.core.view()
        where = self.places()
        told = "\n".join([*self.story[-80:], str(view), str(where), str(self.ours.wishes)])
        assert all(where.values()), told
        assert view["talk"] == "not", told
        for name, group in (("uno", Group.OURS), ("dos", Group.THEIRS)):
            assert view["groups"][group] == ("held" if where[name] == THEIRS else "free"), told
