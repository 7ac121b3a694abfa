"""The one epoll loop of the mirror process: descriptors with handlers, timers, and what follows a round."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import select
import time
from collections.abc import Callable

from relevo.mirror.spin import Spin

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
EDGE = select.EPOLLET
HANG_UP = select.EPOLLHUP | select.EPOLLERR
Handler = Callable[[int], None]


def now_ms() -> int:
    """Milliseconds of a clock that never goes back."""
    return time.monotonic_ns() // 1_000_000


class Timer:
    """A call to come; `cancel` it when it is not wanted any more."""

    __slots__ = ("at_ms", "call")

    def __init__(self, at_ms: int, call: Callable[[], None]) -> None:
        self.at_ms = at_ms
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Never make the call."""
        self.call = None


class Loop:
    """Waits for descriptors and timers, one thread.

    Args:
        after: called after each round of handlers (submit what they queued).
        spin_us: how long to look again before going to sleep while events come that fast (see `spin`).
    """

    def __init__(self, after: Callable[[], None] = lambda: None, spin_us: int = 0) -> None:
        self.now_ms = now_ms()
        self.after = after
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._timers: list[tuple[int, int, Timer]] = []
        self._numbers = itertools.count()
        self._spin = Spin(spin_us * 1000)
        self._stopped = False
        self._alarm_ms: int | None = None
        self._alarm: Callable[[], None] = lambda: None

    def add(self, fd: int, events: int, handler: Handler) -> None:
        """Call `handler` with what happened on `fd`."""
        self._handlers[fd] = handler
        self._epoll.register(fd, events)

    def change(self, fd: int, events: int) -> None:
        """Wait for other events on `fd`."""
        self._epoll.modify(fd, events)

    def has(self, fd: int) -> bool:
        """Whether `fd` is waited for."""
        return fd in self._handlers

    def remove(self, fd: int) -> None:
        """Forget `fd`; before it is closed."""
        if self._handlers.pop(fd, None) is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)

    def call_at(self, at_ms: int, call: Callable[[], None]) -> Timer:
        """Make a call at a time of `now_ms`."""
        timer = Timer(at_ms, call)
        heapq.heappush(self._timers, (at_ms, next(self._numbers), timer))
        return timer

    def call_in(self, delay_ms: int, call: Callable[[], None]) -> Timer:
        """Make a call in so many milliseconds."""
        return self.call_at(now_ms() + delay_ms, call)

    def on_alarm(self, call: Callable[[], None]) -> None:
        """What `set_alarm` calls."""
        self._alarm = call

    def set_alarm(self, at_ms: int | None) -> None:
        """The one timer that is moved all the time, and so costs nothing to move; None: no call."""
        self._alarm_ms = at_ms

    def stop(self) -> None:
        """End `run` after this round."""
        self._stopped = True

    def run(self) -> None:
        """Until `stop`."""
        self.after()  # what was begun before the first round would wait for an event that has another cause
        while not self._stopped:
            self.round()

    def close(self) -> None:
        """Give the descriptor of the epoll back."""
        self._epoll.close()

    def round(self, limit_ms: int = -1) -> None:
        """Wait once, and handle what came."""
        events = self._wait(limit_ms)
        self.now_ms = now_ms()
        handlers = self._handlers
        for fd, what in events:
            handler = handlers.get(fd)
            if handler is not None:  # an earlier handler of this round may have removed it
                handler(what)
        if self._timers and self._timers[0][0] <= self.now_ms:
            self._call_timers()
        if self._alarm_ms is not None and self._alarm_ms <= self.now_ms:
            self._alarm_ms = None
            self._alarm()
        self.after()

    def spin(self, spin_us: int) -> None:
        """Look again for so long from now on."""
        self._spin = Spin(spin_us * 1000)

    def _wait(self, limit_ms: int) -> list[tuple[int, int]]:
        spin = self._spin
        if not spin.limit_ns:
            return self._sleep(limit_ms)
        began_ns = time.monotonic_ns()
        events = self._look_again(began_ns) if limit_ms and spin.wanted(began_ns) else None
        if events is None:
            events = self._sleep(limit_ms)
        if events:
            spin.waited(time.monotonic_ns() - began_ns)
        return events

    def _look_again(self, began_ns: int) -> list[tuple[int, int]] | None:
        """Without sleeping, for a moment; None: go to sleep now."""
        poll, clock, spin = self._epoll.poll, time.monotonic_ns, self._spin
        end_ns = began_ns + spin.limit_ns
        while True:
            events = poll(0)
            if events:
                return events
            before_ns = clock()
            if before_ns >= end_ns:
                return None
            os.sched_yield()
            now_ns = clock()
            if spin.crowded(now_ns - before_ns, now_ns):
                return None

    def _sleep(self, limit_ms: int) -> list[tuple[int, int]]:
        poll = self._epoll.poll
        times = [self._timers[0][0]] if self._timers else []
        if self._alarm_ms is not None:
            times.append(self._alarm_ms)
        if not times:
            return poll(-1 if limit_ms < 0 else limit_ms / 1000)
        left_ms = max(0, min(times) - now_ms())
        return poll((left_ms if limit_ms < 0 else min(left_ms, limit_ms)) / 1000)

    def _call_timers(self) -> None:
        while self._timers and self._timers[0][0] <= self.now_ms:
            _, _, timer = heapq.heappop(self._timers)
            if timer.call is not None:
                timer.call()
