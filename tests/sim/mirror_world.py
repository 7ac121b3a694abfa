"""Two mirrors, their disks, the link between them and an application: one seed is one whole run.

From the command line one seed is run again by mirror_seed.py.
"""

from __future__ import annotations

import dataclasses
import heapq
import random
import sys
from collections.abc import Callable
from errno import ETIMEDOUT
from typing import Any, Literal

from mirror_admin import Administrator
from mirror_client import DataLost, Model
from mirror_disk import BLOCK, EIO, SimDisk
from mirror_disk_faults import DiskTrouble
from mirror_duties import Duties
from mirror_manager import Manager

from relevo.config.drbd_options import DrbdOptions
from relevo.mirror import events as e
from relevo.mirror import packets as p
from relevo.mirror.core import Mirror, Settings
from relevo.mirror.metadata import MetaFlag
from relevo.mirror.state import SOURCE, STEADY
from relevo.mirror.states import Connection, Disk, Role
from relevo.mirror.uuids import JUST_CREATED

EXTENTS = 24
BLOCKS = EXTENTS * 1024
AL_SLOTS = 7
DISK_MS = (0, 6)
NET_MS = (0, 4)
CONGESTION_BYTES = 64 << 10
SLOW_MS = (0, 90)
FAULTS = (
    *("power", "power", "kill", "cut", "cut", "hand_over", "leave", "outage", "blackout"),
    *("worker", "worker", "worker and power", "slow", "disk"),
)
"""What goes wrong in a run, by weight; `mirror_faults` says what each is."""
HUNG_DISKS = ("power", "kill", "cut", "hand_over", "leave", "hung disk", "hung disk", "hung disk", "hung disk")
"""Disks that do not answer any more, and are given up."""
BAD_DISKS = (
    *("power", "power", "kill", "cut", "cut", "hand_over", "leave", "outage", "blackout"),
    *("bad disk", "bad disk", "bad disk", "bad disk"),
)
"""Disks that fail under a running process, and are put in again, or replaced, without ending it."""
FEATURES = int(p.Feature.TRIM | p.Feature.THIN_RESYNC | p.Feature.WSAME | p.Feature.WZEROES)


@dataclasses.dataclass
class Plan:
    """What a run is made of; a mutation replaces the mirror or the disk."""

    seed: int
    alone: str = "ask"
    duration_ms: int = 2500
    mirror: Callable[[Settings], Mirror] = Mirror
    honest: bool = True
    watch_duties: bool = True
    trace: bool = False
    protocol: Literal["A", "B", "C"] = "C"
    faults: tuple[str, ...] = FAULTS
    on_io_error: Literal["detach", "pass_on", "call-local-io-error"] = "detach"
    on_congestion: Literal["block", "pull-ahead", "disconnect"] = "block"


class Wire:
    """One link: two streams each way, in order; what is under way when a side closes may be lost."""

    def __init__(self, world: World, ready: dict[int, int]) -> None:
        self.world = world
        self.ready = ready  # node -> when it learns of the link
        self.open = {0: True, 1: True}
        self.incarnations = {node.number: node.incarnation for node in world.nodes}
        self.last: dict[tuple[int, bool], int] = {}

    def send(self, sender: Node, packet: p.Packet, buffer: Any, *, meta: bool) -> None:
        world, to = self.world, 1 - sender.number
        key = (to, meta)
        delay = world.rng.randint(*(SLOW_MS if world.now < world.slow_until else NET_MS))
        at = max(world.now + delay, self.last.get(key, 0), self.ready[to])
        self.last[key] = at
        world.at(at, lambda: self._arrive(key, packet, buffer))

    def _arrive(self, key: tuple[int, bool], packet: p.Packet, buffer: Any) -> None:
        node = self.world.nodes[key[0]]
        if not self.open[node.number] or node.wire is not self:
            return
        if self.world.before_packet():
            return
        if self.world.cut:
            self.world.held.append((self, key, packet, buffer))
            return
        node.receive(packet, buffer)

    def close(self, node: Node) -> None:
        """One side closes; the other learns of it if the network lets it."""
        self.open[node.number] = False
        other = 1 - node.number
        if self.open[other]:
            self.world.after(self.world.rng.randint(0, 10), lambda: self._closed(other))

    def _closed(self, other: int) -> None:
        node = self.world.nodes[other]
        if self.open[other] and node.wire is self and not self.world.cut:
            self.open[other] = False
            node.disconnected()


class Node:
    """A server: the core, its disk, and the shell's duties towards both."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        flags = MetaFlag.CONSISTENT | MetaFlag.WAS_UP_TO_DATE | MetaFlag.AL_CLEAN
        meta = e.MetaState(JUST_CREATED, 0, 0, 0, int(flags), 0)
        self.disk = SimDisk(BLOCKS, world.rng, meta, honest=world.plan.honest)
        self.incarnation = 0
        self.alive = False
        self.wire: Wire | None = None
        self.device: str | None = None  # "up", "waiting" (for the next process), "closing"
        self.requests: dict[int, Callable[[e.CompleteRequest], None]] = {}
        self.asked: dict[int, Callable[[], e.Event]] = {}
        self.trouble = DiskTrouble(self)

    def __str__(self) -> str:
        return "AB"[self.number]

    def start(self) -> None:
        """Power on, or start the process again; it takes over a device that waits for it."""
        self.incarnation += 1
        self.alive = True
        self.want = False
        self.wire = None
        self.device_token: Any = None
        self.timer_number = 0
        self.core = self.world.plan.mirror(self.world.settings)
        self.duties = Duties(self)
        self.answers: dict[int, Callable[[Any], None]] = {}
        resume_bytes = BLOCKS * BLOCK if self.device == "waiting" else 0
        numbers = tuple(self.world.rng.getrandbits(64) for _ in range(8))
        self.trouble.replace()
        self.trouble.open = True
        self.give(self.disk.attach(self.world.now, numbers, resume_bytes))

    def stop(self, *, power: bool, keep_device: bool = False) -> None:
        """The process is gone, with power cut or without.

        `keep_device`: what carries the device keeps it, with all that is in flight, for the next process.
        """
        world = self.world
        holds = world.survivor_holds(self, power=power)
        if self.state.role is Role.PRIMARY:
            world.lead_may_move()
        self.alive = False
        self.incarnation += 1
        if self.wire is not None:
            wire, self.wire = self.wire, None
            if power:
                wire.open[self.number] = False
                # the peer's packets meet a machine that knows nothing of the link, once it is back
                world.after(world.rng.randint(1500, 4000), lambda: wire._closed(1 - self.number))
            else:
                wire.close(self)
        if power:
            self.disk.power_cut()
            if not holds:
                world.model.all_copies_lost_power()
                world.say("no other copy holds everything: what was not flushed may be lost")
        else:
            self.disk.process_death()
        if keep_device and self.device in {"up", "waiting"}:
            self.device = "waiting"
        else:
            self.lose_device()

    def lose_device(self) -> None:
        """The device fails: nobody waits for an answer any more."""
        self.device = None
        self.requests = {}
        self.asked = {}

    def lose_power_between_two_processes(self) -> None:
        """The machine goes while its device waits for the next process."""
        self.world.next_process_lost(self)
        self.disk.power_cut()
        self.lose_device()

    def ask(self, token: int, done: Callable[[e.CompleteRequest], None], request: Callable[[], e.Event]) -> None:
        """The application asks for something."""
        self.requests[token] = done
        self.asked[token] = request
        self.give(request())

    def _resumed(self, effect: e.Resumed) -> None:
        """The process serves the device: what was in flight comes again, in any order and at any time."""
        assert self.device == "waiting"
        if effect.error is not None:
            assert self.disk.failing or self.state.disk is not Disk.UP_TO_DATE, f"{self}: {effect.error}"
            self.later(0, self._cannot_resume)
            return
        self.device = "up"
        for token in self.world.rng.sample(list(self.asked), len(self.asked)):
            self.later(self.world.rng.randint(0, 3), lambda token=token: self.give(self.asked[token]()))

    def _cannot_resume(self) -> None:
        """The process says so by its exit status: without the device the next one may start."""
        self.stop(power=False)
        self.world.after(20, lambda: None if self.alive else self.start())

    # ------------------------------------------------------------ events

    def give(self, event: e.Event) -> None:
        world = self.world
        if world.plan.trace and not isinstance(event, e.Tick | e.Random):
            world.say(f"{self} <- {_short(event)}")
        conn, disk = self.state.conn, self.state.disk
        effects = self.core.step(event)
        if self.state.conn is not conn or self.state.disk is not disk:
            self._state_changed(conn, disk)
            world.administrator.look(self)
        if self.state.role is Role.PRIMARY:
            world.leaders.add(self.number)
        effects = world.shuffled(effects)
        if world.plan.watch_duties and effects:
            self.duties.effects(effects)
        for effect in effects:
            self.carry_out(effect)
        world.after_event()

    def _state_changed(self, conn: Connection, disk: Disk) -> None:
        world, state = self.world, self.state
        if state.conn in SOURCE and conn not in SOURCE:
            world.takes_lead(self, "overwrites another")
        elif state.disk <= Disk.FAILED < disk:
            world.disk_lost(self)
        elif state.disk is Disk.INCONSISTENT and disk is Disk.UP_TO_DATE:
            world.gives_up(self)
        elif disk is Disk.INCONSISTENT and state.disk is Disk.UP_TO_DATE and world.holders:
            world.holders.add((self.number, self.incarnation))  # complete, whether the source knows or not

    def receive(self, packet: p.Packet, buffer: Any) -> None:
        self.duties.received(packet)
        self.give(e.PacketReceived(self.world.now, packet, buffer))

    def connected(self, wire: Wire, *, resolve_conflicts: bool) -> None:
        if self.alive and self.wire is wire:
            self.duties.new_link()
            self.give(e.Connected(self.world.now, FEATURES, resolve_conflicts))

    def disconnected(self) -> None:
        self.wire = None
        self.give(e.Disconnected(self.world.now))

    def command(self, make: Callable[[Any], e.Event], done: Callable[[Any], None] = lambda _: None) -> None:
        token = self.world.next_token()
        self.answers[token] = done
        self.give(make(token))

    # ------------------------------------------------------------ effects

    def carry_out(self, effect: Any) -> None:
        world, kind = self.world, type(effect)
        if world.plan.trace and kind not in {e.SetTimer, e.StatusChanged, e.NeedRandom, e.ReleaseBuffer}:
            world.say(f"{self} -> {_short(effect)}")
        if kind is e.SendData or kind is e.SendMeta:
            self._send(effect)
        elif kind is e.CommandDone:
            world.say(f"{self} command done: {effect.error or 'ok'}")
            self.answers.pop(effect.token)(effect.error)
        elif kind is e.CompleteRequest:
            self.asked.pop(effect.token)
            self.requests.pop(effect.token)(effect)
            self.device_idle()
        else:
            self._carry_out_rare(effect)

    def _send(self, effect: Any) -> None:
        if self.wire is not None and self.wire.open[self.number]:
            meta = isinstance(effect, e.SendMeta)
            buffer = None if meta or effect.buffer is None else list(effect.buffer)
            self.wire.send(self, effect.packet, buffer, meta=meta)
        if isinstance(effect, e.SendData) and effect.token is not None:
            self.later(0, lambda: self.give(e.Sent(self.world.now, effect.token)))

    def _carry_out_rare(self, effect: Any) -> None:
        world, kind = self.world, type(effect)
        if kind in _DISK_EFFECTS:
            self._disk(effect)
        elif kind is e.StatusChanged:
            world.share()
        elif kind is e.SetTimer:
            self._timer(effect.at_ms)
        elif kind is e.NeedRandom:
            values = tuple(world.rng.getrandbits(64) for _ in range(effect.count))
            self.later(0, lambda: self.give(e.Random(world.now, values)))
        elif kind is e.RunHandler and effect.token is not None:
            self.later(1, lambda: self.give(e.HandlerDone(world.now, effect.token, 0)))
        elif kind is e.SaveTarget:
            self.later(1, lambda: self.give(e.DiskDone(world.now, effect.token)))
        elif kind is e.WantConnection:
            self.want = effect.wanted
            world.try_connect()
        elif kind is e.DropConnection:
            self._drop()
        elif kind is e.DeviceUp or kind is e.DeviceDown:
            self._device(effect)
        else:
            self._carry_out_seldom(effect)

    def _carry_out_seldom(self, effect: Any) -> None:
        kind = type(effect)
        if kind is e.Resumed:
            self._resumed(effect)
        elif kind is e.CloseDisk:
            self.trouble.gone(effect.token)
        elif kind is e.Stopped:
            self.later(0, lambda: self.stop(power=False))

    def later(self, delay_ms: int, call: Callable[[], None]) -> None:
        """Do something later, if this incarnation still lives."""
        incarnation = self.incarnation
        self.world.after(delay_ms, lambda: call() if self.incarnation == incarnation else None)

    def _disk(self, effect: Any) -> None:
        if isinstance(effect, e.DiskWrite):  # the buffer is the core's again once the request is done
            effect = dataclasses.replace(effect, buffer=list(effect.buffer))
        op = self.disk.start(effect)

        def done() -> None:
            errno = self.trouble.errno(effect)
            found = None
            if errno and self.trouble.hangs(op, effect):
                return
            if errno == ETIMEDOUT:
                self.trouble.lands_late(op)
            elif errno:
                self.trouble.failed(op)
            else:
                found = self.disk.finish(op)
                if isinstance(effect, e.PersistStale):
                    self.world.moved_to = 1 - self.number
                self.duties.disk_done(effect)
                errno = EIO if self.disk.failing and not isinstance(effect, e.PersistEpoch | e.PersistStale) else 0
            self.give(e.DiskDone(self.world.now, effect.token, errno, found))

        self.later(self.world.rng.randint(*DISK_MS), done)

    def _timer(self, at_ms: int | None) -> None:
        self.timer_number += 1
        number = self.timer_number
        if at_ms is not None:
            delay = max(0, at_ms - self.world.now)
            self.later(delay, lambda: self.give(e.Tick(self.world.now)) if number == self.timer_number else None)

    def _drop(self) -> None:
        wire = self.wire
        if wire is None:
            return
        wire.close(self)
        self.later(self.world.rng.randint(0, 3), lambda: self.disconnected() if self.wire is wire else None)

    def _device(self, effect: Any) -> None:
        if isinstance(effect, e.DeviceUp):
            self.device = "up"
            self.world.takes_lead(self, "becomes Primary")
            self.world.leaders = {self.number}
            self.world.lead_may_move()
            self.world.model.device_gone()
            self.later(1, lambda: self.give(e.DiskDone(self.world.now, effect.token)))
        elif self.requests and self.world.rng.random() < 0.1:
            self.later(1, lambda: self.give(e.DiskDone(self.world.now, effect.token, 16)))
        else:
            self.device = "closing"
            self.device_token = effect.token
            self.device_idle()

    def device_idle(self) -> None:
        """The device goes once nothing is in flight on it."""
        if self.device == "closing" and not self.requests:
            self.device = None
            self.later(1, lambda: self.give(e.DiskDone(self.world.now, self.device_token)))

    # ------------------------------------------------------------ views

    @property
    def state(self) -> Any:
        return self.core._s

    @property
    def is_primary(self) -> bool:
        """A process of it is Primary, or will be: its device waits."""
        return (self.alive and self.state.role is Role.PRIMARY) or self.device == "waiting"

    @property
    def both_good(self) -> bool:
        s = self.state
        return self.alive and s.conn in STEADY and s.disk is Disk.UP_TO_DATE and s.peer_disk is Disk.UP_TO_DATE


_DISK_EFFECTS = {
    *(e.DiskReadThin, e.DiskDigest),
    *(e.DiskRead, e.DiskWrite, e.DiskDiscard, e.DiskFlush),
    *(e.WriteSuperblock, e.WriteActivityLog, e.WriteBitmap, e.PersistEpoch, e.PersistStale),
}


def _short(thing: Any) -> str:
    text = str(thing)
    return text if len(text) < 200 else text[:200] + "…"


class World:
    """Time, chance, and everything in it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rng = random.Random(plan.seed)
        self.now = 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self.lines: list[str] = []
        taste = random.Random(plan.seed)
        self.settings = Settings(
            alone="risk" if plan.alone == "risk" else "ask",
            timeout_ms=600,
            ping_interval_ms=500,
            ping_timeout_ms=60,
            al_extents=AL_SLOTS,
            suspend_ms=800,
            resume_peer_ms=200,
            options=DrbdOptions(
                protocol=plan.protocol,
                ko_count=1,
                on_io_error=plan.on_io_error,
                on_congestion=plan.on_congestion,
                congestion_fill_bytes=CONGESTION_BYTES,
                verify_alg="any",
                csums_alg=taste.choice(("", "any")),
                csums_after_crash_only=taste.random() < 0.5,
                rs_discard_granularity_bytes=taste.choice((0, 1 << 20, 1 << 16)),
                c_fill_target_bytes=taste.choice((0, 50 << 10, 1 << 20)),
                c_plan_ahead_ms=taste.choice((0, 500)),
                c_min_rate_bytes=16 << 20,  # the application never rests here, and the end is awaited
            ),
        )
        self.cut = False
        self.slow_until = 0
        self.held: list[tuple[Wire, tuple[int, bool], p.Packet, Any]] = []
        self.model = Model()
        self.holders: set[tuple[int, int]] = set()
        self.cut_off: tuple[int, int] | None = None
        """The next start of a Primary whose power cut took only what was not flushed."""
        self.nodes = [Node(self, 0), Node(self, 1)]
        self.manager = Manager(self)
        self.administrator = Administrator(self)
        self._connecting = False
        self.moved_to: int | None = None
        self.leaders = {0, 1}  # who may have been Primary last
        self.after_event: Callable[[], None] = lambda: None
        self.before_packet: Callable[[], bool] = lambda: False

    # ------------------------------------------------------------ time

    def at(self, at_ms: int, call: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (max(at_ms, self.now), self._count, call))

    def at_once(self, call: Callable[[], None]) -> None:
        """Before everything else that is due now."""
        self._count += 1
        heapq.heappush(self._queue, (self.now, -self._count, call))

    def after(self, delay_ms: int, call: Callable[[], None]) -> None:
        self.at(self.now + delay_ms, call)

    def run_until(self, end_ms: int) -> None:
        while self._queue and self._queue[0][0] <= end_ms:
            self.now, _, call = heapq.heappop(self._queue)
            call()
        self.now = end_ms

    def next_token(self) -> int:
        self._count += 1
        return self._count

    def say(self, line: str) -> None:
        if self.plan.trace:
            self.lines.append(f"{self.now:6} {line}")

    def print_lines(self) -> None:
        """What happened, if it was traced."""
        if self.plan.trace:
            sys.stdout.write("\n".join(self.lines) + "\n")

    def shuffled(self, effects: list[e.Effect]) -> list[e.Effect]:
        """Any order, but each socket's packets in theirs."""
        if len(effects) < 2:
            return effects
        order = list(effects)
        self.rng.shuffle(order)
        for kind in (e.SendData, e.SendMeta):
            packets = iter([effect for effect in effects if type(effect) is kind])
            order = [next(packets) if type(effect) is kind else effect for effect in order]
        return order

    # ------------------------------------------------------------ the link

    def try_connect(self) -> None:
        if not self._connecting:
            self._connecting = True
            self.after(self.rng.randint(1, 30), self._connect)

    def _connect(self) -> None:
        self._connecting = False
        a, b = self.nodes
        if not (a.alive and b.alive and a.want and b.want) or a.wire or b.wire or self.cut:
            if a.alive and b.alive:
                self.try_connect()
            return
        ready = {n.number: self.now + self.rng.randint(0, 5) for n in self.nodes}
        wire = Wire(self, ready)
        flag = self.rng.randrange(2)
        for node in self.nodes:
            node.wire = wire
            self.at(ready[node.number], lambda node=node: node.connected(wire, resolve_conflicts=node.number == flag))
        self.after(40, self.try_connect)

    def cut_link(self) -> None:
        self.cut = True
        self.say("the link is cut")

    def heal_link(self) -> None:
        self.cut = False
        self.say("the link is healed")
        held, self.held = self.held, []
        for wire, key, packet, buffer in held:
            wire._arrive(key, packet, buffer)
        for node in self.nodes:  # a side that still waits on a link which the other has closed
            wire = node.wire
            if wire is not None and not wire.open[1 - node.number]:
                self.after(self.rng.randint(0, 200), lambda w=wire, n=node.number: w._closed(n))

    # ------------------------------------------------------------ who holds everything that was acknowledged

    def acknowledged_by(self, node: Node) -> None:
        """A write was completed: who has it? The peer as well, even if it has lost the link meanwhile."""
        self.holders = {(node.number, node.incarnation)}
        self.cut_off = None
        other = self.nodes[1 - node.number]
        if node.state.disk is not Disk.UP_TO_DATE:  # through the peer
            self.holders = {(other.number, other.incarnation + (not other.alive))}  # perhaps as it will start next
            if node.wire is None or node.wire.incarnations[other.number] != other.incarnation:
                self.model.all_copies_lost_power()  # its answer was on the way when it lost its power
            return
        linked = (
            node.state.replicating and other.alive and other.state.disk is Disk.UP_TO_DATE and node.wire is not None
        )
        if linked and node.wire.incarnations[other.number] == other.incarnation:
            self.holders.add((other.number, other.incarnation))

    def disk_lost(self, node: Node) -> None:
        """If another copy holds everything it is that one which counts from now on."""
        mine = (node.number, node.incarnation)
        if self.holders - {mine}:
            self.holders.discard(mine)

    def lead_may_move(self) -> None:
        """Protocols A and B: the peer may not have what was acknowledged, save what a flush covered."""
        if self.plan.protocol != "C":
            self.model.all_copies_lost_power()

    def share(self) -> None:
        """Two connected, UpToDate copies are equal: if one holds everything, so does the other."""
        a, b = self.nodes
        if not (a.alive and b.alive) or a.wire is None or a.wire is not b.wire:
            return
        both = {(a.number, a.incarnation), (b.number, b.incarnation)}
        if a.both_good and b.both_good:
            self.moved_to = None
        if a.both_good and b.both_good and self.holders & both:
            self.holders |= both

    def survivor_holds(self, dying: Node, *, power: bool) -> bool:
        """Whether a copy is left that holds everything acknowledged."""
        self.share()
        mine, next_start = (dying.number, dying.incarnation), (dying.number, dying.incarnation + 2)
        if mine not in self.holders:
            return True
        self.holders.discard(mine)
        others = bool(self.holders)
        # what is done stays in the disk's cache; everything is stable; or this is the best that is left
        if not power or not others or not self.model.unflushed():
            self.holders.add(next_start)
        else:
            self.cut_off = next_start
        return others or not power

    def next_process_lost(self, node: Node) -> None:
        """As `survivor_holds`, for a machine that loses its power between two processes."""
        following = (node.number, node.incarnation + 1)
        if following not in self.holders:
            return
        if self.holders == {following}:
            self.model.all_copies_lost_power()
        elif self.model.unflushed():
            self.holders.discard(following)

    def gives_up(self, node: Node) -> None:
        """A good copy is going to be overwritten; one that the administrator gives up must not be the only one."""
        self.share()
        mine = (node.number, node.incarnation)
        if self.holders - {mine}:
            self.holders.discard(mine)
        elif self.holders and node.state.conn is Connection.STARTING_SYNC_T:
            other = self.nodes[1 - node.number]
            if not other.alive and self.cut_off == (other.number, other.incarnation + 1):
                self.model.all_copies_lost_power()  # its order was on the way when it lost its power
                self.holders = {self.cut_off}
                return
            raise DataLost(f"{node}: the only complete copy is given up")

    def takes_lead(self, node: Node, what: str) -> None:
        """A copy is promoted or becomes a resync's source: it has to hold everything, or be a crashed Primary's."""
        mine = (node.number, node.incarnation)
        if not self.holders or mine in self.holders:
            return
        crashed = node.state.was_primary_at_start or node.state.crashed_primary
        took_over = node.number == self.moved_to  # the Primary's disk failed, and it went on with this copy
        if not took_over and (not crashed or node.number not in self.leaders):
            raise DataLost(f"{node}: a stale copy {what}")
        self.say(f"{node}: the copy that was in use last {what}; what was not flushed may be lost")
        self.model.all_copies_lost_power()
        self.holders = {mine}


def run(plan: Plan) -> World:
    """One whole run. Raises what a checker found; `world.lines` then tells how it came."""
    from mirror_faults import Story

    world = World(plan)
    try:
        Story(world).run()
    except BaseException:
        world.print_lines()
        raise
    return world
