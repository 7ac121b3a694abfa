"""A worker's orders, carried out by its keeper one by one in a thread: they wait for the worker's answers."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import queue
import threading
from collections import deque

import structlog

from relevo.base.errors import RelevoError
from relevo.device.alias import Alias
from relevo.device.attachment import Attachment, attach, clear_folder
from relevo.device.connection import abort_at
from relevo.device.held import Held
from relevo.device.keeper_proto import Attach, Detach, DeviceOrder, Grow, Hold, KeeperReply, Serving

ORDER_GRACE_S = 10.0  # for an order that was under way when the worker died
ORDER_SETTLE_S = 0.5  # for one that waits for nobody, before the device is given up for it
_log = structlog.get_logger()


@dataclasses.dataclass(slots=True)
class Job:
    """An order and the descriptor that came with it."""

    order: DeviceOrder
    fuse_fd: int | None


class Orders:
    """Carries out orders one by one in a thread; outcomes are announced on an eventfd.

    Args:
        name: the loop device's name.
        folder: where the device appears.
        alias: a further name of it.

    Attributes:
        attachment: the device that is there.
        held: its descriptor, when it shall outlive the worker.
    """

    def __init__(self, name: str, folder: pathlib.Path, alias: Alias) -> None:
        self.attachment: Attachment | None = None
        self.held = Held(folder)
        self._name = name
        self._folder = folder
        self._alias = alias
        self._waiting: deque[Job] = deque()
        self._thread: threading.Thread | None = None
        self._outcome: queue.SimpleQueue[KeeperReply] = queue.SimpleQueue()
        self.eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def add(self, job: Job) -> None:
        """Carry it out after those before it."""
        self._waiting.append(job)
        self._start()

    def _start(self) -> None:
        if self._thread is None and self._waiting:
            self._thread = threading.Thread(target=self._work, args=(self._waiting.popleft(),), daemon=True)
            self._thread.start()

    def _work(self, job: Job) -> None:
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

    def _carry_out(self, job: Job) -> KeeperReply:
        match job.order:
            case Attach(no=no, size=size):
                made = self._attach(job.fuse_fd, size)
                minor = made.connection.minor
                return KeeperReply(no=no, ok=True, device=str(made.device), minor=minor, loop=made.loop_number)
            case Detach(force=force):
                self._detach(force=force)
            case Grow(size=size):
                if self.attachment is None:
                    raise RelevoError("There is no device that could grow.")
                self.attachment.grow(size)
                _log.info("device_grown", size_bytes=size)
            case Hold():
                self._hold(job.fuse_fd)
            case Serving():
                self.held.serving()
                _log.info("device_served_again", resumes=self.held.resumes)
        return KeeperReply(no=job.order.no, ok=True)

    def _attach(self, fuse_fd: int | None, size_bytes: int) -> Attachment:
        if self.attachment is not None or fuse_fd is None:
            if fuse_fd is not None:
                os.close(fuse_fd)
            raise RelevoError("The device is there already, or no descriptor came with the order.")
        made = attach(fuse_fd, size_bytes, self._name, self._folder)
        try:
            self._alias.make(made.loop_number)
        except (RelevoError, OSError):
            made.abandon()
            raise
        self.attachment = made
        _log.info("device_attached", loop=made.loop_number, connection=made.connection.minor)
        return made

    def _detach(self, *, force: bool) -> None:
        if self.attachment is None:
            return
        if force:
            self.attachment.abandon()
        else:
            self.attachment.detach()
        self.attachment = None
        self._alias.remove()
        self.held.drop(None)
        _log.info("device_detached", force=force)

    def _hold(self, fuse_fd: int | None) -> None:
        if fuse_fd is None:
            raise RelevoError("No descriptor came with the order.")
        if self.attachment is None:
            os.close(fuse_fd)
            raise RelevoError("There is no device to hold.")
        self.held.hold(fuse_fd)

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

    def settle(self) -> bool:
        """The worker is dead: drop what waits. True when nothing runs that concerns the device: it may be kept.

        An order that still runs takes the device away, or makes it: nobody uses it, so it need not be kept.
        """
        for job in self._waiting:
            if job.fuse_fd is not None:
                os.close(job.fuse_fd)
        self._waiting.clear()
        if self._thread is not None:
            self._thread.join(ORDER_SETTLE_S)
            if self._thread.is_alive():
                return False
            self.outcomes()
        return self.attachment is not None

    def give_up(self) -> None:
        """The device waits no longer: whoever uses it gets errors, and no other worker takes it over."""
        self.held.drop(None if self.attachment is None else self.attachment.connection)

    def abandon(self) -> bool:
        """The worker is dead: drop what waits, let what runs fail, remove the device. False when an order is stuck."""
        self.give_up()
        self.settle()
        if self._thread is not None:
            self._thread.join(ORDER_GRACE_S)
            if self._thread.is_alive() and not self._abort_and_join(self._thread):
                return False
            self.outcomes()
        self.give_up()  # what was still running may have held it
        if self.attachment is not None:
            self.attachment.abandon()
            self.attachment = None
        self._alias.remove()
        clear_folder(self._folder)
        return True

    def _abort_and_join(self, thread: threading.Thread) -> bool:
        abort_at(self._folder / "disk")
        thread.join(ORDER_GRACE_S)
        return not thread.is_alive()
