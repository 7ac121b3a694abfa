"""What a witness holds: per mirror whose copy is the newest, per service who leads; changed by compare-and-swap only.

The same arbiter in another role: pure, no clock, no socket. An entry changes when the one who asks names its version
and is itself in sync; of two servers that have lost each other and both ask, the first wins and the second is told. A
lease says until when a leader may still be heard: nobody who leaves the leader out wins before it is over, so that an
address is not on two servers while one has yet to notice that it lost. The witness counts a lease from the receipt of
the request and the holder from its sending, so the holder's always ends first.

A witness that was started anew has forgotten when each lease ends, and grants nobody else anything for one lease.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

MAX_ENTRIES = 256
"""Mirrors and services of one cluster; more are refused, so that a cluster's book stays small."""
MAX_LEASE_MS = 600_000

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Number = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
Generation = Annotated[str, msgspec.Meta(pattern="^[0-9A-F]{16}$")]
LeaseMs = Annotated[int, msgspec.Meta(gt=0, le=MAX_LEASE_MS)]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one mirror.

    Attributes:
        version: grows by one with each change.
        generation: the data's generation (drbd's current UUID, lowest bit zero), 16 hexadecimal digits.
        in_sync: the nodes whose copy has everything that was acknowledged, sorted.
        epoch: of the last one who asked to be alone.
    """

    version: Number
    generation: Generation
    in_sync: tuple[Name, ...]
    epoch: Number = 0


class Leader(msgspec.Struct, frozen=True, kw_only=True):
    """Who led a service last, and for how long each time; when that ends is not stored."""

    node: Name
    lease_ms: LeaseMs


class Book(msgspec.Struct, kw_only=True):
    """All that a witness keeps of one cluster, on stable storage before it is answered."""

    mirrors: dict[str, Entry] = {}
    leaders: dict[str, Leader] = {}


class Read(msgspec.Struct, frozen=True, kw_only=True, tag="read", tag_field="do"):
    """What is known of a mirror?"""

    mirror: Name


class Swap(msgspec.Struct, frozen=True, kw_only=True, tag="swap", tag_field="do"):
    """Change an entry that has this version (0: there is none).

    Attributes:
        services: those that need the mirror: the one who asks leads them from now on if it is alone in sync.
        lease_ms: for how long at first.
        force: a person has decided; neither being in sync nor another's lease counts.
    """

    mirror: Name
    version: Number
    generation: Generation
    in_sync: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=16)]
    epoch: Number = 0
    services: Annotated[tuple[Name, ...], msgspec.Meta(max_length=64)] = ()
    lease_ms: LeaseMs = 1
    force: bool = False


class Hold(msgspec.Struct, frozen=True, kw_only=True, tag="hold", tag_field="do"):
    """Lead a service for `lease_ms` from now on."""

    service: Name
    lease_ms: LeaseMs


class Release(msgspec.Struct, frozen=True, kw_only=True, tag="release", tag_field="do"):
    """Lead a service no more."""

    service: Name


Operation = Read | Swap | Hold | Release


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What comes of an operation.

    Attributes:
        ok: it is done.
        entry: what the mirror's entry is now; None when there is none, or the operation is about a service.
        leader: who leads the service; `left_ms` for how long at most.
        why: one sentence when it is not done.
    """

    ok: bool
    entry: Entry | None = None
    leader: str = ""
    left_ms: int = 0
    why: str = ""


class Register:
    """The book of one cluster and the leases that run.

    Args:
        book: what was on stable storage.
        now_ms: a clock that only grows and goes on while the machine sleeps (CLOCK_BOOTTIME).

    Attributes:
        changed: the book is not as it was stored; whoever stores it sets this back.
    """

    def __init__(self, book: Book, now_ms: int) -> None:
        self.book = book
        self.changed = False
        self._until_ms = {service: now_ms + leader.lease_ms for service, leader in book.leaders.items()}

    def left_ms(self, service: str, now_ms: int) -> int:
        """How long the leader of a service may still believe that it leads; 0: there is none, or it is over."""
        return max(0, self._until_ms.get(service, 0) - now_ms)

    def do(self, node: str, operation: Operation, now_ms: int) -> Answer:
        """Carry out what a node asks."""
        match operation:
            case Read():
                return Answer(ok=True, entry=self.book.mirrors.get(operation.mirror))
            case Swap():
                return self._swap(node, operation, now_ms)
            case Hold():
                return self._hold(node, operation, now_ms)
            case Release():
                return self._release(node, operation.service, now_ms)

    def _swap(self, node: str, asked: Swap, now_ms: int) -> Answer:
        entry = self.book.mirrors.get(asked.mirror)
        why = self._objection(node, asked, entry)
        if not why and not asked.force:
            for service in asked.services:
                leader = self.book.leaders.get(service)
                left_ms = self.left_ms(service, now_ms)
                if left_ms and leader is not None and leader.node not in asked.in_sync:
                    why = f"{leader.node} still leads {service}; its lease ends soon."
                    return Answer(ok=False, entry=entry, leader=leader.node, left_ms=left_ms, why=why)
        if why:
            return Answer(ok=False, entry=entry, why=why)
        made = Entry(
            version=asked.version + 1,
            generation=asked.generation,
            in_sync=tuple(sorted(set(asked.in_sync))),
            epoch=max(asked.epoch, entry.epoch if entry is not None else 0),
        )
        self.book.mirrors[asked.mirror] = made
        self.changed = True
        if made.in_sync == (node,):
            for service in asked.services:
                self._lead(service, node, asked.lease_ms, now_ms)
        return Answer(ok=True, entry=made)

    def _objection(self, node: str, asked: Swap, entry: Entry | None) -> str:
        if entry is None and len(self.book.mirrors) >= MAX_ENTRIES:
            return f"The witness keeps {MAX_ENTRIES} mirrors of a cluster at most."
        if len(self.book.leaders.keys() | set(asked.services)) > MAX_ENTRIES:
            return f"The witness keeps {MAX_ENTRIES} services of a cluster at most."
        if (entry.version if entry is not None else 0) != asked.version:
            return f"The entry of {asked.mirror} has changed meanwhile."
        if node not in asked.in_sync:
            return f"{node} asks for others: {', '.join(asked.in_sync)}."
        if entry is not None and node not in entry.in_sync and not asked.force:
            return f"Only {' and '.join(entry.in_sync)} has the newest data of {asked.mirror}."
        leaves_out = entry is not None and not set(entry.in_sync) <= set(asked.in_sync)
        if entry is not None and leaves_out and asked.epoch < entry.epoch:
            return f"The epoch {asked.epoch} is below {entry.epoch}."
        return ""

    def _hold(self, node: str, asked: Hold, now_ms: int) -> Answer:
        leader = self.book.leaders.get(asked.service)
        left_ms = self.left_ms(asked.service, now_ms)
        if leader is not None and leader.node != node and left_ms:
            why = f"{leader.node} still leads {asked.service}; its lease ends soon."
            return Answer(ok=False, leader=leader.node, left_ms=left_ms, why=why)
        if leader is None and len(self.book.leaders) >= MAX_ENTRIES:
            return Answer(ok=False, why=f"The witness keeps {MAX_ENTRIES} services of a cluster at most.")
        self._lead(asked.service, node, asked.lease_ms, now_ms)
        return Answer(ok=True, leader=node, left_ms=asked.lease_ms)

    def _lead(self, service: str, node: str, lease_ms: int, now_ms: int) -> None:
        told = Leader(node=node, lease_ms=lease_ms)
        if self.book.leaders.get(service) != told:
            self.book.leaders[service] = told
            self.changed = True
        self._until_ms[service] = now_ms + lease_ms

    def _release(self, node: str, service: str, now_ms: int) -> Answer:
        leader = self.book.leaders.get(service)
        if leader is None or leader.node != node:
            return Answer(ok=True, leader=leader.node if leader is not None else "")
        self._until_ms[service] = now_ms  # who led last stays written: a restart then waits once more, which is safe
        return Answer(ok=True, leader=node)
