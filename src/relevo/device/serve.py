"""A tiny epoll runner for processes that serve a device, and a server that passes requests through to a disk.

Single-threaded; a handler is called when its descriptor is readable. `python -m relevo.device.serve DISK PATH` serves a
disk as a file at PATH, for measurements and as the plainest example of a server.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import select
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator

from relevo.device.aio import Aio
from relevo.device.backing import Backing, open_backing
from relevo.device.buffers import Buffer, BufferPool
from relevo.device.frontend import BlockFrontend, FuseDiscard, FuseFlush, FuseRead, FuseWrite, Request
from relevo.device.fuse import POOL_BYTES, FuseFile
from relevo.device.mount import mount_fuse_file, umount

Handler = Callable[[], None]
READ_POOL_BYTES = 64 << 20
_MAX_EVENTS = 64


class Runner:
    """An epoll loop: handlers by descriptor, and what is done once at the end of each round."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._after: list[Handler] = []
        self._running = True

    def watch(self, fd: int, handler: Handler) -> None:
        """Call `handler` whenever `fd` is readable (or has failed)."""
        self._epoll.register(fd, select.EPOLLIN)
        self._handlers[fd] = handler

    def forget(self, fd: int) -> None:
        """No longer watch `fd`; before it is closed."""
        del self._handlers[fd]
        with contextlib.suppress(OSError):
            self._epoll.unregister(fd)

    def after_each_round(self, handler: Handler) -> None:
        """Call `handler` when every ready descriptor of a round was served: the place to submit in a batch."""
        self._after.append(handler)

    def stop(self) -> None:
        """End `run` after the present round."""
        self._running = False

    @contextlib.contextmanager
    def stopped_by_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT end `run`."""
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        before_fd = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
        self.watch(reading, self.stop)
        try:
            yield
        finally:
            self.forget(reading)
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before_fd)
            os.close(reading)
            os.close(writing)

    def run(self) -> None:
        """Serve until `stop`."""
        handlers = self._handlers
        while self._running:
            for fd, _ in self._epoll.poll(-1, _MAX_EVENTS):
                handler = handlers.get(fd)  # None: forgotten earlier in this round
                if handler is not None:
                    handler()
            for handler in self._after:
                handler()

    def close(self) -> None:
        """Give the epoll descriptor back."""
        self._epoll.close()


class PassThrough:
    """Serves a frontend from a disk, request by request, keeping nothing.

    Args:
        runner: its descriptors are watched there.
        frontend: where requests come from; already mounted, see `FuseFile.fileno`.
        backing: where they go.
        gone: called when the device is gone; ends the runner by default.
    """

    def __init__(self, runner: Runner, frontend: BlockFrontend, backing: Backing, gone: Handler | None = None) -> None:
        self._runner = runner
        self._frontend = frontend
        self._gone = runner.stop if gone is None else gone
        self._disk = backing.fd
        self._aio: Aio[tuple[Request, Buffer | None]] = Aio()
        self._pool = BufferPool(READ_POOL_BYTES)
        self._starved: deque[FuseRead] = deque()
        runner.watch(frontend.fileno(), self._requests)
        runner.watch(self._aio.fileno(), self._completions)
        runner.after_each_round(self._aio.submit)

    def _requests(self) -> None:
        aio, disk = self._aio, self._disk
        for request in self._frontend.receive():
            if isinstance(request, FuseWrite):
                aio.write(disk, request.payload, request.offset, (request, None))
            elif isinstance(request, FuseRead):
                self._read(request)
            elif isinstance(request, FuseFlush):
                aio.fdsync(disk, (request, None))
            elif isinstance(request, FuseDiscard):
                aio.discard(disk, request.offset, request.length, request.kind, (request, None))
        if self._frontend.closed:
            self._runner.forget(self._frontend.fileno())
            self._gone()

    def _read(self, request: FuseRead) -> None:
        buffer = self._pool.take(request.length)
        if buffer is None:
            self._starved.append(request)
            return
        self._aio.read(self._disk, buffer.view, request.offset, (request, buffer))

    def _completions(self) -> None:
        frontend = self._frontend
        for (request, buffer), result in self._aio.reap():
            if result < 0:
                frontend.reply_error(request.unique, -result)
            elif isinstance(request, FuseWrite):
                frontend.reply_written(request.unique, result)
            elif isinstance(request, FuseRead):
                assert buffer is not None
                frontend.reply_read(request.unique, (buffer.view[:result],))
            else:
                frontend.reply_ok(request.unique)
            if buffer is not None:
                buffer.release()
        while self._starved:
            waiting = len(self._starved)
            self._read(self._starved.popleft())
            if len(self._starved) == waiting:
                break

    def close(self) -> None:
        """Wait for the disk and give everything back."""
        self._aio.close()


def serve_file(disk: pathlib.Path, path: pathlib.Path) -> None:
    """Serve a disk as a file at `path` until SIGTERM or until it is unmounted."""
    backing = open_backing(disk)
    frontend = FuseFile(backing.size_bytes, BufferPool(POOL_BYTES))
    mount_fuse_file(frontend.fileno(), path)
    runner = Runner()
    server = PassThrough(runner, frontend, backing)
    print(f"serving {disk} at {path}", flush=True)
    with runner.stopped_by_signals():
        runner.run()
    if not frontend.closed:
        try:
            umount(path)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
    frontend.close()
    server.close()
    runner.close()
    backing.close()


def main(arguments: list[str]) -> int:
    """`DISK PATH`."""
    disk, path = map(pathlib.Path, arguments)
    serve_file(disk, path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
