"""The cluster record: what people decided, one small versioned value that every node keeps and the newest wins.

A change makes a version above every one known; two nodes that change it at the same moment end up with the same one of
both (the higher name), because versions are totally ordered.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from relevo.manager.model import Record


def newest(records: Iterable[Record]) -> Record:
    """The one with the highest version."""
    return max(records, key=lambda record: record.version, default=Record())


def _changed(record: Record, by: str, epoch: int, **fields: object) -> Record:
    return msgspec.structs.replace(
        record, epoch=max(epoch, record.epoch), counter=record.counter + 1, node=by, **fields
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
