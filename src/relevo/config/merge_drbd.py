"""Mirrors of relevo.toml that a drbd.conf configures: both have to say the same about nodes, addresses and disks."""

from __future__ import annotations

import pathlib
from typing import Any

import msgspec

from relevo.config.draft import Draft
from relevo.config.draft_mirror import DrbdSource
from relevo.config.drbd.load import read
from relevo.config.drbd.site import TwoSides, readable_secret, two_sides
from relevo.config.drbd.tree import Conf
from relevo.config.errors import ConfigErrors
from relevo.config.locate import KeyPath
from relevo.config.model import Node, Side
from relevo.config.table import nearest


def merge(draft: Draft) -> None:
    """Read the drbd.conf of each mirror that has one; what is wrong or contradicts relevo.toml is written down."""
    read_files: dict[pathlib.Path, Conf | None] = {}
    for name, source in draft.drbd.items():
        if source.path not in read_files:
            read_files[source.path] = _read(draft, source.path)
        conf = read_files[source.path]
        if conf is not None:
            _Merge(draft, name, source).resource(conf)


def notes(paths: set[pathlib.Path]) -> list[str]:
    """The warnings that reading these files gives, and secrets that others can read."""
    found: list[str] = []
    for path in sorted(paths):
        conf = read(path, "")
        found.extend(map(str, conf.found.notes))
        for resource in conf.resources:
            found.extend(readable_secret(resource))
    return found


def _read(draft: Draft, path: pathlib.Path) -> Conf | None:
    try:
        return read(path, "")
    except ConfigErrors as errors:
        draft.source.mistakes.extend(errors.errors)
        return None


class _Merge:
    """One mirror."""

    def __init__(self, draft: Draft, name: str, source: DrbdSource) -> None:
        self._draft = draft
        self._name = name
        self._source = source
        self._path: KeyPath = ("mirrors", name, "drbd")

    def _wrong(self, what: str, remedy: str, path: KeyPath | None = None) -> None:
        self._draft.source.mistake(path or self._path, what, remedy)

    def resource(self, conf: Conf) -> None:
        resource = conf.resource(self._name)
        if resource is None:
            known = [resource.name for resource in conf.resources]
            self._wrong(f"{conf.file} has no resource {self._name!r}.", nearest(self._name, known))
            return
        try:
            whole = two_sides(resource)
        except ConfigErrors as errors:
            self._draft.source.mistakes.extend(errors.errors)
            return
        nodes = [self._node(side) for side in whole.sides]
        pairs = [(node, side) for node, side in zip(nodes, whole.sides, strict=True) if node is not None]
        link = self._link(pairs) if len(pairs) == len(whole.sides) else None
        if link is not None:
            self._add(whole, pairs, link)

    def _node(self, side: Side) -> Node | None:
        for node in self._draft.nodes.values():
            if side.name == node.name or (side.name == f"{side.end.address}:{side.end.port}" and self._has(node, side)):
                return node
        what = f"{self._source.path} names the host {side.name!r}, which is no node."
        self._wrong(what, nearest(side.name, self._draft.declared.get("nodes", ())))
        return None

    @staticmethod
    def _has(node: Node, side: Side) -> bool:
        return side.end.address in node.addresses.values()

    def _link(self, pairs: list[tuple[Node, Side]]) -> str | None:
        """The link on which both nodes have the addresses that drbd.conf gives them."""
        for link in self._draft.links:
            if all(node.addresses.get(link) == side.end.address for node, side in pairs):
                return link
        for node, side in pairs:
            if not self._has(node, side):
                own = ", ".join(f"{address} on {link}" for link, address in node.addresses.items()) or "none"
                what = f"{self._source.path} gives {node.name} the address {side.end.address}; here it has {own}."
                self._wrong(what, "Correct one of the two files.")
                return None
        self._wrong(f"The two addresses in {self._source.path} are on two links.", "A mirror has one link.")
        return None

    def _add(self, whole: TwoSides, pairs: list[tuple[Node, Side]], link: str) -> None:
        for node, side in pairs:
            self._agree(node, "disks", node.disks, side.disk)
            self._agree(node, "meta_disks", node.meta_disks, side.meta)
        source = self._source
        changes: dict[str, Any] = {
            "link": link,
            "alone": source.alone,
            "suspend_ms": source.suspend_ms,
            "resume": source.resume,
            "spin_us": source.spin_us,
            "verify": source.verify,
        }
        self._draft.mirrors[self._name] = msgspec.structs.replace(whole.mirror, **changes)
        one, other = (msgspec.structs.replace(side, name=node.name) for node, side in pairs)
        self._draft.sides[self._name] = (one, other)

    def _agree(self, node: Node, key: str, told: dict[str, Any], value: Any) -> None:
        """What both files say has to be the same."""
        if told.setdefault(self._name, value) != value:
            what = f"{self._source.path} says {value} for {node.name}, this says {told[self._name]}."
            self._wrong(what, "Remove one of the two.", ("nodes", node.name, key, self._name))
