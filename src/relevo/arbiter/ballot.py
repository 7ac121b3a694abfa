"""A node's side of the witness: what it last said, what is asked of it next, and how much of that may be relied on.

One request is under way at a time. When its answer does not come, nobody knows whether it was carried out: what it
might have changed is read anew before anything rests on it. A later request overtakes an earlier one for good, because
the witness refuses numbers below the last.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from relevo.arbiter.register import Answer, Entry, Hold, Operation, Read, Release, Swap

MAX_OPERATIONS = 8
"""What one request carries; the rest waits for the next."""

REFRESH_MS = 5000
"""What the witness says of a mirror is read anew after this time: a person may have decided elsewhere."""

PAUSE_MS = 1000
"""Pause after a request that nobody answered, or that was declined."""

RENEWALS_PER_LEASE = 3
MARGIN_DIVISOR = 16
"""A holder counts its lease shorter by this part: two clocks never run equally fast."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What the witness shall say of a mirror.

    Attributes:
        force: a person decided so.
        epoch: of this node's promotion.
    """

    generation: str
    in_sync: tuple[str, ...]
    epoch: int
    force: bool = False


class Vote(msgspec.Struct, frozen=True, kw_only=True):
    """What the witness says of one mirror, for one node.

    Attributes:
        known: `entry` is what it said last, and nothing is under way that could change it for this node.
        answers: the last request was answered; None: none has ended yet.
        included: this node's copy is one of the newest; `sole`: the only one.
        lease_left_ms: so long this node leads every service of the mirror at least.
        waits_for: who has to be waited for, and why; empty when nobody has.
    """

    known: bool
    answers: bool | None
    entry: Entry | None
    included: bool
    sole: bool
    lease_left_ms: int
    waits_for: str = ""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent to the witness: numbered, so that an answer finds what was asked."""

    number: int
    operations: tuple[Operation, ...]
    asked_ms: int


class Ballot:
    """What one node knows from the witness.

    Args:
        me: this node.
        services: mirror -> the services that use it; the mirrors are those that the witness has a say in.
        lease_ms: for how long a service is led each time.
    """

    def __init__(self, me: str, services: Mapping[str, tuple[str, ...]], lease_ms: int) -> None:
        self._me = me
        self._services = dict(services)
        self._lease_ms = lease_ms
        self._entries: dict[str, Entry | None] = {}
        self._read_ms: dict[str, int] = {}
        self._lease_until_ms: dict[str, int] = {}
        self._held_ms: dict[str, int] = {}
        self._waits: dict[str, str] = {}
        self._not_before_ms: dict[str, int] = {}
        self._outdated: set[str] = set()
        self._question: Question | None = None
        self._number = 0
        self._answers: bool | None = None
        self._silent_ms: int | None = None

    def vote(self, mirror: str, now_ms: int) -> Vote:
        """What the witness says of a mirror."""
        entry = self._entries.get(mirror)
        in_sync = entry.in_sync if entry is not None else ()
        leases = [self._lease_until_ms.get(service, now_ms) - now_ms for service in self._services[mirror]]
        return Vote(
            known=mirror in self._entries and not self._is_changing(mirror),
            answers=self._answers,
            entry=entry,
            included=self._me in in_sync,
            sole=in_sync == (self._me,),
            lease_left_ms=max(0, min(leases, default=0)),
            waits_for=self._waits.get(mirror, ""),
        )

    def _is_changing(self, mirror: str) -> bool:
        operations = self._question.operations if self._question is not None else ()
        return any(isinstance(operation, Swap) and operation.mirror == mirror for operation in operations)

    def ask(self, now_ms: int, wishes: Mapping[str, Wish], leads: frozenset[str]) -> Question | None:
        """What to send now; None: nothing, or something is under way.

        Args:
            now_ms: this node's clock.
            wishes: mirror -> what the witness shall say of it.
            leads: the services that this node leads.
        """
        if self._question is not None:
            return None
        if self._silent_ms is not None and now_ms - self._silent_ms < PAUSE_MS:
            return None
        operations = [*self._about_mirrors(now_ms, wishes), *self._about_leases(now_ms, leads)]
        if not operations:
            return None
        self._number += 1
        self._question = Question(number=self._number, operations=tuple(operations[:MAX_OPERATIONS]), asked_ms=now_ms)
        return self._question

    def _about_mirrors(self, now_ms: int, wishes: Mapping[str, Wish]) -> list[Operation]:
        operations: list[Operation] = []
        for mirror, services in self._services.items():
            wish = wishes.get(mirror)
            if mirror not in self._entries or now_ms - self._read_ms[mirror] >= REFRESH_MS:
                operations.append(Read(mirror=mirror))
            elif wish is not None and now_ms >= self._not_before_ms.get(mirror, now_ms) and self._differs(mirror, wish):
                entry = self._entries[mirror]
                operations.append(
                    Swap(
                        mirror=mirror,
                        version=entry.version if entry is not None else 0,
                        generation=wish.generation,
                        in_sync=wish.in_sync,
                        epoch=wish.epoch,
                        services=services,
                        lease_ms=self._lease_ms,
                        force=wish.force,
                    )
                )
        return operations

    def _differs(self, mirror: str, wish: Wish) -> bool:
        entry = self._entries[mirror]
        if entry is None:
            return True
        if self._me not in entry.in_sync and not wish.force:
            return False  # it would be refused: whoever is in sync has to take this node in
        return (entry.generation, entry.in_sync) != (wish.generation, wish.in_sync)

    def _about_leases(self, now_ms: int, leads: frozenset[str]) -> list[Operation]:
        operations: list[Operation] = []
        for service in sorted(leads):
            last_ms = self._held_ms.get(service)
            if last_ms is None or now_ms - last_ms >= self._lease_ms // RENEWALS_PER_LEASE:
                operations.append(Hold(service=service, lease_ms=self._lease_ms))
        operations += [Release(service=service) for service in sorted(self._held_ms.keys() - leads)]
        return operations

    def answered(self, number: int, answers: tuple[Answer, ...]) -> None:
        """The witness has answered; what is not the answer to the question under way is ignored."""
        question = self._question
        if question is None or question.number != number:
            return
        self._question = self._silent_ms = None
        self._answers = True
        outdated, self._outdated = self._outdated, set()
        for operation, answer in zip(question.operations, answers, strict=False):
            match operation:
                case Read() | Swap():
                    self._told(operation, answer, question.asked_ms)
                    if operation.mirror in outdated:
                        del self._entries[operation.mirror]
                case Hold():
                    self._held_ms[operation.service] = question.asked_ms
                    if answer.ok:
                        self._leads(operation.service, question.asked_ms)
                case Release():
                    self._held_ms.pop(operation.service, None)
                    self._lease_until_ms.pop(operation.service, None)

    def _told(self, operation: Read | Swap, answer: Answer, asked_ms: int) -> None:
        mirror = operation.mirror
        self._entries[mirror] = answer.entry
        self._read_ms[mirror] = asked_ms
        self._waits.pop(mirror, None)
        self._not_before_ms.pop(mirror, None)
        if isinstance(operation, Read):
            return
        if answer.ok and operation.in_sync == (self._me,):
            for service in operation.services:
                self._held_ms[service] = asked_ms
                self._leads(service, asked_ms)
        elif not answer.ok:
            self._waits[mirror] = answer.why
            self._not_before_ms[mirror] = asked_ms + min(answer.left_ms or PAUSE_MS, PAUSE_MS)

    def _leads(self, service: str, asked_ms: int) -> None:
        self._lease_until_ms[service] = asked_ms + self._lease_ms - self._lease_ms // MARGIN_DIVISOR

    def doubt(self, mirror: str) -> None:
        """Something has happened since the witness was asked: read it anew before anything rests on it."""
        self._entries.pop(mirror, None)
        if self._question is not None:
            self._outdated.add(mirror)

    def silent(self, number: int, now_ms: int) -> None:
        """No answer came in time: what was asked for may or may not have been done, or may be done later."""
        question = self._question
        if question is None or question.number != number:
            return
        self._question = None
        self._outdated.clear()
        self._answers = False
        self._silent_ms = now_ms
        for operation in question.operations:
            if isinstance(operation, Swap):
                self._entries.pop(operation.mirror, None)
