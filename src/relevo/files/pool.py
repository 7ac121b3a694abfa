"""Threads for system calls on the volume: the event loop itself never makes one.

A suspended device holds the thread that touches it, unkillably. The pool is bounded, so a hanging volume costs
`limits.WORKERS` threads and no more; everyone else is told 503 at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from relevo.files import limits
from relevo.files.errors import from_os, unavailable

P = ParamSpec("P")
T = TypeVar("T")


class _Job:
    __slots__ = ("call", "future", "loop", "started_s", "state")

    def __init__(self, call: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.call = call
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.started_s = 0.0
        self.state = "queued"


class Pool:
    """A bounded set of threads for blocking calls.

    Args:
        workers: how many calls may be under way.
        stuck_s: see `limits.STUCK_S`.
        queue_wait_s: see `limits.QUEUE_WAIT_S`.
    """

    def __init__(
        self,
        workers: int = limits.WORKERS,
        *,
        stuck_s: float = limits.STUCK_S,
        queue_wait_s: float = limits.QUEUE_WAIT_S,
    ) -> None:
        self._workers = workers
        self._stuck_s = stuck_s
        self._queue_wait_s = queue_wait_s
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._running: set[_Job] = set()
        self._threads = 0
        self._outstanding = 0
        self._returned_s = 0.0
        self._idle = asyncio.Event()
        self._idle.set()
        self._numbers = itertools.count()

    @property
    def oldest_s(self) -> float:
        """Age of the oldest call that is under way."""
        with self._lock:
            started = min((job.started_s for job in self._running), default=None)
        return 0.0 if started is None else time.monotonic() - started

    @property
    def busy(self) -> int:
        """Calls that are under way."""
        return len(self._running)

    @property
    def stuck(self) -> bool:
        """Every thread is inside a call, and none has come back for too long (slow calls that do are only load)."""
        if self.busy < self._workers:
            return False
        return min(self.oldest_s, time.monotonic() - self._returned_s) >= self._stuck_s

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Make a blocking call in a thread and wait for its result.

        A call that has begun is always waited for, even when the waiting task is cancelled: the descriptors that it
        uses may be closed as soon as this returns, and not before.

        Raises:
            FilesError: 503 when the volume does not answer; an OSError of the call as the answer it means.
            ConnectionError: as the call does.
        """
        if self.stuck:
            raise unavailable("stuck")
        if self._outstanding >= self._workers + limits.QUEUE_MAX:
            raise unavailable("busy")
        acting = contextvars.copy_context()  # whoever acts here acts in the thread too (guard.py)
        job = self._submit(lambda: acting.run(call, *args, **kwargs))
        timer = job.loop.call_later(self._queue_wait_s, self._give_up, job)
        try:
            result: T = await asyncio.shield(job.future)
        except ConnectionError:
            raise
        except OSError as error:
            raise from_os(error) from error
        except asyncio.CancelledError:
            if not self._drop(job):
                await self._outlast(job)
            raise
        finally:
            timer.cancel()
        return result

    def start(self, call: Callable[[], object]) -> None:
        """Make a call whose result nobody waits for."""
        self._submit(call).future.add_done_callback(lambda future: future.cancelled() or future.exception())

    async def drained(self, limit_s: float) -> bool:
        """Wait until no call is queued or under way; whether that came to pass within the limit."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._idle.wait()
        return self._idle.is_set()

    def stop(self) -> None:
        """Let the threads end; one that hangs in a call is left to the kernel."""
        for _ in range(self._threads):
            self._queue.put(None)

    async def _outlast(self, job: _Job) -> None:
        """Wait for a call whose result nobody wants any more, whatever happens meanwhile."""
        while not job.future.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({job.future})
        if job.future.exception() is None and (close := getattr(job.future.result(), "close", None)) is not None:
            self.start(close)

    def _give_up(self, job: _Job) -> None:
        """No thread has taken the job in time: they all hang."""
        if self._drop(job) and not job.future.done():
            job.future.set_exception(unavailable("stuck"))

    def _drop(self, job: _Job) -> bool:
        with self._lock:
            if job.state != "queued":
                return False
            job.state = "dropped"
        self._settle()
        return True

    def _submit(self, call: Callable[[], Any]) -> _Job:
        job = _Job(call, asyncio.get_running_loop())
        self._outstanding += 1
        self._idle.clear()
        if self._threads < min(self._workers, self._outstanding):
            self._threads += 1
            name = f"volume-{next(self._numbers)}"
            threading.Thread(target=self._work, name=name, daemon=True).start()
        self._queue.put(job)
        return job

    def _settle(self) -> None:
        self._outstanding -= 1
        if self._outstanding == 0:
            self._idle.set()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            with self._lock:
                if job.state == "dropped":
                    continue
                job.state = "running"
                job.started_s = time.monotonic()
                self._running.add(job)
            result, failure = None, None
            try:
                result = job.call()
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
                failure = error
            with self._lock:
                self._running.discard(job)
                self._returned_s = time.monotonic()
            with contextlib.suppress(RuntimeError):  # the loop may be closed by now: nobody waits any more
                job.loop.call_soon_threadsafe(self._finish, job, result, failure)
            del job, result, failure  # an idle thread keeps nothing alive

    def _finish(self, job: _Job, result: Any, failure: BaseException | None) -> None:
        self._settle()
        if failure is not None:
            job.future.set_exception(failure)
        else:
            job.future.set_result(result)
