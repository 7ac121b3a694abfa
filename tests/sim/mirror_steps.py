"""Every step of a short story as the place where something goes wrong, one after the other.

The story: two new copies meet, one becomes Primary, writes, flushes and discards; the link breaks and heals (resync);
the roles change; it writes again. It always takes the same course until the fault strikes, so that "at step 123" is the
same moment in every run: after the 123rd event of a core and all that it led to, or before the 123rd packet arrives.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from mirror_faults import Story
from mirror_world import Plan, World

if TYPE_CHECKING:
    from mirror_world import Node

Kind = Literal["power", "kill", "worker", "both", "disk", "link"]
STRIKES: tuple[tuple[Kind, int], ...] = (
    *(("power", 0), ("power", 1), ("kill", 0), ("kill", 1), ("worker", 0), ("worker", 1)),
    *(("both", 0), ("disk", 0), ("disk", 1), ("link", 0)),
)
"""What happens, and to which node. `link` strikes between packets, the others between events."""
BACK_MS = 60
STORY_MS = 420
WRITES_EVERY_MS = 9


@dataclasses.dataclass(frozen=True)
class Strike:
    """One fault at one step."""

    kind: Kind
    node: int
    step: int

    def __str__(self) -> str:
        return f"{self.kind}:{self.node}:{self.step}"

    @classmethod
    def parse(cls, text: str) -> Strike:
        kind, node, step = text.split(":")
        return cls(kind, int(node), int(step))  # type: ignore[arg-type]


class ShortStory(Story):
    """The same few things in the same order, and one fault."""

    def __init__(self, world: World, strike: Strike | None) -> None:
        super().__init__(world)
        self.strike = strike
        self.events = 0
        self.packets = 0
        self.told = (0, 0)
        world.after_event = self._after_event
        world.before_packet = self._before_packet

    def run(self) -> None:
        world = self.world
        for node in world.nodes:
            node.start()
        world.manager.start()
        world.after(5, self._work)
        world.after(150, self._break)
        world.after(290, self._hand_over)
        world.run_until(STORY_MS)
        self.told = (self.events, self.packets)
        self._reckon()

    def _work(self) -> None:
        if not self.working:
            return
        for node in self.world.nodes:
            if node.alive and node.device == "up" and len(node.requests) < 3:
                self._request(node)
        self.world.after(WRITES_EVERY_MS, self._work)

    def _break(self) -> None:
        node = self.world.nodes[0]
        if node.alive and node.wire is not None:
            node._drop()

    def _hand_over(self) -> None:
        self.world.manager.hand_over = True

    # ------------------------------------------------------------ the fault

    def _after_event(self) -> None:
        self.events += 1
        if self.strike is not None and self.strike.kind != "link" and self.events == self.strike.step:
            self.world.at_once(self._hit)

    def _before_packet(self) -> bool:
        """True: it is lost, and so is the link."""
        self.packets += 1
        if self.strike is None or self.strike.kind != "link" or self.packets != self.strike.step:
            return False
        for node in self.world.nodes:
            if node.alive and node.wire is not None:
                node._drop()
        return True

    def _hit(self) -> None:
        world, strike = self.world, self.strike
        assert strike is not None
        world.say(f"strike: {strike}")
        node = world.nodes[strike.node]
        if strike.kind == "both":
            for each in world.nodes:
                self._down(each, power=True, back_ms=BACK_MS)
        elif strike.kind == "disk":
            if node.alive:
                node.disk.failing = True
                world.after(BACK_MS, lambda: self._repair(node))
        elif strike.kind == "worker":
            self._kill_worker(node)
        else:
            self._down(node, power=strike.kind == "power", back_ms=BACK_MS)

    def _kill_worker(self, node: Node) -> None:
        if node.alive:
            node.stop(power=False, keep_device=True)
            self.world.after(BACK_MS // 3, lambda: None if node.alive else self._start(node))


def tell(plan: Plan, strike: Strike | None) -> ShortStory:
    """One run. Raises what a checker found."""
    world = World(plan)
    story = ShortStory(world, strike)
    try:
        story.run()
    except BaseException:
        world.print_lines()
        raise
    return story


def strikes(plan: Plan, every: int = 1, first: int = 1) -> list[Strike]:
    """Every fault at every step (or at some of them) of the story as it goes when nothing goes wrong."""
    events, packets = tell(dataclasses.replace(plan, trace=False), None).told
    return [
        Strike(kind, node, step)
        for kind, node in STRIKES
        for step in range(first, (packets if kind == "link" else events) + 1, every)
    ]
