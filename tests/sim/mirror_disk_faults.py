"""Disks that fail: single errors, or dead from now on; then the same disk comes back, or a blank one instead of it."""

from __future__ import annotations

import errno as errnos
from typing import TYPE_CHECKING, Any

from mirror_disk import written

from relevo.mirror import events as e
from relevo.mirror.states import Connection, Disk

if TYPE_CHECKING:
    from mirror_world import Node

KINDS: dict[str, tuple[type, ...]] = {
    "read": (e.DiskRead,),
    "write": (e.DiskWrite, e.DiskDiscard),
    "flush": (e.DiskFlush,),
    "meta": (e.WriteSuperblock, e.WriteActivityLog, e.WriteBitmap),
    "dead": (
        *(e.DiskRead, e.DiskWrite, e.DiskDiscard, e.DiskFlush),
        *(e.WriteSuperblock, e.WriteActivityLog, e.WriteBitmap),
    ),
}
KINDS["hang"] = (*KINDS["dead"], e.DiskReadThin, e.DiskDigest)
HANG_MS = 60
"""disk-timeout of the simulated shell."""


class DiskTrouble:
    """What is wrong with one node's disk. A disk fails only while the other copy is good: two failures lose data."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.kind = ""
        self.bad = 0
        self.seen = 0
        self.open = False
        self.hanging: list[tuple[Any, Any]] = []
        self.given_up = False

    def begin(self, kind: str, count: int) -> None:
        """The next operations of that kind fail (a dead disk: all of them)."""
        self.kind, self.bad = kind, count

    def end(self) -> None:
        """No more errors."""
        self.kind = ""

    def errno(self, effect: Any) -> int:
        """Whether this operation fails now."""
        if not self.kind or not isinstance(effect, KINDS[self.kind]):
            return 0
        others = [node.trouble for node in self.node.world.nodes if node is not self.node]
        good = all(node.both_good for node in self.node.world.nodes) and not any(other.hanging for other in others)
        if not self.seen and not good:
            self.end()
            return 0
        self.seen += 1
        self.bad -= 1
        if self.kind not in {"dead", "hang"} and self.bad <= 0:
            self.kind = ""
        return errnos.ETIMEDOUT if self.kind == "hang" else errnos.EIO

    def hangs(self, op: Any, effect: Any) -> bool:
        """Whether the disk does not answer this; the shell gives it up after a while, with everything under way."""
        if self.kind != "hang" or self.given_up:
            return False
        if not self.hanging:
            self.node.later(HANG_MS, self._give_up)
        self.hanging.append((op, effect))
        return True

    def _give_up(self) -> None:
        node, world = self.node, self.node.world
        world.say(f"{node}: the disk does not answer")
        self.given_up = True
        hanging, self.hanging = self.hanging, []
        for op, effect in hanging:
            self.lands_late(op)
            node.give(e.DiskDone(world.now, effect.token, errnos.ETIMEDOUT))

    def lands_late(self, op: Any) -> None:
        """What was given up comes to its end later, a write perhaps in part."""
        disk, rng = self.node.disk, self.node.world.rng

        def land() -> None:
            if op not in disk.in_flight:  # its power was cut
                return
            if isinstance(op.effect, e.DiskWrite | e.DiskDiscard):
                disk.in_flight.remove(op)
                for block, value in written(op.effect):
                    if rng.random() < 0.5:
                        disk.write(block, value)
            else:
                disk.finish(op)

        self.node.later(rng.randint(1, 200), land)

    def failed(self, op: Any) -> None:
        """An operation that failed may have left something."""
        disk, rng = self.node.disk, self.node.world.rng
        disk.in_flight.remove(op)
        if isinstance(op.effect, e.DiskWrite | e.DiskDiscard) and rng.random() < 0.5:
            for block, value in written(op.effect):
                if rng.random() < 0.5:
                    disk.write(block, value)

    # ------------------------------------------------------------ another disk

    def gone(self, token: Any) -> None:
        """The core gave the disk up."""
        node, world, self.open = self.node, self.node.world, False
        world.say(f"{node}: the disk is given up")
        node.later(1, lambda: node.give(e.DiskDone(world.now, token)))
        if {"bad disk", "hung disk"} & set(world.plan.faults):
            node.later(world.rng.choice((20, 100, 300)), self._again)

    def _again(self) -> None:
        """Put a disk in: the same one, or (if it is dead, and the other copy is there) a blank one."""
        node, world = self.node, self.node.world
        if self.open:
            return
        if node.disk.in_flight:
            node.later(5, self._again)
            return
        self.replace()
        self.open = True
        node.duties.entered.clear()  # a new activity log knows nothing of the old one

        def done(error: Any) -> None:
            world.say(f"{node}: a disk is put in: {error or 'ok'}")

        numbers = tuple(world.rng.getrandbits(64) for _ in range(8))
        node.command(lambda token: node.disk.attach(world.now, numbers, 0, token), done)

    def replace(self) -> None:
        """A dead disk is thrown away."""
        node, world = self.node, self.node.world
        blank = self.kind == "dead"
        self.end()
        self.seen = 0
        self.hanging, self.given_up = [], False
        if blank:
            world.say(f"{node}: the disk is replaced by a blank one")
            node.disk.blank()
            others = {holder for holder in world.holders if holder[0] != node.number}
            if others != world.holders and not others:
                world.model.all_copies_lost_power()
            world.holders = others

    def look(self) -> None:
        """An administrator who sees a copy that is not whole connects anew."""
        state = self.node.state
        if state.disk is Disk.INCONSISTENT and state.conn is Connection.CONNECTED:
            self.node._drop()
