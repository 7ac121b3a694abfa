"""What is remembered of one peer: how far it was heard, on which links, and what it said about itself."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec

from relevo.heartbeat.events import NOTHING_HEARD, Mark, PeerState, Reason
from relevo.heartbeat.gaps import Gaps
from relevo.heartbeat.handover import Handover
from relevo.heartbeat.wire import Message

WINDOW_MESSAGES = 512
"""A lower sequence number that was not seen is accepted if it is at most this far behind the highest."""
RECENT_MESSAGES = 32
"""A copy at most this far behind the highest is an everyday duplicate; an older one counts as replayed."""

RESERVE_MESSAGES = 24
"""Marks on disk are raised so far ahead of need. After a crash of ours up to so many messages of a peer that does not
name our generation are refused: few enough to be over before initdead."""
RESERVE_PROVEN_MESSAGES = 48
"""The same for a peer that names our generation, for which nothing is refused; it may send facts in bursts."""
HELD_MESSAGES = 8
"""So many messages of a peer wait for the marks on disk; of more only the newest do."""


class Received(msgspec.Struct, frozen=True):
    """A numbered message of a configured peer with a good signature.

    Attributes:
        proven: it was made in our present run, because it names our present generation.
        at_ms: when it came, on the awake clock.
    """

    link: str
    message: Message
    mark: Mark
    proven: bool
    at_ms: int

    @property
    def uuid(self) -> bytes:
        """Of the sender; empty if it does not say."""
        return self.message.binary("srcuuid") or b""


class Window:
    """The sequence numbers already accepted of one generation; `highest` and a bit for each of those just below it."""

    __slots__ = ("_seen", "highest")

    def __init__(self) -> None:
        self.highest = 0
        self._seen = 0  # bit n: highest - n was accepted

    def refusal(self, sequence: int) -> Reason | None:
        """Why this number cannot be accepted; None if it can."""
        behind = self.highest - sequence
        if behind < 0:
            return None
        if behind >= WINDOW_MESSAGES:
            return Reason.REPLAYED
        if self._seen >> behind & 1:
            return Reason.DUPLICATE if behind <= RECENT_MESSAGES else Reason.REPLAYED
        return None

    def accept(self, sequence: int) -> bool:
        """Note a number that `refusal` let pass; True if it is the highest so far."""
        assert self.refusal(sequence) is None
        behind = self.highest - sequence
        if behind >= 0:
            self._seen |= 1 << behind
            return False
        shift = min(-behind, WINDOW_MESSAGES)
        self._seen = (self._seen << shift | 1) & ((1 << WINDOW_MESSAGES) - 1)
        self.highest = sequence
        return True


@dataclasses.dataclass(slots=True)
class PeerLink:
    """One peer on one link: the highest number that came over it, when, and the verdict."""

    sequence: int = 0
    heard_ms: int = 0
    up: bool = False


@dataclasses.dataclass(slots=True)
class Incarnation:
    """One run of a peer's daemon, as far as it was accepted in our own run.

    Attributes:
        generation, uuid: who it is.
        window, gaps: the numbers heard, and those missing between them.
        confirmed: a message of it carried our own generation: it hears us.
        facts, facts_no: the last facts; None and 0 before the first.
    """

    generation: int
    uuid: bytes
    window: Window = dataclasses.field(default_factory=Window)
    gaps: Gaps = dataclasses.field(default_factory=Gaps)
    confirmed: bool = False
    facts: dict[str, Any] | None = None
    facts_no: int = 0

    @property
    def mark(self) -> Mark:
        """The highest message accepted of it."""
        return Mark(self.generation, self.window.highest)


@dataclasses.dataclass(slots=True)
class Peer:
    """Everything about one peer; times are on the membership's awake clock.

    Attributes:
        floor: from disk at our start: what is not above it must prove that it was made in our present run.
        reserved: on disk now.
        wanted: asked to be on disk.
        held: messages that wait until the marks on disk cover them.
        highest_held: of all that were ever held.
        held_since_ms: since when messages have been waiting for the disk; None if they have not.
        present: the incarnation now accepted; None before the first message.
        answered_generation: the newest generation seen with a good signature; our messages name it.
        heard_ms: the last sign of life (or our start).
        deadline_ms: when silence becomes death.
        handover: of resources with it while it is an original Heartbeat; None where that is not possible.
        graced: the deadline was already put off once because of a pause of our own.
    """

    name: str
    floor: Mark
    links: dict[str, PeerLink]
    heard_ms: int
    deadline_ms: int
    reserved: Mark = NOTHING_HEARD
    wanted: Mark = NOTHING_HEARD
    held: list[Received] = dataclasses.field(default_factory=list)
    highest_held: Mark = NOTHING_HEARD
    held_since_ms: int | None = None
    present: Incarnation | None = None
    handover: Handover | None = None
    answered_generation: int = 0
    graced: bool = False
    state: PeerState = PeerState.UNKNOWN
    late: bool = False
    relevo: bool = False
    boot_id: str = ""
    config_hash: str = ""

    @property
    def original(self) -> bool:
        """It was heard, and it is no Relevo."""
        return self.present is not None and not self.relevo

    def handed_over(self) -> dict[str, Any] | None:
        """What the node daemon is told of the hand-over of resources; None unless it is an original."""
        return self.handover.view() if self.handover is not None and self.original else None

    def visible(self) -> tuple[object, ...]:
        """What others can see of it, facts excluded: a difference is worth telling."""
        generation = self.present.generation if self.present else 0
        links = tuple(link.up for link in self.links.values())
        confirmed = self.present is not None and self.present.confirmed
        said = self.boot_id, self.config_hash, self.handed_over()
        return self.state, self.late, self.relevo, said, generation, confirmed, links

    def refusal(self, received: Received, *, impatient: bool) -> Reason | None:
        """Why a message cannot be accepted now; None if it can.

        Args:
            received: the message.
            impatient: do not ask whether the marks on disk cover it.
        """
        if (never := self.refusal_for_good(received)) is not None:
            return never
        mark = received.mark
        if mark <= self.highest_held:  # what was not held at its first chance never is: a copy of it may be a replay
            return Reason.DUPLICATE if mark.generation == self.highest_held.generation else Reason.OLD_GENERATION
        return Reason.HELD if mark > self.reserved and not impatient else None

    def refusal_for_good(self, received: Received) -> Reason | None:
        """Why a message cannot be accepted, whatever is on disk now; None if it can."""
        mark = received.mark
        if self.present is not None and mark.generation <= self.present.generation:
            if mark.generation < self.present.generation:
                return Reason.OLD_GENERATION
            if received.uuid != self.present.uuid:
                return Reason.NAME_TAKEN
            if (seen := self.present.window.refusal(mark.sequence)) is not None:
                return seen
        if not received.proven:
            if mark <= self.floor:
                return Reason.REPLAYED if mark.generation == self.floor.generation else Reason.OLD_GENERATION
            if self.present is not None and self.present.confirmed and mark < self.present.mark:
                return Reason.REPLAYED  # it hears us, so this was made before; perhaps in an earlier run of ours
        return None

    def hold(self, received: Received) -> None:
        """Keep a message until the marks on disk cover it."""
        self.highest_held = max(self.highest_held, received.mark)
        self.held = [*self.held, received][-HELD_MESSAGES:]
        if self.held_since_ms is None:
            self.held_since_ms = received.at_ms

    def covered(self) -> list[Received]:
        """Take out what was held and is covered now by the marks on disk, lowest first."""
        ready = sorted((one for one in self.held if one.mark <= self.reserved), key=lambda one: one.mark)
        self.held = [one for one in self.held if one.mark > self.reserved]
        return ready

    def reserve(self, received: Received) -> bool:
        """Raise `wanted` when less than half of the reserve is left; True if it was raised."""
        mark, ahead = received.mark, RESERVE_PROVEN_MESSAGES if received.proven else RESERVE_MESSAGES
        if Mark(mark.generation, mark.sequence + ahead // 2) <= self.wanted:
            return False  # also for a lower generation, accepted on proof only: a mark on disk never goes back
        self.wanted = Mark(mark.generation, mark.sequence + ahead)
        return True

    def final_mark(self) -> Mark:
        """The exact mark, when nothing will be received any more."""
        if self.present is not None and self.present.generation == self.wanted.generation:
            return max(self.present.mark, self.floor)
        return self.wanted

    def view(self, awake_ms: int, config_hash: str) -> dict[str, Any]:
        """Its part of what `watch` and `status` tell; `config_hash` is ours."""
        present = self.present
        return {
            "state": self.state.value,
            "late": self.late,
            "silent_ms": awake_ms - self.heard_ms,
            "relevo": self.relevo,
            "original": self.handed_over(),
            "hears_us": present is not None and present.confirmed,
            "links": {name: "up" if link.up else "down" for name, link in self.links.items()},
            "generation": present.generation if present else 0,
            "recovered": present.gaps.recovered if present else 0,
            "given_up": present.gaps.given_up if present else 0,
            "boot_id": self.boot_id or None,
            "config_same": self.config_hash == config_hash if self.config_hash else None,
            "facts": present.facts if present else None,
            "facts_no": present.facts_no if present else 0,
        }
