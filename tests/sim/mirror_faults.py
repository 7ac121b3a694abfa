"""The course of one run: an application at work, faults, then peace, and the reckoning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mirror_client import DataLost, Record
from mirror_disk import BLOCK

from relevo.mirror import events as e
from relevo.mirror.states import Connection, Disk

if TYPE_CHECKING:
    from mirror_world import Node, World

HOT_EXTENTS = 12
DEPTH = 12
SETTLE_MS = 15_000


class NotSettled(AssertionError):
    """The pair did not come to rest."""


class Story:
    """Drives one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = world.rng
        self.value = 0
        self.faults = True
        self.working = True
        self.in_flight = 0
        self.hot = [
            extent * 1024 + self.rng.choice((0, 1, 500, 1021, 1023))
            for extent in self.rng.sample(range(HOT_EXTENTS * 2), HOT_EXTENTS)
        ]

    def run(self) -> None:
        world = self.world
        for node in world.nodes:
            node.start()
        world.manager.start()
        world.administrator.start()
        world.after(5, self._work)
        world.after(self.rng.randint(60, 300), self._fault)
        world.run_until(world.plan.duration_ms)
        self._reckon()

    # ------------------------------------------------------------ the application

    def _work(self) -> None:
        if not self.working:
            return
        for node in self.world.nodes:
            if node.alive and node.device == "up" and len(node.requests) < DEPTH:
                for _ in range(self.rng.randint(1, 4)):
                    self._request(node)
        self.world.after(self.rng.randint(0, 12), self._work)

    def _request(self, node: Node) -> None:
        kind = self.rng.random()
        if kind < 0.60:
            self._write(node)
        elif kind < 0.78:
            self._read(node)
        elif kind < 0.93:
            self._flush(node)
        else:
            self._discard(node)

    def _place(self) -> tuple[int, int]:
        block = self.rng.choice(self.hot) + self.rng.choice((0, 0, 0, 1))
        count = self.rng.choice((1, 1, 1, 2, 4))
        return min(block, 24 * 1024 - count), count

    def _write(self, node: Node) -> None:
        world = self.world
        block, count = self._place()
        self.value += 1
        value = self.value
        records = [world.model.issue(block + i, value) for i in range(count)]
        token = world.next_token()
        node.ask(
            token,
            lambda effect: self._written(node, effect, records),
            lambda: e.AppWrite(world.now, token, block * BLOCK, count * BLOCK, [value] * count),
        )

    def _discard(self, node: Node) -> None:
        world = self.world
        block, count = self._place()
        records = [world.model.issue(block + i, 0) for i in range(count)]
        token = world.next_token()
        zero = self.rng.random() < 0.5
        node.ask(
            token,
            lambda effect: self._written(node, effect, records),
            lambda: e.AppDiscard(world.now, token, block * BLOCK, count * BLOCK, zero),
        )

    def _written(self, node: Node, effect: e.CompleteRequest, records: list[Record]) -> None:
        if effect.errno:
            return
        for record in records:
            self.world.model.acknowledge(record)
        self.world.acknowledged_by(node)

    def _flush(self, node: Node) -> None:
        world = self.world
        covered = world.model.unflushed()
        token = world.next_token()

        def done(effect: e.CompleteRequest) -> None:
            if not effect.errno:
                world.model.flushed(covered)

        node.ask(token, done, lambda: e.AppFlush(world.now, token))

    def _read(self, node: Node) -> None:
        world = self.world
        block, count = self._place()
        allowed = [world.model.allowed(block + i) for i in range(count)]
        token = world.next_token()

        def done(effect: e.CompleteRequest) -> None:
            if effect.errno:
                return
            for i, value in enumerate(effect.buffer):
                after = world.model.allowed(block + i)
                world.model.check(block + i, value, allowed[i] | after, f"{world.now} read on {node}")

        node.ask(token, done, lambda: e.AppRead(world.now, token, block * BLOCK, count * BLOCK, None))

    # ------------------------------------------------------------ faults

    def _fault(self) -> None:
        if not self.faults:
            return
        world, rng = self.world, self.rng
        kind = rng.choice(world.plan.faults)
        node = rng.choice(world.nodes)
        world.say(f"fault: {kind} {node}")
        if kind in {"cut", "slow", "outage", "leave", "hand_over"}:
            self._trouble(kind, node)
        else:
            self._loss(kind, node)
        world.after(rng.choice((5, 50, 150, 300, 500)), self._fault)

    def _loss(self, kind: str, node: Node) -> None:
        """Something breaks."""
        world, rng = self.world, self.rng
        if kind in {"power", "kill"}:
            self._down(node, power=kind == "power", back_ms=rng.choice((20, 100, 400, 1200)))
        elif kind == "blackout":
            for each in world.nodes:
                self._down(each, power=True, back_ms=rng.choice((50, 300, 800)))
        elif kind.startswith("worker"):
            self._worker(node)
            if kind == "worker and power":
                self._down(world.nodes[1 - node.number], power=True, back_ms=rng.choice((20, 100, 400)))
        elif kind == "bad disk" and node.alive and all(each.both_good for each in world.nodes):
            node.trouble.begin(rng.choice(("read", "write", "write", "flush", "meta", "dead")), rng.randint(1, 3))
        elif kind == "hung disk" and node.alive and all(each.both_good for each in world.nodes):
            node.trouble.begin("hang", 1)
        elif kind == "disk" and node.alive and not node.disk.failing:
            other = world.nodes[1 - node.number]
            if not other.disk.failing and (not other.alive or other.state.disk > Disk.FAILED):
                node.disk.failing = True  # two at once would lose data
                world.after(rng.choice((100, 400)), lambda: self._repair(node))

    def _trouble(self, kind: str, node: Node) -> None:
        """The network, or somebody who changes something."""
        world, rng = self.world, self.rng
        if kind == "slow":
            world.slow_until = world.now + rng.choice((20, 100, 400))
        elif kind == "cut" and not world.cut:
            world.cut_link()
            world.after(rng.choice((10, 100, 300, 900)), self._heal)
        elif kind == "hand_over":
            world.manager.hand_over = True
        elif kind == "leave" and node.alive and not node.is_primary:
            self._leave(node)
        elif kind == "outage" and node.alive and node.wire is not None:
            node._drop()

    def _heal(self) -> None:
        if self.world.cut:
            self.world.heal_link()

    def _worker(self, node: Node) -> None:
        """The process is killed, and started anew under its device; that dies again, or does not work out."""
        rng = self.rng
        if node.alive:
            node.stop(power=False, keep_device=True)
            self.world.after(rng.choice((1, 20, 150)), lambda: None if node.alive else self._start(node))
            if rng.random() < 0.3:
                self.world.after(rng.randint(1, 200), lambda: self._worker(node))
        elif node.device == "waiting" and rng.random() < 0.3:
            node.lose_device()  # it took too long

    def _repair(self, node: Node) -> None:
        """The disk works again; the process has to be started anew for that."""
        if node.disk.failing:
            self._down(node, power=False, back_ms=self.rng.choice((20, 300)))

    def _down(self, node: Node, *, power: bool, back_ms: int) -> None:
        if not node.alive:
            if power and node.device == "waiting":
                node.lose_power_between_two_processes()
            return
        node.stop(power=power)
        self.world.after(back_ms, lambda: None if node.alive else self._start(node))

    def _start(self, node: Node) -> None:
        self.world.say(f"{node} starts")
        node.start()

    def _leave(self, node: Node) -> None:
        """In order: disconnect and come back, or end the process."""
        world, incarnation = self.world, node.incarnation
        if self.rng.random() < 0.5:

            def back(_: object) -> None:
                if node.incarnation == incarnation:
                    node.later(200, lambda: node.command(lambda token: e.Connect(world.now, token)))

            go = e.Leave if world.now % 2 else e.Disconnect  # by the clock: earlier seeds keep their dice
            node.command(lambda token: go(world.now, token), back)
        else:
            node.command(lambda token: e.Down(world.now, token), lambda _: None)
            world.after(700, lambda: None if node.alive else self._start(node))

    # ------------------------------------------------------------ the reckoning

    def _reckon(self) -> None:
        """Peace: everything comes back, the copies become equal, and hold what they have to."""
        world = self.world
        self.faults = False
        self._heal()
        world.administrator.active = False
        end = world.now + SETTLE_MS
        while world.now < end:
            world.run_until(world.now + 100)
            world.administrator.rest()
            for node in world.nodes:
                if not node.alive:
                    self._start(node)
                elif node.state.split_brain and world.plan.alone == "ask":
                    raise DataLost(f"{node}: split brain although every step was voted for")
                elif node.state.conn is Connection.STANDALONE and not node.state.split_brain and node.state.attached:
                    node.command(lambda token: e.Connect(world.now, token))
            if self._at_rest() and not world.administrator.busy():
                self.working = False
                if not any(node.requests for node in world.nodes):
                    break
        else:
            views = [(str(n), n.state.role.name, n.state.conn.name, n.state.disk.name) for n in world.nodes]
            raise NotSettled(f"after {SETTLE_MS} ms: {views}, register {world.manager.in_sync}")
        world.run_until(world.now + 300)
        self._compare()

    def _at_rest(self) -> bool:
        return all(node.both_good for node in self.world.nodes) and any(node.is_primary for node in self.world.nodes)

    def _compare(self) -> None:
        world = self.world
        a, b = (node.disk.now for node in world.nodes)
        for block in sorted(set(a) | set(b)):
            if a.get(block, 0) != b.get(block, 0):
                raise DataLost(f"the copies differ at block {block}: {a.get(block, 0)} and {b.get(block, 0)}")
        for block in world.model.blocks:
            world.model.check(block, a.get(block, 0), world.model.allowed(block), "at the end")
