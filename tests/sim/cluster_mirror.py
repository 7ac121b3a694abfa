"""An abstract mirror for the cluster simulation: two disks, generations, resync, split brain; no blocks, no packets.

A disk holds a set of write numbers. What it keeps through a crash is what `Disk` holds; a `Replica` is one life of the
mirror's process. The decisions at the handshake are DRBD's, reduced to what the arbiter depends on.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
from collections.abc import Iterator

from relevo.agents.base import AgentFailed
from relevo.base.control import Refused
from relevo.manager.model import MirrorFacts

LIVE = {"Connected", "SyncSource", "SyncTarget"}


@dataclasses.dataclass
class Disk:
    writes: set[int] = dataclasses.field(default_factory=set)
    state: str = "UpToDate"
    current: int = 2
    bitmap: int = 0
    history: set[int] = dataclasses.field(default_factory=set)
    primary: bool = False
    epoch: int = 0
    out_of_sync: int = 0


class Replica:
    """One life of a mirror's process on one node."""

    def __init__(self, pair: Pair, node: str) -> None:
        self.pair = pair
        self.node = node
        self.disk = pair.disks[node]
        self.began_ms = pair.world.now_ms()
        self.was_primary_at_start = self.disk.primary
        self.role = "Secondary"
        self.connection = "WFConnection"
        self.split_brain = False
        self.peer_lost = False
        self.suspended = False
        self.expired = False
        self.frozen = False
        self.links = 0
        self._changing = False
        self.changed = asyncio.Event()

    @property
    def peer(self) -> Replica | None:
        return self.pair.replicas.get(self.pair.other(self.node))

    @property
    def live(self) -> bool:
        return self.connection in LIVE

    def facts(self) -> MirrorFacts:
        peer = self.peer if self.live else None
        return MirrorFacts(
            role=self.role,
            peer_role=self.pair.told_role[self.node] if self.live else "Unknown",
            connection=self.connection,
            disk=self.disk.state,
            peer_disk=peer.disk.state if peer is not None else "DUnknown",
            current_uuid=f"{self.disk.current:016X}",
            bitmap_uuid=f"{self.disk.bitmap:016X}",
            out_of_sync_bytes=self.disk.out_of_sync * 4096,
            split_brain=self.split_brain,
            suspended=self.suspended,
            epoch=self.disk.epoch,
            links=self.links,
            was_primary_at_start=self.was_primary_at_start,
            peer_lost_since_connect=self.peer_lost,
            outdated=self.disk.state == "Outdated",
        )

    def notify(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()
        self.pair.notify(self.node)

    @contextlib.contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        """A change of the role is refused while another one is under way."""
        if self._changing:
            raise Refused("CommandInProgress", "the mirror is just changing its role")
        self._changing = True
        try:
            yield
        finally:
            self._changing = False

    async def primary(self, epoch: int, *, force: bool, linked: bool) -> None:
        with self._one_at_a_time():
            await self._primary(epoch, force=force, linked=linked)

    async def _primary(self, epoch: int, *, force: bool, linked: bool) -> None:
        await asyncio.sleep(self.pair.random.uniform(0.005, 0.03))
        self._still_here()
        if epoch < self.disk.epoch:
            raise Refused("AlreadyDenied", "a higher epoch was seen")
        while self.live and not self.pair.reachable():
            await self.changed.wait()  # a cluster-wide change waits for the answer, or for the end of the connection
            self._still_here()
        if self.live and self.peer is not None:
            if self.peer.role == "Primary":
                raise Refused("PeerIsPrimary", "the peer is Primary")
            self.pair.told_role[self.peer.node] = "Primary"
        if self.disk.state != "UpToDate" and not force:
            raise Refused("DataNotUpToDate", f"the disk is {self.disk.state}")
        if linked and not self.live:
            raise Refused("PeerLost", "the connection was lost")
        self.disk.state = "UpToDate"
        self.disk.epoch = epoch
        self.role = "Primary"
        self.disk.primary = True
        if not self.live:
            self.new_generation()
        self.pair.promoted(self)
        self.notify()

    def _still_here(self) -> None:
        if self.pair.replicas.get(self.node) is not self:
            raise AgentFailed("the mirror's process has ended")

    async def secondary(self) -> None:
        with self._one_at_a_time():
            await self._secondary()

    async def _secondary(self) -> None:
        await asyncio.sleep(self.pair.random.uniform(0.005, 0.03))
        self._still_here()
        self.role = "Secondary"
        self.suspended = self.expired = False
        self.disk.primary = False
        if self.live and self.peer is not None:
            self.pair.told_role[self.peer.node] = "Secondary"
            self.peer.notify()
        self.notify()

    def outdate(self, links: int) -> bool:
        """Whether the copy is marked Outdated."""
        if self.live or links != self.links or self.role != "Secondary":
            return False
        if self.disk.state == "UpToDate":
            self.disk.state = "Outdated"
            self.notify()
        return True

    def outdate_to_leave(self) -> bool:
        """Whether the copy is marked Outdated, link or not."""
        if self.role != "Secondary":
            return False
        if self.disk.state == "UpToDate":
            self.disk.state = "Outdated"
            self.notify()
            if self.peer is not None:
                self.peer.notify()
        return True

    def new_generation(self) -> None:
        if self.disk.bitmap == 0:
            self.disk.bitmap = self.disk.current
        else:
            self.disk.history.add(self.disk.current)
        self.disk.current = self.pair.fresh_generation()

    def lost(self, *, goodbye: bool = False) -> None:
        """The connection has ended."""
        if not self.live:
            return
        whole = self.connection == "Connected"
        self.connection = "WFConnection"
        self.peer_lost = not goodbye and self.disk.state == "UpToDate"
        if self.role == "Primary" and self.pair.ask and whole:
            self.suspended = True
        elif self.role == "Primary":
            self.new_generation()
        self.notify()

    def allow_alone(self, epoch: int, links: int) -> None:
        """Writes may be completed without the peer."""
        if links != self.links:
            return
        if self.role == "Primary" and self.suspended and not self.live and epoch >= self.disk.epoch:
            self.disk.epoch = epoch
            self.suspended = False
            self.new_generation()
            self.notify()

    def deny_alone(self) -> None:
        """What waits for permission fails."""
        if self.suspended and not self.live:
            self.suspended, self.expired = False, True
            self.notify()


class Pair:
    """Both disks, the connection between them, and what the checker wants to know."""

    def __init__(self, world: object, nodes: tuple[str, str], rng: random.Random, *, ask: bool = False) -> None:
        self.world = world
        self.ask = ask
        self.nodes = nodes
        self.random = rng
        self.disks = {node: Disk() for node in nodes}
        self.replicas: dict[str, Replica] = {}
        self.told_role = dict.fromkeys(nodes, "Unknown")
        self.cut = False
        self.syncing: asyncio.Task[None] | None = None

    def other(self, node: str) -> str:
        return self.nodes[1] if node == self.nodes[0] else self.nodes[0]

    def fresh_generation(self) -> int:
        return self.random.getrandbits(62) << 1 | 1 << 63

    def notify(self, node: str) -> None:
        self.world.mirror_changed(node)

    def promoted(self, replica: Replica) -> None:
        self.world.promoted(replica)

    def reachable(self) -> bool:
        return not self.cut and len(self.replicas) == 2 and not any(one.frozen for one in self.replicas.values())

    def start(self, node: str) -> None:
        self.replicas[node] = Replica(self, node)
        self.notify(node)

    def stop(self, node: str, *, silent: bool) -> None:
        """The process has ended: by a power cut (silent) or a kill (the peer sees a reset)."""
        gone = self.replicas.pop(node, None)
        if gone is None:
            return
        gone.connection = "gone"
        gone.changed.set()
        self.notify(node)
        peer = self.replicas.get(self.other(node))
        if peer is not None and peer.live:
            self._end_later(peer, self.random.uniform(0.5, 6.0) if silent or self.cut else 0.005)

    def cut_link(self) -> None:
        self.cut = True
        for one in self.replicas.values():
            if one.live:
                self._end_later(one, self.random.uniform(0.5, 6.0))

    def cut_or_frozen(self) -> None:
        """Somebody does not answer any more: the others notice after a while."""
        for one in self.replicas.values():
            if one.live and not one.frozen:
                self._end_later(one, self.random.uniform(0.5, 6.0))

    def resume(self, node: str) -> None:
        """A process that stood still runs again: what its peer gave up meanwhile is a reset to it."""
        one = self.replicas.get(node)
        if one is not None and one.live and (one.peer is None or not one.peer.live):
            one.lost()

    def probe(self, node: str) -> None:
        """An answer is asked for now; a connection without one ends within half a second."""
        one = self.replicas.get(node)
        if one is not None and one.live and not self.reachable():
            self._end_later(one, 0.5)

    def _end_later(self, replica: Replica, seconds: float) -> None:
        async def end() -> None:
            await asyncio.sleep(seconds)
            if replica.live and not self.reachable():
                replica.lost()

        self.world.spawn(end())

    async def connect_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.random.uniform(0.2, 0.5))
            for one in self.replicas.values():
                peer = one.peer
                if one.live and (peer is None or not peer.live) and not self.cut and not one.frozen:
                    one.lost()  # the other end is gone or has given up: this end hears a reset
            if self.reachable() and all(one.connection == "WFConnection" for one in self.replicas.values()):
                self._handshake(*(self.replicas[node] for node in self.nodes))

    def _direction(self, a: Replica, b: Replica) -> Replica | str | None:
        """Who has the newer data: a replica, None when both have the same, or `split`."""
        mine, theirs = a.disk, b.disk
        if mine.current == theirs.current:
            if a.role == b.role == "Primary":
                return "split"
            marks = [one for one in (a, b) if one.role == "Primary"] or [one for one in (a, b) if one.disk.primary]
            inconsistent = [one for one in (a, b) if one.disk.state == "Inconsistent"]
            if inconsistent:
                return a if inconsistent[0] is b else b
            return marks[0] if marks else None
        if mine.current == theirs.bitmap or mine.current in theirs.history:
            return b
        if theirs.current == mine.bitmap or theirs.current in mine.history:
            return a
        return "split"

    def _handshake(self, a: Replica, b: Replica) -> None:
        source = self._direction(a, b)
        target = None if source is None or source == "split" else (b if source is a else a)
        if target is not None and (target.suspended or target.expired):
            return  # it depends on its device: it is connected when the device is gone
        if source == "split" or (target is not None and target.role == "Primary"):
            for one in (a, b):
                one.connection, one.split_brain = "StandAlone", True
                one.notify()
            return
        for one in (a, b):
            one.peer_lost = False
            one.disk.primary = one.role == "Primary"
            self.told_role[one.node] = self.other_role(one)
            one.connection = "Connected"
            one.links += 1
            one.suspended = one.expired = False
        if target is None:
            if "Inconsistent" not in {a.disk.state, b.disk.state}:
                a.disk.state = b.disk.state = "UpToDate"
        else:
            assert isinstance(source, Replica)
            self.world.resync_begins(source, target)
            source.connection, target.connection = "SyncSource", "SyncTarget"
            target.disk.state = "Inconsistent"
            self.syncing = self.world.spawn(self._resync(source, target))
        for one in (a, b):
            one.notify()

    def other_role(self, one: Replica) -> str:
        assert one.peer is not None
        return one.peer.role

    async def _resync(self, source: Replica, target: Replica) -> None:
        await asyncio.sleep(self.random.uniform(0.2, 5.0))
        while not self.reachable():
            if not (source.live and target.live):
                return
            await asyncio.sleep(0.1)
        if source.connection != "SyncSource" or target.connection != "SyncTarget":
            return
        if self.replicas.get(source.node) is not source or self.replicas.get(target.node) is not target:
            return
        target.disk.writes = set(source.disk.writes)
        target.disk.history = source.disk.history | {source.disk.bitmap}
        source.disk.history.add(source.disk.bitmap)
        target.disk.current, target.disk.bitmap, source.disk.bitmap = source.disk.current, 0, 0
        source.disk.out_of_sync = target.disk.out_of_sync = 0
        source.disk.state = target.disk.state = "UpToDate"
        source.connection = target.connection = "Connected"
        source.notify()
        target.notify()

    async def write(self, node: str, number: int) -> int:
        """A client's write to the Primary there: the number of copies that have it when it is acknowledged.

        Raises:
            ConnectionError: there is no Primary there any more.
        """
        while True:
            one = self.replicas.get(node)
            if one is None or one.role != "Primary" or one.frozen:
                raise ConnectionError(node)
            if one.expired:
                raise ConnectionError(node)
            if not one.live and one.suspended:
                await one.changed.wait()
                continue
            if not one.live:
                one.disk.writes.add(number)
                one.disk.out_of_sync += 1
                return 1
            if self.reachable() and one.peer is not None and one.peer.live:
                one.disk.writes.add(number)
                one.peer.disk.writes.add(number)
                return 2 if one.peer.disk.state == "UpToDate" else 1
            await one.changed.wait()
