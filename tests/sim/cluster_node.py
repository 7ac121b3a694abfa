"""One server of the cluster simulation: real membership, arbiter, plan and executor; agents that only sleep."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from relevo.arbiter import events as arbiter_events
from relevo.arbiter.arbiter import Arbiter
from relevo.arbiter.ballot import Question
from relevo.heartbeat import events as heartbeat_events
from relevo.heartbeat.events import Settings
from relevo.heartbeat.membership import Membership
from relevo.manager import model
from relevo.manager.executor import Executor
from relevo.manager.planner import plan as make_plan
from relevo.manager.record import cleared, in_common, with_ban, with_forced, with_maintenance, with_moved, with_standby
from relevo.node import views
from relevo.node.reach import Watch
from sim.cluster_agent import SimAgent
from sim.cluster_config import LINKS, NODES, PING, PING_LOSS, RESOURCES, SERVICE, TARGET
from sim.cluster_fence import SimFencer
from sim.cluster_leave import leave
from sim.cluster_mirror import Replica
from sim.cluster_witness import Line

if TYPE_CHECKING:
    from sim.cluster_world import World


class SimNode:
    """One server: what survives a power cut, and what runs."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.up = False
        self.frozen = False
        self._thaw = asyncio.Event()
        self._inbox: list[tuple[str, Any]] = []
        self.boots = 0
        self.generation = 0
        self.marks: dict[str, Any] = {}
        self.arbiter_state = arbiter_events.State()
        self.record = model.Record()
        self._shared: model.Record | None = None
        self._busy: dict[str, str] = {}  # in the run folder
        self.running: set[str] = set()
        self.membership: Membership | None = None
        self.daemon: asyncio.Task[None] | None = None
        self.executor: Executor | None = None
        self.plan = model.Plan()
        self.permissions: dict[str, model.Permission] = {}
        self.promoting = model.Permission(verdict=model.Verdict.NO, reason="")
        self.leaving = False
        self._published: dict[str, Any] | None = None
        self._tick: asyncio.TimerHandle | None = None
        self.thawed_ms = -1_000_000
        self._line = Line(world, name)
        self._fencer = SimFencer(self)
        self._told_by_witness: list[arbiter_events.Event] = []
        self._watch = Watch(world.config.ping, 0)
        self.heard_ms = self.began_ms = 0  # last answer of the ping target; begin of the daemon
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def replica(self) -> Replica | None:
        return self.world.pair.replicas.get(self.name)

    @property
    def boot_id(self) -> str:
        return f"{self.name}-{self.boots}"

    async def thawed(self) -> None:
        while self.frozen:
            await self._thaw.wait()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.world.spawn(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- power --------------------------------------------------------------------------------------------------------

    def boot(self) -> None:
        if self.up:
            return
        self.up = True
        self.boots += 1
        self.running = set()
        self._busy = {}
        self.leaving = False
        self.start_heartbeat()
        self.spawn(self._start_mirror(self.world.random.uniform(0.1, 1.0)))
        self.start_daemon(self.world.random.uniform(0.1, 1.0))

    def crash(self) -> None:
        if not self.up:
            return
        self.thaw()
        self.up = False
        for task in list(self._tasks):
            task.cancel()
        self.world.pair.stop(self.name, silent=True)
        self.membership = None
        self.executor = None
        self.running = set()
        self._inbox = []

    def freeze(self) -> None:
        if self.up and not self.frozen:
            self.frozen = True
            self.world.disturb()
            if self.replica is not None:
                self.replica.frozen = True
            self.world.pair.cut_or_frozen()

    def thaw(self) -> None:
        if self.frozen:
            self.frozen = False
            self.thawed_ms = self.world.now_ms()
            if self.replica is not None:
                self.replica.frozen = False
            self.world.pair.resume(self.name)
            self._thaw.set()
            self._thaw = asyncio.Event()
            inbox, self._inbox = self._inbox, []
            for link, message in inbox[-200:]:
                self.receive(link, message)
            self._heartbeat_tick()

    async def _start_mirror(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        await self.thawed()
        self.world.pair.start(self.name)

    def kill_mirror(self) -> None:
        if self.up and self.replica is not None and not self.frozen:
            self.world.pair.stop(self.name, silent=False)
            self.spawn(self._start_mirror(self.world.random.uniform(0.2, 1.0)))

    # --- heartbeats ---------------------------------------------------------------------------------------------------

    def start_heartbeat(self) -> None:
        self.generation += 1
        settings = Settings(
            me=self.name,
            uuid=self.name.ljust(16).encode(),
            generation=self.generation,
            boot_id=self.boot_id,
            peers=tuple(name for name in NODES if name != self.name),
            links=LINKS,
            timings=self.world.config.heartbeat,
            config_hash=self.world.config.hash,
            marks=self.marks,
        )
        self.membership = Membership(settings, self.world.now_ms())
        self._heartbeat_tick()
        if self._published is not None and self.daemon is not None and not self.daemon.done():
            self._publish(self._published)

    def restart_heartbeat(self) -> None:
        """Stopped in order (SIGTERM) and started again, as an upgrade does."""
        if self.up and not self.frozen and self.membership is not None:
            self.spawn(self._restart_heartbeat(self.membership))

    async def _restart_heartbeat(self, membership: Membership) -> None:
        if self.membership is not membership:
            return  # it is being restarted already
        if membership.may_say_goodbye:
            self._heartbeat(heartbeat_events.Leave(self.world.now_ms()))
            await asyncio.sleep(0.1)
        if self.membership is membership:
            self.membership = None
            await asyncio.sleep(self.world.random.uniform(0.2, 1.5))
            await self.thawed()
            self.start_heartbeat()

    def _heartbeat_tick(self) -> None:
        if self.membership is not None and not self.frozen:
            self._heartbeat(heartbeat_events.Tick(self.world.now_ms()))

    def receive(self, link: str, message: Any) -> None:
        if self.frozen:
            self._inbox.append((link, message))
        elif self.membership is not None:
            self._heartbeat(heartbeat_events.MessageReceived(link, message, self.world.now_ms()))

    def _heartbeat(self, event: Any) -> None:
        assert self.membership is not None
        for effect in self.membership.step(event):
            match effect:
                case heartbeat_events.Send():
                    for peer in effect.to:
                        self.world.send(self.name, peer, effect.message)
                case heartbeat_events.Persist():
                    self.spawn(self._store_marks(self.membership, effect.marks))
                case heartbeat_events.NextTick():
                    if self._tick is not None:
                        self._tick.cancel()
                    delay_s = max(0.001, (effect.at_ms - self.world.now_ms()) / 1000)
                    self._tick = asyncio.get_running_loop().call_later(delay_s, self._heartbeat_tick)
                case heartbeat_events.PeerChanged() | heartbeat_events.FactsReceived() | heartbeat_events.SelfChanged():
                    self._changed.set()

    async def _store_marks(self, membership: Membership, marks: Any) -> None:
        await asyncio.sleep(0.005)
        await self.thawed()
        self.marks = dict(marks)
        if self.membership is membership:
            self._heartbeat(heartbeat_events.Persisted(marks, self.world.now_ms()))

    def _publish(self, facts: dict[str, Any]) -> None:
        if self.membership is not None:
            runs = any(told["state"] != model.ServiceState.STOPPED for told in facts["services"].values())
            self._heartbeat(heartbeat_events.Publish(json.dumps(facts), self.world.now_ms(), runs=runs))

    # --- the node daemon ----------------------------------------------------------------------------------------------

    def start_daemon(self, after_s: float) -> None:
        self.daemon = self.spawn(self._node_daemon(after_s))

    def kill_daemon(self) -> None:
        if self.up and self.daemon is not None and not self.frozen:
            self.daemon.cancel()
            self.executor = None
            self.leaving = False
            self.start_daemon(self.world.random.uniform(0.1, 1.5))

    async def _node_daemon(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        await self.thawed()
        agents = {
            name: {part.id: SimAgent(self, part.id) for part in service.resources}
            for name, service in self.world.config.services.items()
        }
        services, now_ms, changed = self.world.config.services, self.world.now_ms, self._changed.set
        self.executor = Executor(
            services, agents, now_ms, changed, busy=self._busy, note=functools.partial(setattr, self, "_busy")
        )
        self.plan = model.Plan()
        self._shared = None
        self._line = Line(self.world, self.name)
        self._fencer = SimFencer(self)
        self._told_by_witness = []
        self.began_ms = self.world.now_ms()
        self._watch = Watch(self.world.config.ping, self.began_ms)
        arbiter = Arbiter(self.world.config, self.name, self.arbiter_state)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.executor.run())
            if self.world.config.ping.targets:
                group.create_task(self._ping(self._watch))
            while True:
                self._changed.clear()
                await self.thawed()
                await self._round(arbiter, self.executor)
                wakes_ms = arbiter.wakes_ms
                pause_s = 1.0 if wakes_ms is None else max(0.0, min(1.0, (wakes_ms - self.world.now_ms()) / 1000))
                try:
                    async with asyncio.timeout(pause_s):
                        await self._changed.wait()
                except TimeoutError:
                    pass

    async def _round(self, arbiter: Arbiter, executor: Executor) -> None:
        for _ in range(4):
            heartbeat = self.membership.view(self.world.now_ms()) if self.membership is not None else None
            peers = views.peer_views(self.world.config, self.name, heartbeat)
            self._fencer.look(peers)
            self._shared = in_common(self.record, peers.values(), self._shared)
            mirrors = {"r0": self.replica.facts() if self.replica is not None else None}
            observed = arbiter_events.Observed(
                now_ms=self.world.now_ms(),
                initdead_passed=heartbeat is not None and heartbeat["initdead_passed"],
                peers=peers,
                mirrors=mirrors,
                wanted=self.plan.wanted,
                forced=frozenset(name for name, node in self.record.forced.items() if node == self.name),
                fenced=frozenset(self._fencer.fenced),
            )
            told, self._told_by_witness = self._told_by_witness, []
            for event in told:
                await self._tell(arbiter, event)
            persisted = await self._tell(arbiter, observed)
            self.permissions = {
                name: msgspec.convert(word, model.Permission, from_attributes=True)
                for name, word in arbiter.permissions.items()
            }
            if persisted:
                continue  # time has passed: look again
            facts = self._facts(arbiter, executor, mirrors)
            snapshot = model.Snapshot(
                me=self.name,
                now_ms=self.world.now_ms(),
                config_hash=self.world.config.hash,
                services=self.world.config.services,
                hosts=views.hosts(self.world.config),
                nodes={**peers, self.name: model.NodeView(alive=model.Alive.ALIVE, facts=facts)},
                permissions=self.permissions,
                record=self.record,
                shared=self._shared,
            )
            wanted = self.plan.wanted
            self.plan = make_plan(snapshot)
            self.world.decided(self, self.plan.decisions[SERVICE])
            self.record = self.plan.record
            executor.apply(self.plan)
            told = model.encode_facts(self._facts(arbiter, executor, mirrors))
            if told != self._published:
                self._published = told
                self._publish(told)
            if self.plan.wanted == wanted:
                return

    def _facts(self, arbiter: Arbiter, executor: Executor, mirrors: dict[str, Any]) -> model.NodeFacts:
        services = executor.facts()
        return model.NodeFacts(
            boot_id=self.boot_id,
            config_hash=self.world.config.hash,
            ready=all(told.state is not model.ServiceState.UNKNOWN for told in services.values()),
            leaving=self.leaving,
            services=services,
            mirrors=mirrors,
            epochs=arbiter.epochs,
            outdated=arbiter.outdated,
            permissions=self.permissions,
            record=self.record,
            record_format=model.RECORD_FORMAT,
            reach=self._watch.look(self.world.now_ms()),
        )

    async def _ping(self, watch: Watch) -> None:
        """Ask the target, as `node/pinger.py` does."""
        told: dict[str, model.Reach] = {}
        while True:
            await self.thawed()
            self.spawn(self._ask_target(watch))
            for _ in range(2):
                await asyncio.sleep(PING.interval_ms / 2000)
                words = watch.look(self.world.now_ms())
                if words != told:
                    told = words
                    self._changed.set()

    async def _ask_target(self, watch: Watch) -> None:
        if self.name in self.world.target_cuts or self.world.random.random() < PING_LOSS:
            return
        await asyncio.sleep(self.world.delay_s())
        if self._watch is watch:
            self.heard_ms = self.world.now_ms()
            watch.answered(TARGET, self.heard_ms)

    async def _tell(self, arbiter: Arbiter, event: arbiter_events.Event) -> bool:
        persisted = False
        waiting = [event]
        while waiting:
            for effect in arbiter.step(waiting.pop()):
                match effect:
                    case arbiter_events.Persist():
                        await asyncio.sleep(self.world.random.uniform(0.001, 0.02))
                        await self.thawed()
                        self.arbiter_state = effect.state
                        persisted = True
                        waiting.append(arbiter_events.Persisted(state=effect.state))
                    case arbiter_events.Outdate() if self.replica is not None:
                        self.spawn(self._outdate(self.replica, effect))
                    case arbiter_events.AskWitness():
                        self.spawn(self._ask_witness(self._line, effect.question))
                    case arbiter_events.AllowAlone() if self.replica is not None:
                        self.replica.allow_alone(effect.epoch, effect.links)
                    case arbiter_events.DenyAlone() if self.replica is not None:
                        self.replica.deny_alone()
                    case arbiter_events.Fence():
                        self._fencer.begin(effect.node, effect.delay_ms)
                    case arbiter_events.ProbeLink():
                        self.world.pair.probe(self.name)
                    case _:
                        pass
        return persisted

    async def _outdate(self, replica: Replica, effect: arbiter_events.Outdate) -> None:
        await asyncio.sleep(self.world.random.uniform(0.001, 0.3))
        await self.thawed()
        if self.replica is replica and replica.outdate(effect.links):
            self._told_by_witness.append(arbiter_events.MarkedOutdated(mirror=effect.mirror, epoch=effect.epoch))
            self._changed.set()

    async def _ask_witness(self, line: Line, question: Question) -> None:
        event = await line.ask(question)
        await self.thawed()
        if line is self._line:
            self._told_by_witness.append(event)
            self._changed.set()

    def leave(self) -> None:  # as `node/requests.py`, and then the power goes
        if self.up and self.executor is not None and not self.frozen and not self.leaving:
            self.leaving = True
            self._changed.set()
            self.spawn(leave(self, self.executor))

    def mirror_changed(self) -> None:
        self._changed.set()

    def order(self, *, standby: bool | None = None, forced: bool = False) -> None:
        """A person says something on this node."""
        if not self.up or self.executor is None or self.frozen:
            return
        if standby is not None:
            self.record = with_standby(self.record, self.name, standby, by=self.name)
        if forced:
            self.record = with_forced(self.record, SERVICE, self.name, by=self.name)
        self._changed.set()

    def order_service(self, order: str, node: str = "") -> bool:
        """A person says where the service shall run, on this node; whether anybody was there to hear it."""
        if not self.up or self.executor is None or self.frozen:
            return False
        match order:
            case "ban":
                self.record = with_ban(self.record, SERVICE, node, by=self.name)
            case "move":
                self.record = with_moved(self.record, SERVICE, node, by=self.name)
            case "clear":
                self.record = cleared(self.record, SERVICE, by=self.name)
            case "maintain" | "work":
                on = order == "maintain"
                self.record = with_maintenance(self.record, SERVICE, (SERVICE,), on=on, by=self.name)
        self._changed.set()
        return True

    def fail_resource(self, resource: str) -> None:
        """A program dies, or a person stops it by hand."""
        self.running.discard(resource)

    def start_by_hand(self, resource: str) -> None:
        """A person starts it."""
        if self.up:
            self.running.add(resource)

    @property
    def hears(self) -> bool:
        """Its daemons run and take part."""
        return self.up and not self.frozen and self.executor is not None and self.replica is not None

    @property
    def serves(self) -> bool:
        """Everything of the service runs here."""
        replica = self.replica
        return self.up and replica is not None and replica.role == "Primary" and self.running >= set(RESOURCES)
