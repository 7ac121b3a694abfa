"""Two whole nodes in one process and virtual time: real membership, arbiter, plan and executor; an abstract mirror,
agents that only sleep, and a network that loses and delays. One seed is one run."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Coroutine
from typing import Any

from relevo.manager.model import Decision
from sim.cluster_config import (
    APP,
    APP_RESOURCES,
    LINKS,
    MIRROR_LINK,
    NODES,
    PING,
    RESOURCES,
    SERVICE,
    configuration,
)
from sim.cluster_mirror import Pair, Replica
from sim.cluster_node import SimNode
from sim.cluster_witness import SimWitness

CONTACT_MS = 4000
"""So long both nodes and a link between them must have been whole for one to know what the other told."""
CONTACT_STEP_MS = 250
THAWED_MS = 3000
"""So long one that stood still may need to notice that it has been left out."""


MOVING_MS = 3000
"""So long a hand-over may take until the node that gives does not serve any more."""


class Violation(AssertionError):
    """An invariant does not hold."""


@dataclasses.dataclass(frozen=True)
class Acked:
    number: int
    node: str
    copies: int
    at_ms: int


class World:
    """Both nodes, what is between them, the clients, and the checker."""

    def __init__(
        self,
        seed: int,
        *,
        strict: bool,
        flakiness: float = 0.0,
        loss: float = 0.0,
        witness: bool = False,
        ping: bool = False,
        ask: bool = False,
        fencing: bool = False,
        two: bool = False,
    ) -> None:
        self.random = random.Random(seed)
        self.strict = strict
        self.config = configuration(witness=witness, ask=ask, fencing=fencing, ping=ping, two=two)
        self.careful = witness or ask or fencing
        """Nothing is risked: whoever is left alone asks first."""
        self.pair = Pair(self, NODES, self.random, ask=self.careful)
        self.cuts: set[str] = set()
        self.nodes = {name: SimNode(self, name) for name in NODES}
        self.flakiness = flakiness
        self._loss = loss
        self.witness = SimWitness(self) if witness else None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.acked: dict[int, Acked] = {}
        self.contact_since_ms: int | None = None
        self.told_until_ms = 0  # what was so before this moment, both nodes have been able to tell each other
        self.disturbed_ms = -1_000_000
        self.excused: set[int] = set()
        self.left_alone: str | None = None  # in maintenance, known to all: nothing may be started or stopped
        self.target_cuts: frozenset[str] = frozenset()  # nodes that do not reach the ping target
        self.moves: list[tuple[int, str]] = []  # made for the ping target: when, and from which node
        self.promotions: list[tuple[int, str, str]] = []
        self.problem: BaseException | None = None
        self._number = 0

    def now_ms(self) -> int:
        return round(asyncio.get_running_loop().time() * 1000)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None and self.problem is None:
            self.problem = task.exception()

    def flaky(self) -> bool:
        return self.flakiness > 0 and self.random.random() < self.flakiness

    def send(self, sender: str, receiver: str, message: Any) -> None:
        for link in LINKS:
            if link in self.cuts or self.loses():
                continue
            asyncio.get_running_loop().call_later(self.delay_s(), self._deliver, receiver, link, message)

    def loses(self) -> bool:
        """A datagram does not arrive."""
        return self.random.random() < self._loss

    def delay_s(self) -> float:
        """How long a datagram takes."""
        return self.random.uniform(0.0002, 0.02) if self.random.random() > 0.02 else self.random.uniform(0, 0.4)

    def _deliver(self, receiver: str, link: str, message: Any) -> None:
        if link not in self.cuts and self.nodes[receiver].up:
            self.nodes[receiver].receive(link, message)

    def cut(self, link: str) -> None:
        self.cuts.add(link)
        self.disturb()
        if link == MIRROR_LINK:
            self.pair.cut_link()

    def heal(self, link: str) -> None:
        self.cuts.discard(link)
        self.disturb()
        if link == MIRROR_LINK:
            self.pair.cut = False

    def disturb(self) -> None:
        self.disturbed_ms = self.now_ms()

    @property
    def calm(self) -> bool:
        """Links are whole and no node stands still, and it has been so long enough for everybody to have noticed."""
        return not self.cuts and not any(one.frozen for one in self.nodes.values()) and self._settled()

    def _settled(self) -> bool:
        return self.now_ms() - self.disturbed_ms > 15_000

    def mirror_changed(self, node: str) -> None:
        self.nodes[node].mirror_changed()

    # --- the checker --------------------------------------------------------------------------------------------------

    def fail(self, what: str) -> None:
        story = "\n".join(f"{at} {node} {rule}" for at, node, rule in self.promotions[-6:])
        violation = Violation(f"at {self.now_ms()} ms: {what}\n{story}")
        if self.problem is None:
            self.problem = violation  # whoever is told may take it for a failed step
        raise violation

    def _other(self, name: str) -> SimNode:
        return self.nodes[self.pair.other(name)]

    def stops(self, node: SimNode, resource: str) -> None:
        if self.left_alone is not None and resource in RESOURCES:
            self.fail(f"{node.name} stops {resource} although the service is in maintenance")

    def starts(self, node: SimNode, resource: str) -> None:
        ours = RESOURCES if resource in RESOURCES else APP_RESOURCES
        if self.left_alone is not None and ours is RESOURCES:
            self.fail(f"{node.name} starts {resource} although the service is in maintenance")
        if ours is RESOURCES and node.name in node.record.bans.get(SERVICE, {}):
            self.fail(f"{node.name} starts {resource} although it knows that it is banned from it")
        other = self._other(node.name)
        theirs = other.running & set(ours) - {"mirror"}
        if self.calm and other.up and theirs and not node.running & set(ours):
            self.fail(f"{node.name} starts {resource} while {other.name} still has {theirs}")

    def started(self, node: SimNode, resource: str) -> None:
        other = self._other(node.name)
        if resource not in {"address", "app_address"} or resource not in other.running:
            return
        stands = other.frozen or self.now_ms() - other.thawed_ms < THAWED_MS
        judged = self.witness is not None and resource == "address"  # nobody is asked about what has no mirror
        if self.calm or (judged and not stands):
            self.fail(f"{resource} is on both nodes")

    def cut_target(self, *names: str) -> None:
        """These nodes do not reach the ping target any more; the others do."""
        self.target_cuts = frozenset(names)

    def decided(self, node: SimNode, decision: Decision) -> None:
        """What a node has planned: if it sends the service away because of the ping target, then for good reason."""
        if not node.serves or decision.target == node.name or "has lost the ping target" not in decision.reason:
            return
        now_ms, other = self.now_ms(), self._other(node.name)
        if self.moves and self.moves[-1][1] == node.name and now_ms - self.moves[-1][0] < MOVING_MS:
            return  # it is on its way
        if now_ms - node.heard_ms < PING.deadping_ms:
            self.fail(f"{node.name} sends the service away although the target answered a moment ago")
        if other.hears and now_ms - max(other.heard_ms, other.began_ms) > PING.deadping_ms - PING.interval_ms:
            self.fail(f"{node.name} sends the service to {other.name}, to which the target does not answer either")
        if self.moves and self.moves[-1][1] == other.name and now_ms - self.moves[-1][0] < PING.settle_ms:
            self.fail(f"{node.name} sends the service back after {now_ms - self.moves[-1][0]} ms")
        self.moves.append((now_ms, node.name))

    def promoted(self, replica: Replica) -> None:
        node = self.nodes[replica.node]
        permission = node.promoting
        self.promotions.append((self.now_ms(), replica.node, permission.rule))
        other = self._other(replica.node)
        theirs = other.replica
        if theirs is not None and theirs.role == "Primary" and self.calm:
            self.fail("two Primaries although the links are whole")
        missing = [one for one in self.acked.values() if one.number not in replica.disk.writes]
        if self.careful:
            if missing:
                self.fail(f"{replica.node} starts by {permission.rule!r} without {missing[0]}")
            if (
                theirs is not None
                and theirs.role == "Primary"
                and not (theirs.suspended or theirs.expired or theirs.live)
            ):
                self.fail(f"{replica.node} starts by {permission.rule!r} while {theirs.node} writes alone")
            return
        if permission.rule in {"boot_alone", "split_brain"} or permission.force:
            self.excused |= {one.number for one in missing}
            return
        for one in missing:
            if one.number not in self.excused and not self._excuse(one, replica, permission.rule):
                self.fail(f"{replica.node} starts by {permission.rule!r} without {one}; disk {replica.disk.state}")
            self.excused.add(one.number)

    def _excuse(self, write: Acked, replica: Replica, rule: str) -> bool:
        """A write that only the other disk has may be missed when there was no way to learn that it is there.

        A mirror's process that started later knows that it knows nothing; a link tells everything; and so does a node
        that had the time to say that it goes alone.
        """
        if write.copies > 1 or rule in {"hand_over", "linked"}:
            return False
        return write.at_ms > self.told_until_ms and write.at_ms > replica.began_ms

    async def watch_contact(self) -> None:
        """Note how far each node could have learned of the other."""
        while True:
            whole = len(self.cuts) < len(LINKS) and all(one.hears for one in self.nodes.values())
            if not whole:
                self.contact_since_ms = None
            elif self.contact_since_ms is None:
                self.contact_since_ms = self.now_ms()
            elif self.now_ms() - self.contact_since_ms >= CONTACT_MS:
                self.told_until_ms = self.now_ms() - CONTACT_MS
            await asyncio.sleep(CONTACT_STEP_MS / 1000)

    def resync_begins(self, source: Replica, target: Replica) -> None:
        for one in self.acked.values():
            given_up = one.number in target.disk.writes and one.number not in source.disk.writes
            if given_up and one.number not in self.excused:
                self.fail(f"a resync from {source.node} discards {one}")

    async def clients(self) -> None:
        """Write wherever an address answers, all the time."""
        while True:
            await asyncio.sleep(self.random.uniform(0.1, 0.5))
            for node in self.nodes.values():
                if node.serves and not node.frozen:
                    self._number += 1
                    self.spawn(self._write(node.name, self._number))

    async def _write(self, node: str, number: int) -> None:
        try:
            async with asyncio.timeout(10.0):
                copies = await self.pair.write(node, number)
        except (ConnectionError, TimeoutError):
            return
        self.acked[number] = Acked(number, node, copies, self.now_ms())

    def _check_app(self, reasons: dict[str, list[str]]) -> None:
        if APP not in self.config.services:
            return
        serving = [name for name, node in self.nodes.items() if node.up and node.running >= set(APP_RESOURCES)]
        if serving != ["nodo2"] or self.nodes["nodo1"].running & set(APP_RESOURCES):
            self.fail(f"{APP} runs on {serving}, {reasons}")

    def check_end(self) -> None:
        """After everything was repaired and has had time."""
        serving = [name for name, node in self.nodes.items() if node.serves]
        split = any(one.split_brain for one in self.pair.replicas.values())
        reasons = {
            name: [decision.reason for decision in node.plan.decisions.values()] for name, node in self.nodes.items()
        }
        if len(serving) != 1:
            self.fail(f"it runs on {serving}, split brain: {split}, {reasons}")
        self._check_app(reasons)
        primaries = [one.node for one in self.pair.replicas.values() if one.role == "Primary"]
        if primaries != serving:
            self.fail(f"Primaries {primaries}, serving {serving}")
        held = set.union(*(disk.writes for disk in self.pair.disks.values()))
        if lost := [one for one in self.acked.values() if one.number not in held]:
            self.fail(f"no disk has {lost[:3]}")
        if split and self.careful:
            self.fail("a split brain although nobody goes on alone without asking")
        if split:
            if self.strict and all(rule != "boot_alone" for _, _, rule in self.promotions):
                self.fail("a split brain although nothing was cut")
            return
        if serving != ["nodo1"]:
            self.fail(f"it did not go back home: {reasons}")
        home = self.pair.disks["nodo1"].writes
        lost = [one for one in self.acked.values() if one.number not in home and one.number not in self.excused]
        if lost:
            self.fail(f"nodo1 has not {lost[:3]}")
        if self.pair.disks["nodo1"].state != "UpToDate" or not all(one.live for one in self.pair.replicas.values()):
            self.fail("the mirrors did not become one again")
