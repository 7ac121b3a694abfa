"""Arbiter and manager of this node around one round: what is seen goes in, the plan comes out.

What the two ask to be put on stable storage is there before anything is done that depends on it.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable

import msgspec
import structlog

from relevo import __version__
from relevo.arbiter.arbiter import Arbiter
from relevo.arbiter.ballot import Vote
from relevo.arbiter.events import (
    AllowAlone,
    AskWitness,
    DenyAlone,
    Event,
    Fence,
    MarkedOutdated,
    Observed,
    Outdate,
    Permit,
    Persist,
    Persisted,
    ProbeLink,
    State,
)
from relevo.base.control import Message
from relevo.base.errors import RelevoError
from relevo.base.paths import Paths
from relevo.config.model import Config
from relevo.manager.balance import Proposal, propose
from relevo.manager.model import (
    PRIMARY,
    RECORD_FORMAT,
    Alive,
    BadFacts,
    MirrorFacts,
    NodeFacts,
    NodeView,
    Original,
    Permission,
    Plan,
    Reach,
    Record,
    ServiceFacts,
    ServiceState,
    Snapshot,
    decode_record,
    encode_record,
)
from relevo.manager.original import Wishes, wishes
from relevo.manager.planner import obstacles
from relevo.manager.planner import plan as make_plan
from relevo.manager.record import in_common, with_kept
from relevo.manager.standing import LIVE
from relevo.node import links, original, views
from relevo.node.chronicle import Chronicle
from relevo.node.config_file import ConfigFile
from relevo.node.duties import Duties
from relevo.node.fencer import Fencer
from relevo.node.forecast import Forecast, Foreseen
from relevo.node.history import History
from relevo.node.peers import Peers
from relevo.node.pinger import Pinger
from relevo.node.pressure import Pressure
from relevo.node.store import Store
from relevo.node.witness import WitnessFeed

_log = structlog.get_logger()
PAIR = 2
"""An original Heartbeat with haresources knows so many nodes."""
MAX_PASSES = 4
"""Arbiter and plan are asked alternately until neither has news: at most this often in one round."""

DISCARD_AGAIN_MS = 10_000
"""A mirror that did not give up its copy, for want of room perhaps, is told to again after so long."""


class NothingKnown(RelevoError):
    """A question about the cluster before the first round."""


class NotStored(RelevoError):
    """Something that has to survive a power cut cannot be put on stable storage."""


def _not_stored(what: str, store: Store, error: OSError) -> NotStored:
    return NotStored(
        f"{what} cannot be stored in {store.folder} ({error.strerror or error}).",
        "Make room on that disk, or repair it.",
    )


def _nothing() -> None:
    """Nobody has to be told."""


def _local_minute() -> int:
    now = time.localtime()
    return now.tm_hour * 60 + now.tm_min


def _stored_record(store: Store) -> Record:
    told = store.load("record", dict[str, object], {})
    try:
        return decode_record(told)
    except BadFacts as error:
        store.put_aside("record", str(error))
        return Record()


class Brain:
    """What this node knows and decides.

    Attributes:
        plan: the last one.
        record: the newest cluster record, on stable storage here.
        leaving: this node is on its way out.
        original: the other node, if it runs an original Heartbeat.
        words: what the alerts of this node publish.
    """

    def __init__(
        self,
        *,
        config: Config,
        me: str,
        boot_id: str,
        store: Store,
        paths: Paths,
        history: History,
        witness: WitnessFeed | None = None,
        fencer: Fencer,
        pinger: Pinger,
        changed: Callable[[], None] = _nothing,
    ) -> None:
        self._config = config
        self._me = me
        self._boot_id = boot_id
        self._store = store
        self._chronicle = Chronicle(history, me)
        self._witness = witness
        self._fencer = fencer
        self._pinger = pinger
        self._arbiter = Arbiter(config, me, store.load("arbiter", State, State()))
        self._hosts = views.hosts(config)
        self._duties = Duties(paths)
        self._peers = Peers(config, me)
        self._mirrors: dict[str, MirrorFacts | None] = {}
        self._discarded: dict[str, tuple[int, int]] = {}
        """Mirror -> during which of its links, and when, it was last told to give up its copy."""
        self.nodes: dict[str, NodeView] = {}
        self.plan = Plan()
        self.record = _stored_record(store)
        self._shared: Record | None = None
        self.leaving = False
        self.original: Original | None = None
        self._wishes = Wishes(number=time.time_ns() // 1_000_000)  # no word of an earlier run may pass for one of this
        self._unstored: State | None = None
        for sentence in store.damaged:
            history.add(f"{sentence} What people had decided is taken over from the other server.")
        self._changed = changed
        self._obeyed: list[Event] = []
        self._seen: Snapshot | None = None
        self._pressure = Pressure()
        self._file = ConfigFile(paths.config, config)
        self._unread = ""
        self._busy: int | None = None
        self._reach: dict[str, Reach] = {}
        self._ready_since: dict[str, tuple[str, int]] = {}
        self._troubles: dict[str, str] = {}
        self.words: dict[str, str] = {}

    @property
    def alarms(self) -> tuple[str, ...]:
        """Those of the plan, and what this node cannot store."""
        outside = (trouble for trouble in (self.witness_trouble, self._pinger.trouble) if trouble)
        return (*self.plan.alarms, *self._troubles.values(), *self._fencer.troubles.values(), *outside)

    @property
    def witness_trouble(self) -> str:
        """Why the witness cannot be asked; empty when it can, or when there is none."""
        return self._witness.trouble if self._witness is not None else ""

    def votes(self) -> dict[str, Vote]:
        """What the witness says of the mirrors in which it has a say."""
        return self._arbiter.votes

    @property
    def wakes_ms(self) -> int | None:
        """When a round is due although nothing has changed; None: at leisure."""
        return self._arbiter.wakes_ms

    async def think(
        self,
        now_ms: int,
        heartbeat: Message | None,
        mirrors: dict[str, Message | None],
        services: dict[str, ServiceFacts],
    ) -> Plan:
        """One round.

        Args:
            now_ms: this node's clock.
            heartbeat: the heartbeat daemon's state; None when it does not answer.
            mirrors: the status of each mirror's daemon; None when it does not answer.
            services: what the executor knows of this node's services.
        """
        peers = self._look_around(heartbeat, mirrors)
        initdead_passed = heartbeat is not None and bool(heartbeat["initdead_passed"])
        unstored = self._unstored
        if unstored is not None and await self._stored(unstored):
            await self._tell_arbiter(Persisted(state=unstored))
        obeyed, self._obeyed = self._obeyed, []
        for event in (*obeyed, *(self._witness.events() if self._witness is not None else ())):
            await self._tell_arbiter(event)
        for _ in range(MAX_PASSES):
            seen = Observed(
                now_ms=now_ms,
                initdead_passed=initdead_passed,
                peers=peers,
                mirrors=self._mirrors,
                wanted=self.plan.wanted,
                forced=frozenset(name for name, node in self.record.forced.items() if node == self._me),
                fenced=self._fencer.fenced,
                fence_troubles=self._fencer.troubles,
            )
            await self._tell_arbiter(seen)
            wanted = self.plan.wanted
            self.plan = make_plan(self._snapshot(now_ms, peers, services))
            if self.plan.record != self.record:
                self._try_to_keep(self.plan.record)
            elif self.plan.wanted == wanted:
                break
        for node, because in self.plan.fence.items():
            self._fencer.begin(node, because=because)
        self._resolve(services, now_ms)
        if not self.leaving:
            links.look_again(self._duties, self._mirrors, heartbeat)
        self._chronicle.tell(self.plan, self.alarms, self.nodes)
        return self.plan

    def _look_around(self, heartbeat: Message | None, mirrors: dict[str, Message | None]) -> dict[str, NodeView]:
        """Take in what the other daemons say; the peers as they are known now."""
        self._busy = self._pressure.look()
        self._reach = self._pinger.words()
        self._unread = self._file.look()
        before = self._mirrors
        self._mirrors = {name: views.mirror_facts(status) for name, status in mirrors.items()}
        links.suspect_lost(self._duties, config=self._config, me=self._me, before=before, now=self._mirrors)
        peers = self._with_original(self._peers.views(heartbeat), heartbeat)
        self._fencer.look(peers)
        self._shared = in_common(self.record, peers.values(), self._shared)
        return peers

    def _with_original(self, peers: dict[str, NodeView], heartbeat: Message | None) -> dict[str, NodeView]:
        """The peers, an original Heartbeat among them as if it told what it runs."""
        found = original.found(self._config, self._me, heartbeat, self._wishes.number)
        if found is None:
            self.original = None
            return peers
        self.original, told = found
        name = self.original.node
        return {**peers, name: original.view_of(self._config, told, peers[name], self._mirrors, name)}

    def wishes(self, facts: NodeFacts) -> Wishes | None:
        """What the heartbeats are told for the hand-over with an original Heartbeat; None where there can be none."""
        if self._seen is None or len(self._config.nodes) != PAIR:
            return None
        mine = NodeView(alive=Alive.ALIVE, facts=facts)
        seen = msgspec.structs.replace(self._seen, nodes={**self._seen.nodes, self._me: mine}, record=self.record)
        made = wishes(seen, self.plan)
        if msgspec.structs.replace(made, number=self._wishes.number) != self._wishes:
            self._wishes = msgspec.structs.replace(made, number=self._wishes.number + 1)
        return self._wishes

    def facts(self, services: dict[str, ServiceFacts]) -> NodeFacts:
        """What this node publishes."""
        targets = {name: decision.target for name, decision in self.plan.decisions.items()}
        return NodeFacts(
            boot_id=self._boot_id,
            config_hash=self._config.hash,
            ready=all(told.state != "unknown" for told in services.values()),
            leaving=self.leaving,
            services={name: msgspec.structs.replace(told, target=targets.get(name)) for name, told in services.items()},
            mirrors=self._mirrors,
            epochs=self._arbiter.epochs,
            outdated=self._arbiter.outdated,
            permissions=self._permissions(),
            record=self.record,
            record_format=RECORD_FORMAT,
            pressure=self._busy,
            program=__version__,
            trouble=self.words,
            reach=self._reach,
            unread=self._unread,
        )

    def change_record(self, record: Record) -> None:
        """Keep a newer record: it is on stable storage when this returns.

        Raises:
            NotStored: it cannot be stored; the older one counts.
        """
        assert record.version > self.record.version, "a record only grows"
        self._keep(record)

    def highest_epoch(self) -> int:
        """The highest epoch that this node knows, of any mirror."""
        return max(self._arbiter.epochs.values(), default=0)

    def mirror(self, name: str) -> MirrorFacts | None:
        """The last word of a mirror's daemon here."""
        return self._mirrors.get(name)

    def _keep(self, record: Record) -> None:
        try:
            self._store.save("record", encode_record(record))
        except OSError as error:
            raise _not_stored("What was decided", self._store, error) from error
        self.record = record
        self._note_trouble("record", "")

    def _try_to_keep(self, record: Record) -> None:
        """Keep it if it can be stored; the next round tries again."""
        try:
            self._keep(record)
        except NotStored as error:
            self._note_trouble("record", str(error))

    async def _stored(self, state: State) -> bool:
        """Put the arbiter's state on stable storage; one that cannot be stored is tried again in the next round.

        Until then the epochs in it count for nothing.
        """
        try:
            await asyncio.to_thread(self._store.save, "arbiter", state)
        except OSError as error:
            self._unstored = state
            self._note_trouble("vote", str(_not_stored("The vote", self._store, error)))
            return False
        self._unstored = None
        self._note_trouble("vote", "")
        return True

    def _note_trouble(self, what: str, trouble: str) -> None:
        if trouble:
            self._troubles[what] = trouble
        else:
            self._troubles.pop(what, None)

    def _permissions(self) -> dict[str, Permission]:
        return {
            name: msgspec.convert(msgspec.to_builtins(given), Permission)
            for name, given in self._arbiter.permissions.items()
        }

    def _snapshot(self, now_ms: int, peers: dict[str, NodeView], services: dict[str, ServiceFacts]) -> Snapshot:
        self.nodes = {**peers, self._me: NodeView(alive=Alive.ALIVE, facts=self.facts(services))}
        self._seen = Snapshot(
            me=self._me,
            now_ms=now_ms,
            config_hash=self._config.hash,
            services=self._config.services,
            hosts=self._hosts,
            nodes=self.nodes,
            permissions=self._permissions(),
            record=self.record,
            shared=self._shared,
            utc_s=int(time.time()),
            local_minute=_local_minute(),
            ready_ms=self._ready_ms(now_ms, peers),
            capacities={name: node.capacity for name, node in self._config.nodes.items()},
            fenceable=frozenset(name for name, node in self._config.nodes.items() if node.fencing) - {self._me},
            original=self.original,
        )
        return self._seen

    def _ready_ms(self, now_ms: int, peers: dict[str, NodeView]) -> dict[str, int]:
        """How long each peer has been there and ready in one boot."""
        for name, view in peers.items():
            ready = view.alive is Alive.ALIVE and view.facts is not None and view.facts.ready
            boot_id = view.facts.boot_id if ready and view.facts is not None else ""
            if not boot_id:
                self._ready_since.pop(name, None)
            elif self._ready_since.get(name, ("", 0))[0] != boot_id:
                self._ready_since[name] = (boot_id, now_ms)
        return {name: now_ms - since_ms for name, (_, since_ms) in self._ready_since.items()}

    def foresee(self, record: Record | None = None, *, dies: str | None = None) -> Foreseen:
        """What would follow, on a copy of what is known now.

        Args:
            record: what people would have decided; None: what they have.
            dies: a node that loses its power.

        Raises:
            NothingKnown: this node has not looked around yet.
        """
        if self._seen is None:
            raise NothingKnown(f"{self._me} has just started and knows nothing yet.", "Try again in a moment.")
        copy = Forecast(self._config, self._seen, record, self.votes())
        if dies is not None:
            copy.die(dies)
        return copy.run()

    def proposal(self) -> Proposal:
        """Which service would better move."""
        if self._seen is None:
            return Proposal(reason=f"{self._me} has just started and knows nothing yet.")
        return propose(self._seen)

    def obstacles(self, service: str) -> dict[str, str]:
        """Node -> why it could not take the service over now; empty when it could."""
        return obstacles(self._seen, self._config.services[service]) if self._seen is not None else {}

    async def _tell_arbiter(self, event: Event) -> None:
        waiting: list[Event] = [event]
        while waiting:
            for effect in self._arbiter.step(waiting.pop()):
                match effect:
                    case Persist():
                        if await self._stored(effect.state):
                            waiting.append(Persisted(state=effect.state))
                    case Permit():
                        pass  # read from the arbiter when facts and snapshot are made
                    case Outdate():
                        done = functools.partial(self._marked, MarkedOutdated(mirror=effect.mirror, epoch=effect.epoch))
                        self._duties.begin(f"mirror-{effect.mirror}", "outdate", done=done, links=effect.links)
                    case ProbeLink():
                        self._duties.begin(f"mirror-{effect.mirror}", "probe")
                    case AskWitness() if self._witness is not None:
                        self._witness.ask(effect.question)
                    case Fence():
                        self._fencer.begin(effect.node, effect.delay_ms, because="it is silent.")
                    case DenyAlone():
                        self._duties.begin(f"mirror-{effect.mirror}", "deny_alone")
                    case AllowAlone():
                        self._duties.begin(
                            f"mirror-{effect.mirror}", "allow_alone", epoch=effect.epoch, links=effect.links
                        )

    def _marked(self, event: MarkedOutdated) -> None:
        """A mirror has marked its copy Outdated: the next round, which this brings about, tells the arbiter."""
        self._obeyed.append(event)
        self._changed()

    def _resolve(self, services: dict[str, ServiceFacts], now_ms: int) -> None:
        """What a person decided about a split brain: one side keeps its changes, the other gives its up."""
        self._discarded = {name: last for name, last in self._discarded.items() if name in self.record.kept}
        for name, keeper in self.record.kept.items():
            mirror = self._mirrors.get(name)
            if mirror is None:
                continue
            if keeper == self._me and mirror.connection in LIVE and not mirror.split_brain:
                self._try_to_keep(with_kept(self.record, name, None, by=self._me, epoch=self.highest_epoch()))
            elif keeper == self._me and mirror.connection == "StandAlone":
                self._duties.begin(f"mirror-{name}", "keep")
            elif keeper != self._me and self._may_discard(name, mirror, services, now_ms):
                self._discarded[name] = mirror.links, now_ms
                self._duties.begin(f"mirror-{name}", "discard")

    def _may_discard(self, name: str, mirror: MirrorFacts, services: dict[str, ServiceFacts], now_ms: int) -> bool:
        """Nothing here uses the copy that is given up, and it was not refused just now (no room for what is kept).

        One that waits for its peer is asked once a link: where a policy chose the Primary to be overwritten, only that
        side is StandAlone, and this one knows of no split brain.
        """
        links, at_ms = self._discarded.get(name, (-1, now_ms - DISCARD_AGAIN_MS))
        alone = mirror.connection == "StandAlone" and now_ms - at_ms >= DISCARD_AGAIN_MS
        waits = mirror.connection == "WFConnection" and links != mirror.links
        if mirror.role == PRIMARY or not (alone or waits):
            return False
        return all(told.state is ServiceState.STOPPED for told in services.values())
