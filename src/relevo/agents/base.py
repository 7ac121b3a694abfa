"""The interface between whoever carries out a plan and one resource on this server."""

from __future__ import annotations

import abc
import dataclasses
import enum

from relevo.base.errors import RelevoError


class AgentFailed(RelevoError):
    """A resource could not be started, stopped or looked at; the sentence names it and why."""


class State(enum.Enum):
    """What a resource is on this server at this moment."""

    RUNNING = "running"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True, slots=True)
class Health:
    """What `monitor` or `probe` found.

    Attributes:
        state: the state of the resource here.
        reason: one sentence; never empty when the state is FAILED.
    """

    state: State
    reason: str = ""

    def __post_init__(self) -> None:
        assert self.state is not State.FAILED or self.reason, "a failure has a reason"


RUNNING = Health(State.RUNNING)
STOPPED = Health(State.STOPPED)


def failed(reason: str) -> Health:
    """The health of a resource that is neither whole nor cleanly away."""
    return Health(State.FAILED, reason)


@dataclasses.dataclass(frozen=True, slots=True)
class StartContext:
    """What the decision to start a resource brings along.

    Attributes:
        epoch: the vote's epoch; a mirror refuses a lower one than it has seen.
        force: a person accepted that this copy may be stale.
        linked: a mirror must be linked with its peer: the decision rests on what the link shows.
    """

    epoch: int
    force: bool = False
    linked: bool = False


class Agent(abc.ABC):
    """One resource on this server.

    Every operation is idempotent, never blocks the event loop and may be cancelled at any `await` (that is how the
    caller's time limit ends it): the resource is then in an unknown state, which the next `stop` cleans up.
    The caller runs one operation of an agent at a time.

    Attributes:
        id: the id of the resource in its service.
    """

    def __init__(self, resource_id: str) -> None:
        self.id = resource_id

    @abc.abstractmethod
    async def start(self, context: StartContext) -> None:
        """Bring the resource up; what already runs is adopted.

        Raises:
            RelevoError: it does not run; the sentence says why.
        """

    @abc.abstractmethod
    async def stop(self) -> None:
        """Take the resource down; what does not run is fine. When this returns nothing of it is left.

        Raises:
            RelevoError: it is not, or not wholly, away; the sentence says why and who holds it.
        """

    @abc.abstractmethod
    async def monitor(self) -> Health:
        """Look whether the resource is whole, and keep up what has to be kept up (announcements of an address).

        The first `monitor` after a restart of the daemon adopts what runs. Never raises for a sick resource.
        """

    async def probe(self) -> Health:
        """Look whether the resource is here and leave everything as it is; for a daemon that has just started."""
        return await self.monitor()

    async def quiesce(self) -> None:  # noqa: B027 - most resources have nothing to announce
        """Prepare for an orderly stop of the whole service, before anything is taken down."""

    async def close(self) -> None:  # noqa: B027 - most agents hold nothing
        """Let go of what the agent itself holds (tasks, sockets); the resource goes on running."""
