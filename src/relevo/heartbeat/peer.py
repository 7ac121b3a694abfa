"""What is remembered of one peer: how far it was heard, on which links, and what it said about itself."""

from __future__ import annotations

import dataclasses
from typing import Any

from relevo.heartbeat.events import NOTHING_HEARD, Mark, PeerState, Reason

WINDOW_MESSAGES = 512
"""A lower sequence number that was not seen is accepted if it is at most this far behind the highest."""
RECENT_MESSAGES = 32
"""A copy at most this far behind the highest is an everyday duplicate; an older one counts as replayed."""


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
        confirmed: a message of it carried our own generation: it hears us.
        facts, facts_no: the last facts; None and 0 before the first.
    """

    generation: int
    uuid: bytes
    window: Window = dataclasses.field(default_factory=Window)
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
        refused: the highest that was refused because the marks on disk did not cover it.
        unreserved_since_ms: since when good messages are refused because the disk is slow; None if they are not.
        present: the incarnation now accepted; None before the first message.
        answered_generation: the newest generation seen with a good signature; our messages name it.
        heard_ms: the last sign of life (or our start).
        deadline_ms: when silence becomes death.
        graced: the deadline was already put off once because of a pause of our own.
    """

    name: str
    floor: Mark
    links: dict[str, PeerLink]
    heard_ms: int
    deadline_ms: int
    reserved: Mark = NOTHING_HEARD
    wanted: Mark = NOTHING_HEARD
    refused: Mark = NOTHING_HEARD
    unreserved_since_ms: int | None = None
    present: Incarnation | None = None
    answered_generation: int = 0
    graced: bool = False
    state: PeerState = PeerState.UNKNOWN
    late: bool = False
    relevo: bool = False
    boot_id: str = ""
    config_hash: str = ""

    def visible(self) -> tuple[object, ...]:
        """What others can see of it, facts excluded: a difference is worth telling."""
        generation = self.present.generation if self.present else 0
        links = tuple(link.up for link in self.links.values())
        confirmed = self.present is not None and self.present.confirmed
        return self.state, self.late, self.relevo, self.boot_id, self.config_hash, generation, confirmed, links

    def refusal(self, uuid: bytes, mark: Mark, *, proven: bool, reserved: bool) -> Reason | None:
        """Why a numbered message with a good signature cannot be accepted; None if it can.

        Args:
            uuid: of the sender.
            mark: generation and number of the message.
            proven: it was made in our present run, because it names our present generation.
            reserved: pretend that the marks on disk cover it (the disk does not answer).
        """
        if self.present is not None and mark.generation <= self.present.generation:
            if mark.generation < self.present.generation:
                return Reason.OLD_GENERATION
            if uuid != self.present.uuid:
                return Reason.NAME_TAKEN
            if (seen := self.present.window.refusal(mark.sequence)) is not None:
                return seen
        if proven:
            return None
        if mark <= self.floor:
            return Reason.REPLAYED if mark.generation == self.floor.generation else Reason.OLD_GENERATION
        if mark <= self.refused:  # what was refused once stays refused: a later copy of it could be a replay
            return Reason.UNRESERVED if mark.generation == self.refused.generation else Reason.OLD_GENERATION
        if self.present is not None and self.present.confirmed and mark < self.present.mark:
            return Reason.REPLAYED  # it hears us, so this was made before; perhaps in an earlier run of ours
        return Reason.UNRESERVED if mark > self.reserved and not reserved else None

    def view(self, awake_ms: int, config_hash: str) -> dict[str, Any]:
        """Its part of what `watch` and `status` tell; `config_hash` is ours."""
        present = self.present
        return {
            "state": self.state.value,
            "late": self.late,
            "silent_ms": awake_ms - self.heard_ms,
            "relevo": self.relevo,
            "hears_us": present is not None and present.confirmed,
            "links": {name: "up" if link.up else "down" for name, link in self.links.items()},
            "generation": present.generation if present else 0,
            "boot_id": self.boot_id or None,
            "config_same": self.config_hash == config_hash if self.config_hash else None,
            "facts": present.facts if present else None,
            "facts_no": present.facts_no if present else 0,
        }
