"""What the manager knows and decides, as frozen values: facts of the nodes, the snapshot, the plan.

`NodeFacts` is what a node tells about itself with its heartbeats; it is plain JSON (`encode_facts`, `decode_facts`).
Everything below it may come from an older or newer program: unknown fields are ignored, every field that was added
later has a default.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any

import msgspec

from relevo.base.errors import RelevoError
from relevo.config.model import Service

UP_TO_DATE = "UpToDate"
PRIMARY = "Primary"
CONNECTED = "Connected"

UNUSABLE = "unusable"
"""In the place of a hash: the configuration cannot be read, or is wrong."""

EVERY_SERVICE = "*"
"""In the record's `maintenance`: all of them. No service can be called so."""

MAX_COUNT = 1 << 62
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
"""An epoch or a version as another node may tell it: what it counts up to fits into 64 bits."""
RECORD_FORMAT = 2
"""The newest fields of the record that this program knows (see `FIELDS_OF_FORMAT` in `record.py`)."""

Generation = Annotated[str, msgspec.Meta(pattern="^[0-9A-Fa-f]{0,16}$")]
"""A generation of data: 64 bits in hexadecimal; empty when it is not told."""


class BadFacts(RelevoError):
    """The facts that a node published cannot be read."""


class Alive(enum.StrEnum):
    """What the heartbeats say about a node."""

    UNKNOWN = "unknown"  # never heard since we started, and initdead is not over
    ALIVE = "alive"
    DEAD = "dead"  # silent for deadtime
    LEFT = "left"  # said goodbye


class ServiceState(enum.StrEnum):
    """What a service is on one node."""

    UNKNOWN = "unknown"  # not probed yet
    STOPPED = "stopped"  # nothing of it is here, and nothing is being started
    STARTING = "starting"
    STARTED = "started"
    STOPPING = "stopping"
    FAILED = "failed"


class ResourceState(enum.StrEnum):
    """What a resource is on one node."""

    UNKNOWN = "unknown"  # not probed yet
    STOPPED = "stopped"
    STARTED = "started"
    QUIESCED = "quiesced"  # running, but taking nothing new
    FAILED = "failed"  # not whole: it must be stopped before it may be started
    BLOCKED = "blocked"  # its stop failed: something of it is still here


class Verdict(enum.StrEnum):
    """What the arbiter says about becoming Primary."""

    YES = "yes"
    WAIT = "wait"  # it will be known soon: the wait has an end
    NO = "no"


class Reach(enum.StrEnum):
    """What a node knows of a ping target."""

    REACHED = "reached"  # it has answered for `settle`, without a break
    DOUBTFUL = "doubtful"  # between the two: asked for too short a time, or a few answers are missing
    LOST = "lost"  # silent for `deadping`


class Action(enum.StrEnum):
    """What a step does to a resource."""

    START = "start"
    QUIESCE = "quiesce"
    STOP = "stop"


class Permission(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The arbiter's word on one mirror, for one node; the fields are those of `relevo.arbiter.events.Permission`.

    Attributes:
        verdict: may this node become (or stay) Primary?
        may_continue_alone: may a Primary complete writes without its peer?
        epoch: the vote's number; 0 as long as there is none to use. A promotion carries it.
        force: a person accepted that this copy may be stale.
        linked: the promotion must find the mirrors linked: the verdict rests on what the link shows.
        rule: the name of the rule that decided.
        reason: one sentence.
        remedy: what a person may do; may be empty.
    """

    verdict: Verdict
    reason: str
    rule: str = ""
    may_continue_alone: bool = False
    epoch: int = 0
    force: bool = False
    linked: bool = False
    remedy: str = ""

    @property
    def may_promote(self) -> bool:
        """Whether a promotion may be asked of the mirror now, with `epoch`."""
        return self.verdict is Verdict.YES and self.epoch > 0


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """The failures of one resource on one node.

    Attributes:
        count: how many since the last success that lasted, or since the last clean-up.
        last_ms: when the last one was, in the clock of that node (compare with nothing else).
        why: what went wrong the last time; empty from a version that does not say.
    """

    count: int
    last_ms: int
    why: str = ""


class ServiceFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One service on one node.

    Attributes:
        state: derived from the resources and from what is being done.
        step: number of the last step begun here; grows by one with each.
        resources: by id.
        failures: by id of the resource; only those not forgotten.
        epoch: the highest epoch under which a resource of it was started here since the node daemon runs.
        target: the node where this node believes the service belongs; None when nowhere or not decided.
        retry_at_ms: no start before this moment, in the clock of that node (after a start that was declined).
        reason: one sentence about the last thing that went wrong; empty when all is well.
    """

    state: ServiceState
    step: int = 0
    resources: dict[str, ResourceState] = {}
    failures: dict[str, Failure] = {}
    epoch: int = 0
    target: str | None = None
    retry_at_ms: int = 0
    reason: str = ""


class MirrorFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One mirror on one node, as its daemon's status tells; names of states are DRBD's.

    Attributes:
        current_uuid, bitmap_uuid: generation of the data, and the one from which the bitmap counts; hexadecimal.
        out_of_sync_bytes: what the peer's disk is known to lack or have differently.
        was_primary_at_start: the disk was Primary when it was last closed or lost, before this process attached it.
        peer_lost_since_connect: since this process was connected and UpToDate the peer fell silent, without goodbye.
        epoch: the highest epoch that the mirror has obeyed; 0 when it does not tell.
        resync_total_bytes: what resyncs have fetched or given since the mirror's daemon runs.
        links: how many links to the peer its daemon has had.
        io_suspended: what is read and written is held, because a person asked for it.
        left: it has taken leave of its peer because its node left the cluster.
    """

    role: str = "Secondary"
    peer_role: str = "Unknown"
    connection: str = "StandAlone"
    disk: str = "Diskless"
    peer_disk: str = "DUnknown"
    current_uuid: Generation = ""
    bitmap_uuid: Generation = ""
    out_of_sync_bytes: int = 0
    split_brain: bool = False
    suspended: bool = False
    io_suspended: bool = False
    was_primary_at_start: bool = False
    peer_lost_since_connect: bool = False
    outdated: bool = False
    epoch: Count = 0
    size_bytes: int = 0
    resync_total_bytes: int = 0
    links: Count = 0
    left: bool = False
    problem: str = ""


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What people decided about the whole cluster; the highest version wins everywhere (see `record.py`).

    Attributes:
        epoch, counter, node: its version, compared in this order; `node` wrote it.
        standby: nodes that shall run nothing, sorted.
        forced: service -> the node on which a person wants it now, although its copy may be stale.
        kept: mirror -> the node whose changes a person keeps after a split brain, until the copies are one again.
        format: the newest format whose fields are in here; 0: written by a program that knows only those above.
        bans: service -> node where it shall not run -> until when, in seconds of UTC since 1970; 0: until cleared.
        moved: service -> the node where a person wants it, in the place of `prefer`, until that is cleared.
        maintenance: services of which nothing is started, stopped or restarted, sorted; `EVERY_SERVICE` means all.
        cleaned: service -> how often its failures were forgotten at a person's word.
        written: node -> the counter of its last change that is in here: whether a decision was known to this one.
        unknown: fields of a newer program, kept as they are and passed on.
    """

    epoch: Count = 0
    counter: Count = 0
    node: str = ""
    standby: tuple[str, ...] = ()
    forced: dict[str, str] = {}
    kept: dict[str, str] = {}
    format: Count = 0
    bans: dict[str, dict[str, Count]] = {}
    moved: dict[str, str] = {}
    maintenance: tuple[str, ...] = ()
    cleaned: dict[str, Count] = {}
    written: dict[str, Count] = {}
    unknown: dict[str, Any] = {}

    @property
    def version(self) -> tuple[int, int, str]:
        """The higher one wins."""
        return (self.epoch, self.counter, self.node)

    def maintains(self, service: str) -> bool:
        """Whether a service is left alone."""
        return service in self.maintenance or EVERY_SERVICE in self.maintenance


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a node tells the others, always whole and always of one moment.

    A node publishes its facts before it acts on them: a service that is being started is `starting` in the same
    message that would answer a vote.

    Attributes:
        boot_id: of its kernel; another one means that everything it ran is gone.
        config_hash: of its configuration.
        ready: services are probed, the mirrors' daemons were asked.
        leaving: it is on its way out and runs nothing soon.
        services: by name.
        mirrors: by name; None when the daemon does not answer.
        epochs: mirror -> the highest epoch that this node has seen and put on stable storage: its vote.
        outdated: mirror -> the other node's epoch after which this node has marked its copy Outdated.
        permissions: mirror -> the arbiter's word on this node.
        record: its copy of the record.
        record_format: the newest format of the record that its program knows.
        pressure: percent of the last minute in which a program waited for processor or disk; None: not known.
        program: the version of Relevo that it runs; empty from one that does not say.
        trouble: what it sees and what people were told, for the alerts (`node/trouble.py`).
        reach: its ping targets, by name; empty from one that does not say, or has none.
        unread: hash of what its relevo.toml says by now, where its daemon has not read that yet; `UNUSABLE`: it is
            wrong or gone; empty: it has, or its program does not tell.
    """

    boot_id: str
    config_hash: str
    ready: bool = False
    leaving: bool = False
    services: dict[str, ServiceFacts] = {}
    mirrors: dict[str, MirrorFacts | None] = {}
    epochs: dict[str, Count] = {}
    outdated: dict[str, Count] = {}
    permissions: dict[str, Permission] = {}
    record: Record = Record()
    record_format: int = 0
    pressure: int | None = None
    program: str = ""
    trouble: dict[str, str] = {}
    reach: dict[str, Reach] = {}
    unread: str = ""

    @property
    def file_hash(self) -> str:
        """Of what its relevo.toml says, whether or not its daemon has read it."""
        return self.unread or self.config_hash


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """One node as seen from here.

    Attributes:
        alive: what the heartbeats say (of oneself: alive).
        late: it has been silent for warntime.
        facts: its last word in its present (or last) incarnation; None when there is none.
    """

    alive: Alive
    late: bool = False
    facts: NodeFacts | None = None


class Original(msgspec.Struct, frozen=True, kw_only=True):
    """The other node runs an original Heartbeat 3; groups are `ours` and `theirs`, by the node that services prefer.

    Attributes:
        node: its name.
        claims: the groups that are this node's to run, as the original knows.
        giving: those that it has agreed to take and waits for.
        declined: those that a person there has handed over to this node.
        current: the heartbeats have heeded this node's last word; what they claim rests on it.
        legacy: it has auto_failback legacy: it takes nothing of ours before our goodbye.
    """

    node: str
    claims: frozenset[str] = frozenset()
    giving: frozenset[str] = frozenset()
    declined: frozenset[str] = frozenset()
    current: bool = False
    legacy: bool = False


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a plan depends on.

    Attributes:
        me: this node.
        now_ms: this node's monotonic clock.
        config_hash: of this node's configuration.
        services: by name, from the configuration.
        hosts: service -> the nodes that have what it needs (a disk for each of its mirrors), sorted by name.
        nodes: every node of the cluster, this one included.
        permissions: mirror -> the arbiter's word on this node.
        record: the record as this node knows it.
        shared: the last one that all nodes had that were there, as far as this node has seen; None: it has not.
        utc_s: the time of day, seconds since 1970; bans end by it. Servers' clocks may differ.
        local_minute: of this node's day, 0 to 1439; windows of failback are in local time.
        ready_ms: node -> how long it has been there and ready, without a break, as far as this node has seen.
        fenceable: nodes that can be switched off from here.
        capacities: node -> how much its services may cost together; none or 0: as much as they like.
        original: the other node, if it runs an original Heartbeat.
    """

    me: str
    now_ms: int
    config_hash: str
    services: dict[str, Service]
    hosts: dict[str, tuple[str, ...]]
    nodes: dict[str, NodeView]
    permissions: dict[str, Permission] = {}
    record: Record = Record()
    shared: Record | None = None
    utc_s: int = 0
    local_minute: int = 0
    ready_ms: dict[str, int] = {}
    fenceable: frozenset[str] = frozenset()
    capacities: dict[str, int] = {}
    original: Original | None = None


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to do on this node.

    Attributes:
        number: the executor drops a step whose number is not one above its last: it belongs to an older plan.
        timeout_ms: how long it may take.
        epoch: for the start of a mirror: the vote's epoch.
        force: for the start of a mirror: a person accepted that this copy may be stale.
        linked: for the start of a mirror: only while it is linked with its peer.
        because: one sentence.
    """

    node: str
    service: str
    resource: str
    action: Action
    number: int
    timeout_ms: int
    epoch: int = 0
    force: bool = False
    linked: bool = False
    because: str = ""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Where a service belongs and why.

    Attributes:
        target: a node, or None: nowhere now, or not known yet.
        reason: one sentence.
        remedy: what a person may do; empty when nothing is needed.
        blocked: it cannot go on without a person.
    """

    service: str
    target: str | None
    reason: str
    remedy: str = ""
    blocked: bool = False


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What follows from a snapshot.

    Attributes:
        steps: this node's steps; per service in the order in which they have to be done.
        decisions: by service.
        wanted: mirrors of which this node shall become Primary: the arbiter is asked for an epoch for these.
        record: the newest record there is; when it differs from the snapshot's, store it safely and publish it.
        alarms: sentences about the cluster as a whole (configurations that differ, …).
        maintained: services that are left alone.
        fence: node to be switched off -> why: a stop failed there, and this node can take over.
    """

    steps: tuple[Step, ...] = ()
    decisions: dict[str, Decision] = {}
    wanted: frozenset[str] = frozenset()
    record: Record = Record()
    alarms: tuple[str, ...] = ()
    maintained: frozenset[str] = frozenset()
    fence: dict[str, str] = {}


def encode_record(record: Record) -> dict[str, object]:
    """The record as a JSON object; fields of a newer program stand where that program wrote them."""
    built: dict[str, object] = msgspec.to_builtins(msgspec.structs.replace(record, unknown={}))
    return {**record.unknown, **built}


def decode_record(told: object) -> Record:
    """The record of a JSON object; fields of a newer program are kept in `unknown`.

    Raises:
        BadFacts: it is not what `encode_record` makes.
    """
    fields = told if isinstance(told, dict) else {}
    unknown = {name: value for name, value in fields.items() if name not in _RECORD_FIELDS}
    try:
        known = msgspec.convert(
            {name: value for name, value in fields.items() if name in _RECORD_FIELDS} if fields else told, Record
        )
    except msgspec.ValidationError as error:
        raise BadFacts(f"A cluster record cannot be read ({error}).") from error
    return msgspec.structs.replace(known, unknown=unknown)


_RECORD_FIELDS = frozenset(Record.__struct_fields__) - {"unknown"}


def encode_facts(facts: NodeFacts) -> dict[str, object]:
    """The facts as a JSON object (for `publish` of the heartbeats)."""
    built: dict[str, object] = msgspec.to_builtins(facts)
    if "record" in built:
        built["record"] = encode_record(facts.record)
    return built


def decode_facts(told: object) -> NodeFacts:
    """The facts of a JSON object; fields of a newer program are ignored.

    Raises:
        BadFacts: it is not what `encode_facts` makes.
    """
    try:
        facts = msgspec.convert(told, NodeFacts)
    except msgspec.ValidationError as error:
        raise BadFacts(
            f"The facts of another node cannot be read ({error}).", "Do both nodes run the same version of Relevo?"
        ) from error
    if isinstance(told, dict) and "record" in told:
        return msgspec.structs.replace(facts, record=decode_record(told["record"]))
    return facts
