"""A disk that answers reads only when it is told to: `python held_disk.py FILE`, orders on standard input.

It serves FILE at its own place. Each line on standard input is an order: `hold` (reads wait from now on), `release`
(those that wait are answered, and so are later ones), `fail` (every request is an error from now on). Each change of
the number of reads that wait is a line on standard output. Writes and flushes are answered at once. It ends when its
file is unmounted.
"""

from __future__ import annotations

import errno
import os
import pathlib
import select
import sys

from relevo.device.frontend import FuseFlush, FuseRead, FuseWrite, Request
from relevo.device.fuse import FuseFile
from relevo.device.mount import mount_fuse_file


class HeldDisk:
    """The file behind, and the reads that wait."""

    def __init__(self, image: int, frontend: FuseFile) -> None:
        self._image = image
        self._frontend = frontend
        self._holding = False
        self._failing = False
        self._held: list[FuseRead] = []

    def obey(self, order: str) -> None:
        """Hold, release or fail."""
        self._holding = order == "hold"
        self._failing = order == "fail"
        held, self._held = self._held, []
        for request in held:
            self._read(request)
        print(0, flush=True)

    def serve(self, request: Request) -> None:
        """One request."""
        match request:
            case _ if self._failing:
                self._frontend.reply_error(request.unique, errno.EIO)
            case FuseRead() if self._holding:
                self._held.append(request)
                print(len(self._held), flush=True)
            case FuseRead():
                self._read(request)
            case FuseWrite():
                os.pwrite(self._image, request.payload, request.offset)
                self._frontend.reply_written(request.unique, request.length)
            case FuseFlush():
                self._frontend.reply_ok(request.unique)
            case _:
                self._frontend.reply_error(request.unique, errno.EOPNOTSUPP)

    def _read(self, request: FuseRead) -> None:
        self._frontend.reply_read(request.unique, (os.pread(self._image, request.length, request.offset),))


def main(path: pathlib.Path) -> None:
    """Serve until unmounted."""
    image = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    frontend = FuseFile(os.fstat(image).st_size)
    disk = HeldDisk(image, frontend)
    mount_fuse_file(frontend.fileno(), path, source="held-disk")
    print("ready", flush=True)
    poll = select.poll()
    poll.register(frontend.fileno(), select.POLLIN)
    poll.register(sys.stdin.fileno(), select.POLLIN)
    while not frontend.closed:
        for fd, _ in poll.poll():
            if fd == frontend.fileno():
                for request in frontend.receive():
                    disk.serve(request)
            elif order := sys.stdin.readline().strip():
                disk.obey(order)
            else:
                poll.unregister(fd)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
