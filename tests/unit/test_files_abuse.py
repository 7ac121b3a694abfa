"""Whoever takes too much, too slowly, or never comes back: a clear answer, bounded memory, everyone else is served."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from files_bench import Bench, bench, until
from relevo.files import limits

HEAD = b"PUT /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"


async def trickle(writer: asyncio.StreamWriter, piece: bytes) -> None:
    """Send a little, again and again, until the other end has enough of it."""
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.05)


def served(folder: pathlib.Path, story: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        async with bench(folder) as it:
            (it.root / "x").write_bytes(b"here")
            await story(it)

    asyncio.run(main())


@contextlib.asynccontextmanager
async def connections(it: Bench, count: int, first: bytes) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Some clients that say something, perhaps nothing, and then wait."""
    opened = [await asyncio.open_connection("127.0.0.1", it.port) for _ in range(count)]
    try:
        for number, (_, writer) in enumerate(opened):
            writer.write(first % number if b"%d" in first else first)
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            writer.transport.abort()


async def is_served(it: Bench) -> bool:
    status, _, body = await it.get("/x")
    return status == 200 and body == b"here"


@pytest.mark.parametrize("first", [b"", b"GET /x HTTP/1.1\r\nHost"], ids=["silent", "half a request"])
def test_idle_connections_make_room(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, first: bytes) -> None:
    """The oldest ones without a request are closed; those with a request are not."""
    monkeypatch.setattr(limits, "CONNECTIONS_MAX", 20)

    async def story(it: Bench) -> None:
        async with connections(it, 1, HEAD) as (putting,):
            await until(lambda: it.service.traffic.active == 1)
            async with connections(it, 200, first):
                assert await is_served(it)
                server = it.service.traffic.server
                assert server is not None
                await until(lambda: len(server.connections) <= 20)
                assert it.service.traffic.active == 1
                assert not putting.at_eof()

    served(tmp_path, story)


def test_half_open_uploads_leave_room_for_readers(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "CHANGES_MAX", 10)

    async def story(it: Bench) -> None:
        async with connections(it, 100, HEAD + b"some") as readers:
            for reader in readers[10:]:
                assert (await reader.readline()).startswith(b"HTTP/1.1 503 ")
            assert it.service.traffic.active <= 20  # refused ones may be about to end
            assert await is_served(it)
        await until(lambda: it.service.traffic.active == 0)
        async with it.http.put(it.url + "y", data=b"1") as answer:
            assert answer.status == 201

    served(tmp_path, story)
    assert not caplog.records  # of those that went away


def test_a_body_that_trickles_is_given_up(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then keeps a place no longer than silence does; what was slow and came nevertheless is stored."""
    monkeypatch.setattr(limits, "IDLE_BODY_S", 0.5)

    async def story(it: Bench) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(HEAD % 1)

        trickling = asyncio.create_task(trickle(writer, b"1"))
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
        trickling.cancel()
        writer.transport.abort()
        assert not (it.root / "1").exists()

    served(tmp_path, story)


@pytest.mark.parametrize("path", ["?zip=1", "many/?format=json", "dav/many/"])
def test_who_takes_nothing_of_an_answer_is_given_up(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(limits, "IDLE_SEND_S", 0.2)
    method = "PROPFIND" if path.startswith("dav") else "GET"
    head = f"{method} /{path} HTTP/1.1\r\nHost: x\r\nDepth: 1\r\n\r\n".encode()

    async def story(it: Bench) -> None:
        (it.root / "many").mkdir()
        for number in range(6000):
            (it.root / "many" / f"{number:04d}{'x' * 200}").touch()
        (it.root / "large").write_bytes(bytes(16 << 20))
        served, there = it.service.traffic.served, it.service.traffic.server
        assert there is not None
        client = socket.socket()
        with contextlib.closing(client):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)  # noqa: FBT003
            await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", it.port))
            for one in await until_some(lambda: list(there.connections)):
                one.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            await asyncio.get_running_loop().sock_sendall(client, head)
            await until(lambda: it.service.traffic.served > served)
            await until(lambda: not it.service.traffic.active and not there.connections)
        assert await is_served(it)

    served(tmp_path, story)


async def until_some(look: Callable[[], list[Any]]) -> list[Any]:
    await until(look)
    return look()


def test_a_header_that_never_ends_is_given_up(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "IDLE_CONNECTION_S", 0.5)

    async def story(it: Bench) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(b"GET /x HTTP/1.1\r\n")

        trickling = asyncio.create_task(trickle(writer, b"a: b\r\n"))
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        trickling.cancel()
        writer.transport.abort()
        assert await is_served(it)

    served(tmp_path, story)


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET /x HTTP/1.1\r\nHost: x\r\nbig: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: x\r\n" + b"".join(b"f%d: 1\r\n" % number for number in range(10_000)) + b"\r\n",
    ],
    ids=["field", "line", "fields"],
)
def test_a_huge_head_is_refused(tmp_path: pathlib.Path, request_head: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def story(it: Bench) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(request_head)
        assert b" 400 " in await reader.readline()
        writer.transport.abort()
        assert await is_served(it)

    served(tmp_path, story)
    assert not caplog.records  # else whoever sends such things fills the disk of the log
