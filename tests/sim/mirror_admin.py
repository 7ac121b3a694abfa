"""The administrator in a run: verifies, pauses, gives up copies, changes the speed, whenever it comes to his mind."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from mirror_client import DataLost
from mirror_disk import BLOCK

from relevo.mirror import events as e
from relevo.mirror.states import Connection

if TYPE_CHECKING:
    from mirror_world import Node, World

KINDS = ("verify", "verify", "stop", "pause", "speed", "invalidate", "invalidate_remote", "resync")


class Administrator:
    """Gives commands to nodes of one world; most are refused, as they should be in the state that they meet."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = random.Random(world.plan.seed)  # of its own: without him a seed is the run that it was
        self.active = True
        self.granted: dict[str, int] = {}

    def start(self) -> None:
        self.world.after(self.rng.randint(20, 200), self._act)

    def _act(self) -> None:
        if not self.active:
            return
        node, kind = self.rng.choice(self.world.nodes), self.rng.choice(KINDS)
        if node.alive:
            self._command(node, kind)
        self.world.after(self.rng.choice((10, 60, 200, 500)), self._act)

    def _command(self, node: Node, kind: str) -> None:
        world, rng, now = self.world, self.rng, self.world.now
        first = rng.choice((0, 0, rng.randrange(20_000))) * BLOCK
        makers: dict[str, Any] = {
            "verify": lambda token: e.Verify(now, token, first, 0, repair=rng.random() < 0.5),
            "stop": lambda token: e.StopVerify(now, token),
            "pause": lambda token: e.PauseResync(now, token, paused=True),
            "resume": lambda token: e.PauseResync(now, token, paused=False),
            "speed": lambda token: e.ResyncSpeed(now, token, rng.choice(("auto", "fast", "gentle"))),
            "invalidate": lambda token: e.Invalidate(now, token, peer=False),
            "invalidate_remote": lambda token: e.Invalidate(now, token, peer=True),
            "resync": lambda token: e.Resync(now, token),
        }
        world.say(f"administrator: {kind} on {node}")
        node.command(makers[kind], lambda error: self._answered(kind, error))
        if kind == "pause":
            world.after(rng.choice((20, 100, 300)), lambda: self._command(node, "resume") if node.alive else None)

    def _answered(self, kind: str, error: Any) -> None:
        if error is None:
            self.granted[kind] = self.granted.get(kind, 0) + 1

    def look(self, node: Node) -> None:
        """Nobody changes blocks behind the mirror's back: whatever a verify reports is a false alarm."""
        last = node.core.status()["last_verify"]
        if isinstance(last, dict) and last["blocks"]:
            raise DataLost(f"{node}: a verify reported blocks that are equal: {last}")

    def rest(self) -> None:
        """No more commands; nothing stays paused."""
        self.active = False
        for node in self.world.nodes:
            if node.alive and node.state.user_isp:
                self._command(node, "resume")
            if node.alive and node.state.conn is Connection.VERIFY_S:
                self._command(node, "stop")
            if node.alive and node.core._resync.pace.limits is not node.core._resync.configured:
                node.command(lambda token: e.ResyncSpeed(self.world.now, token, "auto"))

    def busy(self) -> bool:
        """A verify is still running."""
        return any(n.alive and n.state.conn in {Connection.VERIFY_S, Connection.VERIFY_T} for n in self.world.nodes)
