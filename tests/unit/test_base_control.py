"""Control sockets: requests, errors, streams, and what hostile or dead neighbours do to them."""

from __future__ import annotations

import asyncio
import os
import pathlib
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.base.control import (
    MAX_LINE_BYTES,
    ControlServer,
    DaemonUnreachable,
    Message,
    Refused,
    acall,
    awatch,
    call,
    decode,
    encode,
    watch,
)
from relevo.base.errors import RelevoError

LIMIT_S = 10.0


class DiskTooSmall(RelevoError):
    pass


async def echo(request: Message) -> Message:
    return {"got": request}


async def small(request: Message) -> Message:
    raise DiskTooSmall("The disk is small.", "Buy another.")


async def broken(request: Message) -> Message:
    raise ZeroDivisionError


async def for_ever(request: Message) -> Message:
    await asyncio.Event().wait()
    return {}


async def count(request: Message) -> AsyncIterator[Message]:
    for number in range(int(request["to"])):
        yield {"number": number}


def mode_of(path: pathlib.Path) -> int:
    return path.stat().st_mode & 0o777


HANDLERS = {"echo": echo, "small": small, "broken": broken, "for_ever": for_ever}
Scene = Callable[[pathlib.Path, ControlServer], Awaitable[None]]


def serve(folder: pathlib.Path, scene: Scene, **watchers: Callable[[Message], AsyncIterator[Message]]) -> None:
    async def run() -> None:
        path = folder / "run" / "daemon.sock"
        server = ControlServer(path, dict(HANDLERS), {"count": count, **watchers})
        await server.start()
        try:
            async with asyncio.timeout(LIMIT_S):
                await scene(path, server)
        finally:
            await server.stop()
        assert not path.exists()

    asyncio.run(run())


def test_at_no_moment_may_anybody_else_connect(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    start = asyncio.start_unix_server

    async def noticed(*arguments: Any, **more: Any) -> asyncio.Server:
        modes.append(mode_of(tmp_path / "run" / "daemon.sock"))
        return await start(*arguments, **more)

    async def scene(path: pathlib.Path, _server: ControlServer) -> None:
        modes.append(mode_of(path))

    monkeypatch.setattr(asyncio, "start_unix_server", noticed)
    before = os.umask(0)
    try:
        serve(tmp_path, scene)
    finally:
        os.umask(before)
    assert modes == [0o600, 0o600]


def test_request_and_answer(tmp_path: pathlib.Path) -> None:
    async def scene(path: pathlib.Path, server: ControlServer) -> None:
        assert mode_of(path) == 0o600
        assert await acall(path, "echo", text="ñ\n", number=1) == {"ok": True, "got": {"text": "ñ\n", "number": 1}}
        answer = await asyncio.to_thread(call, path, "echo", deep={"a": [1, None]})
        assert answer["got"] == {"deep": {"a": [1, None]}}

    serve(tmp_path, scene)


def test_errors_arrive_as_they_left(tmp_path: pathlib.Path) -> None:
    async def scene(path: pathlib.Path, server: ControlServer) -> None:
        with pytest.raises(Refused) as caught:
            await acall(path, "small")
        assert (caught.value.error, caught.value.what, caught.value.remedy) == (
            "DiskTooSmall", "The disk is small.", "Buy another.")  # fmt: skip
        with pytest.raises(Refused) as caught:
            await acall(path, "broken")
        assert caught.value.error == "ZeroDivisionError"
        with pytest.raises(Refused, match=r"no request 'nothing' here. Known: .*echo"):
            await acall(path, "nothing")
        assert (await acall(path, "echo"))["ok"]

    serve(tmp_path, scene)


def test_several_requests_on_one_connection(tmp_path: pathlib.Path) -> None:
    async def scene(path: pathlib.Path, server: ControlServer) -> None:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(encode({"do": "echo", "n": 1}) + b"not json\n" + b"[]\n" + encode({"do": "echo", "n": 2}))
        answers = [decode(await reader.readline()) for _ in range(4)]
        assert [answer["ok"] for answer in answers] == [True, False, False, True]
        assert answers[3]["got"] == {"n": 2}
        writer.close()

    serve(tmp_path, scene)


def test_streams(tmp_path: pathlib.Path) -> None:
    async def scene(path: pathlib.Path, server: ControlServer) -> None:
        assert [message["number"] async for message in awatch(path, "count", to=3)] == [0, 1, 2]
        messages = await asyncio.to_thread(lambda: list(watch(path, "count", timeout_s=LIMIT_S, to=2)))
        assert [message["number"] for message in messages] == [0, 1]
        with pytest.raises(Refused, match="no request"):
            [message async for message in awatch(path, "nothing")]

    serve(tmp_path, scene)


def test_a_watcher_that_fails_is_told(tmp_path: pathlib.Path) -> None:
    async def failing(request: Message) -> AsyncIterator[Message]:
        yield {"number": 0}
        raise DiskTooSmall("The disk is small.")

    async def scene(path: pathlib.Path, server: ControlServer) -> None:
        messages = awatch(path, "failing")
        assert (await anext(messages))["number"] == 0
        with pytest.raises(Refused, match="The disk is small"):
            await anext(messages)

    serve(tmp_path, scene, failing=failing)


def test_a_stream_ends_when_its_reader_goes(tmp_path: pathlib.Path) -> None:
    ended = asyncio.Event()

    async def endless(request: Message) -> AsyncIterator[Message]:
        try:
            yield {"number": 0}
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def scene(path: pathlib.Path, server: ControlServer) -> None:
        async for message in awatch(path, "endless"):
            assert message["number"] == 0
            break
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(encode({"do": "endless"}))
        await reader.readline()
        ended.clear()
        writer.close()
        await ended.wait()

    serve(tmp_path, scene, endless=endless)


def test_stop_ends_what_is_connected(tmp_path: pathlib.Path) -> None:
    async def scene(path: pathlib.Path, server: ControlServer) -> None:
        asking = asyncio.ensure_future(acall(path, "for_ever"))
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(encode({"do": "echo"}))
        await reader.readline()  # by now the other request is being handled, too
        await server.stop()
        with pytest.raises(DaemonUnreachable):
            await asking
        assert await reader.read() == b""
        writer.close()

    serve(tmp_path, scene)


def test_nobody_there(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "mirror-r0.sock"
    with pytest.raises(DaemonUnreachable, match=r"mirror-r0 does not answer .*relevo mirror run r0"):
        call(path, "status")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with pytest.raises(DaemonUnreachable) as caught:
        asyncio.run(acall(path, "status"))
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    with pytest.raises(DaemonUnreachable):
        list(watch(path))


def test_a_stale_socket_is_replaced(tmp_path: pathlib.Path) -> None:
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "run" / "daemon.sock"))

    async def scene(path: pathlib.Path, server: ControlServer) -> None:
        assert (await acall(path, "echo"))["ok"]

    serve(tmp_path, scene)


def neighbour(path: pathlib.Path, answer: bytes | None) -> threading.Thread:
    """A daemon that takes one connection, reads, sends `answer` (None: nothing until the caller goes) and hangs up."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def run() -> None:
        with server, server.accept()[0] as sock:
            sock.recv(1 << 16)
            if answer is None:
                sock.recv(1)
            else:
                sock.sendall(answer)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("answer", [b"", b'{"ok": true', None])
def test_a_neighbour_that_dies_or_hangs(tmp_path: pathlib.Path, answer: bytes | None) -> None:
    for number, ask in enumerate((call, lambda *args, **more: asyncio.run(acall(*args, **more)))):
        path = tmp_path / f"{number}.sock"
        thread = neighbour(path, answer)
        with pytest.raises(DaemonUnreachable):
            ask(path, "status", timeout_s=0.2)
        thread.join(LIMIT_S)


def test_a_neighbour_that_dies_while_it_tells(tmp_path: pathlib.Path) -> None:
    async def over(path: pathlib.Path) -> list[Message]:
        return [message async for message in awatch(path)]

    for number, follow in enumerate((lambda path: list(watch(path)), lambda path: asyncio.run(over(path)))):
        path = tmp_path / f"{number}.sock"
        thread = neighbour(path, b'{"ok": true}\n{"ok": tr')
        with pytest.raises(DaemonUnreachable):
            follow(path)
        thread.join(LIMIT_S)


def test_who_tells_without_end_is_listened_to_until_the_limit(tmp_path: pathlib.Path) -> None:
    async def chatty(request: Message) -> AsyncIterator[Message]:
        while True:
            yield dict(request)
            await asyncio.sleep(0.001)

    async def scene(path: pathlib.Path, server: ControlServer) -> None:
        with pytest.raises(DaemonUnreachable):
            await asyncio.to_thread(list, watch(path, "chatty", timeout_s=0.2))

    serve(tmp_path, scene, chatty=chatty)


@pytest.mark.parametrize("answer", [b"\xff\n", b'{"\xff": 1}\n', b"[]\n", b"null\n", b"{\n"])
def test_a_neighbour_that_babbles(tmp_path: pathlib.Path, answer: bytes) -> None:
    for number, ask in enumerate((call, lambda *args, **more: asyncio.run(acall(*args, **more)))):
        path = tmp_path / f"{number}.sock"
        thread = neighbour(path, answer)
        with pytest.raises(RelevoError, match="control message"):
            ask(path, "status", timeout_s=LIMIT_S)
        thread.join(LIMIT_S)


def test_an_endless_line_is_cut_off(tmp_path: pathlib.Path) -> None:
    async def scene(path: pathlib.Path, server: ControlServer) -> None:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"x" * (MAX_LINE_BYTES + (1 << 17)))
        assert await reader.read() == b""
        writer.close()
        assert (await acall(path, "echo"))["ok"]

    serve(tmp_path, scene)


def test_an_endless_answer_is_no_answer(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "babbler.sock"
    thread = neighbour(path, b"x" * (MAX_LINE_BYTES + 1) + b"\n")
    with pytest.raises(RelevoError):
        asyncio.run(acall(path, "status", timeout_s=LIMIT_S))
    thread.join(LIMIT_S)


@given(st.dictionaries(st.text(max_size=5), st.none() | st.integers(-(2**53), 2**53) | st.text(max_size=9), max_size=4))
def test_codec(message: Message) -> None:
    line = encode(message)
    assert line.count(b"\n") == 1
    assert decode(line) == message
