"""The peers' facts, in order: never those of an earlier boot, never an older step after a newer one."""

from __future__ import annotations

import msgspec

from relevo.base.control import Message
from relevo.config.model import Config
from relevo.manager.model import NodeFacts, NodeView
from relevo.node import views


class Peers:
    """Turns the heartbeats' states into views, and remembers the newest facts of each peer.

    "B starts only on A's stopped" rests on this: what counts is A's word from the boot that is alive now, and its
    newest step. The heartbeats order the messages of one run of theirs; this holds through a restart of theirs, too.

    Args:
        config: the cluster.
        me: this node.
    """

    def __init__(self, config: Config, me: str) -> None:
        self._config = config
        self._me = me
        self._newest: dict[str, NodeFacts] = {}

    def views(self, heartbeat: Message | None) -> dict[str, NodeView]:
        """Every other node as it is known now."""
        found = views.peer_views(self._config, self._me, heartbeat)
        told = heartbeat["peers"] if heartbeat is not None else {}
        return {name: self._in_order(name, view, told.get(name, {}).get("boot_id")) for name, view in found.items()}

    def _in_order(self, name: str, view: NodeView, alive_boot_id: str | None) -> NodeView:
        facts = view.facts
        if facts is None:
            return view
        if alive_boot_id is not None and facts.boot_id != alive_boot_id:
            return msgspec.structs.replace(view, facts=None)
        newest = self._newest.get(name)
        if newest is not None and newest.boot_id == facts.boot_id and _is_older(facts, newest):
            return msgspec.structs.replace(view, facts=newest)
        self._newest[name] = facts
        return view


def _is_older(facts: NodeFacts, newest: NodeFacts) -> bool:
    return any(
        name in newest.services and told.step < newest.services[name].step for name, told in facts.services.items()
    )
