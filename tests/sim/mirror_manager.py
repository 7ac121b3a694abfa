"""Who may be Primary: a register as the witness keeps it (`alone = "ask"`), or perfect knowledge (`alone = "risk"`).

The register is {epoch, in sync}. It is changed by compare-and-swap only: a node that wants to go on alone, or to take
over without an orderly hand-over, has to be in it and makes itself the only one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relevo.mirror import events as e
from relevo.mirror.local_io import Gate
from relevo.mirror.states import Connection, Disk

if TYPE_CHECKING:
    from mirror_world import Node, World


class Manager:
    """Looks at both nodes every now and then and gives commands."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.epoch = 0
        self.in_sync = {0, 1}
        self.busy: set[tuple[int, int]] = set()
        self.hand_over = False

    def start(self) -> None:
        self.world.after(self.world.rng.randint(10, 60), self._look)

    def _look(self) -> None:
        world = self.world
        primaries = [node for node in world.nodes if node.is_primary]
        self._look_at_disks(primaries)
        if world.plan.alone == "ask":
            for node in primaries:
                if node.alive:
                    self._watch(node)
        if world.plan.alone == "risk":
            self._resolve(primaries)
        if not primaries:
            self._choose()
        elif self.hand_over and all(node.both_good for node in world.nodes):
            self.hand_over = False
            self._demote(primaries[0])
        world.after(world.rng.randint(10, 60), self._look)

    def _look_at_disks(self, primaries: list[Node]) -> None:
        """A Primary without any data is taken down; a copy that is not whole is connected anew."""
        for node in primaries:
            if node.core._local.gate is Gate.NO_DATA and self.world.rng.random() < 0.1:
                self._demote(node)
        for node in self.world.nodes:
            if node.alive and self.world.rng.random() < 0.1:
                node.trouble.look()

    def _command(self, node: Node, make: Any, done: Any = lambda _: None) -> None:
        key = (node.number, node.incarnation)
        if key in self.busy:
            return
        self.busy.add(key)

        def finished(error: Any) -> None:
            self.busy.discard(key)
            done(error)

        node.command(make, finished)

    def _demote(self, node: Node) -> None:
        """An orderly demotion leaves everything stable on both."""
        world = self.world

        def done(error: Any) -> None:
            good = Disk.UP_TO_DATE in {node.state.disk, node.state.peer_disk}
            if error is None and good and node.state.link and node.state.settled:
                world.model.flushed(world.model.unflushed())

        self._command(node, lambda token: e.Demote(world.now, token), done)

    def _watch(self, node: Node) -> None:
        """A Primary: in the register, or asking to stay there alone, or to be taken down."""
        world, gate = self.world, node.core._local.gate
        if node.number not in self.in_sync or gate is Gate.EXPIRED:
            self._demote(node)
        elif gate is Gate.ASKING:
            if world.rng.random() < 0.5:
                self.in_sync = {node.number}
                self.epoch += 1
                epoch = self.epoch
                self._command(node, lambda token: e.AllowAlone(world.now, token, epoch))
        elif node.both_good:
            self.in_sync = {0, 1}

    def _choose(self) -> None:
        """No Primary: who may become it?"""
        world = self.world
        if any((node.number, node.incarnation) in self.busy for node in world.nodes):
            return  # one at a time
        fit = [node for node in world.nodes if node.alive and node.state.disk is Disk.UP_TO_DATE]
        if world.plan.alone == "ask":
            fit = [node for node in fit if node.number in self.in_sync]
        else:
            fit = [node for node in fit if self._holds(node)]
        if not fit:
            return
        node = world.rng.choice(fit)
        if not all(n.both_good for n in world.nodes if n.alive) or not all(n.alive for n in world.nodes):
            if world.rng.random() < 0.7:
                return  # wait a little: the other may come back
            self.in_sync = {node.number}
        self.epoch += 1
        epoch = self.epoch
        self._command(node, lambda token: e.Promote(world.now, token, force=False, epoch=epoch))

    def _resolve(self, primaries: list[Node]) -> None:
        """After a split brain (a Primary died while it went alone): the side that has everything keeps its data."""
        world = self.world
        for node in world.nodes:
            if not node.alive or not node.state.split_brain or node.state.conn is not Connection.STANDALONE:
                continue
            keeps = node in primaries or (not primaries and self._holds(node) and world.leaders == {node.number})
            kind = e.Keep if keeps else e.Discard
            self._command(node, lambda token, kind=kind: kind(world.now, token))

    def _holds(self, node: Node) -> bool:
        """With `risk` nobody votes: only a copy known to have everything is promoted."""
        holders = self.world.holders
        last = node.state.was_primary_at_start and self.world.leaders == {node.number}
        return not holders or (node.number, node.incarnation) in holders or last
