"""`put` and `get` against a real service that goes away, resets and comes back in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import os
import pathlib
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from accounts_support import family
from files_bench import Bench, bench, until
from relevo.cli.transfer import Counted
from relevo.files.client import GaveUp, Observer, ServerRefused, Stored, get_file, put_file, put_tree
from relevo.files.daemon import listen
from relevo.files.entries import names_in

LARGE = 40 << 20


@pytest.mark.parametrize(("order", "said"), [("put", "nothing has been stored yet"), ("get", "goes on where it was")])
def test_an_interrupted_transfer_says_what_is_there_and_how_to_go_on(
    tmp_path: pathlib.Path, order: str, said: str
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 100)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/file"
    words = [str(file), url] if order == "put" else [url, str(tmp_path / "back")]
    interruptible = ["env", "--default-signal=INT"]  # what runs in the background of a shell is not, nor its children
    with subprocess.Popen(
        [*interruptible, sys.executable, "-m", "relevo", order, *words], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert "trying again" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert said in rest
    assert len(rest.splitlines()) == 1


def test_what_was_stored_before_an_interruption_is_counted() -> None:
    heard: list[str] = []

    class Inner(Observer):
        def stored(self, source: pathlib.Path | str, result: Stored) -> None:
            heard.append(str(source))

    counted = Counted(Inner())
    for name in ("a", "b"):
        counted.stored(name, Stored(path=f"/{name}", bytes=1024, sha256="", copies=2, retries=0))
    assert heard == ["a", "b"]
    assert "2 files are stored (2.0 KiB), and what was under way is not" in counted.interrupted()


def test_a_transfer_that_does_not_begin_says_at_once_what_it_waits_for(tmp_path: pathlib.Path) -> None:
    """Not on a terminal: one line, not one for each attempt, and the sentence at the end."""
    source = tmp_path / "file"
    source.write_bytes(b"x" * 100)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
    command = [sys.executable, "-m", "relevo", "put", "--give-up", "1 s", str(source), url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    first, last = done.stderr.splitlines()
    assert url in first
    assert "trying again until nothing has moved for 1.0 s (--give-up)" in first
    assert "no progress for 1.0 s" in last


class Watching(Observer):
    """Remembers how far things are and what broke off."""

    def __init__(self) -> None:
        self.position = 0
        self.reasons: list[str] = []

    def moved(self, source: pathlib.Path | str, position_bytes: int) -> None:
        self.position = position_bytes

    def retrying(self, source: pathlib.Path | str, why: str) -> None:
        self.reasons.append(why)


class Cable:
    """A relay between client and service that can be cut: the address that moves from server to server."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self.carried = 0
        self.most: float = math.inf
        """Nothing more is carried after so many bytes, until the cable is cut."""
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Nobody listens any more, and every connection is reset."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        self._writers |= {writer, back}
        await asyncio.gather(self._carry(reader, back), self._carry(there, writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while (self.carried < self.most) and (piece := await reader.read(1 << 16)):
                writer.write(piece)
                self.carried += len(piece)
                await writer.drain()
            if self.carried >= self.most:
                await writer.wait_closed()
        writer.close()


@contextlib.asynccontextmanager
async def cable(it: Bench) -> AsyncIterator[Cable]:
    made = Cable(it.port)
    await made.start()
    try:
        yield made
    finally:
        made.cut()


def make(path: pathlib.Path, size: int) -> bytes:
    data = os.urandom(size)
    path.write_bytes(data)
    return data


@pytest.mark.parametrize("size", [0, 1, 100_000, 1 << 20, (1 << 20) + 1, LARGE])
def test_there_and_back(tmp_path: pathlib.Path, size: int) -> None:
    data = make(tmp_path / "source", size)

    async def main() -> None:
        async with bench(tmp_path) as it:
            stored = await put_file(tmp_path / "source", it.url + "a b/ñ%.bin")
            assert (stored.path, stored.bytes, stored.copies, stored.retries) == ("/a b/ñ%.bin", size, 2, 0)
            assert stored.sha256 == hashlib.sha256(data).hexdigest()
            assert (it.root / "a b/ñ%.bin").read_bytes() == data
            fetched = await get_file(it.url + "a%20b/%C3%B1%25.bin", tmp_path / "back")
            assert fetched.sha256 == stored.sha256
            assert (tmp_path / "back").read_bytes() == data
            assert not [name for name in names_in(str(tmp_path)) if name.startswith("back.")]

    asyncio.run(main())


def test_put_goes_on_after_resets(tmp_path: pathlib.Path) -> None:
    """Connections are reset in the middle, twice; the upload goes on where stable storage ends."""
    data = make(tmp_path / "source", LARGE)

    async def main() -> None:
        async with bench(tmp_path) as it, cable(it) as wire:
            watching = Watching()
            url = f"http://127.0.0.1:{wire.port}/large"
            task = asyncio.create_task(put_file(tmp_path / "source", url, observer=watching))
            for part in (LARGE // 4, LARGE // 2):
                await until(lambda part=part: watching.position > part)
                wire.cut()
                await until(lambda: watching.reasons)
                watching.reasons.clear()
                await wire.start()
            stored = await task
            assert stored.retries >= 2
            assert (it.root / "large").read_bytes() == data
            assert wire.carried < 1.8 * LARGE  # what was stable was not sent again

    asyncio.run(main())


def test_put_through_a_hand_over(tmp_path: pathlib.Path) -> None:
    """The first service closes the volume in the middle of an upload; a second one, on the other server, opens it."""
    data = make(tmp_path / "source", LARGE)

    async def main() -> None:
        async with bench(tmp_path / "one", root=tmp_path / "volume") as one, cable(one) as wire:
            wire.most = LARGE // 2
            watching = Watching()
            url = f"http://127.0.0.1:{wire.port}/large"
            task = asyncio.create_task(put_file(tmp_path / "source", url, observer=watching))
            await until(lambda: wire.carried >= LARGE // 2)
            await one.service.close()
            await until(lambda: watching.reasons)
            async with bench(tmp_path / "two", root=tmp_path / "volume") as two:
                wire.target, wire.most = two.port, math.inf
                wire.cut()
                await wire.start()
                stored = await task
                assert stored.sha256 == hashlib.sha256(data).hexdigest()
                assert (two.root / "large").read_bytes() == data

    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    asyncio.run(main())


def test_get_goes_on_after_resets(tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        async with bench(tmp_path) as it, cable(it) as wire:
            data = make(it.root / "large", LARGE)
            watching = Watching()
            task = asyncio.create_task(
                get_file(f"http://127.0.0.1:{wire.port}/large", tmp_path / "back", observer=watching)
            )
            await until(lambda: watching.position > LARGE // 3)
            wire.cut()
            await until(lambda: watching.reasons)
            await wire.start()
            fetched = await task
            assert fetched.retries >= 1
            assert (tmp_path / "back").read_bytes() == data
            assert wire.carried < 1.5 * LARGE

    asyncio.run(main())


def test_get_starts_again_when_the_file_changed(tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        async with bench(tmp_path) as it, cable(it) as wire:
            make(it.root / "large", LARGE)
            watching = Watching()
            task = asyncio.create_task(
                get_file(f"http://127.0.0.1:{wire.port}/large", tmp_path / "back", observer=watching)
            )
            await until(lambda: watching.position > LARGE // 3)
            wire.cut()
            await until(lambda: watching.reasons)
            changed = make(tmp_path / "other", LARGE // 2)
            (tmp_path / "other").replace(it.root / "large")
            await wire.start()
            await task
            assert (tmp_path / "back").read_bytes() == changed

    asyncio.run(main())


def test_get_continues_the_part_of_an_earlier_run(tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        async with bench(tmp_path) as it, cable(it) as wire:
            data = make(it.root / "large", LARGE)
            url, watching = f"http://127.0.0.1:{wire.port}/large", Watching()
            task = asyncio.create_task(get_file(url, tmp_path / "back", observer=watching))
            await until(lambda: watching.position > LARGE // 2)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert not (tmp_path / "back").exists()
            assert (tmp_path / "back.part").stat().st_size > LARGE // 2
            before = wire.carried
            await get_file(url, tmp_path / "back")
            assert (tmp_path / "back").read_bytes() == data
            assert wire.carried - before < LARGE * 0.6

    asyncio.run(main())


def test_giving_up(tmp_path: pathlib.Path) -> None:
    make(tmp_path / "source", 10)

    async def main() -> None:
        async with bench(tmp_path, opened=False) as it:
            with pytest.raises(GaveUp, match="503 This server does not hold the files"):
                await put_file(tmp_path / "source", it.url + "x", give_up_s=0.5)
            url = it.url
        with pytest.raises(GaveUp):
            await get_file(url + "x", tmp_path / "back", give_up_s=0.3)

    asyncio.run(main())


def test_refusals_are_sentences(tmp_path: pathlib.Path) -> None:
    make(tmp_path / "source", 10)

    async def main() -> None:
        async with bench(tmp_path) as it:
            (it.root / "folder").mkdir()
            with pytest.raises(ServerRefused, match="409 There is a folder of this name"):
                await put_file(tmp_path / "source", it.url + "folder")
            with pytest.raises(ServerRefused, match="404 There is nothing"):
                await get_file(it.url + "none", tmp_path / "back")
            with pytest.raises(ServerRefused, match=r"is a folder.*folder/\?zip"):
                await get_file(it.url + "folder", tmp_path / "back")

    asyncio.run(main())
    assert not list(tmp_path.glob("back*")), "what holds nothing is not left to go on with"


@pytest.mark.parametrize("order", ["put", "get"])
def test_without_a_terminal_the_password_is_not_asked_for(tmp_path: pathlib.Path, order: str) -> None:
    make(tmp_path / "file", 10)
    words = ["file", "http://127.0.0.1:1/"] if order == "put" else ["http://127.0.0.1:1/file"]
    done = subprocess.run(
        [sys.executable, "-m", "relevo", order, "--user", "ana", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        start_new_session=True,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "relevo: There is no terminal to ask for the password. Use --password-file FILE (- is standard input)."
    ]


@pytest.mark.parametrize("order", ["put", "get"])
def test_who_has_to_log_in_is_told_the_option(tmp_path: pathlib.Path, order: str) -> None:
    make(tmp_path / "file", 10)

    async def main() -> None:
        async with bench(tmp_path) as it:
            await family(it)
            words = [str(tmp_path / "file"), it.url] if order == "put" else [it.url + "file", str(tmp_path / "back")]
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "relevo", order, *words, stderr=subprocess.PIPE
            )
            told = (await process.communicate())[1].decode()
            assert process.returncode == 1
            assert told.splitlines()[-1].endswith("401 Log in to see this. Add --user NAME.")

    asyncio.run(main())


def test_a_tree(tmp_path: pathlib.Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "empty/below").mkdir(parents=True)
    for number in range(30):
        make(tree / "a" / f"f{number}", number * 100)
    make(tree / "a/b/large", (1 << 20) + 5)
    (tree / "link").symlink_to("a/f1")
    (tree / "loop").symlink_to("..")
    (tree / "fifo").unlink(missing_ok=True)
    os.mkfifo(tree / "fifo")

    async def main() -> None:
        async with bench(tmp_path) as it:
            report = await put_tree(tree, it.url + "in/side/")
            assert (len(report.stored), report.failed) == (32, [])
            assert sorted(report.skipped) == [str(tree / "fifo"), str(tree / "loop")]
            there = it.root / "in/side"
            assert (there / "empty/below").is_dir()
            for path in tree.rglob("f*"):
                if path.is_file():
                    assert (there / path.relative_to(tree)).read_bytes() == path.read_bytes()

    asyncio.run(main())


def test_a_second_service_cannot_take_the_port(tmp_path: pathlib.Path) -> None:
    from relevo.files.daemon import PortTaken

    async def main() -> None:
        async with bench(tmp_path) as it:
            with pytest.raises(PortTaken, match=f"127.0.0.1:{it.port}"):
                await listen(it.service, "127.0.0.1", it.port)

    asyncio.run(main())


def test_the_commands(tmp_path: pathlib.Path) -> None:
    """`relevo put` and `relevo get` as a program uses them: JSON lines, exit status, one sentence."""
    data = make(tmp_path / "source", 3 << 20)
    (tmp_path / "tree/sub").mkdir(parents=True)
    make(tmp_path / "tree/sub/x", 10)

    async def relevo(*arguments: str) -> tuple[int, list[dict[str, Any]], str]:
        program = "from relevo.cli.main import main; main()"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, said = await process.communicate()
        assert process.returncode is not None
        return process.returncode, [msgspec.json.decode(line) for line in out.splitlines()], said.decode()

    async def main() -> None:
        async with bench(tmp_path) as it:
            sources = [str(tmp_path / "tree"), str(tmp_path / "source")]
            status, events, said = await relevo("put", "--json", *sources, it.url)
            assert (status, said) == (0, "")
            assert [event["event"] for event in events] == ["stored", "stored", "finished"]
            assert {event.get("path") for event in events} == {"/tree/sub/x", "/source", None}
            assert events[-1]["files"] == 2
            assert (it.root / "source").read_bytes() == data
            status, events, said = await relevo("get", "--json", it.url + "source", str(tmp_path / "back"))
            assert (status, events[0]["event"], said) == (0, "fetched", "")
            assert (tmp_path / "back").read_bytes() == data
            await it.service.close()
            status, _, said = await relevo("put", "--quiet", "--give-up", "300 ms", sources[1], it.url)
            assert status == 1
            assert "no progress for 300 ms" in said
            assert said.count("\n") == 1

    asyncio.run(main())
