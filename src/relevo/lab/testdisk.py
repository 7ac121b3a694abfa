"""A disk with a volatile cache, served from outside the machine that uses it; in a power cut it forgets.

Writes go to the image at once; of each block of 4096 bytes that was written since the last flush the old content is
kept beside. A flush drops these. A power cut refuses all further I/O and puts the old content of a random part of the
unflushed blocks back: what a disk may do that never wrote them. A block is never torn, as on disks of 4 KiB sectors.

A process of its own: `python -P -m relevo.lab.testdisk FOLDER SIZE_BYTES --relevo-lab=LAB`, with a control socket
FOLDER/disk.sock (`stats`, `crash`). It ends when its file is unmounted.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import errno
import json
import os
import pathlib
import random
import select
import socket
import sys
from typing import Any

from relevo.device.frontend import FuseDiscard, FuseFlush, FuseRead, FuseWrite, Request
from relevo.device.fuse import FuseFile
from relevo.device.mount import connection_minor, mount_fuse_file
from relevo.lab.process import Process, become_daemon, open_log

BLOCK_BYTES = 4096
CACHE_BLOCKS = 8192
"""How many unflushed blocks the cache holds; beyond it the oldest reach stable storage by themselves."""
LOST_SHARE = (0.2, 1.0)
"""Between which bounds the share of unflushed blocks lies that a power cut forgets."""
REQUEST_LIMIT_BYTES = 4096
REQUEST_LIMIT_S = 2.0
_ZEROS = bytes(BLOCK_BYTES)
_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2
_libc = ctypes.CDLL(None, use_errno=True)


def _punch_hole(fd: int, offset: int, length: int) -> None:
    mode = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
    if _libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class VolatileDisk:
    """The disk itself: an image file, and what it would lose.

    Args:
        image: descriptor of the image, open for reading and writing.
        cache_blocks: how many unflushed blocks it holds.
    """

    def __init__(self, image: int, cache_blocks: int = CACHE_BLOCKS) -> None:
        self._image = image
        self._cache_blocks = cache_blocks
        self._old: collections.OrderedDict[int, bytes] = collections.OrderedDict()
        self.refusing = False

    @property
    def unflushed(self) -> int:
        """How many blocks a power cut may change now."""
        return len(self._old)

    def read(self, offset: int, length: int) -> bytes:
        """Data of the disk. Raises OSError (EIO) after a power cut."""
        self._check()
        return os.pread(self._image, length, offset)

    def write(self, offset: int, data: memoryview | bytes) -> None:
        """Write into the cache. Raises OSError (EIO) after a power cut."""
        self._check()
        self._remember(offset, len(data))
        written = os.pwrite(self._image, data, offset)
        assert written == len(data), "an image file takes all or raises"

    def _check(self) -> None:
        if self.refusing:
            raise OSError(errno.EIO, "the power is cut")

    def _remember(self, offset: int, length: int) -> None:
        first, last = offset // BLOCK_BYTES, (offset + length - 1) // BLOCK_BYTES
        old = self._old
        if all(block in old for block in range(first, last + 1)):
            return
        data = os.pread(self._image, (last - first + 1) * BLOCK_BYTES, first * BLOCK_BYTES)
        for block in range(first, last + 1):
            if block not in old:
                at = (block - first) * BLOCK_BYTES
                content = data[at : at + BLOCK_BYTES]
                old[block] = _ZEROS if content == _ZEROS else content
        while len(old) > self._cache_blocks:
            old.popitem(last=False)

    def flush(self) -> None:
        """What was written is on stable storage. Raises OSError (EIO) after a power cut."""
        self._check()
        self._old.clear()

    def discard(self, offset: int, length: int) -> None:
        """Make a range zeros, on stable storage at once (a disk may). Raises OSError (EIO) after a power cut."""
        self._check()
        first, end = -(-offset // BLOCK_BYTES), (offset + length) // BLOCK_BYTES
        if first >= end:
            self.write(offset, bytes(length))
            return
        head, tail = first * BLOCK_BYTES - offset, offset + length - end * BLOCK_BYTES
        if head:
            self.write(offset, bytes(head))
        if tail:
            self.write(end * BLOCK_BYTES, bytes(tail))
        if end - first > len(self._old):
            for block in [block for block in self._old if first <= block < end]:
                del self._old[block]
        else:
            for block in range(first, end):
                self._old.pop(block, None)
        _punch_hole(self._image, first * BLOCK_BYTES, (end - first) * BLOCK_BYTES)

    def cut_power(self, chance: random.Random) -> tuple[int, int]:
        """Refuse everything from now on and forget.

        Returns:
            How many blocks were unflushed, and how many of them have their old content again.
        """
        self.refusing = True
        share = chance.uniform(*LOST_SHARE)
        lost = 0
        for block, content in self._old.items():
            if chance.random() < share:
                os.pwrite(self._image, content, block * BLOCK_BYTES)
                lost += 1
        unflushed = len(self._old)
        self._old.clear()
        return unflushed, lost


class Server:
    """The process around a `VolatileDisk`: FUSE requests on one side, the lab's orders on the other."""

    def __init__(self, frontend: FuseFile, disk: VolatileDisk, listener: socket.socket, minor: int) -> None:
        self._frontend = frontend
        self._disk = disk
        self._listener = listener
        self._minor = minor
        self._counts: collections.Counter[str] = collections.Counter()

    def run(self) -> None:
        """Serve until the file is unmounted or aborted."""
        poll = select.poll()
        for fd in (self._frontend.fileno(), self._listener.fileno()):
            poll.register(fd, select.POLLIN)
        while not self._frontend.closed:
            for fd, _ in poll.poll():
                if fd == self._listener.fileno():
                    self._obey()
                else:
                    for request in self._frontend.receive():
                        self._serve(request)

    def _serve(self, request: Request) -> None:
        try:
            match request:
                case FuseRead():
                    self._counts["reads"] += 1
                    self._frontend.reply_read(request.unique, (self._disk.read(request.offset, request.length),))
                case FuseWrite():
                    self._counts["writes"] += 1
                    self._disk.write(request.offset, request.payload)
                    self._frontend.reply_written(request.unique, request.length)
                case FuseFlush():
                    self._counts["flushes"] += 1
                    self._disk.flush()
                    self._frontend.reply_ok(request.unique)
                case FuseDiscard():
                    self._counts["discards"] += 1
                    self._disk.discard(request.offset, request.length)
                    self._frontend.reply_ok(request.unique)
        except OSError as error:
            self._frontend.reply_error(request.unique, error.errno or errno.EIO)

    def _obey(self) -> None:
        """One order a connection, answered at once: {"do": "stats"} or {"do": "crash", "seed": TEXT}."""
        with contextlib.suppress(OSError, ValueError):
            sock, _ = self._listener.accept()
            with sock:
                sock.settimeout(REQUEST_LIMIT_S)
                order = json.loads(sock.makefile("rb").readline(REQUEST_LIMIT_BYTES))
                sock.sendall(json.dumps(self._do(order)).encode() + b"\n")

    def _do(self, order: dict[str, Any]) -> dict[str, Any]:
        if order.get("do") == "stats":
            counts = {name: self._counts[name] for name in ("reads", "writes", "flushes", "discards")}
            return {"ok": True, "unflushed_blocks": self._disk.unflushed, "minor": self._minor, **counts}
        if order.get("do") == "crash":
            unflushed, lost = self._disk.cut_power(random.Random(str(order["seed"])))
            sys.stderr.write(f"power cut: {unflushed} blocks unflushed, {lost} forgotten\n")
            return {"ok": True, "unflushed_blocks": unflushed, "lost_blocks": lost}
        return {"ok": False, "error": "Refused", "what": f"The disk knows no order {order.get('do')!r}.", "remedy": ""}


def main(argv: list[str]) -> None:
    """Serve FOLDER/disk.img at FOLDER/disk/r0 until it is unmounted."""
    folder, size_bytes = pathlib.Path(argv[1]), int(argv[2])
    log = open_log(folder / "disk.log")
    image = os.open(folder / "disk.img", os.O_RDWR | os.O_CLOEXEC)
    birth = become_daemon()
    os.chdir(folder)
    pathlib.Path("disk.sock").unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind("disk.sock")  # relative: the folder's name may be longer than a socket's may be
    listener.listen()
    frontend = FuseFile(size_bytes)
    place = folder / "disk" / "r0"
    mount_fuse_file(frontend.fileno(), place, source="relevo-lab-disk")
    minor = connection_minor(place)
    own = Process.of(os.getpid())
    assert minor is not None
    assert own is not None
    pathlib.Path("disk.json.new").write_text(json.dumps({"pid": own.pid, "start": own.start, "minor": minor}))
    pathlib.Path("disk.json.new").replace("disk.json")
    birth.ready(log)
    Server(frontend, VolatileDisk(image), listener, minor).run()


if __name__ == "__main__":
    main(sys.argv)
