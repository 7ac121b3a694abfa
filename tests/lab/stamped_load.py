"""A load whose every write can be checked: blocks that say who wrote them, and how often it had written before."""

from __future__ import annotations

import mmap
import os
import pathlib
import random
import struct
import threading
import time
from collections.abc import Callable

BLOCK = 4096
STAMP = struct.Struct("<QQ")  # number of the block, of the write
BLOCKS_PER_WRITER = 256


class StampedLoad:
    """Writers with direct I/O, each in blocks of its own, one write at a time each; and a reader that checks them.

    Args:
        device: a block device.
        writers: how many.
        first_block: where they begin.
        flush_every: a writer flushes after so many writes.
    """

    def __init__(self, device: pathlib.Path, writers: int = 8, first_block: int = 0, flush_every: int = 16) -> None:
        self._device = device
        self._first = first_block
        self._flush_every = flush_every
        self._stopping = threading.Event()
        self.acknowledged: dict[int, int] = {}
        self.issued: dict[int, int] = {}
        self.errors: list[str] = []
        self.longest_s = 0.0
        self.progress = 0
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(writers)]
        self._threads.append(threading.Thread(target=self._read))

    def start(self) -> StampedLoad:
        """Begin."""
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        """End, when every request under way is answered."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def await_progress(self, writes: int = 500, limit_s: float = 30.0) -> None:
        """Until so many more writes are acknowledged."""
        wanted, end = self.progress + writes, time.monotonic() + limit_s
        while self.progress < wanted and not self.errors:
            assert time.monotonic() < end, f"{self.progress} of {wanted} writes in {limit_s} s"
            self._stopping.wait(0.01)

    def _write(self, number: int) -> None:
        chance = random.Random(number)
        begin = self._first + number * BLOCKS_PER_WRITER
        fd = os.open(self._device, os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
        try:
            with mmap.mmap(-1, BLOCK) as page:
                count = 0
                while not self._stopping.is_set():
                    count += 1
                    block = begin + chance.randrange(BLOCKS_PER_WRITER)
                    page[: STAMP.size] = STAMP.pack(block, count)
                    page[-STAMP.size :] = STAMP.pack(block, count)
                    self.issued[block] = count
                    self._timed(lambda block=block: os.pwrite(fd, page, block * BLOCK))
                    self.acknowledged[block] = count
                    self.progress += 1
                    if count % self._flush_every == 0:
                        self._timed(lambda: os.fsync(fd))
        except OSError as error:
            self.errors.append(f"writer {number}: {error}")
        finally:
            os.close(fd)

    def _read(self) -> None:
        chance = random.Random(-1)
        fd = os.open(self._device, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        try:
            with mmap.mmap(-1, BLOCK) as page:
                while not self._stopping.is_set():
                    written = list(self.acknowledged)
                    if not written:
                        continue
                    block = chance.choice(written)
                    least = self.acknowledged[block]
                    self._timed(lambda block=block: os.preadv(fd, [page], block * BLOCK))
                    if problem := self._problem(block, page[:BLOCK], least, self.issued[block]):
                        self.errors.append(problem)
                        return
        except OSError as error:
            self.errors.append(f"reader: {error}")
        finally:
            os.close(fd)

    def _timed(self, call: Callable[[], object]) -> None:
        began = time.monotonic()
        call()
        self.longest_s = max(self.longest_s, time.monotonic() - began)

    @staticmethod
    def _problem(block: int, content: bytes, least: int, most: int) -> str:
        head, tail = STAMP.unpack_from(content), STAMP.unpack_from(content, BLOCK - STAMP.size)
        if head != tail:
            return f"block {block} is torn: {head} and {tail}"
        if head[0] != block or not least <= head[1] <= most:
            return f"block {block} holds write {head}, expected {least} to {most}"
        return ""

    def problems(self, content: bytes) -> list[str]:
        """What is missing or wrong in the whole content of a disk."""
        found = []
        for block, least in self.acknowledged.items():
            part = content[block * BLOCK : (block + 1) * BLOCK]
            if problem := self._problem(block, part, least, self.issued[block]):
                found.append(problem)
        return found
