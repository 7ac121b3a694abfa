"""What goes into the history of this node by itself: decisions, alarms, and how nodes and services fare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from relevo.manager.model import Alive, NodeFacts, NodeView, Plan, ServiceState
from relevo.node.history import History

AT_REST = frozenset({ServiceState.STARTED, ServiceState.STOPPED, ServiceState.FAILED})
"""States of a service that are worth an event."""


class Chronicle:
    """Writes down what is new since the last round.

    Args:
        history: where it is written.
        me: this node.
    """

    def __init__(self, history: History, me: str) -> None:
        self._history = history
        self._me = me
        self._alarmed: Sequence[str] = ()

    def tell(self, plan: Plan, alarms: Sequence[str], nodes: Mapping[str, NodeView]) -> None:
        """A round is over."""
        for name, decision in plan.decisions.items():
            self._history.add_changed(name, f"{name}: {decision.reason}", node=decision.target or self._me)
        self._tell_alarms(alarms)
        for name, view in nodes.items():
            if name != self._me:
                self._history.add_changed(f"node {name}", f"{name} is {view.alive}.", node=name)
            if view.facts is not None and view.alive is Alive.ALIVE:
                self._tell_states(name, view.facts)

    def _tell_alarms(self, alarms: Sequence[str]) -> None:
        """Each alarm when it comes, and the end of the last one."""
        for sentence in alarms or ("No alarms.",):
            if sentence not in self._alarmed:
                self._history.add_changed("alarms", sentence)
        self._alarmed = alarms

    def _tell_states(self, node: str, facts: NodeFacts) -> None:
        for name, told in facts.services.items():
            if told.state in AT_REST:
                why = f": {told.reason}" if told.reason else "."
                self._history.add_changed(f"{name} on {node}", f"{name} is {told.state} on {node}{why}", node=node)
