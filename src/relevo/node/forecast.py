"""What would happen: the real arbiters and plans of all nodes on a copy of what is known, with every step succeeding.

Nothing is done and nobody is asked. The permissions are judged anew as the copy changes: a mirror that loses its peer,
a witness that is asked, a lease that has to end first. `--dry-run`, `relevo explain` and the question whether a service
would stop all come from here.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from relevo.arbiter.arbiter import Arbiter
from relevo.arbiter.ballot import Vote
from relevo.arbiter.events import (
    AllowAlone,
    AskWitness,
    Event,
    Fence,
    MarkedOutdated,
    Observed,
    Outdate,
    Persist,
    Persisted,
    State,
    WitnessAnswered,
    WitnessSilent,
)
from relevo.arbiter.register import Book, Leader, Register
from relevo.config.model import Config, MirrorResource
from relevo.manager.model import (
    PRIMARY,
    UP_TO_DATE,
    Action,
    Alive,
    Failure,
    MirrorFacts,
    NodeFacts,
    NodeView,
    Permission,
    Plan,
    Record,
    ResourceState,
    ServiceFacts,
    ServiceState,
    Snapshot,
    Step,
)
from relevo.manager.planner import plan
from relevo.manager.standing import LIVE

ROUND_MS = 1000
"""So much time passes in the copy between two rounds."""
QUIET_ROUNDS = 8
"""After so many rounds without a step it is over: longer than any grace of the arbiter's. A lease is added."""
MAX_ROUNDS = 200
"""Nothing is looked at further ahead than this many rounds."""
MAX_ANSWERS = 20
"""What an arbiter asks for within one moment (votes, the witness) is answered so often at most."""

_AFTER = {
    Action.START: ResourceState.STARTED,
    Action.STOP: ResourceState.STOPPED,
    Action.QUIESCE: ResourceState.QUIESCED,
}


class Foreseen(msgspec.Struct, frozen=True, kw_only=True):
    """What would come of it.

    Attributes:
        steps: in their order.
        before, after: service -> the node on which it is started; None: nowhere.
        decisions: service -> the sentence of the last plan, with its remedy.
        fenced: nodes that would be switched off on the way.
    """

    steps: tuple[Step, ...]
    before: dict[str, str | None]
    after: dict[str, str | None]
    decisions: dict[str, tuple[str, str]]
    fenced: tuple[str, ...] = ()

    def stopped(self) -> dict[str, str]:
        """The services that run now and would not any more: service -> why."""
        return {
            name: self.decisions.get(name, ("", ""))[0]
            for name, node in self.before.items()
            if node is not None and self.after[name] is None
        }


class _Server:
    """A node of the copy that lives and decides."""

    def __init__(self, name: str, facts: NodeFacts, config: Config, record: Record) -> None:
        self.name = name
        self.facts = msgspec.structs.replace(facts, record=record)
        self.arbiter = Arbiter(config, name, State(seen=dict(facts.epochs)))
        self.plan = Plan()
        self.fenced: set[str] = set()

    @property
    def mirrors(self) -> dict[str, MirrorFacts | None]:
        return self.facts.mirrors

    def set_mirror(self, name: str, **fields: object) -> None:
        mirror = self.facts.mirrors.get(name)
        if mirror is not None:
            changed = msgspec.structs.replace(mirror, **fields)
            self.facts = msgspec.structs.replace(self.facts, mirrors={**self.facts.mirrors, name: changed})


class Forecast:
    """A copy of the cluster in which time can pass.

    Args:
        config: the cluster.
        seen: what this node knows now.
        record: what people will have decided; None: what they have.
        votes: what the witness said last of each mirror; empty where there is none.
    """

    def __init__(
        self, config: Config, seen: Snapshot, record: Record | None = None, votes: Mapping[str, Vote] | None = None
    ) -> None:
        self._config = config
        self._seen = seen
        self._record = record if record is not None else seen.record
        self._views = dict(seen.nodes)
        self._now_ms = seen.now_ms
        self._servers: dict[str, _Server] = {}
        for name, view in seen.nodes.items():
            alive = name == seen.me or view.alive is Alive.ALIVE
            if alive and view.facts is not None and view.facts.ready:
                facts = view.facts if name == seen.me else _in_other_clock(view.facts)
                self._servers[name] = _Server(name, facts, config, self._record)
        self._before = {name: self._started(name) for name in seen.services}
        self._register = self._witness(votes or {})
        self._fenced: list[str] = []
        for server in self._servers.values():  # what holds now is what each arbiter remembers
            self._judge(server)

    def _witness(self, votes: Mapping[str, Vote]) -> Register | None:
        """A copy of the witness's book; None where it has no say, or does not answer."""
        if not votes or any(vote.answers is False for vote in votes.values()):
            return None
        assert self._config.witness is not None
        lease_ms = self._config.witness.lease_ms
        leaders = {
            name: Leader(node=node, lease_ms=lease_ms) for name, node in self._before.items() if node is not None
        }
        entries = {name: vote.entry for name, vote in votes.items() if vote.entry is not None}
        return Register(Book(mirrors=entries, leaders=leaders), self._now_ms)

    def die(self, node: str) -> None:
        """A node has lost its power, and the others have noticed."""
        gone = self._servers.pop(node, None)
        view = self._views[node]
        facts = gone.facts if gone is not None else view.facts
        self._views[node] = NodeView(alive=Alive.DEAD, facts=facts)
        for server in self._servers.values():
            for name, mirror in server.mirrors.items():
                if mirror is not None and mirror.connection in LIVE and name in self._config.nodes[node].disks:
                    self._lose_peer(server, name, mirror)

    def _lose_peer(self, server: _Server, name: str, mirror: MirrorFacts) -> None:
        server.set_mirror(
            name,
            connection="WFConnection",
            peer_role="Unknown",
            peer_disk="DUnknown",
            peer_lost_since_connect=mirror.disk == UP_TO_DATE,
            suspended=mirror.role == PRIMARY and self._config.mirrors[name].alone == "ask",
        )

    def run(self) -> Foreseen:
        """Let time pass until nothing happens any more."""
        lease_ms = self._config.witness.lease_ms if self._config.witness is not None else 0
        step_ms = max(ROUND_MS, lease_ms // 10)
        quiet_rounds = QUIET_ROUNDS + lease_ms // step_ms
        steps: list[Step] = []
        quiet = 0
        for _ in range(MAX_ROUNDS):
            taken = [step for server in self._servers.values() for step in self._round(server)]
            steps += taken
            quiet = 0 if taken else quiet + 1
            if quiet > quiet_rounds:
                break
            if not taken:
                self._now_ms += step_ms
        return Foreseen(
            steps=tuple(steps),
            before=self._before,
            after={name: self._started(name) for name in self._seen.services},
            decisions=self._decisions(),
            fenced=tuple(self._fenced),
        )

    def _started(self, service: str) -> str | None:
        for name, server in self._servers.items():
            told = server.facts.services.get(service)
            if told is not None and told.state is ServiceState.STARTED:
                return name
        return None

    def _decisions(self) -> dict[str, tuple[str, str]]:
        """The word of the node that has it; else of the first one that knows."""
        found: dict[str, tuple[str, str]] = {}
        for name, server in self._servers.items():
            for service, decision in server.plan.decisions.items():
                if service not in found or decision.target == name:
                    found[service] = (decision.reason, decision.remedy)
        return found

    def _peers(self, me: str) -> dict[str, NodeView]:
        told = {name: NodeView(alive=Alive.ALIVE, facts=server.facts) for name, server in self._servers.items()}
        return {name: told.get(name, view) for name, view in self._views.items() if name != me}

    def _judge(self, server: _Server) -> None:
        record = server.facts.record
        self._tell(
            server,
            Observed(
                now_ms=self._now_ms,
                initdead_passed=True,
                peers=self._peers(server.name),
                mirrors=server.mirrors,
                wanted=server.plan.wanted,
                forced=frozenset(name for name, node in record.forced.items() if node == server.name),
                fenced=frozenset(server.fenced),
            ),
        )
        given = {
            name: msgspec.convert(msgspec.to_builtins(word), Permission)
            for name, word in server.arbiter.permissions.items()
        }
        server.facts = msgspec.structs.replace(
            server.facts, permissions=given, epochs=server.arbiter.epochs, outdated=server.arbiter.outdated
        )

    def _tell(self, server: _Server, event: Event) -> None:
        waiting: list[Event] = [event]
        for _ in range(MAX_ANSWERS):
            if not waiting:
                return
            for effect in server.arbiter.step(waiting.pop(0)):
                match effect:
                    case Persist():
                        waiting.append(Persisted(state=effect.state))
                    case AskWitness():
                        waiting.append(self._ask(server, effect))
                    case AllowAlone():
                        server.set_mirror(effect.mirror, suspended=False)
                    case Outdate():
                        server.set_mirror(effect.mirror, disk="Outdated", outdated=True)
                        waiting.append(MarkedOutdated(mirror=effect.mirror, epoch=effect.epoch))
                    case Fence():
                        server.fenced.add(effect.node)
                        self._fenced.append(effect.node)
                    case _:
                        pass

    def _ask(self, server: _Server, effect: AskWitness) -> Event:
        question = effect.question
        if self._register is None:
            return WitnessSilent(number=question.number, now_ms=self._now_ms)
        answers = tuple(self._register.do(server.name, one, self._now_ms) for one in question.operations)
        return WitnessAnswered(number=question.number, answers=answers)

    def _round(self, server: _Server) -> list[Step]:
        """One round of one node: the steps it takes."""
        wanted = server.plan.wanted
        self._judge(server)
        server.plan = plan(self._snapshot(server))
        if server.plan.wanted != wanted:
            self._judge(server)
            server.plan = plan(self._snapshot(server))
        server.facts = msgspec.structs.replace(server.facts, record=server.plan.record)
        taken: list[Step] = []
        for name, decision in server.plan.decisions.items():
            told = server.facts.services[name]
            self._set_service(server, name, msgspec.structs.replace(told, target=decision.target))
            step = next((step for step in server.plan.steps if step.service == name), None)
            if step is not None:
                self._take(server, step)
                taken.append(step)
        return taken

    def _snapshot(self, server: _Server) -> Snapshot:
        own = NodeView(alive=Alive.ALIVE, facts=server.facts)
        return msgspec.structs.replace(
            self._seen,
            me=server.name,
            now_ms=self._now_ms,
            config_hash=server.facts.config_hash,
            nodes={**self._peers(server.name), server.name: own},
            permissions=server.facts.permissions,
            record=server.facts.record,
        )

    def _set_service(self, server: _Server, name: str, told: ServiceFacts) -> None:
        server.facts = msgspec.structs.replace(server.facts, services={**server.facts.services, name: told})

    def _take(self, server: _Server, step: Step) -> None:
        """The step has succeeded."""
        told = server.facts.services[step.service]
        resources = {**told.resources, step.resource: _AFTER[step.action]}
        changed = msgspec.structs.replace(
            told,
            step=step.number,
            resources=resources,
            state=_state(set(resources.values()), step.action),
            epoch=max(told.epoch, step.epoch),
        )
        self._set_service(server, step.service, changed)
        part = next(one for one in self._config.services[step.service].resources if one.id == step.resource)
        if isinstance(part, MirrorResource) and step.action is not Action.QUIESCE:
            self._set_role(server, part.mirror, "Secondary" if step.action is Action.STOP else PRIMARY)

    def _set_role(self, server: _Server, mirror: str, role: str) -> None:
        server.set_mirror(mirror, role=role)
        for other in self._servers.values():
            theirs = other.mirrors.get(mirror)
            if other is not server and theirs is not None and theirs.connection in LIVE:
                other.set_mirror(mirror, peer_role=role)


def _state(states: set[ResourceState], last: Action) -> ServiceState:
    if states <= {ResourceState.STOPPED}:
        return ServiceState.STOPPED
    if states <= {ResourceState.STARTED}:
        return ServiceState.STARTED
    if states & {ResourceState.FAILED, ResourceState.BLOCKED}:
        return ServiceState.FAILED
    return ServiceState.STARTING if last is Action.START else ServiceState.STOPPING


def _in_other_clock(facts: NodeFacts) -> NodeFacts:
    """The moments in a peer's facts are of its own clock: what rests there is taken to have rested long enough."""
    services = {
        name: msgspec.structs.replace(
            told, retry_at_ms=0, failures={key: Failure(one.count, 0, one.why) for key, one in told.failures.items()}
        )
        for name, told in facts.services.items()
    }
    return msgspec.structs.replace(facts, services=services)
