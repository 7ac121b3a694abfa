"""Commands that a keeper runs for its worker: handlers of the administrator's and errands that may take long.

None of them may hold up the data path, so they are children of the keeper, followed by its poll loop without a thread.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable

import structlog

from relevo.base.memory import give_back_to_oom_killer
from relevo.device.keeper_proto import KeeperReply, Run

MAX_RUNNING = 8
"""Commands at the same time; further ones wait for their turn."""
MAX_WAITING = 64
"""Commands that wait; one more is refused."""
KEPT_OUTPUT_BYTES = 2048
"""The end of what a command printed: this much goes into the log and the reply."""
READ_BYTES = 64 << 10
TIMED_OUT = -1
"""Status of a command that could not be run, or took too long and was ended."""
_log = structlog.get_logger()


@dataclasses.dataclass(slots=True)
class _Running:
    """A command under way; `no` is None when its worker has died meanwhile."""

    no: int | None
    order: Run
    process: subprocess.Popen[bytes]
    pidfd: int
    output_fd: int
    end_s: float
    output: bytearray
    late: bool = False


class Runs:
    """Starts commands, gathers what they print, ends those that take too long.

    Args:
        refusal: asked before each handler is started; a sentence means that none must run here.
        oom_score_adj: what each gets, so that none is spared at the cost of others like the keeper; None: the keeper's.
    """

    def __init__(self, refusal: Callable[[], str], oom_score_adj: int | None = None) -> None:
        self._refusal = refusal
        self._oom_score_adj = oom_score_adj
        self._running: list[_Running] = []
        self._waiting: deque[tuple[Run, int | None]] = deque()
        self._replies: list[KeeperReply] = []
        self._poll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll.register(self._wake, select.EPOLLIN)

    def fileno(self) -> int:
        """Readable when `pump` has something to do."""
        return self._poll.fileno()

    def add(self, order: Run, input_fd: int | None) -> None:
        """Run a command, now or when one of those before it has ended.

        Args:
            order: what to run.
            input_fd: its standard input (closed here); nothing by default.
        """
        if len(self._waiting) >= MAX_WAITING:
            self._refuse(order, input_fd, f"{MAX_WAITING} commands wait already.")
            return
        self._waiting.append((order, input_fd))
        self._start()

    def _start(self) -> None:
        while self._waiting and len(self._running) < MAX_RUNNING:
            order, input_fd = self._waiting.popleft()
            refusal = self._refusal() if order.handler else ""
            if refusal:
                self._refuse(order, input_fd, refusal)
                continue
            try:
                self._running.append(self._spawn(order, input_fd))
            except (OSError, ValueError) as error:  # ValueError: a text that no system call takes, such as one with NUL
                self._refuse(order, None, f"The command cannot be run ({error}).")

    def _refuse(self, order: Run, input_fd: int | None, why: str) -> None:
        if input_fd is not None:
            os.close(input_fd)
        _log.error("command_not_run", what=order.what, problem=why)
        self._replies.append(KeeperReply(no=order.no, ok=False, error="CommandNotRun", what=why, status=TIMED_OUT))
        os.eventfd_write(self._wake, 1)

    def _spawn(self, order: Run, input_fd: int | None) -> _Running:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reading, False)
        try:
            process = subprocess.Popen(
                order.argv,
                stdin=subprocess.DEVNULL if input_fd is None else input_fd,
                stdout=writing,
                stderr=writing,
                env=order.env,
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
            if input_fd is not None:
                os.close(input_fd)
        if self._oom_score_adj is not None:
            give_back_to_oom_killer(process.pid, self._oom_score_adj)
        pidfd = os.pidfd_open(process.pid)
        for fd in (pidfd, reading):
            self._poll.register(fd, select.EPOLLIN)
        _log.info("command_started", what=order.what, pid=process.pid)
        end_s = time.monotonic() + order.timeout_ms / 1000
        return _Running(order.no, order, process, pidfd, reading, end_s, bytearray())

    @property
    def time_left_ms(self) -> int | None:
        """When `pump` has to be called although nothing is readable; None: never."""
        ends = [run.end_s for run in self._running if not run.late]
        return max(0, int((min(ends) - time.monotonic()) * 1000) + 1) if ends else None

    def pump(self) -> list[KeeperReply]:
        """Follow what runs; returns the outcome of what has ended since the last call."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        now_s = time.monotonic()
        for run in list(self._running):
            self._read(run)
            if run.process.poll() is not None:
                self._ended(run)
            elif now_s >= run.end_s and not run.late:
                run.late = True
                _log.error("command_took_too_long", what=run.order.what, limit_ms=run.order.timeout_ms)
                _kill(run)
        self._start()
        replies, self._replies = self._replies, []
        return replies

    def _read(self, run: _Running) -> None:
        if run.output_fd < 0:
            return
        try:
            data = os.read(run.output_fd, READ_BYTES)
        except BlockingIOError:
            return
        if data:
            run.output += data
            del run.output[:-KEPT_OUTPUT_BYTES]
        else:
            self._close_output(run)

    def _close_output(self, run: _Running) -> None:
        if run.output_fd >= 0:
            self._poll.unregister(run.output_fd)
            os.close(run.output_fd)
            run.output_fd = -1

    def _ended(self, run: _Running) -> None:
        """A command has ended; what it left running in the background goes on without a place to print to."""
        self._read(run)
        self._close_output(run)
        self._poll.unregister(run.pidfd)
        os.close(run.pidfd)
        self._running.remove(run)
        code = run.process.returncode
        status = TIMED_OUT if run.late else code if code >= 0 else 128 - code
        text = run.output.decode(errors="replace").strip()
        _log.info("command_ended", what=run.order.what, status=status, output=text)
        if run.no is not None:
            self._replies.append(KeeperReply(no=run.no, ok=True, status=status, output=text))

    def forget(self) -> None:
        """The worker has died, nobody waits for outcomes: errands end with it, the administrator's handlers go on."""
        for _, input_fd in self._waiting:
            if input_fd is not None:
                os.close(input_fd)
        self._waiting.clear()
        self._replies.clear()
        for run in self._running:
            run.no = None
            if not run.order.handler:
                _kill(run)

    def close(self) -> None:
        """The keeper ends: so do errands; handlers go on by themselves."""
        self.forget()
        for run in self._running:
            if not run.order.handler:
                run.process.wait()
        self._poll.close()
        os.close(self._wake)


def _kill(run: _Running) -> None:
    """End a command and all that it started in its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(run.process.pid, signal.SIGKILL)
