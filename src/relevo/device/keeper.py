"""The small parent of a process that serves a device: it makes and takes away what the server must never touch.

The worker serves; the keeper mounts, holds the loop device, and restarts the worker when it dies. Where the kernel can
hand over again what was in flight, the next worker gets the device of the dead one (`held.py`); elsewhere, and when
that fails, what the dead one left is removed first. Nothing in here is on the data path, and nothing in here ever looks
into the device: it may be waiting. Orders that wait for the worker's answers run in a thread, so the death of the
worker is always seen.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import pathlib
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence

import structlog

from relevo.base.errors import RelevoError
from relevo.device.alias import Alias
from relevo.device.attachment import clear_folder
from relevo.device.held import CANNOT_RESUME, STEADY_S
from relevo.device.keeper_orders import Job, Orders
from relevo.device.keeper_proto import MAX_MESSAGE_BYTES, Resume, Run, decode_order, encode
from relevo.device.runs import Runs

KEEPER_FD = "{keeper_fd}"  # replaced in the worker's arguments by the number of its end of the socketpair
STOP_GRACE_S = 20.0  # between SIGTERM and SIGKILL
BACKOFF_FIRST_S = 0.2
BACKOFF_MOST_S = 5.0
MAX_QUICK_FAILURES = 8
FINAL_STATUSES = frozenset({0, 64, 78})  # done; EX_USAGE, EX_CONFIG: starting again would change nothing
LOCK = "keeper"
"""Locked (flock) in the folder as long as its keeper lives; holds its process id, for people."""
_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)
_log = structlog.get_logger()


class KeeperRuns(RelevoError):
    """The device has a keeper already."""


def _die_with_parent() -> None:
    """In the child, before exec: two workers must never run side by side, so none outlives its keeper."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Keeper:
    """Runs a worker and keeps the device it serves.

    Args:
        name: the loop device's name, unique among all containers of the machine, at most 63 bytes.
        folder: where the device appears, see `attachment.py`.
        stop_grace_s: time between SIGTERM and SIGKILL for the worker.
        refusal: asked before each handler (`keeper_proto.Run`); a sentence means that none must run here.
        alias: a further name of the device, such as /dev/drbd0.
        oom_score_adj: what the commands get that it runs; None: what the keeper itself has.
    """

    def __init__(
        self,
        name: str,
        folder: pathlib.Path,
        stop_grace_s: float = STOP_GRACE_S,
        refusal: Callable[[], str] = str,
        alias: pathlib.Path | None = None,
        oom_score_adj: int | None = None,
    ) -> None:
        self._folder = folder
        self._alias = Alias(alias)
        self._orders = Orders(name, folder, self._alias)
        self._runs = Runs(refusal, oom_score_adj)
        self._stop_grace_s = stop_grace_s
        self._stopping_since: float | None = None

    def run(self, worker_argv: Sequence[str]) -> int:
        """Run the worker until it ends for good; restart it, with pauses, when it dies. Main thread only.

        SIGTERM and SIGINT are passed on as SIGTERM and end the keeper after the worker.

        Args:
            worker_argv: its command; the argument `KEEPER_FD` stands for its end of the socketpair.

        Returns:
            the worker's last exit status (128 + N when signal N ended it).

        Raises:
            KeeperRuns: another process keeps this device; nothing was touched.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(self._folder):
            return self._run_alone(worker_argv)

    def _run_alone(self, worker_argv: Sequence[str]) -> int:
        clear_folder(self._folder)
        self._alias.remove()
        with _signals() as wakeup, contextlib.closing(self._runs):
            return self._run_until_done(worker_argv, wakeup)

    def _run_until_done(self, worker_argv: Sequence[str], wakeup: int) -> int:
        failures = 0
        resume = False
        while True:
            started = time.monotonic()
            status = self._run_once(worker_argv, wakeup, resume=resume)
            self._runs.forget()
            resume = self._may_resume(status)
            if resume:
                _log.warning("worker_died", status=status, device="kept", resumes=self._orders.held.resumes)
                continue
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

    def _may_resume(self, status: int) -> bool:
        """Whether the next worker gets the device as it is. Nothing of the dead one is on its way to the disk any more:
        a process is gone only when its asynchronous I/O is (exit_aio), and that is what was waited for.
        """
        if self._stopping_since is not None or status in FINAL_STATUSES or status == CANNOT_RESUME:
            return False
        return self._orders.settle() and self._orders.held.begin()

    def _pause(self, pause_s: float, wakeup: int) -> bool:
        """Wait before the next start; True when a signal says that there is none."""
        if select.select([wakeup], [], [], pause_s)[0]:
            os.read(wakeup, 64)
            return True
        return False

    def _run_once(self, argv: Sequence[str], wakeup: int, *, resume: bool) -> int:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            if resume:
                made = self._orders.attachment
                assert made is not None
                word = encode(Resume(size=made.size_bytes, device=str(made.device)))
                socket.send_fds(ours, [word], [self._orders.held.fd])
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
        """Until the worker has to be killed: it does not stop, or does not take over the device that waits for it."""
        limits = {}
        if self._stopping_since is not None:
            limits["stop"] = self._stopping_since + self._stop_grace_s
        if self._orders.held.deadline_s is not None:
            limits["resume"] = self._orders.held.deadline_s
        if not limits:
            return None
        why = min(limits, key=limits.__getitem__)
        left_s = limits[why] - time.monotonic()
        if left_s > 0:
            return int(left_s * 1000) + 1
        _log.warning("worker_killed", limit=why)
        worker.kill()
        # At once: it may not die before its disk has answered, or be waiting for memory that the device has to free.
        self._orders.give_up()
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
            self._orders.add(Job(order, fd))
        return True


@contextlib.contextmanager
def _alone(folder: pathlib.Path) -> Iterator[None]:
    """A second keeper would remove the device of the first, and its worker would take over the control socket."""
    fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            who = os.read(fd, 32).decode("ascii", "replace").strip()
            raise KeeperRuns(
                f"It runs already: process {who} has {folder}.", "Nothing is to be done; to start anew, end that first."
            ) from error
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode("ascii"))
        yield
    finally:
        os.close(fd)


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
