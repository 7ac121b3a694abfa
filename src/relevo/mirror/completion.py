"""The gate in front of the application: whether writes and flushes that are done may be reported as done.

A Primary that has lost a copy which was good completes nothing before nobody can mistake that copy for a good one.
"""

from __future__ import annotations

import abc
import enum

from relevo.mirror.durable import Durable
from relevo.mirror.requests import Flush, Write
from relevo.mirror.state import Shared, Timer


class Gate(enum.Enum):
    """Whether writes and flushes may be completed."""

    OPEN = enum.auto()
    ASKING = enum.auto()
    """The peer's copy is lost: permission to go on alone is awaited."""
    WRITING = enum.auto()
    """The new generation is on its way to the disk."""
    RESUMING = enum.auto()
    """A new process has taken over a device in use: the peer is awaited (`resume`)."""
    EXPIRED = enum.auto()
    """No permission came in time: errors."""
    MOVING = enum.auto()
    """This disk is lost: the peer has to make its copy a generation of its own."""
    NO_DATA = enum.auto()
    """Neither this disk nor the peer's can be used: errors."""


_FAILING = frozenset({Gate.EXPIRED, Gate.NO_DATA})


class CompletionGate(abc.ABC):
    """Holds back, lets through, or fails what is done."""

    def __init__(self, shared: Shared, durable: Durable) -> None:
        self._s = shared
        self._durable = durable
        self._held: list[Write | Flush] = []
        self.gate = Gate.OPEN
        self.failing = False
        """Nothing gets through but errors."""

    @abc.abstractmethod
    def _complete(self, item: Write | Flush) -> None:
        """Tell the application, or hold it back."""

    def wait_for_peer(self) -> None:
        """A new process under a device in use: nothing is completed until the peer is back, or known to be lost."""
        self._set_gate(Gate.RESUMING)

    def peer_has_gone_on(self) -> None:
        """The peer was Primary while this process was away: what is written here will never be on another copy."""
        if self.gate is Gate.RESUMING:
            self.expire()

    def go_on_without_peer(self, *, ask: bool) -> None:
        """The peer of a device that was taken over does not return."""
        if ask:
            self._ask()
        else:
            self.go_alone()

    def _ask(self) -> None:
        self._set_gate(Gate.ASKING)
        self._s.set_timer(Timer.SUSPEND, self._s.settings.suspend_ms)
        self._s.log("warning", "suspended", reason="the peer is lost; permission to go on alone is awaited")
        self._s.changed()

    def go_alone(self) -> None:
        """The peer's copy may be left behind: a new generation, stable before anything is completed."""
        self._s.clear_timer(Timer.SUSPEND)
        self._set_gate(Gate.WRITING)
        self._s.uuids.new_current(self._s.take_random(), primary=True)
        self._s.peer_outdated = True
        self._s.crashed_primary = False
        self._durable.superblock(self._alone_stable)

    def _alone_stable(self) -> None:
        if self.gate is Gate.WRITING:
            self._s.log("warning", "alone", current=f"{self._s.uuids.current:016x}")
            self.open_gate()

    def open_gate(self) -> None:
        """Completions may go on."""
        self._s.clear_timer(Timer.SUSPEND)
        self._set_gate(Gate.OPEN)
        self._s.changed()
        self._release()

    def expire(self) -> None:
        """No permission came in time: errors from now on."""
        self._s.clear_timer(Timer.SUSPEND)
        self._set_gate(Gate.EXPIRED)
        self._s.problem = "The peer is lost and no permission to go on alone came: writes fail."
        self._s.log("error", "suspension_expired")
        self._s.changed()
        self._release()

    def close_down(self) -> None:
        """The device is gone: nobody waits for permission any more."""
        assert not self._held
        self._s.clear_timer(Timer.SUSPEND)
        self._s.problem = ""
        self._set_gate(Gate.OPEN)

    def _set_gate(self, gate: Gate) -> None:
        self.gate = gate
        self.failing = gate in _FAILING

    def _release(self) -> None:
        held, self._held = self._held, []
        for item in held:
            self._complete(item)

    def hold(self) -> None:
        """Nothing is completed until `open_gate`."""
        self._set_gate(Gate.MOVING)
