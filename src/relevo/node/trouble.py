"""What people are told, and by which server: the cluster's state and the time go in, alerts come out. No I/O, no clock.

Each server judges for itself and publishes what it sees and what has been told. Trouble is told by the lowest-named
live server that sees it, its end by the lowest-named live server that knows that it was told: one message for the
cluster. Two servers that have lost each other both speak: neither can know what the other says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from relevo.base.control import Message
from relevo.config.alerts import AlertsPolicy
from relevo.manager.model import UP_TO_DATE, Reach, ResourceState, ServiceState

COPIES = 2
"""A mirror is on two disks."""
RESYNCING = frozenset({"SyncSource", "SyncTarget", "PausedSyncS", "PausedSyncT", "WFBitMapS", "WFBitMapT"})
"""Connections of a mirror in which one disk is being brought up to date."""
SEPARATOR = ":"
"""Between kind and subject in a key; names have no colon."""

PATIENCE_MS = 30_000
"""After the hold time a server leaves the word to another one for so long at most: that one's daemon may be down."""

SEEN, TOLD, OVER = "seen", "told", "over"
"""A server's word on a trouble: it is there; it is there and people know; it is not there, and people know of it."""
Words = Mapping[str, str]
"""Key of a trouble -> one of the three."""


class Movement(msgspec.Struct, frozen=True, kw_only=True):
    """How far a resync was when it last moved: `mark` changes with every movement, `since_ms` is when it did."""

    mark: tuple[int, ...]
    since_ms: int


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """Something that people are told: the beginning or the end of one trouble.

    Attributes:
        kind: one of `KINDS`.
        subject: the node, mirror or service that it is about; empty where it is about the whole cluster.
        change: which of the two.
    """

    kind: str
    subject: str
    change: Literal["raised", "cleared", "test"]


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What a judgement rests on besides the present; times are in this server's clock.

    Attributes:
        seen_ms: trouble that is there -> since when.
        gone_ms: told trouble that no server sees any more -> since when.
        told: trouble that people know of; the only part that outlives a restart.
        left_to: told trouble that is over -> the server that will say so.
    """

    seen_ms: dict[str, int] = {}
    gone_ms: dict[str, int] = {}
    told: frozenset[str] = frozenset()
    left_to: dict[str, str] = {}

    def words(self) -> dict[str, str]:
        """What the other servers have to know."""
        found = {key: TOLD if key in self.told else SEEN for key in self.seen_ms}
        return found | {key: OVER for key in sorted(self.told) if key not in self.seen_ms}


def key_of(kind: str, subject: str = "") -> str:
    """The name of one trouble."""
    return f"{kind}{SEPARATOR}{subject}"


def split(key: str) -> tuple[str, str]:
    """Kind and subject."""
    kind, _, subject = key.partition(SEPARATOR)
    return kind, subject


def judge(
    memory: Memory, seen: frozenset[str] | None, others: Mapping[str, Words], me: str, now_ms: int, policy: AlertsPolicy
) -> tuple[Memory, tuple[Alert, ...]]:
    """One look: the memory of it, and what this server tells.

    Args:
        memory: of the last look.
        seen: the trouble that is there; None: nobody knows now (then nothing is told, and hold times begin anew).
        others: live server -> its words.
        me: this server.
        now_ms: this server's clock.
        policy: hold times.
    """
    if seen is None:
        return Memory(told=memory.told), ()
    held = Memory(seen_ms={key: memory.seen_ms.get(key, now_ms) for key in sorted(seen)}, told=memory.told)
    raised, known = _raised(held, others, me, now_ms - policy.raise_after_ms)
    over = msgspec.structs.replace(memory, seen_ms=held.seen_ms, told=memory.told | raised | known)
    after, cleared = _cleared(over, others, me, now_ms, policy.clear_after_ms)
    alerts = (*(_alert(key, "raised") for key in sorted(raised)), *(_alert(key, "cleared") for key in cleared))
    return after, alerts


def _raised(
    memory: Memory, others: Mapping[str, Words], me: str, latest_ms: int
) -> tuple[frozenset[str], frozenset[str]]:
    """What this server has to tell, and what another one has told already; both began at `latest_ms` or before."""
    raised, known = set(), set()
    for key, since_ms in memory.seen_ms.items():
        if key in memory.told or since_ms > latest_ms:
            continue
        if any(words.get(key) in (TOLD, OVER) for words in others.values()):
            known.add(key)
        elif latest_ms - since_ms >= PATIENCE_MS or _speaker(key, others, me) == me:
            raised.add(key)
    return frozenset(raised), frozenset(known)


def _cleared(
    memory: Memory, others: Mapping[str, Words], me: str, now_ms: int, clear_after_ms: int
) -> tuple[Memory, tuple[str, ...]]:
    """The memory without what is over and said, and what this server has to say."""
    told, cleared = set(memory.told), []
    gone_ms, left_to = {}, {}
    for key in sorted(memory.told - set(memory.seen_ms)):
        if any(words.get(key) in (SEEN, TOLD) for words in others.values()):
            continue  # it is over for this server only
        since_ms = memory.gone_ms.get(key, now_ms)
        before = memory.left_to.get(key, me)
        if before in others and key not in others[before]:
            told.discard(key)  # that one has said it
            continue
        speaker = _speaker(key, others, me)
        if now_ms - since_ms - clear_after_ms >= (0 if speaker == me else PATIENCE_MS):
            told.discard(key)
            cleared.append(key)
            continue
        gone_ms[key] = since_ms
        if speaker != me:
            left_to[key] = speaker
    kept = Memory(seen_ms=memory.seen_ms, gone_ms=gone_ms, told=frozenset(told), left_to=left_to)
    return kept, tuple(cleared)


def _speaker(key: str, others: Mapping[str, Words], me: str) -> str:
    """The lowest-named of this server and those that know of a trouble."""
    return min((me, *(name for name, words in others.items() if key in words)))


def _alert(key: str, change: Literal["raised", "cleared"]) -> Alert:
    kind, subject = split(key)
    return Alert(kind=kind, subject=subject, change=change)


def movements(state: Message, before: Mapping[str, Movement], now_ms: int) -> dict[str, Movement]:
    """The resyncs of a status, each with when it last moved."""
    found = {}
    for mirror, sides in state["mirrors"].items():
        if any(side["connection"] in RESYNCING for side in sides.values()):
            mark = tuple(side[field] for _, side in sorted(sides.items()) for field in _PROGRESS)
            last = before.get(mirror)
            found[mirror] = last if last is not None and last.mark == mark else Movement(mark=mark, since_ms=now_ms)
    return found


_PROGRESS = ("out_of_sync_bytes", "resync_total_bytes")


def seen_in(state: Message, moved: Mapping[str, Movement], now_ms: int, policy: AlertsPolicy) -> frozenset[str] | None:
    """The trouble in a status (see `status_of`); None while a node is neither heard nor given up."""
    if any(node["state"] == "unknown" for node in state["nodes"].values()):
        return None
    stuck = (name for name, last in moved.items() if now_ms - last.since_ms >= policy.stuck_after_ms)
    return frozenset(
        (
            *_of_nodes(state),
            *_of_mirrors(state),
            *_of_services(state),
            *(key_of("certificate", name) for name in state["certificates"]),
            *(key_of("resync_stuck", name) for name in stuck),
        )
    )


def _of_nodes(state: Message) -> Iterator[str]:
    for name, node in state["nodes"].items():
        if node["state"] == "dead":
            yield key_of("node_lost", name)
    if not all(node["same_config"] for node in state["nodes"].values()):
        unread = [name for name, node in state["nodes"].items() if node.get("unread")]
        yield from (key_of("configuration_differs", name) for name in unread or ("",))
    if state["witness"] is not None and state["witness"]["trouble"]:
        yield key_of("witness_lost")
    for target in state["ping"].values():
        yield from (key_of("ping_lost", node) for node, word in target["nodes"].items() if word == Reach.LOST)


def _of_mirrors(state: Message) -> Iterator[str]:
    for name, sides in state["mirrors"].items():
        if sum(side["disk"] == UP_TO_DATE for side in sides.values()) < COPIES:
            yield key_of("one_copy", name)
        if any(side["split_brain"] for side in sides.values()):
            yield key_of("split_brain", name)


def _of_services(state: Message) -> Iterator[str]:
    for name, service in state["services"].items():
        if ServiceState.STARTED not in service["states"].values() and not service["maintenance"]:
            yield key_of("service_down", name)
        if sum(state == ServiceState.STARTED for state in service["states"].values()) > 1:
            yield key_of("service_twice", name)
        parts = (part for parts in service["resource_states"].values() for part in parts.values())
        if service["blocked"] or ResourceState.BLOCKED in parts:
            yield key_of("service_blocked", name)
