"""Linux native asynchronous I/O: reads, writes and flushes of a disk whose completions arrive on an eventfd.

The four system calls of io_setup(2) and struct iocb of include/uapi/linux/aio_abi.h, through ctypes. Asynchronous in
truth only with O_DIRECT and, on files, on allocated blocks (see `backing.py`). Discards have no such call: a helper
thread, asleep in the kernel, carries them out one by one and reports like the rest.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import queue
import struct
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from relevo.base.errors import RelevoError
from relevo.device.backing import discard
from relevo.device.buffers import address_of
from relevo.device.frontend import DiscardKind

Token = TypeVar("Token")

DEFAULT_DEPTH = 256
_THREAD_STACK_BYTES = 256 << 10  # the process may lock all its memory

_SYSCALLS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2), "riscv64": (0, 1, 4, 2)}
_PREAD, _PWRITE, _FDSYNC, _PREADV, _PWRITEV = 0, 1, 3, 7, 8
_FLAG_RESFD = 1
# struct iocb: data, key, rw_flags, opcode, reqprio, fildes, buf, nbytes, offset, reserved2, flags, resfd
_IOCB = struct.Struct("=QIIHHIQQQQII")
_EVENT = struct.Struct("=QQqq")  # struct io_event: data, obj, res, res2
_IOVEC = struct.Struct("=QQ")
# struct aio_ring, which the context's number is the address of: id, nr, head, tail, magic, compat_features,
# incompat_features, header_length; nr events follow. Whoever reaps advances head.
_RING = struct.Struct("=8I")
_RING_ENDS = struct.Struct("=II")
_RING_HEAD = struct.Struct("=I")
_RING_ENDS_AT = 8
_RING_MAGIC = 0xA10A10A1
assert (_IOCB.size, _EVENT.size) == (64, 32)


class AioUnavailable(RelevoError):
    """The kernel offers no native asynchronous I/O, or none is left."""


class _Discarder:
    """The thread that carries out discards; its results are put into `done` and announced on the eventfd."""

    def __init__(self, eventfd: int) -> None:
        self._eventfd = eventfd
        self._orders: queue.SimpleQueue[tuple[int, int, int, DiscardKind, int] | None] = queue.SimpleQueue()
        self.done: deque[tuple[int, int]] = deque()
        before = threading.stack_size(_THREAD_STACK_BYTES)
        self._thread = threading.Thread(target=self._work, name="discard", daemon=True)
        self._thread.start()
        threading.stack_size(before)

    def order(self, fd: int, offset: int, length: int, kind: DiscardKind, number: int) -> None:
        self._orders.put((fd, offset, length, kind, number))

    def _work(self) -> None:
        while (order := self._orders.get()) is not None:
            fd, offset, length, kind, number = order
            result = 0
            try:
                discard(fd, offset, length, kind)
            except OSError as error:
                result = -(error.errno or errno.EIO)
            self.done.append((number, result))
            os.eventfd_write(self._eventfd, 1)

    def close(self) -> None:
        self._orders.put(None)
        self._thread.join()


class Aio(Generic[Token]):
    """A queue of asynchronous disk operations; requests are gathered and handed over by `submit`.

    Operations in flight together have no order among them: whoever needs one waits for the completion. Buffers stay
    referenced, and must stay untouched, until their completion is reaped.

    Args:
        depth: how many operations the kernel is given at once; more wait in an internal queue.
        edge: whoever watches the eventfd does so edge-triggered, so that its count need not be taken.

    Raises:
        AioUnavailable: the kernel refuses (unknown architecture, or fs.aio-max-nr is used up).
    """

    def __init__(self, depth: int = DEFAULT_DEPTH, *, edge: bool = False) -> None:
        numbers = _SYSCALLS.get(platform.machine())
        if numbers is None:
            raise AioUnavailable(f"Native asynchronous I/O is not known on {platform.machine()}.")
        setup, self._sys_destroy, self._sys_getevents, self._sys_submit = numbers
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._call = self._libc.syscall
        self._call.restype = ctypes.c_long
        self._context = ctypes.c_ulong(0)
        if self._call(setup, ctypes.c_long(depth), ctypes.byref(self._context)) < 0:
            reason = os.strerror(ctypes.get_errno())
            raise AioUnavailable(f"io_setup({depth}) failed ({reason}).", "Raise the sysctl fs.aio-max-nr.")
        self._depth = depth
        self._edge = edge
        self._ring = self._map_ring()
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._waiting: deque[bytes] = deque()
        self._staged = 0  # iocbs in the area that were not handed over yet
        self._submitted = 0
        self._inflight: dict[int, tuple[Token, object]] = {}
        self._next = 1
        self._failed: list[tuple[Token, int]] = []
        self._discarder: _Discarder | None = None
        self._discarding: dict[int, Token] = {}
        self._discarded = 0
        self._make_areas(depth)

    def _make_areas(self, depth: int) -> None:
        """What the kernel reads and writes: iocbs, the pointers to them, events."""
        self._iocbs = bytearray(_IOCB.size * depth)
        self._events = bytearray(_EVENT.size * depth)
        base = address_of(memoryview(self._iocbs))
        pointers = bytearray(struct.pack(f"={depth}Q", *range(base, base + depth * _IOCB.size, _IOCB.size)))
        self._zero_time = bytearray(16)
        self._keep = (pointers,)
        self._argument = ctypes.c_void_p(address_of(memoryview(pointers)))
        self._events_argument = ctypes.c_void_p(address_of(memoryview(self._events)))
        self._time_argument = ctypes.c_void_p(address_of(memoryview(self._zero_time)))
        self._depth_argument = ctypes.c_long(depth)

    def _map_ring(self) -> memoryview | None:
        """The kernel's ring of completions, to be read without a system call; None where that is not known to be safe.

        On x86-64 an event is visible once the ring's tail is; elsewhere that would take a barrier.
        """
        address = self._context.value or 0
        header = (ctypes.c_char * _RING.size).from_address(address)
        _, entries, _, _, magic, _, incompatible, header_bytes = _RING.unpack_from(header)
        if platform.machine() != "x86_64" or (magic, incompatible, header_bytes) != (_RING_MAGIC, 0, _RING.size):
            return None
        self._entries = entries
        return memoryview((ctypes.c_char * (_RING.size + entries * _EVENT.size)).from_address(address)).cast("B")

    def fileno(self) -> int:
        """The eventfd that becomes readable when `reap` has something."""
        return self._eventfd

    def __len__(self) -> int:
        """Operations that were asked for and not reaped."""
        return len(self._inflight) + len(self._discarding) + len(self._failed)

    # ---- asking ------------------------------------------------------------------------------------------------

    def read(self, fd: int, view: memoryview, offset: int, token: Token) -> None:
        """Fill `view` from `offset`; the result is the number of bytes read."""
        self._ask(_PREAD, fd, address_of(view), len(view), offset, token, view)

    def write(self, fd: int, view: memoryview, offset: int, token: Token) -> None:
        """Write `view` at `offset`; the result is the number of bytes written."""
        self._ask(_PWRITE, fd, address_of(view), len(view), offset, token, view)

    def readv(self, fd: int, views: Sequence[memoryview], offset: int, token: Token) -> None:
        """Fill several views, one after the other, from `offset`."""
        self._ask_vector(_PREADV, fd, views, offset, token)

    def writev(self, fd: int, views: Sequence[memoryview], offset: int, token: Token) -> None:
        """Write several views, one after the other, at `offset`."""
        self._ask_vector(_PWRITEV, fd, views, offset, token)

    def fdsync(self, fd: int, token: Token) -> None:
        """Bring every write whose completion was reaped before to stable storage; the result is 0."""
        self._ask(_FDSYNC, fd, 0, 0, 0, token, None)

    def discard(self, fd: int, offset: int, length: int, kind: DiscardKind, token: Token) -> None:
        """Make a range read as zeros (`backing.discard`); the result is 0. Starts at once, without `submit`."""
        if self._discarder is None:
            self._discarder = _Discarder(self._eventfd)
        number = self._next
        self._next = number + 1
        self._discarding[number] = token
        self._discarder.order(fd, offset, length, kind, number)

    def _ask_vector(self, opcode: int, fd: int, views: Sequence[memoryview], offset: int, token: Token) -> None:
        vector = bytearray().join(_IOVEC.pack(address_of(view), len(view)) for view in views)
        self._ask(opcode, fd, address_of(memoryview(vector)), len(views), offset, token, (vector, tuple(views)))

    def _ask(self, opcode: int, fd: int, address: int, length: int, offset: int, token: Token, keep: object) -> None:
        number = self._next
        self._next = number + 1
        self._inflight[number] = (token, keep)
        iocb = (number, 0, 0, opcode, 0, fd, address, length, offset, 0, _FLAG_RESFD, self._eventfd)
        if self._staged + self._submitted < self._depth:
            _IOCB.pack_into(self._iocbs, self._staged * 64, *iocb)
            self._staged += 1
        else:
            self._waiting.append(_IOCB.pack(*iocb))

    # ---- handing over ------------------------------------------------------------------------------------------

    def submit(self) -> None:
        """Hand what was gathered to the kernel. What it cannot take now is handed over by a later `reap`."""
        while self._staged:
            taken = self._call(self._sys_submit, self._context, ctypes.c_long(self._staged), self._argument)
            if taken < 0:
                number = ctypes.get_errno()
                if number == errno.EINTR:
                    continue
                if number == errno.EAGAIN:
                    if not self._submitted:  # no completion will wake us
                        os.eventfd_write(self._eventfd, 1)
                    return
                self._fail_first(number)
                taken = 1
            else:
                self._submitted += taken
            if taken == self._staged:
                self._staged = 0
            else:
                rest = self._iocbs[taken * 64 : self._staged * 64]
                self._iocbs[: len(rest)] = rest
                self._staged -= taken

    def _fail_first(self, number: int) -> None:
        """The kernel refused the first iocb for good: that one operation has failed."""
        (key,) = struct.unpack_from("=Q", self._iocbs)
        token, _ = self._inflight.pop(key)
        self._failed.append((token, -number))
        os.eventfd_write(self._eventfd, 1)

    def reap(self) -> list[tuple[Token, int]]:
        """Every completion that is there: (token, result), the result a negative errno on failure. Never blocks."""
        if not self._edge:
            try:  # noqa: SIM105 - contextlib.suppress costs more than the read
                os.eventfd_read(self._eventfd)
            except BlockingIOError:
                pass
        done = self._failed
        self._failed = []
        if self._submitted:
            if self._ring is None:
                self._reap_kernel(done)
            else:
                self._reap_ring(self._ring, done)
        if self._discarding and self._discarder is not None:
            finished = self._discarder.done
            while finished:
                number, result = finished.popleft()
                done.append((self._discarding.pop(number), result))
                self._discarded += 1
        if self._waiting or self._staged:
            self._refill()
        return done

    def _reap_ring(self, ring: memoryview, done: list[tuple[Token, int]]) -> None:
        head, tail = _RING_ENDS.unpack_from(ring, _RING_ENDS_AT)
        if head == tail:
            return
        pop = self._inflight.pop
        for first, end in ((head, tail),) if head < tail else ((head, self._entries), (0, tail)):
            events = ring[_RING.size + first * _EVENT.size : _RING.size + end * _EVENT.size]
            for number, _, result, _ in _EVENT.iter_unpack(events):
                self._submitted -= 1
                done.append((pop(number)[0], result))
        _RING_HEAD.pack_into(ring, _RING_ENDS_AT, tail)

    def _reap_kernel(self, done: list[tuple[Token, int]]) -> None:
        count = self._call(
            self._sys_getevents,
            self._context,
            ctypes.c_long(0),
            self._depth_argument,
            self._events_argument,
            self._time_argument,
        )
        if count <= 0:
            return
        self._submitted -= count
        pop = self._inflight.pop
        for number, _, result, _ in _EVENT.iter_unpack(memoryview(self._events)[: count * 32]):
            done.append((pop(number)[0], result))

    def _refill(self) -> None:
        while self._waiting and self._staged + self._submitted < self._depth:
            self._iocbs[self._staged * 64 : self._staged * 64 + 64] = self._waiting.popleft()
            self._staged += 1
        self.submit()

    def age(self) -> tuple[int | None, int]:
        """The number of the oldest operation in flight (discards aside; None: there is none), and the next one's."""
        return next(iter(self._inflight), None), self._next

    def discard_age(self) -> tuple[int | None, int]:
        """How many discards are done if one is being carried out (None: none is), and one more.

        They are carried out one after the other: what waits for its turn says nothing of the disk.
        """
        return (self._discarded if self._discarding else None), self._discarded + 1

    def abandon(self, heir: Callable[[Token], Token]) -> list[Token]:
        """Whoever waits for something hears no more of it: returns the tokens of all that is in flight.

        What the kernel has stays in its hands; what it has not is never handed over. `heir` gives what is reaped
        instead of a token: whoever keeps its memory until then. (`aio_abandoned.abandon` lets nothing new begin.)
        """
        held = [*self._waiting, *(bytes(self._iocbs[at * 64 : at * 64 + 64]) for at in range(self._staged))]
        never = {_IOCB.unpack(iocb)[0] for iocb in held}
        self._waiting.clear()
        self._staged = 0
        tokens = [token for token, _ in self._inflight.values()] + list(self._discarding.values())
        kept = {key: pair for key, pair in self._inflight.items() if key not in never}
        self._inflight = {key: (heir(token), keep) for key, (token, keep) in kept.items()}
        self._discarding = {key: heir(token) for key, token in self._discarding.items()}
        return tokens

    def close(self) -> None:
        """Wait for what is in flight and give everything back."""
        if self._discarder is not None:
            self._discarder.close()
        self._ring = None
        self._call(self._sys_destroy, self._context)
        os.close(self._eventfd)
        self._inflight.clear()
