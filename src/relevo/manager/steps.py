"""From "it belongs here" or "it does not" to the next steps of one service on this node, in their order.

Started in the order of the configuration, stopped in reverse, what serves users being quiesced before. A resource that
failed is stopped, with everything above it, before it is started again.
"""

from __future__ import annotations

import msgspec

from relevo.config.model import FilesResource, MirrorResource, Resource, Service
from relevo.manager.model import Action, Failure, ResourceState, ServiceFacts, Snapshot, Step

RETRY_PAUSE_MS = 5000
"""How long a resource that failed too often, where no other node can have the service, rests before the next start."""

STOP_RETRY_PAUSE_MS = 10_000
"""How long a resource whose stop failed is left alone before the stop is tried again."""

QUIESCE_TIMEOUT_MS = 2000
"""Time limit of a quiesce; the stop goes on whatever became of it."""

_BROKEN = frozenset({ResourceState.FAILED, ResourceState.BLOCKED})


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """The steps, or what they wait for.

    Attributes:
        waits_for: half a sentence; empty when nothing is waited for.
        blocked: it will not go on without a person, as far as one can see.
    """

    steps: tuple[Step, ...] = ()
    waits_for: str = ""
    remedy: str = ""
    blocked: bool = False


class _Builder:
    """Numbers the steps of one service."""

    def __init__(self, snapshot: Snapshot, service: Service, told: ServiceFacts) -> None:
        self._snapshot = snapshot
        self._service = service
        self._number = told.step
        self.steps: list[Step] = []

    def add(self, resource: Resource, action: Action) -> None:
        """One more step."""
        self._number += 1
        limits = resource.operation
        timeout_ms = {
            Action.START: limits.start_timeout_ms,
            Action.STOP: limits.stop_timeout_ms,
            Action.QUIESCE: min(QUIESCE_TIMEOUT_MS, limits.stop_timeout_ms),
        }[action]
        epoch, force, linked = 0, False, False
        if action is Action.START and isinstance(resource, MirrorResource):
            permission = self._snapshot.permissions[resource.mirror]
            epoch, force, linked = permission.epoch, permission.force, permission.linked
        step = Step(
            node=self._snapshot.me,
            service=self._service.name,
            resource=resource.id,
            action=action,
            number=self._number,
            timeout_ms=timeout_ms,
            epoch=epoch,
            force=force,
            linked=linked,
        )
        self.steps.append(step)


def steps_of(snapshot: Snapshot, service: Service, told: ServiceFacts, *, here: bool) -> Work:
    """The next steps of one service on this node.

    Args:
        snapshot: what is known.
        service: which.
        told: its state on this node; probed.
        here: it belongs here.
    """
    if rests := _resting_stop(snapshot, told):
        return rests
    states = [told.resources.get(resource.id, ResourceState.STOPPED) for resource in service.resources]
    builder = _Builder(snapshot, service, told)
    if not here:
        return _stop(builder, service, states, lowest=0, quiesce=True)
    broken = [index for index, state in enumerate(states) if state in _BROKEN]
    if broken:
        return _stop(builder, service, states, lowest=broken[0], quiesce=False)
    stopped = [index for index, state in enumerate(states) if state is ResourceState.STOPPED]
    if stopped and any(state is not ResourceState.STOPPED for state in states[stopped[0] :]):
        return _stop(builder, service, states, lowest=stopped[0], quiesce=False)
    return _start(snapshot, builder, service, told, states)


def _stop(builder: _Builder, service: Service, states: list[ResourceState], *, lowest: int, quiesce: bool) -> Work:
    parts = list(zip(service.resources, states, strict=True))
    if quiesce:
        for resource, state in reversed(parts):
            if isinstance(resource, FilesResource) and state is ResourceState.STARTED:
                builder.add(resource, Action.QUIESCE)
    for resource, state in reversed(parts[lowest:]):
        if state is not ResourceState.STOPPED:
            builder.add(resource, Action.STOP)
    return Work(steps=tuple(builder.steps))


def _start(
    snapshot: Snapshot, builder: _Builder, service: Service, told: ServiceFacts, states: list[ResourceState]
) -> Work:
    if snapshot.now_ms < told.retry_at_ms:
        return Work(waits_for=told.reason.removesuffix(".") or "a start was declined")
    for resource, state in zip(service.resources, states, strict=True):
        if state is ResourceState.STARTED:
            continue
        failure = told.failures.get(resource.id, Failure(0, 0))
        if failure.count >= service.migration_threshold and snapshot.now_ms < failure.last_ms + RETRY_PAUSE_MS:
            why = (failure.why or told.reason).removesuffix(".") or "no reason known"
            waits_for = f"{resource.id} failed {failure.count} times ({why}), trying again soon"
            return Work(steps=tuple(builder.steps), waits_for=waits_for)
        if isinstance(resource, MirrorResource):
            permission = snapshot.permissions.get(resource.mirror)
            if permission is None or not permission.may_promote:
                word = permission.reason.removesuffix(".") if permission is not None else "not judged yet"
                return Work(steps=tuple(builder.steps), waits_for=f"the mirror waits for its permission ({word})")
        builder.add(resource, Action.START)
    return Work(steps=tuple(builder.steps))


def _resting_stop(snapshot: Snapshot, told: ServiceFacts) -> Work | None:
    """A stop that failed is tried again, but not at once; meanwhile nothing else is done to the service."""
    for name, state in sorted(told.resources.items()):
        failure = told.failures.get(name, Failure(0, 0))
        if state is ResourceState.BLOCKED and snapshot.now_ms < failure.last_ms + STOP_RETRY_PAUSE_MS:
            why = told.reason.removesuffix(".")
            remedy = f"End what holds {name} on {snapshot.me}; the stop is tried again by itself."
            return Work(waits_for=f"{name} could not be stopped ({why})", remedy=remedy, blocked=True)
    return None
