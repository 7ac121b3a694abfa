"""A world for `Membership`: nodes with disks and clocks, bad links, and somebody who replays and forges.

One seed is one whole run. The checker (`Observer`) knows what really happened and compares it with what each core says.
"""

from __future__ import annotations

import dataclasses
import heapq
import json
import random
from collections.abc import Callable
from typing import Any

from relevo.config.model import AuthKey, HeartbeatTimings
from relevo.heartbeat import events, wire
from relevo.heartbeat.events import ALIVE, NOTHING_HEARD, Effect, Event, Mark, PeerState, Settings
from relevo.heartbeat.membership import GRACE_KEEPALIVES, Membership
from relevo.heartbeat.peer import Peer, Received

TIMINGS = HeartbeatTimings(keepalive_ms=200, warntime_ms=600, deadtime_ms=1200, initdead_ms=3000)
KEY = AuthKey(number=1, method="sha1", secret="HI!")
KEYS = {1: KEY}
WRONG = AuthKey(number=1, method="sha1", secret="HO!")
LINKS = ("users", "cross")
MAX_DELAY_MS = 80
SLOWEST_WRITE_MS = 250  # two in a row take less than half of deadtime, after which the disk is not waited for
CLOCK_RATE_ERROR = 0.01
CALM_MS = 3000
"""Two nodes that could talk undisturbed for so long must be of one mind."""
CHECK_MS = 50
SHORT_FREEZE_MS = 500
"""A shorter freeze need not be noticed as a pause."""
TROUBLE_MS, QUIET_MS = 12_000, 4500


@dataclasses.dataclass
class Record:
    """What really happened between one observer and one subject."""

    accepted: set[bytes] = dataclasses.field(default_factory=set)
    highest: Mark = NOTHING_HEARD
    sign_ms: int = -(10**6)  # when the last sign of life was accepted
    real_ms: int = 0  # when the last genuine datagram was delivered
    newest_facts: int = 0
    disturbed_ms: int = 0  # when their talk was last disturbed


class Watched(Membership):
    """Tells the observer what is accepted, at the moment it is."""

    def __init__(self, settings: Settings, now_ms: int, node: Node) -> None:
        super().__init__(settings, now_ms)
        self._node = node

    def _accept(self, peer: Peer, received: Received) -> None:
        _, datagram, genuine, at_ms = self._node.origin[id(received.message)]
        self._node.world.observer.accepted(self._node, received, datagram, at_ms, genuine=genuine)
        super()._accept(peer, received)


class Node:
    """A server: a disk that survives, a clock, and a core while it runs."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.clock = world.random.randrange(10**9)
        self.rate = 1 + world.random.uniform(-CLOCK_RATE_ERROR, CLOCK_RATE_ERROR)
        self.generation = world.random.randrange(1000, 2000)
        self.uuid = name.encode().ljust(16, b"-")
        self.disk: dict[str, Mark] = {}
        self.core: Membership | None = None
        self.run = 0
        self.started_ms = 0
        self.published = 0
        self.published_ms = 0
        self.left = False
        self.left_ms = 0
        self.left_calmly: set[str] = set()  # who could not miss the goodbye
        self.frozen = False
        self.frozen_ms = 0
        self.last_thaw_ms = 0
        self.waiting: list[tuple[str, bytes, bool]] = []
        self.thawed_ms: list[int] = []
        self.writing = False
        self.to_write: dict[str, Mark] | None = None
        self.tick_no = 0
        self.records: dict[str, Record] = {}
        self.read: list[bytes] = []  # in this run
        self.ever_accepted: list[bytes] = []  # in any run
        self.origin: dict[int, tuple[wire.Message, bytes, bool, int]] = {}  # of what was read: bytes, genuine?, when

    def now(self) -> int:
        return self.clock + int(self.world.now_ms * self.rate)

    @property
    def awake(self) -> bool:
        return self.core is not None and not self.frozen

    def start(self) -> None:
        self.generation += 1
        self.run += 1
        self.left = self.frozen = self.writing = False
        self.to_write = None
        self.waiting.clear()
        self.thawed_ms.clear()
        self.started_ms = self.world.now_ms
        settings = Settings(
            me=self.name,
            uuid=self.uuid,
            generation=self.generation,
            boot_id=f"{self.name}-{self.run}",
            peers=tuple(name for name in self.world.nodes if name != self.name),
            links=LINKS,
            timings=TIMINGS,
            config_hash="c",
            marks=dict(self.disk),
        )
        self.origin.clear()
        self.read.clear()
        self.core = Watched(settings, self.now(), self)
        self.publish()

    def crash(self) -> None:
        if self.writing and self.to_write is not None and self.world.random.random() < 0.5:
            self.disk = self.to_write
        self.core = None
        self.waiting.clear()

    def publish(self) -> None:
        self.published += 1
        self.published_ms = self.world.now_ms
        self.step(events.Publish(json.dumps({"n": self.published}), self.now()))

    def leave(self) -> None:
        self.left = True
        self.left_ms = self.world.now_ms
        self.step(events.Leave(self.now()))

    def join(self) -> None:
        self.generation += 1
        self.left = False
        self.step(events.Join(self.generation, self.now()))

    def step(self, event: Event) -> list[Effect]:
        assert self.core is not None
        before = {name: peer.state for name, peer in self.core._peers.items()}
        effects = self.core.step(event)
        self.world.observer.after_step(self, before)
        shuffled = list(effects)
        self.world.random.shuffle(shuffled)
        for effect in shuffled:
            match effect:
                case events.Send():
                    self.world.network.send(self, effect)
                case events.NextTick():
                    self.set_tick(effect.at_ms)
                case events.Persist():
                    self.persist(dict(effect.marks))
                case _:
                    pass
        return effects

    def set_tick(self, at_ms: int) -> None:
        self.tick_no += 1
        number, run = self.tick_no, self.run
        late_ms = self.world.random.choice((0, 0, 0, 1, 5))
        delay_ms = max(0, int((at_ms - self.now()) / self.rate)) + late_ms
        self.world.after(delay_ms, lambda: self.tick(number, run))

    def tick(self, number: int, run: int) -> None:
        if self.core is not None and run == self.run and number == self.tick_no and not self.frozen:
            self.step(events.Tick(self.now()))

    def persist(self, marks: dict[str, Mark]) -> None:
        self.to_write = marks
        if not self.writing:
            self.write()

    def write(self) -> None:
        marks, run = self.to_write, self.run
        assert marks is not None
        self.writing = True
        slow = self.world.random.random() < 0.05
        delay_ms = self.world.random.randint(1, SLOWEST_WRITE_MS if slow else 30)
        self.world.after(delay_ms, lambda: self.written(marks, run))

    def written(self, marks: dict[str, Mark], run: int) -> None:
        if self.core is None or run != self.run:
            return
        self.disk = dict(marks)
        self.writing = False
        if self.to_write is not marks:
            self.write()
        if self.frozen:
            self.world.after(10, lambda: self.report(marks, run))
        else:
            self.report(marks, run)

    def report(self, marks: dict[str, Mark], run: int) -> None:
        if self.core is None or run != self.run:
            return
        if self.frozen:
            self.world.after(10, lambda: self.report(marks, run))
        else:
            self.step(events.Persisted(marks, self.now()))

    def freeze(self) -> None:
        self.frozen = True
        self.frozen_ms = self.world.now_ms

    def thaw(self) -> None:
        self.frozen = False
        self.last_thaw_ms = self.world.now_ms
        if self.world.now_ms - self.frozen_ms > SHORT_FREEZE_MS:
            self.thawed_ms.append(self.world.now_ms)
        waiting, self.waiting = self.waiting, []
        for link, datagram, genuine in waiting:
            self.deliver(link, datagram, genuine=genuine)
        if self.core is not None:
            self.step(events.Tick(self.now()))

    def deliver(self, link: str, datagram: bytes, *, genuine: bool) -> None:
        if self.core is None:
            return
        if self.frozen:
            self.waiting.append((link, datagram, genuine))
            return
        if genuine:
            self.read.append(datagram)
        try:
            message = wire.decode(datagram, KEYS)
        except wire.WireError:
            assert not genuine
            self.step(events.DatagramRefused(link, events.Reason.BAD_SIGNATURE, "?", self.now()))
            return
        if genuine and message.text("src") != self.name:
            self.records[message.required("src")].real_ms = self.world.now_ms
        self.origin[id(message)] = (message, datagram, genuine, self.world.now_ms)
        self.step(events.MessageReceived(link, message, self.now()))


class Network:
    """Links that lose, duplicate, delay and reorder; each direction of each can be cut."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.loss = world.random.choice((0.0, 0.02, 0.15))
        self.duplicates = world.random.choice((0.0, 0.05, 0.3))
        self.delay_ms = world.random.choice((1, 10, MAX_DELAY_MS))
        self.cut: set[tuple[str, str, str]] = set()  # (link, from, to)
        self.all: list[tuple[Mark, str, bytes]] = []

    def send(self, sender: Node, send: events.Send) -> None:
        datagram = wire.encode(send.message, KEY)
        if send.message.text("seq") is not None:
            self.all.append((Mark(send.message.number("hg"), send.message.number("seq")), sender.name, datagram))
        for link in LINKS:
            for name in self.world.nodes if send.broadcast else send.to:
                if (link, sender.name, name) in self.cut:
                    continue
                copies = 1 + (self.world.random.random() < self.duplicates)
                for _ in range(copies):
                    if self.world.random.random() >= self.loss:
                        delay_ms = self.world.random.randint(0, self.delay_ms)
                        self.world.after(delay_ms, lambda link=link, name=name: self.arrive(link, name, datagram))

    def arrive(self, link: str, name: str, datagram: bytes) -> None:
        self.world.nodes[name].deliver(link, datagram, genuine=True)


class Attacker:
    """Hears everything, sends anything, does not know the key."""

    def __init__(self, world: World) -> None:
        self.world = world

    def act(self) -> None:
        rng = self.world.random
        target = rng.choice(list(self.world.nodes.values()))
        datagram = rng.choice((self.replay, self.old_generation, self.damaged, self.forged))(target)
        if datagram is not None:
            target.deliver(rng.choice(LINKS), datagram, genuine=False)
        if self.world.now_ms < TROUBLE_MS + QUIET_MS:
            self.world.after(rng.randint(1, 150), self.act)

    def replay(self, target: Node) -> bytes | None:
        heard = target.read if self.world.random.random() < 0.5 else target.ever_accepted
        if not heard:
            return None
        return self.world.random.choice(heard[-30:] if self.world.random.random() < 0.5 else heard)

    def old_generation(self, target: Node) -> bytes | None:
        old = [
            datagram
            for mark, source, datagram in self.world.network.all[-400:]
            if source in target.records and mark.generation < target.records[source].highest.generation
        ]
        return self.world.random.choice(old) if old else None

    def damaged(self, target: Node) -> bytes | None:
        datagram = self.replay(target)
        if datagram is None:
            return None
        changed = bytearray(datagram)
        changed[self.world.random.randrange(len(changed))] ^= self.world.random.randint(1, 255)
        return bytes(changed[: self.world.random.choice((None, -1, -5))])

    def forged(self, target: Node) -> bytes:
        source = self.world.random.choice([name for name in self.world.nodes if name != target.name])
        fields = (("t", "status"), ("st", "active"), ("src", source), ("seq", "1"), ("hg", "ffffffff"))
        return wire.encode(wire.Message(fields), WRONG)


class Observer:
    """Knows the truth; every method asserts a promise."""

    def __init__(self, world: World) -> None:
        self.world = world

    def accepted(self, node: Node, received: Received, datagram: bytes, at_ms: int, *, genuine: bool) -> None:
        source, mark = received.message.required("src"), received.mark
        record = node.records[source]
        assert genuine, f"{node.name} accepted a replayed or forged {mark} of {source}"
        assert datagram not in record.accepted, f"{node.name} accepted {mark} of {source} twice"
        assert mark.generation >= record.highest.generation, f"{node.name} went back to {mark} of {source}"
        assert mark <= node.disk.get(source, NOTHING_HEARD), f"{node.name} accepted {mark} of {source} before its mark"
        record.accepted.add(datagram)
        node.ever_accepted.append(datagram)
        if mark > record.highest:
            record.highest = mark
            record.sign_ms = at_ms

    def after_step(self, node: Node, before: dict[str, PeerState]) -> None:
        assert node.core is not None
        for name, peer in node.core._peers.items():
            record = node.records[name]
            if peer.state is PeerState.DEAD and before[name] in ALIVE:
                self.death(node, name, record)
            facts = peer.present.facts if peer.present else None
            if facts is not None:
                assert facts["n"] >= record.newest_facts, f"{node.name}: facts of {name} went back"
                record.newest_facts = facts["n"]

    def death(self, node: Node, name: str, record: Record) -> None:
        silent_ms = (self.world.now_ms - record.sign_ms) * (1 + CLOCK_RATE_ERROR) + 2
        assert silent_ms >= TIMINGS.deadtime_ms, f"{node.name} called {name} dead after {silent_ms} ms"
        # rule of the pause: the first one in a silence gives everybody a grace, counted from its end
        in_silence = [thaw for thaw in node.thawed_ms if thaw > record.sign_ms]
        if len(in_silence) == 1:
            grace_ms = GRACE_KEEPALIVES * TIMINGS.keepalive_ms * (1 - CLOCK_RATE_ERROR) - 2
            assert self.world.now_ms - in_silence[0] >= grace_ms, f"{node.name} accused {name} right after a pause"

    def disturbed(self, first: str, second: str) -> None:
        for observer, subject in ((first, second), (second, first)):
            self.world.nodes[observer].records[subject].disturbed_ms = self.world.now_ms

    def check(self) -> None:
        """Every `CHECK_MS`: what each awake node says of each other one, against the truth."""
        for node in self.world.nodes.values():
            if node.awake:
                view = node.core.view(node.now())
                for name, peer in view["peers"].items():
                    self.check_pair(node, self.world.nodes[name], peer)
        if self.world.now_ms < TROUBLE_MS + QUIET_MS:
            self.world.after(CHECK_MS, self.check)

    def check_pair(self, node: Node, subject: Node, peer: dict[str, Any]) -> None:
        record, now_ms = node.records[subject.name], self.world.now_ms
        state = PeerState(peer["state"])
        where = f"at {now_ms} ms {node.name} says {subject.name} is {state}"
        # a silent one is dead in time, whatever somebody replays
        awake_since = max(node.started_ms, node.last_thaw_ms)
        limit_ms = (TIMINGS.deadtime_ms + TIMINGS.keepalive_ms) * (1 + 2 * CLOCK_RATE_ERROR) + 10
        if now_ms - max(record.real_ms, awake_since) > limit_ms:
            assert state not in ALIVE, where
        if now_ms - max(record.real_ms, awake_since + TIMINGS.initdead_ms) > limit_ms:
            assert state is not PeerState.UNKNOWN, where
        # a live connected one is alive, and its facts are known
        connected = not any({node.name, subject.name} == set(key[1:]) for key in self.world.network.cut)
        if now_ms - record.disturbed_ms > CALM_MS and subject.awake and connected:
            # one that was absent, cut off or stopped around the goodbye of the other may know only its silence
            forgotten = node.name not in subject.left_calmly or record.disturbed_ms > subject.left_ms
            if node.left and not peer["hears_us"]:
                pass  # whoever is silent cannot ask for a proof: an observer that just began may still refuse
            elif subject.left:
                assert state is PeerState.LEFT or (forgotten and state not in ALIVE), where
            else:
                assert state in ALIVE, where
            if not subject.left and not node.left and now_ms - subject.published_ms > CALM_MS / 2:
                told = (peer["facts"], peer["generation"], peer["boot_id"], set(peer["links"].values()))
                truth = ({"n": subject.published}, subject.generation, f"{subject.name}-{subject.run}", {"up"})
                assert told == truth, f"{where}: {told} instead of {truth}"


class World:
    """One run of one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now_ms = 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._number = 0
        self.nodes: dict[str, Node] = {}
        self.network = Network(self)
        self.observer = Observer(self)
        self.attacker = Attacker(self)
        for number in range(1, self.random.choice((2, 2, 2, 3)) + 1):
            self.nodes[f"nodo{number}"] = Node(self, f"nodo{number}")
        for node in self.nodes.values():
            node.records = {name: Record() for name in self.nodes if name != node.name}

    def after(self, delay_ms: int, action: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._queue, (self.now_ms + delay_ms, self._number, action))

    def run(self) -> None:
        for node in self.nodes.values():
            self.after(self.random.randint(0, 500), node.start)
        self.after(0, self.observer.check)
        self.after(0, self.attacker.act)
        self.after(self.random.randint(500, 2000), self.trouble)
        self.after(TROUBLE_MS, self.make_peace)
        while self._queue and self.now_ms < TROUBLE_MS + QUIET_MS:
            self.now_ms, _, action = heapq.heappop(self._queue)
            action()

    # --- faults -------------------------------------------------------------------------------------------------------

    def trouble(self) -> None:
        if self.now_ms >= TROUBLE_MS:
            return
        node = self.random.choice(list(self.nodes.values()))
        self.random.choice((self.restart, self.crash, self.freeze, self.leave, self.cut, self.cut, self.publish))(node)
        self.after(self.random.choice((50, 500, 3000)), self.trouble)

    def all_disturbed(self, node: Node) -> None:
        for name in node.records:
            self.observer.disturbed(node.name, name)

    def crash(self, node: Node) -> None:
        if node.core is not None:
            self.all_disturbed(node)
            node.crash()
            self.after(self.random.randint(300, 5000), lambda: self.revive(node))

    def restart(self, node: Node) -> None:
        if node.core is not None:
            self.all_disturbed(node)
            node.crash()
            node.start()

    def revive(self, node: Node) -> None:
        if node.core is None:
            self.all_disturbed(node)
            node.start()

    def freeze(self, node: Node) -> None:
        if node.awake:
            self.all_disturbed(node)
            node.freeze()
            run = node.run
            self.after(self.random.choice((100, 600, 1300, 4000)), lambda: self.thaw(node, run))

    def thaw(self, node: Node, run: int) -> None:
        if node.core is not None and node.run == run and node.frozen:
            self.all_disturbed(node)
            node.thaw()

    def leave(self, node: Node) -> None:
        if node.awake and not node.left:
            undisturbed = {
                name
                for name in node.records
                if self.now_ms - self.nodes[name].records[node.name].disturbed_ms > TIMINGS.deadtime_ms
            }
            node.left_calmly = undisturbed
            self.all_disturbed(node)
            lost = any(node.name in key[1:] for key in self.network.cut)
            node.leave()
            # where the goodbye cannot arrive, silence must do: then the node is simply stopped
            self.after(4500 if not lost else 100, lambda: self.rejoin(node, node.run))

    def rejoin(self, node: Node, run: int) -> None:
        if node.awake and node.run == run and node.left:
            self.all_disturbed(node)
            node.join()

    def publish(self, node: Node) -> None:
        if node.awake:
            node.publish()

    def cut(self, node: Node) -> None:
        other = self.random.choice(list(node.records))
        directions = self.random.choice((((node.name, other), (other, node.name)), ((node.name, other),)))
        links = self.random.choice((LINKS, LINKS[:1], LINKS[1:]))
        keys = {(link, *direction) for link in links for direction in directions}
        self.network.cut |= keys
        self.observer.disturbed(node.name, other)
        self.after(self.random.choice((100, 900, 4000)), lambda: self.heal(keys))

    def heal(self, keys: set[tuple[str, str, str]]) -> None:
        self.network.cut -= keys
        for _, first, second in keys:
            self.observer.disturbed(first, second)

    def make_peace(self) -> None:
        self.network.cut.clear()
        for node in self.nodes.values():
            self.all_disturbed(node)
            if node.core is None:
                node.start()
            elif node.frozen:
                node.thaw()
            if node.left:
                node.join()
