"""What people ask of the node daemon besides the orders of `orders.py`: leave, force, resolve, fence."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from relevo.arbiter.rules import FORCEABLE_DISKS
from relevo.base.control import DaemonUnreachable, Handler, Message, Refused, acall
from relevo.base.errors import RelevoError
from relevo.base.paths import Paths
from relevo.config.model import Config, Service
from relevo.manager.executor import Executor
from relevo.manager.model import CONNECTED, PRIMARY, UP_TO_DATE, Alive, NodeFacts, Record, ServiceState
from relevo.manager.record import with_forced, with_kept
from relevo.manager.standing import mirrors_of
from relevo.node.brain import Brain
from relevo.node.fencer import Fencer
from relevo.node.history import History
from relevo.node.orders import named
from relevo.node.publisher import Publisher

LEAVE_LIMIT_S = 30.0
"""How long the services may take to stop here and to run elsewhere; then the leave is given up, and said."""
DECIDE_LIMIT_S = 10.0
"""How long a server on which everything has stopped waits until it is decided who takes over."""
TELL_LIMIT_S = 5.0
"""How long a goodbye waits until the others were told what they go by when this server is gone."""
REPETITION_KEEPALIVES = 1.5
UNKNOWN_REQUEST = "UnknownRequest"
"""A mirror's error for what it cannot be asked."""


class CannotFence(RelevoError):
    """A node cannot be switched off from here."""


class InMaintenance(RelevoError):
    """A service that is left alone shall be started."""


class NoSplitBrain(RelevoError):
    """A split brain was to be resolved, but the copies do not differ in both directions."""


class RunsWell(RelevoError):
    """A service shall be forced although it runs, and well."""


class NothingToForce(RelevoError):
    """A service shall be forced where the copy of its data cannot be used at all."""


class StillRunning(RelevoError):
    """A node that leaves could not stop everything in time."""


def _runs_well(facts: NodeFacts, service: Service) -> bool:
    """Whether a node runs a service with nothing wrong: writes go on, and on a current copy."""
    told = facts.services.get(service.name)
    if told is None or told.state is not ServiceState.STARTED or told.failures:
        return False
    sides = [facts.mirrors.get(name) for name in mirrors_of(service)]
    return all(
        side is not None and side.role == PRIMARY and not side.suspended and UP_TO_DATE in {side.disk, side.peer_disk}
        for side in sides
    )


class Requests:
    """Carries out what people ask.

    Args:
        config: the cluster.
        me: this node.
        paths: where the other daemons' sockets lie.
        brain: what this node knows.
        executor: what this node runs.
        history: where a person's orders are noted.
        fencer: switches nodes off.
        publisher: gives the facts to the heartbeats.
        changed: call-back that starts a new round.
        told: notified after each round.
    """

    def __init__(
        self,
        *,
        config: Config,
        me: str,
        paths: Paths,
        brain: Brain,
        executor: Executor,
        history: History,
        fencer: Fencer,
        publisher: Publisher,
        changed: Callable[[], None],
        told: asyncio.Condition,
    ) -> None:
        self._config = config
        self._me = me
        self._paths = paths
        self._brain = brain
        self._executor = executor
        self._history = history
        self._fencer = fencer
        self._publisher = publisher
        self._changed = changed
        self._told = told

    def handlers(self) -> dict[str, Handler]:
        """Request name -> handler, for the control socket."""
        return {
            "leave": self._leave,
            "force": self._force,
            "force_check": self._force_check,
            "resolve": self._resolve,
            "resolve_preview": self._resolve_preview,
            "fence": self._fence,
        }

    def _named(self, request: Message, key: str, known: dict[str, object]) -> str:
        return named(self._config, request, key, known)

    def _done(self, what: str) -> Message:
        self._history.add(what)
        self._changed()
        return {"what": what}

    async def _fence(self, request: Message) -> Message:
        node = self._named(request, "node", dict(self._config.nodes))
        if node == self._me:
            raise CannotFence(f"{node} cannot fence itself.", "Say it on the other server.")
        if request.get("by_hand"):
            view = self._brain.nodes.get(node)
            if view is not None and view.alive is Alive.ALIVE:
                raise CannotFence(
                    f"{node} is heard: it is not off, or was a moment ago.",
                    "Switch it off, and say so when it is silent.",
                )
            self._fencer.confirm(node)
            return self._done(f"A person says that {node} is off.")
        if not self._config.nodes[node].fencing:
            raise CannotFence(
                f"{node} has no fence device.", f"Switch it off and say so: relevo fence {node} --by-hand."
            )
        self._fencer.begin(node, because="a person says so.")
        return self._done(f"{node} is being fenced; see relevo status.")

    async def _force_check(self, request: Message) -> Message:
        """Whether `force` would be refused: asked before a person is."""
        self._check_force(self._named(request, "service", dict(self._config.services)))
        return {}

    def _check_force(self, service: str) -> None:
        """Force is for a server that is gone; what runs well elsewhere is moved, and nothing written there is given up.

        Raises:
            RunsWell: it runs, and nothing is wrong with it.
            NothingToForce: the copy here is no copy.
        """
        for node, view in self._brain.nodes.items():
            facts = view.facts
            if facts is None or view.alive is not Alive.ALIVE or not _runs_well(facts, self._config.services[service]):
                continue
            if node == self._me:
                raise RunsWell(f"{service} runs here already: nothing is to be forced.", "See `relevo status`.")
            split = next((name for name in mirrors_of(self._config.services[service]) if self._is_split(name)), None)
            remedy = f"To have it here: relevo move {service} {self._me}."
            if split is not None:
                remedy = f"To decide whose changes stay: relevo mirror resolve {split} --keep NODE."
            raise RunsWell(
                f"{service} runs well on {node}: forced onto {self._me} it could lose what was written there.", remedy
            )

        for name in mirrors_of(self._config.services[service]):
            mirror = self._brain.mirror(name)
            if mirror is not None and mirror.disk not in FORCEABLE_DISKS:
                raise NothingToForce(
                    f"The copy of {name} on {self._me} is {mirror.disk}: it is no whole copy of any moment.",
                    "Bring the other server back: it has the data.",
                )

    async def _force(self, request: Message) -> Message:
        service = self._named(request, "service", dict(self._config.services))
        self._check_force(service)
        if self._brain.record.maintains(service):
            raise InMaintenance(
                f"{service} is in maintenance: nothing is started.",
                f"End that first: relevo maintenance off {service}.",
            )
        record = with_forced(self._brain.record, service, self._me, by=self._me, epoch=self._brain.highest_epoch())
        self._brain.change_record(record)
        return self._done(f"{service} is forced onto {self._me}; its copy of the data counts from now on.")

    async def _resolve_preview(self, request: Message) -> Message:
        """What `resolve` would cost: a request of its own, so that an older daemon refuses it and does not act."""
        mirror, keep = self._split(request)
        loser = next(name for name in self._hosts(mirror) if name != keep)
        since = ""
        with contextlib.suppress(RelevoError):
            since = str((await acall(self._paths.socket(f"mirror-{mirror}"), "status")).get("split_brain_since", ""))
        return {
            "mirror": mirror,
            "keep": keep,
            "loser": loser,
            "since": since,
            "changed_bytes": {name: self._changed_bytes(name, mirror) for name in self._hosts(mirror)},
        }

    def _hosts(self, mirror: str) -> list[str]:
        return [name for name, node in self._config.nodes.items() if mirror in node.disks]

    def _changed_bytes(self, node: str, mirror: str) -> int | None:
        """What a node has changed alone, by its own count; None: it is not heard."""
        view = self._brain.nodes.get(node)
        if view is None or view.facts is None or view.alive is not Alive.ALIVE:
            return None
        side = view.facts.mirrors.get(mirror)
        return None if side is None else side.out_of_sync_bytes

    def _split(self, request: Message) -> tuple[str, str]:
        """The mirror that is meant, and the node that keeps its changes.

        Raises:
            NoSplitBrain: nobody knows of one.
        """
        mirror = self._named(request, "mirror", dict(self._config.mirrors))
        keep = named(self._config, request, "keep", dict.fromkeys(self._hosts(mirror)))
        if not self._is_split(mirror):
            raise NoSplitBrain(
                f"No node reports a split brain of {mirror}: nothing is to be resolved.", "See `relevo status`."
            )
        return mirror, keep

    async def _resolve(self, request: Message) -> Message:
        mirror, keep = self._split(request)
        self._brain.change_record(self._resolved(mirror, keep))
        return self._done(f"The changes of {keep} on {mirror} stay; those of the other node are given up.")

    def _is_split(self, mirror: str) -> bool:
        told = [view.facts.mirrors.get(mirror) for view in self._brain.nodes.values() if view.facts is not None]
        return any(side is not None and side.split_brain for side in told)

    def _resolved(self, mirror: str, keep: str) -> Record:
        """The record with the decision, and with the services of that mirror forced onto the node that keeps."""
        epoch = self._brain.highest_epoch()
        record = with_kept(self._brain.record, mirror, keep, by=self._me, epoch=epoch)
        for service in self._config.services.values():
            if mirror in mirrors_of(service):
                record = with_forced(record, service.name, keep, by=self._me, epoch=epoch)
        return record

    async def _leave(self, _request: Message) -> Message:
        """Hand over, mark this copy as no longer current where another goes on, say goodbye."""
        ran = [name for name, told in self._executor.facts().items() if told.state is not ServiceState.STOPPED]
        self._brain.leaving = True
        self._changed()
        try:
            async with asyncio.timeout(LEAVE_LIMIT_S), self._told:
                await self._told.wait_for(self._is_free)
                with contextlib.suppress(TimeoutError):  # then nobody takes over: it goes
                    async with asyncio.timeout(DECIDE_LIMIT_S):
                        await self._told.wait_for(lambda: not self._is_awaited(ran))
                await self._told.wait_for(self._is_free)
        except TimeoutError:
            self._brain.leaving = False
            self._changed()
            raise StillRunning(
                f"{self._me} could not stop everything within {LEAVE_LIMIT_S:.0f} s.", "See `relevo status`."
            ) from None
        try:
            await self._say_goodbye()
        except RelevoError:
            self._brain.leaving = False
            self._changed()
            raise
        return self._done(f"{self._me} has left in order.")

    async def _say_goodbye(self) -> None:
        """ORDER: the copies here are Outdated on their disks, the others have heard that, then this node is gone."""
        marked = {name for name in self._config.nodes[self._me].disks if await self._step_aside(name)}
        await self._have_told(marked)
        await acall(self._paths.socket("heartbeat"), "leave")

    async def _step_aside(self, name: str) -> bool:
        """A mirror parts from its peer, as a connected copy is current; whether the copy here is Outdated then."""
        socket, mirror = self._paths.socket(f"mirror-{name}"), self._brain.mirror(name)
        try:
            await acall(socket, "leave")
        except DaemonUnreachable:
            if mirror is not None:
                raise
            return False  # it does not run
        except Refused as error:
            if error.error != UNKNOWN_REQUEST:
                raise
            # its process is of an earlier version, which an upgrade has left running
            if mirror is None or mirror.connection != CONNECTED or mirror.peer_disk != UP_TO_DATE:
                return False
            await acall(socket, "outdate")
            return True
        return bool((await acall(socket, "status"))["outdated"])

    async def _have_told(self, marked: set[str]) -> None:
        """Wait until the others were told that all is stopped and these copies are Outdated: then comes silence."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TELL_LIMIT_S):
                async with self._told:
                    await self._told.wait_for(lambda: all(self._is_marked(name) for name in marked))
                await self._publisher.published()
                # new facts are repeated once after keepalive: one datagram may be lost
                await asyncio.sleep(REPETITION_KEEPALIVES * self._config.heartbeat.keepalive_ms / 1000)

    def _is_marked(self, name: str) -> bool:
        mirror = self._brain.mirror(name)
        return mirror is not None and mirror.outdated

    def _is_free(self) -> bool:
        """Nothing runs here, and each service that another node can run is running there."""
        mine = self._executor.facts()
        if any(told.state is not ServiceState.STOPPED for told in mine.values()):
            return False
        original = self._brain.original.node if self._brain.original is not None else None  # it starts at our goodbye
        free = {None, self._me, original}
        waited = [name for name, found in self._brain.plan.decisions.items() if found.target not in free]
        return all(self._runs_elsewhere(name) for name in waited)

    def _is_awaited(self, services: list[str]) -> bool:
        """Whether another node is about to have a say in one of these; it has just heard that it stopped here.

        Who left in between would part from a Secondary, which only the heartbeats tell that this copy is Outdated.
        """
        if self._brain.original is not None:  # it starts at our goodbye
            return False
        plan, record = self._brain.plan, self._brain.record
        found = [plan.decisions.get(name) for name in services if not record.maintains(name)]
        return any(one is not None and one.target is None and not one.blocked for one in found)

    def _runs_elsewhere(self, service: str) -> bool:
        for name, view in self._brain.nodes.items():
            if name == self._me or view.facts is None or view.alive is not Alive.ALIVE:
                continue
            told = view.facts.services.get(service)
            if told is not None and told.state is ServiceState.STARTED:
                return True
        return False
