"""The cluster record: what people decided, one small versioned value that every node keeps and the newest wins.

A change makes a version above every one known. Two nodes that change it at the same moment, or apart from each other,
end up with the higher version, because versions are totally ordered; whoever had the lower one adds what people decided
there, under a version of its own (`_rejoined`).

Programs of different versions side by side: a field keeps its name and meaning for ever, a new one gets a new format
number. A newer program's fields are kept and passed on. A program that drops what it does not know (format 0) writes a
record without them; whoever knows them puts them back under a version of its own (`settled`), and of two records with
the same version the one with the higher format counts.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from relevo.manager.model import EVERY_SERVICE, RECORD_FORMAT, Alive, NodeView, Record, Snapshot

FIELDS_OF_FORMAT = {2: ("bans", "moved", "maintenance", "cleaned")}
"""Format -> the fields that came with it."""

OBEYED_BY_ALL = ("bans", "moved")
"""Fields that count only once every node that is there knows them: two that plan by different rules would pull at the
service from both sides. (Maintenance needs no agreement: who knows it does nothing.)"""


def newest(records: Iterable[Record]) -> Record:
    """The one with the highest version, and of equals the one that lacks the least."""
    return max(records, key=lambda record: (record.version, record.format), default=Record())


LASTING_NAMES = ("standby", "maintenance")
LASTING_WORDS = ("bans", "moved")
"""What people decide until they take it back: sets of names, and service -> a word. (A force is for its moment.)"""


def settled(mine: Record, told: Iterable[Record], *, by: str, shared: Record | None = None) -> Record:
    """The newest record there is, with what an older program has left out, and what was decided here apart from it.

    Args:
        mine: the one that this node keeps.
        told: those of the others.
        by: this node.
        shared: the last one that this node and the others had in common; None: not known.
    """
    best = newest([mine, *told])
    if best.format >= mine.format:
        return _rejoined(mine, shared, best, by)
    lost: dict[str, object] = {
        name: getattr(mine, name)
        for number, names in FIELDS_OF_FORMAT.items()
        if best.format < number <= mine.format
        for name in names
    }
    if mine.format > RECORD_FORMAT:
        lost["unknown"] = mine.unknown
    return _changed(best, by, 0, format=mine.format, **lost)


def in_common(mine: Record, others: Iterable[NodeView], before: Record | None) -> Record | None:
    """The last record that all nodes had that were there: this one if they have it, else what it was before."""
    told = [view.facts.record for view in others if view.alive is Alive.ALIVE and view.facts is not None]
    return mine if told and all(record.version == mine.version for record in told) else before


def _rejoined(mine: Record, shared: Record | None, best: Record, by: str) -> Record:
    """The newer one, with what was decided here while the two were apart and is not contradicted there."""
    known = mine.written.get(by, 0) <= best.written.get(by, 0)
    if shared is None or known or best.version <= mine.version:
        return best
    changes: dict[str, object] = {}
    for name in LASTING_NAMES:
        here, before, there = (set(getattr(record, name)) for record in (mine, shared, best))
        joined = (there | (here - before)) - (before - here)
        if joined != there:
            changes[name] = tuple(sorted(joined))
    for name in LASTING_WORDS:
        here_words, before_words, there_words = (getattr(record, name) for record in (mine, shared, best))
        joined_words = dict(there_words)
        for service in here_words.keys() | before_words.keys():
            word, before_word = here_words.get(service), before_words.get(service)
            if word == before_word or there_words.get(service) != before_word:
                continue
            joined_words.pop(service, None)
            if word is not None:
                joined_words[service] = word
        if joined_words != there_words:
            changes[name] = joined_words
    return _changed(best, by, 0, **changes) if changes else best


def obeyed(record: Record, snapshot: Snapshot) -> Record:
    """The record as far as it counts now."""
    if not unaware(snapshot):
        return record
    return msgspec.structs.replace(record, **{name: type(getattr(record, name))() for name in OBEYED_BY_ALL})


def unaware(snapshot: Snapshot) -> tuple[str, ...]:
    """The nodes that are there and whose program does not know every field of the record."""
    return tuple(
        name
        for name, view in sorted(snapshot.nodes.items())
        if name != snapshot.me
        and view.alive is Alive.ALIVE
        and view.facts is not None
        and view.facts.record_format < RECORD_FORMAT
    )


def _changed(record: Record, by: str, epoch: int, **fields: object) -> Record:
    return msgspec.structs.replace(
        record,
        **{
            "epoch": max(epoch, record.epoch),
            "counter": record.counter + 1,
            "node": by,
            "written": {**record.written, by: record.counter + 1},
            "format": max(record.format, RECORD_FORMAT),
            **fields,
        },
    )


def with_standby(record: Record, node: str, standby: bool, *, by: str, epoch: int = 0) -> Record:
    """The record in which a node is in standby, or is not any more.

    Args:
        record: the newest one.
        node: whose standby.
        standby: in or out.
        by: the node that writes this.
        epoch: the highest epoch that node knows.
    """
    others = {name for name in record.standby if name != node}
    return _changed(record, by, epoch, standby=tuple(sorted(others | ({node} if standby else set()))))


def with_forced(record: Record, service: str, node: str | None, *, by: str, epoch: int = 0) -> Record:
    """The record in which a service is forced onto a node (None: onto none any more)."""
    forced = {name: where for name, where in record.forced.items() if name != service}
    if node is not None:
        forced[service] = node
    return _changed(record, by, epoch, forced=forced)


def with_kept(record: Record, mirror: str, node: str | None, *, by: str, epoch: int = 0) -> Record:
    """The record in which a split brain of a mirror is resolved in favour of a node (None: it is resolved)."""
    kept = {name: where for name, where in record.kept.items() if name != mirror}
    if node is not None:
        kept[mirror] = node
    return _changed(record, by, epoch, kept=kept)


def with_ban(record: Record, service: str, node: str, until_s: int = 0, *, by: str, epoch: int = 0) -> Record:
    """The record in which a service shall not run on a node; `until_s` in seconds of UTC, 0: until it is cleared."""
    bans = {**record.bans, service: {**record.bans.get(service, {}), node: until_s}}
    return _changed(record, by, epoch, bans=bans)


def with_moved(record: Record, service: str, node: str, *, by: str, epoch: int = 0) -> Record:
    """The record in which a person wants a service on a node."""
    return _changed(record, by, epoch, moved={**record.moved, service: node})


def cleared(record: Record, service: str, *, by: str, epoch: int = 0) -> Record:
    """The record without the bans of a service and without its move."""
    bans = {name: nodes for name, nodes in record.bans.items() if name != service}
    moved = {name: node for name, node in record.moved.items() if name != service}
    return _changed(record, by, epoch, bans=bans, moved=moved)


def with_maintenance(
    record: Record, service: str, services: Iterable[str], *, on: bool, by: str, epoch: int = 0
) -> Record:
    """The record in which a service (`EVERY_SERVICE`: all) is left alone, or is not any more.

    Args:
        record: the newest one.
        service: which.
        services: all there are: one that leaves while all are in maintenance leaves the others there.
        on: in or out.
        by: the node that writes this.
        epoch: the highest epoch that node knows.
    """
    if service == EVERY_SERVICE:
        inside = {EVERY_SERVICE} if on else set()
    else:
        inside = set(services) if EVERY_SERVICE in record.maintenance else set(record.maintenance)
        inside = inside | {service} if on else inside - {service}
    return _changed(record, by, epoch, maintenance=tuple(sorted(inside)))


def with_cleaned(record: Record, service: str, *, by: str, epoch: int = 0) -> Record:
    """The record that tells every node to forget the failures of a service."""
    return _changed(record, by, epoch, cleaned={**record.cleaned, service: record.cleaned.get(service, 0) + 1})
