"""The small parent of a process that serves a device: it makes and takes away what the server must never touch.

The worker serves; the keeper mounts, holds the loop device, restarts the worker when it dies, and first removes what
the dead one left. Nothing in here is on the data path. Orders that wait for the worker's answers run in a thread, so
the death of the worker (which makes them fail) is always seen.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import pathlib
import queue
import select
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import structlog

from relevo.base.errors import RelevoError
from relevo.device.attachment import Attachment, attach, clear_folder
from relevo.device.keeper_proto import MAX_MESSAGE_BYTES, Attach, Detach, KeeperReply, Run, decode_order, encode
from relevo.device.mount import abort_connection
from relevo.device.runs import Runs

KEEPER_FD = "{keeper_fd}"  # replaced in the worker's arguments by the number of its end of the socketpair
STOP_GRACE_S = 20.0  # between SIGTERM and SIGKILL
ORDER_GRACE_S = 10.0  # for an order that was under way when the worker died
BACKOFF_FIRST_S = 0.2
BACKOFF_MOST_S = 5.0
STEADY_S = 30.0  # a worker that lived this long did not fail at its start
MAX_QUICK_FAILURES = 8
FINAL_STATUSES = frozenset({0, 64, 78})  # done; EX_USAGE, EX_CONFIG: starting again would change nothing
_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)
_log = structlog.get_logger()


def _die_with_parent() -> None:
    """In the child, before exec: two workers must never run side by side, so none outlives its keeper."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


@dataclasses.dataclass(slots=True)
class _Job:
    """An order and the descriptor that came with it."""

    order: Attach | Detach
    fuse_fd: int | None


class _Orders:
    """Carries out orders one by one in a thread; outcomes are announced on an eventfd."""

    def __init__(self, name: str, folder: pathlib.Path) -> None:
        self.attachment: Attachment | None = None
        self._name = name
        self._folder = folder
        self._waiting: deque[_Job] = deque()
        self._thread: threading.Thread | None = None
        self._outcome: queue.SimpleQueue[KeeperReply] = queue.SimpleQueue()
        self.eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def add(self, job: _Job) -> None:
        self._waiting.append(job)
        self._start()

    def _start(self) -> None:
        if self._thread is None and self._waiting:
            self._thread = threading.Thread(target=self._work, args=(self._waiting.popleft(),), daemon=True)
            self._thread.start()

    def _work(self, job: _Job) -> None:
        no = job.order.no
        try:
            reply = self._carry_out(job)
        except RelevoError as error:
            reply = KeeperReply(no=no, ok=False, error=type(error).__name__, what=error.what, remedy=error.remedy)
        except Exception as error:  # noqa: BLE001 - whatever happened, the worker is told
            _log.warning("keeper_order_failed", order=str(job.order), error=repr(error))
            reply = KeeperReply(no=no, ok=False, error=type(error).__name__, what=f"The device failed ({error}).")
        self._outcome.put(reply)
        os.eventfd_write(self.eventfd, 1)

    def _carry_out(self, job: _Job) -> KeeperReply:
        order = job.order
        if isinstance(order, Attach):
            if self.attachment is not None or job.fuse_fd is None:
                if job.fuse_fd is not None:
                    os.close(job.fuse_fd)
                raise RelevoError("The device is there already, or no descriptor came with the order.")
            made = self.attachment = attach(job.fuse_fd, order.size, self._name, self._folder)
            _log.info("device_attached", loop=made.loop_number, connection=made.minor)
            return KeeperReply(no=order.no, ok=True, device=str(made.device), minor=made.minor, loop=made.loop_number)
        if self.attachment is not None:
            if order.force:
                self.attachment.abandon()
            else:
                self.attachment.detach()
            self.attachment = None
            _log.info("device_detached", force=order.force)
        return KeeperReply(no=order.no, ok=True)

    def outcomes(self) -> list[KeeperReply]:
        """What was finished since the last call; the next order is started."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.eventfd)
        replies = []
        while not self._outcome.empty():
            replies.append(self._outcome.get())
            assert self._thread is not None
            self._thread.join()
            self._thread = None
        self._start()
        return replies

    def abandon(self) -> bool:
        """The worker is dead: drop what waits, let what runs fail, remove the device. False when an order is stuck."""
        for job in self._waiting:
            if job.fuse_fd is not None:
                os.close(job.fuse_fd)
        self._waiting.clear()
        if self._thread is not None:
            self._thread.join(ORDER_GRACE_S)
            if self._thread.is_alive() and not self._abort_and_join(self._thread):
                return False
            self.outcomes()
        if self.attachment is not None:
            self.attachment.abandon()
            self.attachment = None
        clear_folder(self._folder)
        return True

    def _abort_and_join(self, thread: threading.Thread) -> bool:
        note = self._folder / "connection"
        with contextlib.suppress(OSError, ValueError):
            abort_connection(int(note.read_text()))
        thread.join(ORDER_GRACE_S)
        return not thread.is_alive()


class Keeper:
    """Runs a worker and keeps the device it serves.

    Args:
        name: the loop device's name, unique among all containers of the machine, at most 63 bytes.
        folder: where the device appears, see `attachment.py`.
        stop_grace_s: time between SIGTERM and SIGKILL for the worker.
        refusal: asked before each handler (`keeper_proto.Run`); a sentence means that none must run here.
    """

    def __init__(
        self,
        name: str,
        folder: pathlib.Path,
        stop_grace_s: float = STOP_GRACE_S,
        refusal: Callable[[], str] = str,
    ) -> None:
        self._folder = folder
        self._orders = _Orders(name, folder)
        self._runs = Runs(refusal)
        self._stop_grace_s = stop_grace_s
        self._stopping_since: float | None = None

    def run(self, worker_argv: Sequence[str]) -> int:
        """Run the worker until it ends for good; restart it, with pauses, when it dies. Main thread only.

        SIGTERM and SIGINT are passed on as SIGTERM and end the keeper after the worker.

        Args:
            worker_argv: its command; the argument `KEEPER_FD` stands for its end of the socketpair.

        Returns:
            the worker's last exit status (128 + N when signal N ended it).
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        clear_folder(self._folder)
        with _signals() as wakeup, contextlib.closing(self._runs):
            return self._run_until_done(worker_argv, wakeup)

    def _run_until_done(self, worker_argv: Sequence[str], wakeup: int) -> int:
        failures = 0
        while True:
            started = time.monotonic()
            status = self._run_once(worker_argv, wakeup)
            self._runs.forget()
            if not self._orders.abandon():
                _log.error("keeper_order_stuck", folder=str(self._folder))
                return status or 1
            if status in FINAL_STATUSES or self._stopping_since is not None:
                return status
            failures = 0 if time.monotonic() - started > STEADY_S else failures + 1
            _log.warning("worker_died", status=status, failures=failures)
            if failures >= MAX_QUICK_FAILURES:
                return status
            if self._pause(min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2 ** max(0, failures - 1)), wakeup):
                return status

    def _pause(self, pause_s: float, wakeup: int) -> bool:
        """Wait before the next start; True when a signal says that there is none."""
        if select.select([wakeup], [], [], pause_s)[0]:
            os.read(wakeup, 64)
            return True
        return False

    def _run_once(self, argv: Sequence[str], wakeup: int) -> int:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            command = [str(theirs.fileno()) if word == KEEPER_FD else word for word in argv]
            worker = subprocess.Popen(
                command,
                pass_fds=(theirs.fileno(),),
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - no thread runs here while a worker is started
            )
            theirs.close()
            pidfd = os.pidfd_open(worker.pid)
            try:
                self._serve(worker, pidfd, ours, wakeup)
            finally:
                os.close(pidfd)
            status = worker.wait()
        return 128 - status if status < 0 else status

    def _serve(self, worker: subprocess.Popen[bytes], pidfd: int, ours: socket.socket, wakeup: int) -> None:
        """Until the worker is dead."""
        poller = select.poll()
        for fd in (pidfd, ours.fileno(), wakeup, self._orders.eventfd, self._runs.fileno()):
            poller.register(fd, select.POLLIN)
        while True:
            limits = [limit for limit in (self._time_left_ms(worker), self._runs.time_left_ms) if limit is not None]
            ready = {fd for fd, _ in poller.poll(min(limits, default=None))}
            if wakeup in ready:
                os.read(wakeup, 64)
                worker.terminate()
                self._stopping_since = time.monotonic()
            replies = self._orders.outcomes() if self._orders.eventfd in ready else []
            for reply in (*replies, *self._runs.pump()):
                with contextlib.suppress(OSError):  # a dead worker needs no reply
                    ours.send(encode(reply))
            if ours.fileno() in ready and not self._take_order(ours):
                poller.unregister(ours.fileno())
            if pidfd in ready:
                return

    def _time_left_ms(self, worker: subprocess.Popen[bytes]) -> int | None:
        if self._stopping_since is None:
            return None
        left_s = self._stopping_since + self._stop_grace_s - time.monotonic()
        if left_s > 0:
            return int(left_s * 1000) + 1
        _log.warning("worker_killed", grace_s=self._stop_grace_s)
        worker.kill()
        return None

    def _take_order(self, ours: socket.socket) -> bool:
        try:
            datagram, fds, _, _ = socket.recv_fds(ours, MAX_MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            return False
        if not datagram:
            return False
        order, fd = decode_order(datagram), fds[0] if fds else None
        if isinstance(order, Run):
            self._runs.add(order, fd)
        else:
            self._orders.add(_Job(order, fd))
        return True


@contextlib.contextmanager
def _signals() -> Iterator[int]:
    """A descriptor that becomes readable when SIGTERM or SIGINT has come."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before_fd = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    before = {number: signal.signal(number, _noted) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield reading
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before_fd)
        os.close(reading)
        os.close(writing)


def _noted(_number: int, _frame: object) -> None:
    """The number was written to the wake-up descriptor; nothing else is done in a handler."""
