"""Open, quiesce, close, a volume that hangs, and the daemon with its control socket."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import pathlib
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from ipaddress import IPv4Network
from typing import Any

import aiohttp
import pytest

from files_bench import Bench, bench, until
from relevo.base.control import Refused, acall
from relevo.config.model import (
    AuthKey,
    AuthKeys,
    Config,
    FilesResource,
    FilesystemResource,
    HeartbeatTimings,
    Link,
    Service,
)
from relevo.files import limits
from relevo.files.accounts import audit
from relevo.files.claims import Claims
from relevo.files.daemon import NoSuchResource, control, find, mountpoint_of
from relevo.files.entries import names_in
from relevo.files.errors import FilesError
from relevo.files.pool import Pool
from relevo.files.service import CannotOpen, State, StillBusy
from relevo.files.service import Service as FileService
from relevo.files.volume import Volume


def served(folder: pathlib.Path, story: Callable[[Bench], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        async with bench(folder, **options) as it:
            await story(it)

    asyncio.run(main())


@contextlib.contextmanager
def hanging() -> Iterator[Callable[[], None]]:
    """A call that does not come back before the end: what a suspended device does to a thread."""
    gate = threading.Event()
    try:
        yield lambda: gate.wait(60) and None
    finally:
        gate.set()


def test_a_closed_service_answers(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        for method in ("GET", "PUT", "DELETE", "POST"):
            async with it.http.request(method, it.url + "x", data=b"") as answer:
                assert answer.status == 503
                assert answer.headers["Retry-After"] == "1"
        async with it.http.get(it.url + ".relevo/health") as answer:
            assert (await answer.json())["state"] == "closed"
        assert it.service.status()["state"] == "closed"
        assert not list(it.root.iterdir())  # closed: nothing was touched

    served(tmp_path, story, opened=False)


def test_it_does_not_open_what_is_not_there(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        it.root.rmdir()
        with pytest.raises(CannotOpen, match="mounted"):
            await it.service.open()
        assert it.service.status()["state"] == "closed"
        it.root.mkdir()
        await it.service.open()
        await it.service.open()  # again is fine
        assert it.service.status()["state"] == "open"

    served(tmp_path, story, opened=False)


def test_it_does_not_serve_a_root_where_its_own_folder_has_other_spellings(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """chattr +F; the kernel ignores more than case there (soft hyphens), so no comparison of names would do."""
    asked = []

    def ioctl(fd: int, request: int, flags: Any) -> int:
        asked.append((pathlib.Path(f"/proc/self/fd/{fd}").readlink(), request))
        flags[0] = 0x4000_0000
        return 0

    async def story(it: Bench) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(fcntl, "ioctl", ioctl)
            with pytest.raises(CannotOpen, match="upper and lower case"):
                await it.service.open()
        assert asked == [(it.root, 0x8008_6601)]
        assert names_in(str(it.root)) == []
        await it.service.open()

    served(tmp_path, story, opened=False)


def test_an_upload_that_may_not_belong_to_anybody_leaves_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(it: Bench) -> None:
        def over_quota(_: int) -> None:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")

        volume = it.service.volume
        before = len(volume.open_descriptors())
        monkeypatch.setattr("relevo.files.volume.own", over_quota)
        async with it.http.put(it.url + "x", data=b"1") as answer:
            assert answer.status == 507
        assert len(volume.open_descriptors()) == before
        assert names_in(volume.work("tmp")) == []

    served(tmp_path, story)


def test_a_disk_that_fails_under_a_new_folder_does_not_keep_the_volume_open(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(it: Bench) -> None:
        def broken(_: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        volume = it.service.volume
        monkeypatch.setattr(volume.commits, "before", broken)
        await it.service.run(it.root.joinpath("there").mkdir)
        async with it.http.put(it.url + "new/x", data=b"1" * 10) as answer:
            assert answer.status == 503
        with pytest.raises(FilesError):
            await it.service.run(volume.prepare_share, ("there", "new"))
        await it.service.close()  # sees itself whether a descriptor is left
        assert it.service.status()["state"] == "closed"

    served(tmp_path, story)


@pytest.mark.parametrize("cancelled", [True, False])
def test_an_open_that_breaks_off_leaves_nothing_on_the_volume(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, *, cancelled: bool
) -> None:
    async def story(it: Bench) -> None:
        begun, go_on = threading.Event(), threading.Event()

        def breaks_off(_: Volume) -> None:
            begun.set()
            assert go_on.wait(20)
            raise ValueError("nobody thought of this")

        with monkeypatch.context() as patch:
            patch.setattr(it.service.clients, "load", breaks_off)
            opening = asyncio.create_task(it.service.open())
            await asyncio.to_thread(begun.wait, 20)
            if cancelled:
                opening.cancel()
            go_on.set()
            await asyncio.wait({opening})
            error = None if opening.cancelled() else opening.exception()
            assert (opening.cancelled(), isinstance(error, ValueError)) == (cancelled, not cancelled)
        assert it.service.status()["state"] == "closed"
        assert Volume(it.root).open_descriptors() == []
        await it.service.open()
        assert it.service.status()["state"] == "open"

    served(tmp_path, story, opened=False)


def test_it_does_not_store_below_a_mount_point_without_a_mount(tmp_path: pathlib.Path) -> None:
    """Files would lie on this server's own disk, under the mount to come, and be acknowledged all the same."""
    root = tmp_path / "volume"
    root.mkdir()
    files = FilesResource(id="files", root=root, mirror="r0")

    async def opened(mountpoint: pathlib.Path) -> dict[str, Any]:
        service = FileService(files, "nodo1", tmp_path / "mirror.sock", mountpoint=mountpoint)
        await service.open()
        try:
            return service.status()
        finally:
            await service.close()

    with pytest.raises(CannotOpen, match="Nothing is mounted"):
        asyncio.run(opened(tmp_path))
    assert not list(root.iterdir())
    assert asyncio.run(opened(pathlib.Path("/proc")))["state"] == "open"


def test_the_mount_point_is_the_nearest_configured_one(tmp_path: pathlib.Path) -> None:
    config = a_config(pathlib.Path("/srv/relevo/web/files"), 80)
    (files,) = config.services["web"].resources
    assert isinstance(files, FilesResource)
    assert mountpoint_of(config, files) is None
    outer, inner, other = (
        FilesystemResource(id=str(at), mirror="r0", mountpoint=pathlib.Path(at))
        for at in ("/srv/relevo", "/srv/relevo/web", "/srv/relevo/we")
    )
    config.services["all"] = Service(name="all", prefer="nodo1", resources=(outer, inner, other))
    assert mountpoint_of(config, files) == inner.mountpoint


def test_close_ends_transfers_and_leaves_no_descriptor(tmp_path: pathlib.Path) -> None:
    """A slow download, a slow upload and idle connections; the hand-over must not wait for any of them."""

    async def story(it: Bench) -> None:
        (it.root / "large").write_bytes(bytes(64 << 20))
        downloading, taking = await asyncio.open_connection("127.0.0.1", it.port, limit=4096)
        taking.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        await downloading.readline()
        uploading, giving = await asyncio.open_connection("127.0.0.1", it.port)
        giving.write(b"PUT /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n" + bytes(limits.CHUNK_BYTES))
        await until(lambda: len(it.work_files()) == 1)
        async with it.http.get(it.url) as answer:  # stays as an idle connection
            await answer.read()
        volume = it.service.volume
        assert volume.open_descriptors()
        begun = time.monotonic()
        await it.service.close()
        took = time.monotonic() - begun
        assert volume.open_descriptors() == []
        assert took < 5.0  # about 0.1 s; no test of ours relies on milliseconds
        for reader in (downloading, uploading):
            with pytest.raises(ConnectionResetError):
                await reader.read()
        taking.close()
        giving.close()
        await it.service.open()
        assert (it.root / "large").exists()
        assert not (it.root / "slow").exists()
        await until(lambda: it.work_files() == [])

    served(tmp_path, story)


def test_quiesce_finishes_what_is_quick_and_refuses_what_is_new(tmp_path: pathlib.Path) -> None:
    async def story(it: Bench) -> None:
        async with it.http.put(it.url + "x", data=b"1") as answer:
            assert answer.status == 201
        await it.service.quiesce()
        async with it.http.get(it.url + "x") as answer:
            assert answer.status == 503
        assert it.service.status()["state"] == "quiesced"
        await it.service.open()
        async with it.http.get(it.url + "x") as answer:
            assert answer.status == 200

    served(tmp_path, story)


def test_a_hanging_volume_hangs_requests_not_the_service(tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        pool = Pool(workers=2, stuck_s=0.2, queue_wait_s=0.5)
        async with bench(tmp_path, pool=pool) as it:
            (it.root / "x").write_bytes(b"1")
            with hanging() as hang:
                stuck = [asyncio.create_task(it.service.run(hang)) for _ in range(2)]
                async with it.http.get(it.url + "x") as answer:  # waits for a thread, in vain
                    assert answer.status == 503
                    assert answer.headers["Retry-After"] == "1"
                await until(lambda: pool.stuck)
                begun = time.monotonic()
                async with it.http.get(it.url + "x") as answer:  # is told at once
                    assert (answer.status, await answer.text()) == (503, SENTENCE)
                assert time.monotonic() - begun < 5.0
                async with it.http.get(it.url + ".relevo/health") as answer:
                    assert answer.status == 200
                assert "has not answered" in it.service.status()["problem"]
            await asyncio.gather(*stuck)
            async with it.http.get(it.url + "x") as answer:
                assert answer.status == 200

    asyncio.run(main())


SENTENCE = "The volume does not answer at the moment; try again.\n"


def test_close_says_when_it_cannot(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CLOSE_S", 0.2)

    async def main() -> None:
        async with bench(tmp_path) as it:
            orders = control(it.service, tmp_path / "files-files.sock")
            await orders.start()
            with hanging() as hang:
                stuck = asyncio.create_task(it.service.run(hang))
                await until(lambda: it.service.status()["operations"] == 1)
                with pytest.raises(StillBusy, match="1 operations hang"):
                    await it.service.close()
                with pytest.raises(Refused, match="hang in the volume"):
                    await acall(tmp_path / "files-files.sock", "close")
                assert (await acall(tmp_path / "files-files.sock", "status"))["state"] == "closing"
            await stuck
            assert (await acall(tmp_path / "files-files.sock", "close"))["state"] == "closed"
            await orders.stop()

    asyncio.run(main())


def test_close_says_so_too_when_it_is_the_audit_log_that_hangs(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(it: Bench) -> None:
        with hanging() as hang, monkeypatch.context() as patch:
            patch.setattr(limits, "CLOSE_S", 0.2)
            patch.setattr(audit, "append", lambda *_: hang())
            it.service.audit.note("ana", "PUT")
            closing = asyncio.create_task(it.service.close())
            done, _ = await asyncio.wait({closing}, timeout=20)
            assert done, "it says nothing"
            with pytest.raises(StillBusy, match="1 operations hang"):
                await closing
        await it.service.close()
        assert it.service.status()["state"] == "closed"

    served(tmp_path, story)


def test_no_note_is_lost_when_the_volume_is_closed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their batch waits for a thread when the order comes."""
    monkeypatch.setattr(audit, "BATCH_S", 0.0)

    async def main() -> None:
        async with bench(tmp_path, pool=Pool(workers=1)) as it:
            with hanging() as hang:
                it.service.later(hang)
                await until(lambda: it.service.status()["operations"])
                queued = it.service._pool._outstanding
                it.service.audit.note("ana", "PUT")
                await until(lambda: it.service._pool._outstanding > queued)
                closing = asyncio.create_task(it.service.close())
                await until(lambda: it.service.state is State.CLOSING)
            await closing
            assert '"who":"ana"' in (it.root / ".relevo/audit/audit.log").read_text()

    asyncio.run(main())


def test_cancelled_calls_are_outlasted() -> None:
    """A descriptor may be closed as soon as `run` is over, so it must not be over while a thread uses it."""

    async def main() -> None:
        pool = Pool(workers=1)
        gate, over = threading.Event(), []

        def call() -> None:
            gate.wait(60)
            over.append(True)

        task = asyncio.create_task(pool.run(call))
        waiting = asyncio.create_task(pool.run(over.append, False))  # noqa: FBT003
        await until(lambda: pool.busy)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert over == [True]
        assert await pool.drained(10)
        pool.stop()

    asyncio.run(main())


def test_claims_cancel_requests_and_wait_for_housekeeping() -> None:
    async def main() -> None:
        claims, order = Claims(), []
        over = asyncio.Event()

        async def clean() -> None:
            async with claims.claim_idle("x") as idle:
                assert idle
                order.append("cleaner")
                await over.wait()
                order.append("cleaner done")

        async def hold() -> None:
            async with claims.claim("x"):
                order.append("old")
                await asyncio.get_running_loop().create_future()

        first = asyncio.create_task(clean())
        await until(lambda: order)
        second = asyncio.create_task(hold())
        with pytest.raises(FilesError, match="still holds it"):
            async with claims.claim("x", 0.05):
                pass
        over.set()
        await until(lambda: "old" in order)
        async with claims.claim_idle("x") as idle:
            assert not idle
        async with claims.claim_idle("y") as idle:
            assert idle
        assert not second.cancelling()
        async with claims.claim("x"):
            order.append("new")
        await asyncio.gather(first, second, return_exceptions=True)
        assert order == ["cleaner", "cleaner done", "old", "new"]
        assert second.cancelled()

    asyncio.run(main())


def a_config(root: pathlib.Path, port: int) -> Config:
    key = AuthKey(number=1, method="sha1", secret="x")
    files = FilesResource(id="files", root=root, mirror="r0", port=port)
    return Config(
        cluster="c",
        nodes={},
        links={"users": Link(name="users", interface="eth0", network=IPv4Network("10.0.0.0/24"))},
        heartbeat=HeartbeatTimings(),
        authkeys=AuthKeys(signing=key, accepted={1: key}),
        mirrors={},
        services={"web": Service(name="web", prefer="nodo1", resources=(files,))},
        hash="0",
    )


DAEMON = """
import asyncio, pathlib, sys
sys.path[:0] = {path!r}
from test_files_life import a_config
from relevo.base import log
from relevo.base.paths import Paths
from relevo.files import daemon
folder = pathlib.Path({folder!r})
log.set_up("files-files")
asyncio.run(daemon.run(a_config(folder / "volume", {port}), "nodo1", Paths(folder, folder, folder), "files"))
"""


@contextlib.asynccontextmanager
async def daemon(folder: pathlib.Path, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    program = DAEMON.format(path=sys.path, folder=str(folder), port=port)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stderr=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert process.stderr is not None
    try:
        while b'"listening"' not in (line := await process.stderr.readline()):
            assert line, "the daemon ended"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def free_port() -> int:
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_the_daemon(tmp_path: pathlib.Path) -> None:
    """Control socket, kill -9 in the middle of an upload, restart, orderly end."""
    (tmp_path / "volume").mkdir()
    orders, port = tmp_path / "files-files.sock", free_port()
    url = f"http://127.0.0.1:{port}/"

    async def main() -> None:
        async with daemon(tmp_path, port) as process:
            assert (await acall(orders, "status"))["state"] == "closed"
            assert (await acall(orders, "open"))["state"] == "open"
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n" + bytes(2 << 20))
            await until(lambda: any((tmp_path / "volume/.relevo/tmp").iterdir()))
            process.send_signal(signal.SIGKILL)
            await process.wait()
            writer.transport.abort()
        async with daemon(tmp_path, port) as process, aiohttp.ClientSession() as http:
            assert (await acall(orders, "open"))["state"] == "open"
            await until(lambda: not any((tmp_path / "volume/.relevo/tmp").iterdir()))
            async with http.get(url + "x") as answer:
                assert answer.status == 404
            async with http.put(url + "x", data=b"1") as answer:
                assert (answer.status, answer.headers["Relevo-Copies"]) == (201, "1")  # no mirror answers here
            assert (await acall(orders, "quiesce"))["state"] == "quiesced"
            assert (await acall(orders, "close"))["state"] == "closed"
            process.send_signal(signal.SIGTERM)
            await process.communicate()
            assert process.returncode == 0
            assert not orders.exists()

    asyncio.run(main())


def test_unknown_resource(tmp_path: pathlib.Path) -> None:
    with pytest.raises(NoSuchResource, match="Known: files"):
        find(a_config(tmp_path, 80), "other")
    assert os.fspath(find(a_config(tmp_path, 80), "files").root) == str(tmp_path)


def test_slow_calls_that_come_back_are_load_not_a_fault() -> None:
    """Every thread is busy for long, but one after the other comes back: the volume answers."""

    async def main() -> None:
        pool = Pool(workers=2, stuck_s=0.3)
        with hanging() as hang:
            stuck = asyncio.create_task(pool.run(hang))
            end = time.monotonic() + 0.6
            while time.monotonic() < end:
                await pool.run(time.sleep, 0.02)
            other = asyncio.create_task(pool.run(hang))
            await until(lambda: pool.busy == 2)
            assert pool.oldest_s > 0.5
            assert not pool.stuck
            await until(lambda: pool.stuck)
        await asyncio.gather(stuck, other)

    asyncio.run(main())
