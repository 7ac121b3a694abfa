"""Who waits at the same moment shares a commit; nobody is told that a change is stable by one that began before it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import os
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from files_bench import Bench, bench
from relevo.files import commits as module
from relevo.files import limits
from relevo.files.commits import Commits, keeps_order

LIMIT_S = 20.0
TOGETHER = 6


class Gated(Commits):
    """Commits that end when they are told to, with the failure they are told."""

    def __init__(self, folder: int) -> None:
        super().__init__(folder)
        self.ordered = True
        self.begun = threading.Semaphore(0)
        self.verdicts: list[OSError | None] = []
        self.told = threading.Semaphore(0)

    def end(self, verdict: OSError | None = None) -> None:
        self.verdicts.append(verdict)
        self.told.release()

    def commit(self) -> None:
        self.begun.release()
        assert self.told.acquire(timeout=LIMIT_S)
        if (verdict := self.verdicts.pop(0)) is not None:
            raise verdict
        super().commit()


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def wait_for(condition: Callable[[], bool]) -> None:
    ended = threading.Event()
    for _ in range(int(LIMIT_S / 0.01)):
        if condition():
            return
        ended.wait(0.01)
    raise AssertionError("it did not come to pass")


def test_those_who_come_during_a_commit_share_the_next_one(folder: int) -> None:
    it = Gated(folder)
    with concurrent.futures.ThreadPoolExecutor(TOGETHER + 2) as pool:
        first = pool.submit(it.sync, folder)
        assert it.begun.acquire(timeout=LIMIT_S)
        others = [pool.submit(it.sync, folder) for _ in range(TOGETHER)]
        wait_for(lambda: it.waiting == TOGETHER)
        it.end()
        first.result(LIMIT_S)
        assert it.begun.acquire(timeout=LIMIT_S)
        assert not any(other.done() for other in others)  # the first commit may have missed what they changed
        late = pool.submit(it.sync, folder)
        wait_for(lambda: it.waiting == 1)
        it.end(OSError(errno.EIO, "the disk is gone"))
        for other in others:
            with pytest.raises(OSError, match="the disk is gone"):
                other.result(LIMIT_S)
        it.end()
        late.result(LIMIT_S)  # a commit of its own, and no failure of others
        assert it.begun.acquire(timeout=LIMIT_S)
        assert not it.begun.acquire(blocking=False)


def test_an_aborted_journal_is_seen(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    it = Commits(folder)
    it.ordered = True
    it.sync(folder)

    def aborted(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "removexattr", aborted)
    with pytest.raises(OSError, match="Read-only"):
        it.sync(folder)


def test_memory_keeps_no_order() -> None:
    fd = os.open("/dev/shm", os.O_RDONLY)
    try:
        assert not keeps_order(fd)
    finally:
        os.close(fd)


def test_a_name_never_comes_before_its_bytes(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes, name, commit; and what could not be written gets no name."""
    seen: list[str] = []
    real_rename = os.rename

    def rename(*names: Any, **folders: Any) -> None:
        seen.append("name")
        real_rename(*names, **folders)

    def write_out(fd: int) -> None:
        if not os.path.isdir(f"/proc/self/fd/{fd}"):  # noqa: PTH112 - a descriptor
            seen.append("bytes")
            if os.fstat(fd).st_size == 13:
                raise OSError(errno.EIO, "bad luck")

    async def story(it: Bench) -> None:
        it.service.volume.commits.ordered = True
        monkeypatch.setattr(os, "rename", rename)
        monkeypatch.setattr(module, "write_out", write_out)
        monkeypatch.setattr(Commits, "commit", lambda _: seen.append("commit"))
        for data in (b"small", bytes(limits.CHUNK_BYTES)):
            async with it.http.put(it.url + "new/x", data=data) as answer:
                assert answer.status in {201, 204}
            assert seen == ["bytes", "name", "commit"]
            seen.clear()
        async with it.http.put(it.url + "y", data=bytes(13)) as answer:
            assert answer.status == 503
        assert seen == ["bytes"]
        assert not (it.root / "y").exists()
        assert it.work_files() == []

    async def main() -> None:
        async with bench(tmp_path) as it:
            await story(it)

    asyncio.run(main())
