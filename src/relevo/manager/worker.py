"""One service on this node: carries out one step at a time, monitors in between, and keeps the facts about it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog

from relevo.agents.base import Agent, Health, StartContext, State
from relevo.base.control import Refused
from relevo.base.units import format_duration_ms
from relevo.config.model import Service
from relevo.manager.model import Action, Failure, ResourceState, ServiceFacts, ServiceState, Step

PROBE_PAUSE_MS = 1000
"""Between attempts to find out what a resource is after the start of this daemon."""

DECLINE_PAUSE_MS = 500
"""After a mirror declined a promotion: the reason for it will be known by then."""

MAX_REASON = 400
"""Characters of a reason that are told: a program may say a megabyte, and all facts of a node share one datagram."""

DECLINED = frozenset({"PeerIsPrimary", "DataNotUpToDate", "AlreadyDenied"})
"""A mirror's refusals that are no failure of anything: the decision was made on knowledge that is old by now."""

_FOUND = {
    State.RUNNING: ResourceState.STARTED,
    State.STOPPED: ResourceState.STOPPED,
    State.FAILED: ResourceState.FAILED,
}
_BROKEN = frozenset({ResourceState.FAILED, ResourceState.BLOCKED})
_LOOKING = "Looking for {} failed: "
_log = structlog.get_logger()


def _nobody(_resource: str) -> None:
    """Nobody keeps what is being done."""


class Worker:
    """One service on this node.

    A step that is accepted (`offer`) is in the facts at once, before anything of it is done, and is always carried out
    or timed out: what was told to the peers stays true. Only waiting and monitoring are given up for it.

    Args:
        service: which.
        agents: by id of the resource.
        now_ms: this node's monotonic clock.
        changed: called at each change of the facts.
        failures: what was counted before this daemon was restarted.
        interrupted: the resource with which the daemon before this one was busy when it ended; empty: with none.
        note: called with the resource with which this one is busy, and with an empty word when it is no longer.
    """

    def __init__(
        self,
        service: Service,
        agents: Mapping[str, Agent],
        now_ms: Callable[[], int],
        changed: Callable[[], None],
        failures: Mapping[str, Failure],
        interrupted: str = "",
        note: Callable[[str], None] = _nobody,
    ) -> None:
        self._interrupted = interrupted
        self._note = note
        self._service = service
        self._agents = agents
        self._now_ms = now_ms
        self._changed = changed
        self._resources = {resource.id: ResourceState.UNKNOWN for resource in service.resources}
        self._operations = {resource.id: resource.operation for resource in service.resources}
        self._failures = dict(failures)
        self._step = now_ms()  # grows through restarts of this daemon, because the clock does
        self._doing: Step | None = None
        self._last_action = Action.START
        self._epoch = 0
        self._target: str | None = None
        self._retry_at_ms = 0
        self._reason = ""
        self._maintained = False
        self._look_again = False
        self._monitor_at_ms: dict[str, int] = {}
        self._wake = asyncio.Event()

    # --- what others see and ask for ----------------------------------------------------------------------------------

    def facts(self) -> ServiceFacts:
        """The service as it is at this moment."""
        now_ms = self._now_ms()
        keep_ms = self._service.failure_timeout_ms
        self._failures = {name: one for name, one in self._failures.items() if now_ms - one.last_ms < keep_ms}
        return ServiceFacts(
            state=self._state(),
            step=self._step,
            resources=dict(self._resources),
            failures=dict(self._failures),
            epoch=self._epoch,
            target=self._target,
            retry_at_ms=self._retry_at_ms,
            reason=_cut(self._reason),
        )

    def offer(self, step: Step | None, target: str | None, *, maintained: bool = False) -> bool:
        """Take the next step of the newest plan; one that was planned on older facts is left.

        Args:
            step: the next one; None when there is nothing to do.
            target: where the service belongs.
            maintained: it is in maintenance: monitors report and nothing else. When that ends, what is here is looked
                for anew before a step is taken.

        Returns:
            Whether the facts have changed.
        """
        before = (self._target, self._doing, self._maintained)
        self._target = target
        if maintained != self._maintained:
            self._maintain(maintained=maintained)
        if step is not None and self._doing is None and step.number == self._step + 1 and self._is_probed():
            self._step = step.number
            self._doing = step
            self._last_action = step.action
            self._wake.set()
        return (self._target, self._doing, self._maintained) != before

    def _maintain(self, *, maintained: bool) -> None:
        self._maintained = maintained
        if maintained:
            for name, operation in self._operations.items():
                if operation.monitor_interval_ms:
                    self._monitor_at_ms.setdefault(name, self._now_ms() + operation.monitor_interval_ms)
        else:
            self._look_again = True
            if self._doing is None:
                self._forget_what_is_here()
        self._wake.set()

    def _forget_what_is_here(self) -> None:
        """People may have started and stopped things: nothing is known until it is looked for."""
        self._monitor_at_ms = {}
        self._resources = dict.fromkeys(self._resources, ResourceState.UNKNOWN)

    def clean_up(self) -> None:
        """Forget the failures, at a person's word."""
        self._failures = {}
        self._retry_at_ms = 0
        self._reason = ""
        self._changed()

    def check_soon(self) -> None:
        """Monitor every resource now: something outside has changed."""
        self._monitor_at_ms = dict.fromkeys(self._monitor_at_ms, self._now_ms())
        self._wake.set()

    def _is_probed(self) -> bool:
        return ResourceState.UNKNOWN not in self._resources.values()

    def _state(self) -> ServiceState:
        states = set(self._resources.values())
        if ResourceState.UNKNOWN in states:
            return ServiceState.UNKNOWN
        if self._doing is not None:
            return ServiceState.STARTING if self._doing.action is Action.START else ServiceState.STOPPING
        if states <= {ResourceState.STOPPED}:
            return ServiceState.STOPPED
        if states <= {ResourceState.STARTED}:
            return ServiceState.STARTED
        if states & _BROKEN:
            return ServiceState.FAILED
        return ServiceState.STARTING if self._last_action is Action.START else ServiceState.STOPPING

    # --- what is done -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look what is here, then do what is planned and monitor, until cancelled; what runs goes on running."""
        try:
            await self._probe_all()
            self._adopt_interrupted()
            while True:
                if self._doing is not None:
                    await self._carry_out(self._doing)
                elif self._look_again:
                    self._look_again = False
                    self._forget_what_is_here()
                    await self._probe_all()
                else:
                    await self._wait_or_monitor()
        finally:
            for agent in self._agents.values():
                with contextlib.suppress(Exception):
                    await agent.close()

    def _adopt_interrupted(self) -> None:
        """What was interrupted is in the facts from now on; what runs all the same is nothing to remember."""
        if self._resources.get(self._interrupted) is ResourceState.STARTED:
            self._note("")
        self._interrupted = ""

    async def _probe_all(self) -> None:
        await asyncio.gather(*(self._probe(name) for name in self._resources))

    async def _probe(self, name: str) -> None:
        limit_s = self._operations[name].monitor_timeout_ms / 1000
        while True:
            try:
                async with asyncio.timeout(limit_s):
                    found = await self._agents[name].probe()
                break
            except Exception as error:  # noqa: BLE001 - an agent's defect must not end the daemon
                self._reason = f"{_LOOKING.format(name)}{_why(error, limit_s)}"
                _log.warning("probe_failed", service=self._service.name, resource=name, why=self._reason)
                self._changed()
            # Why a look failed is the agent's secret: there is no event that tells when the next one will succeed.
            await asyncio.sleep(PROBE_PAUSE_MS / 1000)
        if name == self._interrupted and found.state is State.STOPPED:
            # What looks stopped may still be on its way up, or be left in pieces: only a stop can say that it is not.
            found = Health(State.FAILED, f"The node daemon ended while it was busy with {name}: it is stopped first.")
        self._resources[name] = _FOUND[found.state]
        if found.state is State.FAILED:
            self._reason = found.reason
        elif self._reason.startswith(_LOOKING.format(name)):
            self._reason = ""  # another resource's reason stays
        if found.state is State.RUNNING:
            self._monitor_at_ms[name] = self._now_ms()
        elif self._maintained:
            self._plan_monitor(name)
        _log.info("probed", service=self._service.name, resource=name, found=found.state.value, why=found.reason)
        self._changed()

    async def _carry_out(self, step: Step) -> None:
        _log.info("step", service=step.service, resource=step.resource, action=step.action.value, number=step.number)
        self._monitor_at_ms.pop(step.resource, None)
        agent = self._agents[step.resource]
        limit_s = step.timeout_ms / 1000
        error: Exception | None = None
        self._note(step.resource)
        try:
            async with asyncio.timeout(limit_s):
                await _operation(agent, step)
        except Exception as raised:  # noqa: BLE001 - whatever an agent raises is a failed step; the daemon lives on
            error = raised
        if error is None:
            self._succeeded(step)
        else:
            self._went_wrong(step, error, _why(error, limit_s))
        self._note("")
        self._doing = None
        self._changed()

    def _succeeded(self, step: Step) -> None:
        match step.action:
            case Action.START:
                self._resources[step.resource] = ResourceState.STARTED
                self._epoch = max(self._epoch, step.epoch)
                self._plan_monitor(step.resource)
            case Action.STOP:
                self._resources[step.resource] = ResourceState.STOPPED
            case Action.QUIESCE:
                self._resources[step.resource] = ResourceState.QUIESCED
        if set(self._resources.values()) in ({ResourceState.STARTED}, {ResourceState.STOPPED}):
            self._reason = ""
        _log.info("step_done", service=step.service, resource=step.resource, action=step.action.value)

    def _went_wrong(self, step: Step, error: Exception, why: str) -> None:
        _log.warning("step_failed", service=step.service, resource=step.resource, action=step.action.value, why=why)
        self._reason = f"{step.action.value.capitalize()} of {step.resource} failed: {why}"
        if step.action is Action.QUIESCE:
            self._resources[step.resource] = ResourceState.QUIESCED  # it is stopped next, whatever it still does
        elif step.action is Action.STOP:
            self._resources[step.resource] = ResourceState.BLOCKED
            self._count_failure(step.resource)
        elif isinstance(error, Refused) and error.error in DECLINED:
            self._retry_at_ms = self._now_ms() + DECLINE_PAUSE_MS
        else:
            self._resources[step.resource] = ResourceState.FAILED
            self._count_failure(step.resource)

    def _count_failure(self, name: str) -> None:
        before = self._failures.get(name, Failure(0, 0))
        self._failures[name] = Failure(before.count + 1, self._now_ms(), _cut(self._reason))

    # --- monitoring ---------------------------------------------------------------------------------------------------

    def _plan_monitor(self, name: str) -> None:
        interval_ms = self._operations[name].monitor_interval_ms
        if interval_ms:
            self._monitor_at_ms[name] = self._now_ms() + interval_ms

    async def _wait_or_monitor(self) -> None:
        """Until there is a step, or one resource has been monitored."""
        self._wake.clear()
        if not self._monitor_at_ms:
            await self._wake.wait()
            return
        name = min(self._monitor_at_ms, key=lambda one: self._monitor_at_ms[one])
        wait_ms = self._monitor_at_ms[name] - self._now_ms()
        if wait_ms > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait_ms / 1000)
            return
        limit_ms = self._operations[name].monitor_timeout_ms
        agent = self._agents[name]
        runs = self._resources[name] is ResourceState.STARTED
        health = await self._unless_woken(agent.monitor() if runs else agent.probe(), limit_ms)
        if self._look_again:
            return
        if health is not None and self._maintained:
            self._report(name, health)
        elif health is not None:
            self._judge(name, health)

    def _report(self, name: str, health: Health) -> None:
        """In maintenance: say what is, count nothing, start nothing."""
        self._monitor_at_ms.pop(name)
        self._plan_monitor(name)
        found = _FOUND[health.state]
        if found is self._resources[name]:
            return
        self._resources[name] = found
        self._reason = f"{name}: {health.reason}" if health.reason else ""
        _log.info("found_in_maintenance", service=self._service.name, resource=name, state=found.value)
        self._changed()

    async def _unless_woken(self, looking: Coroutine[Any, Any, Health], limit_ms: int) -> Health | None:
        """What a monitor finds; None when a step came in between."""
        monitor = asyncio.ensure_future(looking)
        woken = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait({monitor, woken}, timeout=limit_ms / 1000, return_when=asyncio.FIRST_COMPLETED)
            if not monitor.done():
                if woken.done():
                    return None
                return Health(State.FAILED, f"It did not answer within {format_duration_ms(limit_ms)}.")
            error = monitor.exception()
            return monitor.result() if error is None else Health(State.FAILED, _why(error, limit_ms / 1000))
        finally:
            monitor.cancel()
            woken.cancel()
            await asyncio.gather(monitor, woken, return_exceptions=True)

    def _judge(self, name: str, health: Health) -> None:
        if health.state is State.RUNNING:
            self._plan_monitor(name)
            if not self._operations[name].monitor_interval_ms:
                self._monitor_at_ms.pop(name, None)
            return
        del self._monitor_at_ms[name]
        self._resources[name] = ResourceState.FAILED
        self._reason = f"{name} failed: {health.reason or 'it does not run any more.'}"
        self._count_failure(name)
        _log.warning("resource_failed", service=self._service.name, resource=name, why=self._reason)
        self._changed()


async def _operation(agent: Agent, step: Step) -> None:
    match step.action:
        case Action.START:
            await agent.start(StartContext(epoch=step.epoch, force=step.force, linked=step.linked))
        case Action.STOP:
            await agent.stop()
        case Action.QUIESCE:
            await agent.quiesce()


def _cut(reason: str) -> str:
    """The beginning says what, the end mostly why."""
    half = MAX_REASON // 2
    return reason if len(reason) <= MAX_REASON else f"{reason[:half]} … {reason[-half:]}"


def _why(error: BaseException, limit_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"It took longer than {format_duration_ms(round(limit_s * 1000))}."
    return str(error) or repr(error)
