"""Carries out this node's steps: one worker per service, each doing one thing at a time."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping

from relevo.agents.base import Agent
from relevo.config.model import Service
from relevo.manager.model import Failure, Plan, ServiceFacts
from relevo.manager.worker import Worker


class Executor:
    """The executor of one node.

    Per service only the first step of a plan is taken; its end changes the facts, the facts make a new plan, and that
    brings the next step. So every step rests on what is known when it begins.

    Args:
        services: those that may run on this node, by name.
        agents: service -> id of the resource -> its agent.
        now_ms: this node's monotonic clock.
        changed: called (in the event loop) whenever `facts()` have changed; must return soon and not call `apply`.
        failures: service -> resource -> what was counted before this daemon was restarted.
        busy: service -> the resource with which the daemon before this one was busy when it ended.
        note: called with the same, newly, when a step begins or has ended; must return soon.
    """

    def __init__(
        self,
        services: Mapping[str, Service],
        agents: Mapping[str, Mapping[str, Agent]],
        now_ms: Callable[[], int],
        changed: Callable[[], None],
        failures: Mapping[str, Mapping[str, Failure]] | None = None,
        busy: Mapping[str, str] | None = None,
        note: Callable[[dict[str, str]], None] | None = None,
    ) -> None:
        counted = failures or {}
        self._busy = {name: resource for name, resource in (busy or {}).items() if name in services}
        self._note = note
        self._workers = {
            name: Worker(
                service,
                agents[name],
                now_ms,
                changed,
                counted.get(name, {}),
                self._busy.get(name, ""),
                functools.partial(self._is_busy, name),
            )
            for name, service in sorted(services.items())
        }

    def _is_busy(self, service: str, resource: str) -> None:
        others = {name: busy for name, busy in self._busy.items() if name != service}
        self._busy = {**others, service: resource} if resource else others
        if self._note is not None:
            self._note(self._busy)

    def facts(self) -> dict[str, ServiceFacts]:
        """The services as they are at this moment."""
        return {name: worker.facts() for name, worker in self._workers.items()}

    def apply(self, plan: Plan) -> bool:
        """Take the next steps of the newest plan.

        ORDER: when this returns True, what `facts()` say then has to be published at once; the accepted steps begin
        only when the caller gives the event loop back.

        Returns:
            Whether the facts have changed.
        """
        changed = False
        for name, worker in self._workers.items():
            step = next((step for step in plan.steps if step.service == name), None)
            decision = plan.decisions.get(name)
            target = decision.target if decision is not None else None
            changed |= worker.offer(step, target, maintained=name in plan.maintained)
        return changed

    def clean_up(self, service: str) -> None:
        """Forget the failures of a service, at a person's word."""
        self._workers[service].clean_up()

    def check_soon(self, service: str) -> None:
        """Monitor a service now: something outside has changed (its mirror's role, a link)."""
        self._workers[service].check_soon()

    async def run(self) -> None:
        """Look what runs here, then carry out plans until cancelled. What runs goes on running."""
        async with asyncio.TaskGroup() as group:
            for worker in self._workers.values():
                group.create_task(worker.run())
