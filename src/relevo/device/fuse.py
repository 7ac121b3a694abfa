"""One regular file of fixed size, served over /dev/fuse by this process: the carrier below a loop device.

The raw kernel protocol, single-threaded and non-blocking. The file is itself the root of its mount, so no name is ever
looked up. What is not a read, write, flush or discard is answered here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
from collections.abc import Callable, Sequence

from relevo.base.errors import RelevoError
from relevo.device import fuse_proto as proto
from relevo.device.buffers import Buffer, BufferPool
from relevo.device.frontend import DiscardKind, FuseDiscard, FuseFlush, FuseRead, FuseWrite, Request

DEVICE = pathlib.Path("/dev/fuse")
BLOCK_BYTES = 4096
MAX_BURST = 64  # requests taken by one receive()
PATIENCE = 4  # so many times in a row as many requests have to come as are asked for, before more are
POOL_BYTES = 192 << 20  # above what a loop device of 128 tags can have in flight, so that receive() never waits for it
_GONE = frozenset({errno.ENODEV, errno.ECONNABORTED, errno.ENOTCONN})
_READ = int(proto.Opcode.READ)
_WRITE = int(proto.Opcode.WRITE)


class FuseUnavailable(RelevoError):
    """/dev/fuse cannot be opened."""


def _open(device: pathlib.Path) -> int:
    try:
        return os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise FuseUnavailable(f"{device} cannot be opened ({error.strerror}).", "Load the module fuse.") from error


class FuseFile:
    """A regular file of `size_bytes` whose reads, writes, flushes and discards come here (a `BlockFrontend`).

    It serves nothing until `fileno()` was given to `relevo.device.mount.mount_fuse_file`.

    Args:
        size_bytes: size of the file, a multiple of `BLOCK_BYTES`.
        pool: where write payloads are kept until their reply; one of its own by default.
        device: the character device.
        adopted: the descriptor of a connection that another process has served (taken over): call `resend` before
            anything is received.

    Attributes:
        can_resend: the kernel can hand over again what a dead server has left unanswered; known after INIT.

    Raises:
        FuseUnavailable: the device cannot be opened.
    """

    def __init__(
        self,
        size_bytes: int,
        pool: BufferPool | None = None,
        device: pathlib.Path = DEVICE,
        *,
        adopted: int | None = None,
    ) -> None:
        if size_bytes <= 0 or size_bytes % BLOCK_BYTES:
            raise ValueError(f"size {size_bytes} is not a positive multiple of {BLOCK_BYTES}")
        self._fd = _open(device) if adopted is None else adopted
        self.size_bytes = size_bytes
        self.can_resend = adopted is not None
        self._closed = False
        self._pool = BufferPool(POOL_BYTES, proto.MAX_IO_BYTES) if pool is None else pool
        self._writes: dict[int, Buffer] = {}
        self._head = bytearray(proto.IO_REQUEST_BYTES)
        self._burst = 1
        self._full = 0
        self._housekeeping: dict[int, Callable[[int, memoryview], None]] = {
            proto.Opcode.GETATTR: self._getattr,
            proto.Opcode.SETATTR: self._setattr,
            proto.Opcode.OPEN: self._open,
            proto.Opcode.STATFS: self._statfs,
            proto.Opcode.RELEASE: self._agree,
            proto.Opcode.FLUSH: self._agree,
            proto.Opcode.ACCESS: self._agree,
            proto.Opcode.INIT: self._init,
            proto.Opcode.DESTROY: self._destroy,
            proto.Opcode.FORGET: self._ignore,
            proto.Opcode.BATCH_FORGET: self._ignore,
        }

    @property
    def closed(self) -> bool:
        """The mount is gone or the connection aborted: nothing will come any more."""
        return self._closed

    def fileno(self) -> int:
        """The descriptor of /dev/fuse: readable when requests wait. It is closed on exec; never pass it to a child.

        Register it for epoll only when it is mounted: until then the kernel has nothing to wait on, and an earlier
        registration never reports anything. `receive` raises PermissionError until the mount.
        """
        return self._fd

    def close(self) -> None:
        """Give the descriptor back: the kernel aborts the connection and every request in flight fails."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._closed = True
        self._housekeeping.clear()  # it refers to this object: the pool would stay until all garbage is collected

    def resend(self) -> None:
        """Have everything that an earlier server has read and not answered handed over again, before what is new.

        What this server has read itself would come twice: call it before the first `receive`.

        Raises:
            OSError: the connection is gone, or the kernel cannot.
        """
        os.write(self._fd, proto.resend_notice())

    # ---- requests in -------------------------------------------------------------------------------------------

    def receive(self) -> list[Request]:
        """Requests that are waiting, at most `MAX_BURST`; empty when there is none, and when the connection closed.

        How many reads are tried follows what came last, which saves a lightly loaded server the failing read at the
        end of each burst; what is left over makes the descriptor readable again.

        Raises:
            PermissionError: it is not mounted yet.
        """
        requests: list[Request] = []
        head = self._head
        room_for = self._pool.room
        tries = self._burst
        for _ in range(tries):
            room = room_for(proto.MAX_IO_BYTES)
            if room is None:
                break
            try:
                got = os.readv(self._fd, (head, room))
            except BlockingIOError:
                self._burst = max(1, len(requests))
                self._full = 0
                return requests
            except OSError as error:
                if error.errno == errno.ENOENT:  # interrupted before it was read
                    continue
                if error.errno not in _GONE:
                    raise
                self._closed = True
                return requests
            self._take(got, requests)
        self._full += 1
        if self._full >= PATIENCE:
            self._burst = min(MAX_BURST, tries * 2)
        return requests

    def _take(self, got: int, requests: list[Request]) -> None:
        length, opcode, unique, offset, size = proto.IO_REQUEST.unpack(self._head)
        assert length == got, "the kernel hands over whole requests"
        if opcode == _WRITE:
            assert size == got - proto.IO_REQUEST_BYTES, "a write carries its data"
            if offset + size > self.size_bytes:
                self.reply_error(unique, errno.ENOSPC)
                return
            buffer = self._pool.cut(size)
            self._writes[unique] = buffer
            requests.append(FuseWrite(unique, offset, size, buffer))
        elif opcode == _READ:
            size = min(size, self.size_bytes - offset)
            if size <= 0:
                self.reply_read(unique, ())
                return
            requests.append(FuseRead(unique, offset, size))
        elif opcode == proto.Opcode.FSYNC:
            requests.append(FuseFlush(unique))
        elif opcode == proto.Opcode.FALLOCATE:
            self._fallocate(unique, requests)
        else:
            answer = self._housekeeping.get(opcode, self._refuse)
            answer(unique, memoryview(self._head)[proto.IN_HEADER_BYTES :])

    def _fallocate(self, unique: int, requests: list[Request]) -> None:
        _, offset, length, mode, _ = proto.FALLOCATE_IN.unpack_from(self._head, proto.IN_HEADER_BYTES)
        if mode == proto.FALLOC_PUNCH_HOLE | proto.FALLOC_KEEP_SIZE:
            kind = DiscardKind.UNMAP
        elif mode == proto.FALLOC_ZERO_RANGE | proto.FALLOC_KEEP_SIZE:
            kind = DiscardKind.ZERO
        else:
            self.reply_error(unique, errno.EOPNOTSUPP)
            return
        length = min(length, self.size_bytes - offset)
        if length <= 0:
            self.reply_ok(unique)
            return
        requests.append(FuseDiscard(unique, offset, length, kind))

    # ---- replies out -------------------------------------------------------------------------------------------

    def reply_read(self, unique: int, parts: Sequence[memoryview | bytes]) -> None:
        """Answer a read with its data (each part counted in bytes)."""
        length = proto.OUT_HEADER_BYTES
        for part in parts:
            length += len(part)
        try:
            os.writev(self._fd, (proto.OUT_HEADER.pack(length, 0, unique), *parts))
        except OSError as error:
            self._reply_failed(error)

    def reply_written(self, unique: int, length: int) -> None:
        """Answer a write of which `length` bytes are done; its buffer goes back to the pool."""
        self._send(proto.WRITE_REPLY.pack(24, 0, unique, length, 0))
        self._writes.pop(unique).release()

    def reply_ok(self, unique: int) -> None:
        """Answer a flush or a discard."""
        self._send(proto.OUT_HEADER.pack(proto.OUT_HEADER_BYTES, 0, unique))

    def reply_error(self, unique: int, error: int) -> None:
        """Answer any request with a positive errno; a write's buffer goes back to the pool."""
        self._send(proto.OUT_HEADER.pack(proto.OUT_HEADER_BYTES, -error, unique))
        buffer = self._writes.pop(unique, None)
        if buffer is not None:
            buffer.release()

    def _send(self, reply: bytes) -> None:
        try:
            os.write(self._fd, reply)
        except OSError as error:
            self._reply_failed(error)

    def _reply_failed(self, error: OSError) -> None:
        if error.errno == errno.ENOENT or self._fd < 0:  # nobody waits for this request any more
            return
        if error.errno not in _GONE and error.errno != errno.EPERM:
            raise error
        self._closed = True

    # ---- what is answered here ---------------------------------------------------------------------------------

    def _answer(self, unique: int, body: bytes) -> None:
        self._send(proto.OUT_HEADER.pack(proto.OUT_HEADER_BYTES + len(body), 0, unique) + body)

    def _init(self, unique: int, body: memoryview) -> None:
        major, _, max_readahead, flags, flags2 = proto.INIT_IN.unpack_from(body)
        self.can_resend = proto.offers_resend(flags, flags2)
        if major != proto.MAJOR:
            self.reply_error(unique, errno.EPROTO)
            return
        self._answer(unique, proto.init_reply(flags, max_readahead))

    def _getattr(self, unique: int, _body: memoryview) -> None:
        self._answer(unique, proto.attributes_reply(self.size_bytes, BLOCK_BYTES))

    def _setattr(self, unique: int, body: memoryview) -> None:
        valid, _, _, size = proto.SETATTR_IN.unpack_from(body)
        if valid & proto.FATTR_SIZE and size != self.size_bytes:
            self.reply_error(unique, errno.EPERM)
            return
        self._getattr(unique, body)

    def _open(self, unique: int, _body: memoryview) -> None:
        self._answer(unique, proto.open_reply())

    def _statfs(self, unique: int, _body: memoryview) -> None:
        self._answer(unique, proto.statfs_reply(self.size_bytes, BLOCK_BYTES))

    def _agree(self, unique: int, _body: memoryview) -> None:
        self.reply_ok(unique)

    def _ignore(self, unique: int, _body: memoryview) -> None:
        """FORGET has no answer."""

    def _destroy(self, unique: int, _body: memoryview) -> None:
        with contextlib.suppress(OSError):
            self.reply_ok(unique)
        self._closed = True

    def _refuse(self, unique: int, _body: memoryview) -> None:
        # The kernel does not ask again for what is not implemented (extended attributes, interrupts, …).
        self.reply_error(unique, errno.ENOSYS)
