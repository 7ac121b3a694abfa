"""Carries out this node's steps: one worker per service, each doing one thing at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from relevo.agents.base import Agent
from relevo.config.model import Service
from relevo.manager.model import Failure, Plan, ServiceFacts
from relevo.manager.worker import Worker

PROBE_LIMIT_MS = 5000
"""How long the start waits for a resource that does not let itself be looked at."""


class Executor:
    """The executor of one node.

    Per service only the first step of a plan is taken; its end changes the facts, the facts make a new plan, and that
    brings the next step. So every step rests on what is known when it begins.

    Args:
        services: those that may run on this node, by name.
        agents: (service, id of the resource) -> its agent.
        clock: this node's monotonic clock, in milliseconds.
        changed: called (in the event loop) whenever `facts()` have changed; must return soon and not call `submit`.
        failures: service -> resource -> what was counted before this daemon was restarted.
    """

    def __init__(
        self,
        services: Mapping[str, Service],
        agents: Mapping[tuple[str, str], Agent],
        *,
        clock: Callable[[], int],
        changed: Callable[[], None],
        failures: Mapping[str, Mapping[str, Failure]] | None = None,
    ) -> None:
        self._running: asyncio.Task[None] | None = None
        counted = failures or {}
        self._workers = {
            name: Worker(
                service,
                {resource.id: agents[name, resource.id] for resource in service.resources},
                clock,
                changed,
                counted.get(name, {}),
            )
            for name, service in sorted(services.items())
        }

    def facts(self) -> dict[str, ServiceFacts]:
        """The services as they are at this moment."""
        return {name: worker.facts() for name, worker in self._workers.items()}

    def submit(self, plan: Plan) -> bool:
        """Take the next steps of the newest plan.

        ORDER: when this returns True, what `facts()` say then has to be published at once; the accepted steps begin
        only when the caller gives the event loop back.

        Returns:
            Whether the facts have changed.
        """
        assert self._running is not None, "probe() comes first"
        if self._running.done():
            self._running.result()  # a defect in a worker must end the daemon, not be forgotten
        changed = False
        for name, worker in self._workers.items():
            step = next((step for step in plan.steps if step.service == name), None)
            decision = plan.decisions.get(name)
            changed |= worker.offer(step, decision.target if decision is not None else None)
        return changed

    def describe(self) -> str:
        """Half a sentence for people: what of each service is here."""
        facts = self.facts()
        return ", ".join(f"{name} {told.state}" for name, told in facts.items()) or "no service"

    def cleanup(self, service: str) -> None:
        """Forget the failures of a service, at a person's word."""
        self._workers[service].clean_up()

    def check_soon(self, service: str) -> None:
        """Monitor a service now: something outside has changed (its mirror's role, a link)."""
        self._workers[service].check_soon()

    async def probe(self) -> None:
        """Begin: look what runs here and adopt it. Returns when that is known, or after `PROBE_LIMIT_MS` at the latest.

        What could not be looked at by then is `unknown` in the facts until it could.
        """
        assert self._running is None, "an executor begins once"
        self._running = asyncio.create_task(self._run())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PROBE_LIMIT_MS / 1000):
                for worker in self._workers.values():
                    await worker.probed.wait()

    async def close(self) -> None:
        """End; an action that is being carried out is broken off, what runs goes on running."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for worker in self._workers.values():
                group.create_task(worker.run())
