"""The block device while this side is Primary: requests from FUSE, answers to it, and the keeper who makes it."""

from __future__ import annotations

import errno
from collections.abc import Callable

import structlog

from relevo.device.frontend import DiscardKind, FuseDiscard, FuseFlush, FuseRead, FuseWrite, Request
from relevo.device.fuse import FuseFile, FuseUnavailable
from relevo.device.keeper_client import KeeperClient
from relevo.device.keeper_proto import KeeperReply, Resume
from relevo.mirror import events as ev
from relevo.mirror.loop import READ, Loop
from relevo.mirror.packets import SECTOR_BYTES

_log = structlog.get_logger()
_BUSY = "DeviceBusy"
MOUNT_POLL_MS = 2
Done = Callable[[ev.Token, int], None]


class ShellDevice:
    """One device that comes and goes.

    Args:
        loop: the loop that serves it.
        keeper: who mounts and attaches.
        step: takes the application's requests; a request's token is the request itself.
        done: called with the token of `DeviceUp` or `DeviceDown` and 0 or an errno.
        changed: called when `path` has changed.
        hold: let the device outlive this process, where the kernel can hand over again what was in flight.
    """

    def __init__(
        self,
        loop: Loop,
        keeper: KeeperClient,
        step: Callable[[ev.Event], None],
        done: Done,
        changed: Callable[[], None],
        *,
        hold: bool = True,
    ) -> None:
        self.path: str | None = None
        self.block_bytes = SECTOR_BYTES
        """What the backing disk's direct I/O demands; set when it is attached."""
        self.other_reply: Callable[[KeeperReply], None] = _unexpected
        """Takes the keeper's replies to orders that were not given here."""
        self._loop = loop
        self._keeper = keeper
        self._step = step
        self._done = done
        self._changed = changed
        self._hold = hold
        self._notices: set[int] = set()
        self._fuse: FuseFile | None = None
        self._orders: dict[int, tuple[ev.Token, Callable[[ev.Token, KeeperReply], None]]] = {}
        loop.add(keeper.fileno(), READ, self._replies)

    def up(self, effect: ev.DeviceUp) -> None:
        """Make the device."""
        assert self._fuse is None
        try:
            self._fuse = FuseFile(effect.size_bytes)
        except FuseUnavailable as error:
            _log.error("device_not_made", problem=error.what, remedy=error.remedy)
            self._done(effect.token, errno.EIO)
            return
        self._orders[self._keeper.attach(self._fuse.fileno(), effect.size_bytes)] = (effect.token, self._attached)
        self._await_mount(self._fuse)

    def _await_mount(self, fuse: FuseFile) -> None:
        """Serve as soon as the keeper has mounted: until then reading is refused, and nothing announces the change."""
        if fuse is not self._fuse:
            return
        try:
            self._requests(READ)
        except PermissionError:
            self._loop.call_in(MOUNT_POLL_MS, lambda: self._await_mount(fuse))
            return
        if self._fuse is fuse and not fuse.closed:
            self._loop.add(fuse.fileno(), READ, self._requests)

    def take_over(self, fuse_fd: int, resume: Resume) -> None:
        """Serve the device that a dead process has left; what that had not answered comes again first.

        Raises:
            OSError: the connection is gone.
        """
        assert self._fuse is None
        self._fuse = fuse = FuseFile(resume.size, adopted=fuse_fd)
        fuse.resend()
        self._notices.add(self._keeper.serving())
        self._set_path(resume.device)
        self._loop.add(fuse.fileno(), READ, self._requests)

    def grow(self, effect: ev.DeviceGrow) -> None:
        """Make the device larger while it is in use; nothing is to be done when there is none."""
        if self._fuse is None:
            self._done(effect.token, 0)
            return
        self._fuse.size_bytes = effect.size_bytes
        self._orders[self._keeper.grow(effect.size_bytes)] = (effect.token, self._grown)

    def down(self, effect: ev.DeviceDown) -> None:
        """Take the device away; it stays when it is in use."""
        self._orders[self._keeper.detach()] = (effect.token, self._detached)

    def complete(self, effect: ev.CompleteRequest) -> None:
        """Answer one of the application's requests."""
        request: Request = effect.token
        fuse, buffer = self._fuse, effect.buffer
        if fuse is not None:
            if effect.errno:
                fuse.reply_error(request.unique, effect.errno)
            elif type(request) is FuseWrite:
                fuse.reply_written(request.unique, request.length)
            elif type(request) is FuseRead:
                fuse.reply_read(request.unique, (buffer.view,))
            else:
                fuse.reply_ok(request.unique)
        if buffer is not None and type(request) is FuseRead:
            buffer.release()

    def _requests(self, _events: int) -> None:
        fuse, step, now = self._fuse, self._step, self._loop.now_ms
        assert fuse is not None
        odd = self.block_bytes - 1
        for request in fuse.receive():
            kind = type(request)
            if kind is not FuseFlush and (request.offset | request.length) & odd:  # type: ignore[union-attr]
                # mostly somebody who has opened the served file itself. From the disk it would come back as an error
                # like any other, and cost it its place
                fuse.reply_error(request.unique, errno.EINVAL)
            elif kind is FuseWrite:
                assert isinstance(request, FuseWrite)
                step(ev.AppWrite(now, request, request.offset, request.length, request.buffer))
            elif isinstance(request, FuseRead):
                step(ev.AppRead(now, request, request.offset, request.length, None))
            elif isinstance(request, FuseFlush):
                step(ev.AppFlush(now, request))
            elif isinstance(request, FuseDiscard):
                unmap = request.kind is DiscardKind.UNMAP
                step(ev.AppDiscard(now, request, request.offset, request.length, unmap))
        if fuse.closed:
            if not self._orders:
                _log.warning("device_gone", device=self.path, remedy="Was it unmounted or aborted from outside?")
            self._loop.remove(fuse.fileno())
            self._set_path(None)

    def _replies(self, _events: int) -> None:
        for reply in self._keeper.receive():
            if reply.no in self._notices:
                self._notices.discard(reply.no)
                if not reply.ok:
                    _log.warning("device_not_held", problem=reply.what)
                continue
            token, take = self._orders.pop(reply.no, (None, None))
            if take is None:
                self.other_reply(reply)
            else:
                take(token, reply)

    def _attached(self, token: ev.Token, reply: KeeperReply) -> None:
        if reply.ok:
            fuse = self._fuse
            if fuse is not None and fuse.can_resend and self._hold:
                self._notices.add(self._keeper.hold(fuse.fileno()))
            self._set_path(reply.device)
            self._done(token, 0)
            return
        _log.error("device_not_made", problem=reply.what, remedy=reply.remedy)
        self._drop()
        self._done(token, errno.EIO)

    def _detached(self, token: ev.Token, reply: KeeperReply) -> None:
        if reply.ok:
            self._drop()
            self._done(token, 0)
            return
        _log.warning("device_stays", problem=reply.what, remedy=reply.remedy)
        self._done(token, errno.EBUSY if reply.error == _BUSY else errno.EIO)

    def _grown(self, token: ev.Token, reply: KeeperReply) -> None:
        if not reply.ok:
            _log.error("device_not_grown", problem=reply.what, remedy=reply.remedy)
        self._done(token, 0 if reply.ok else errno.EIO)

    def _drop(self) -> None:
        fuse = self._fuse
        self._fuse = None
        if fuse is not None:
            self._loop.remove(fuse.fileno())
            fuse.close()
        self._set_path(None)

    def _set_path(self, path: str | None) -> None:
        if path != self.path:
            self.path = path
            self._changed()


def _unexpected(reply: KeeperReply) -> None:
    _log.error("unexpected_reply", no=reply.no)
