"""What the arbiter is told and what it says; frozen values, and the shapes of what it reads.

The shapes (`…View`) are protocols: `manager.model.NodeView` and what hangs below it fulfil them, without either trade
importing the other.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Protocol

import msgspec

from relevo.arbiter.ballot import Question
from relevo.arbiter.register import Answer


class MirrorView(Protocol):
    """What the arbiter reads of a mirror on one node; names of roles and states are DRBD's."""

    @property
    def role(self) -> str: ...  # noqa: D102
    @property
    def peer_role(self) -> str: ...  # noqa: D102
    @property
    def connection(self) -> str: ...  # noqa: D102
    @property
    def peer_disk(self) -> str: ...  # noqa: D102
    @property
    def disk(self) -> str: ...  # noqa: D102
    @property
    def current_uuid(self) -> str: ...  # noqa: D102
    @property
    def bitmap_uuid(self) -> str: ...  # noqa: D102
    @property
    def split_brain(self) -> bool: ...  # noqa: D102
    @property
    def suspended(self) -> bool: ...  # noqa: D102
    @property
    def was_primary_at_start(self) -> bool: ...  # noqa: D102
    @property
    def peer_lost_since_connect(self) -> bool: ...  # noqa: D102
    @property
    def outdated(self) -> bool: ...  # noqa: D102
    @property
    def epoch(self) -> int: ...  # noqa: D102
    @property
    def links(self) -> int: ...  # noqa: D102


class ServiceView(Protocol):
    """What the arbiter reads of a service on one node."""

    @property
    def state(self) -> str: ...  # noqa: D102
    @property
    def step(self) -> int: ...  # noqa: D102


class FactsView(Protocol):
    """What the arbiter reads of a node's facts."""

    @property
    def boot_id(self) -> str: ...  # noqa: D102
    @property
    def ready(self) -> bool: ...  # noqa: D102
    @property
    def services(self) -> Mapping[str, ServiceView]: ...  # noqa: D102
    @property
    def mirrors(self) -> Mapping[str, MirrorView | None]: ...  # noqa: D102
    @property
    def epochs(self) -> Mapping[str, int]: ...  # noqa: D102
    @property
    def outdated(self) -> Mapping[str, int]: ...  # noqa: D102


class NodeView(Protocol):
    """What the arbiter reads of a node."""

    @property
    def alive(self) -> str: ...  # noqa: D102
    @property
    def late(self) -> bool: ...  # noqa: D102
    @property
    def facts(self) -> FactsView | None: ...  # noqa: D102


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What is known now; given whole at each change and once a second at least (waits have an end).

    Attributes:
        now_ms: monotonic clock of this node.
        initdead_passed: the time in which a node may come up after this one has started is over.
        peers: every other node of the cluster.
        mirrors: the mirrors of this node; None when the daemon does not answer.
        wanted: mirrors of which this node shall become Primary (the plan's `wanted`).
        forced: services that a person forces onto this node.
        fenced: nodes that were switched off since they were heard last.
        fence_troubles: node -> why it could not be fenced, one sentence.
    """

    now_ms: int
    initdead_passed: bool
    peers: Mapping[str, NodeView]
    mirrors: Mapping[str, MirrorView | None]
    wanted: frozenset[str] = frozenset()
    forced: frozenset[str] = frozenset()
    fenced: frozenset[str] = frozenset()
    fence_troubles: Mapping[str, str] = {}


class Persisted(msgspec.Struct, frozen=True, kw_only=True):
    """What a `Persist` asked for is on stable storage."""

    state: State


class MarkedOutdated(msgspec.Struct, frozen=True, kw_only=True):
    """What an `Outdate` asked for is on the disk; `epoch` is the one that it carried."""

    mirror: str
    epoch: int


class WitnessAnswered(msgspec.Struct, frozen=True, kw_only=True):
    """The witness has answered the question of that number, operation by operation."""

    number: int
    answers: tuple[Answer, ...]


class WitnessSilent(msgspec.Struct, frozen=True, kw_only=True):
    """No answer to the question of that number came in time."""

    number: int
    now_ms: int


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What the arbiter must find again after a power cut.

    Attributes:
        seen: mirror -> the highest epoch seen anywhere.
        mine: mirror -> the highest epoch that this node has taken for itself.
    """

    seen: dict[str, int] = {}
    mine: dict[str, int] = {}


class Verdict(enum.StrEnum):
    """What is said about becoming Primary."""

    YES = "yes"
    WAIT = "wait"
    NO = "no"


class Permission(msgspec.Struct, frozen=True, kw_only=True):
    """The word on one mirror of this node.

    Attributes:
        verdict: may this node become (or stay) Primary? `wait` has an end.
        may_continue_alone: may a Primary complete writes without its peer?
        epoch: the number a promotion carries; 0 as long as none is taken and on stable storage.
        force: a person accepted that this copy may be stale.
        linked: the promotion must find the mirrors linked: the verdict rests on what the link shows.
        rule: name of the rule that decided, for logs and tests.
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


class Persist(msgspec.Struct, frozen=True, kw_only=True):
    """Put this on stable storage, then give `Persisted(state)`; nothing waits for it but the epochs in it."""

    state: State


class Permit(msgspec.Struct, frozen=True, kw_only=True):
    """The permissions have changed; these replace the earlier ones."""

    permissions: dict[str, Permission]


class Outdate(msgspec.Struct, frozen=True, kw_only=True):
    """Mark this mirror's disk Outdated: the peer goes on alone, or asks to. A refusal (it is connected) is fine.

    When it is on the disk, give `MarkedOutdated` with the same epoch: the highest one of the peer's that was known when
    this was asked for. `links`: as in `AllowAlone`.
    """

    mirror: str
    epoch: int = 0
    links: int = 0


class ProbeLink(msgspec.Struct, frozen=True, kw_only=True):
    """Let the mirror ask its peer at once whether the connection lives, and drop it if no answer comes."""

    mirror: str


class AllowAlone(msgspec.Struct, frozen=True, kw_only=True):
    """Tell the mirror (alone = "ask") that it may complete writes without its peer.

    Attributes:
        links: how many links it has had: with another one since, it refuses.
    """

    mirror: str
    epoch: int
    links: int


class Fence(msgspec.Struct, frozen=True, kw_only=True):
    """Have a node switched off, if it stays silent for `delay_ms` more."""

    node: str
    delay_ms: int


class DenyAlone(msgspec.Struct, frozen=True, kw_only=True):
    """Tell a suspended Primary that no permission will come: what waits fails now, so that the service can stop."""

    mirror: str


class AskWitness(msgspec.Struct, frozen=True, kw_only=True):
    """Send this to the witness, then give `WitnessAnswered` or `WitnessSilent` with its number."""

    question: Question


Event = Observed | Persisted | MarkedOutdated | WitnessAnswered | WitnessSilent
Duty = Outdate | ProbeLink | AllowAlone | DenyAlone | Fence
Effect = Persist | Permit | AskWitness | Duty
