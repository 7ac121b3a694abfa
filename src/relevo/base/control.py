"""Control sockets: how the daemons of one server and its commands talk to each other.

A UNIX stream socket; each message is one JSON object on a line of at most `MAX_LINE_BYTES`. A request is
`{"do": NAME, …arguments}`. The answer is `{"ok": true, …}` or `{"ok": false, "error": TYPE, "what": …, "remedy": …}`.
The request `watch` is answered with a line each time what is watched changes, the first one at once, until either side
closes. Only root may connect (mode 0600).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import msgspec

from relevo.base.errors import NOT_JSON, RelevoError

Message = dict[str, Any]
Handler = Callable[[Message], Awaitable[Message]]
Watcher = Callable[[Message], AsyncIterator[Message]]

MAX_LINE_BYTES = 4 << 20
CONNECT_TIMEOUT_S = 5.0
MODE = 0o600
"""Of the socket: only root may connect."""


class DaemonUnreachable(RelevoError):
    """Nobody answers at a control socket."""


class Refused(RelevoError):
    """The daemon answered with an error; `error` is the name of its type there."""

    def __init__(self, error: str, what: str, remedy: str = "") -> None:
        super().__init__(what, remedy)
        self.error = error


def encode(message: Message) -> bytes:
    """One message as a line."""
    return msgspec.json.encode(message) + b"\n"


def decode(line: bytes) -> Message:
    """The message of one line.

    Raises:
        RelevoError: the line is not a JSON object.
    """
    try:
        message = msgspec.json.decode(line)
    except NOT_JSON as error:
        raise RelevoError(f"A control message is not JSON ({error}).") from error
    if not isinstance(message, dict):
        raise RelevoError("A control message is not a JSON object.")
    return message


def error_answer(error: Exception) -> Message:
    """The answer that tells an error to the other side."""
    if isinstance(error, RelevoError):
        name = error.error if isinstance(error, Refused) else type(error).__name__
        return {"ok": False, "error": name, "what": error.what, "remedy": error.remedy}
    return {"ok": False, "error": type(error).__name__, "what": str(error) or repr(error), "remedy": ""}


def _checked(answer: Message) -> Message:
    if answer.get("ok"):
        return answer
    raise Refused(answer.get("error", "Error"), answer.get("what", "The request failed."), answer.get("remedy", ""))


def _unreachable(path: pathlib.Path, error: OSError | None = None) -> DaemonUnreachable:
    why = f" ({error.strerror})" if error is not None and error.strerror else ""
    name = path.name.removesuffix(".sock")
    daemon, _, resource = name.partition("-")
    command = f"relevo {daemon} run {resource}".strip()
    return DaemonUnreachable(f"The daemon {name} does not answer at {path}{why}.", f"Is `{command}` running here?")


def _whole(path: pathlib.Path, line: bytes) -> bytes:
    """The line, if the daemon did not die while it wrote it."""
    if not line.endswith(b"\n"):
        raise _unreachable(path)
    return line


def _endless(path: pathlib.Path) -> RelevoError:
    return RelevoError(f"What answers at {path} sends lines longer than {MAX_LINE_BYTES} bytes.", "Restart it.")


def call(path: pathlib.Path, do: str, *, timeout_s: float = 60.0, **arguments: object) -> Message:
    """Ask a daemon, and wait for its answer.

    Raises:
        DaemonUnreachable: nobody answers within the time limit.
        Refused: the daemon says no.
    """
    with contextlib.closing(_connect(path)) as sock:
        sock.settimeout(timeout_s)
        try:
            sock.sendall(encode({"do": do, **arguments}))
            with sock.makefile("rb") as lines:
                line = lines.readline(MAX_LINE_BYTES)
        except OSError as error:
            raise _unreachable(path, error) from error
    return _checked(decode(_whole(path, line)))


def watch(
    path: pathlib.Path, do: str = "watch", *, timeout_s: float | None = None, **arguments: object
) -> Iterator[Message]:
    """Ask a daemon for a stream of messages; ends when the daemon closes it.

    Raises:
        DaemonUnreachable: nobody answers, or the daemon still goes on after `timeout_s` seconds.
        Refused: the daemon says no.
    """
    end_s = None if timeout_s is None else time.monotonic() + timeout_s
    with contextlib.closing(_connect(path)) as sock:
        try:
            sock.settimeout(timeout_s)
            sock.sendall(encode({"do": do, **arguments}))
            with sock.makefile("rb") as lines:
                while line := lines.readline(MAX_LINE_BYTES):
                    yield _checked(decode(_whole(path, line)))
                    if end_s is not None:
                        sock.settimeout(_left_s(end_s))
        except OSError as error:
            raise _unreachable(path, error) from error


def _left_s(end_s: float) -> float:
    left_s = end_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _connect(path: pathlib.Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    sock.settimeout(CONNECT_TIMEOUT_S)
    try:
        sock.connect(str(path))
    except OSError as error:
        sock.close()
        raise _unreachable(path, error) from error
    return sock


async def acall(path: pathlib.Path, do: str, *, timeout_s: float = 60.0, **arguments: object) -> Message:
    """`call`, for asyncio programs."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(str(path), limit=MAX_LINE_BYTES)
            try:
                writer.write(encode({"do": do, **arguments}))
                line = await reader.readline()
            finally:
                writer.close()
    except TimeoutError as error:
        raise _unreachable(path) from error
    except OSError as error:
        raise _unreachable(path, error) from error
    except ValueError as error:
        raise _endless(path) from error
    return _checked(decode(_whole(path, line)))


async def awatch(path: pathlib.Path, do: str = "watch", **arguments: object) -> AsyncIterator[Message]:
    """`watch`, for asyncio programs."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(path), limit=MAX_LINE_BYTES)
    except OSError as error:
        raise _unreachable(path, error) from error
    try:
        writer.write(encode({"do": do, **arguments}))
        while line := await reader.readline():
            yield _checked(decode(_whole(path, line)))
    except OSError as error:
        raise _unreachable(path, error) from error
    except ValueError as error:
        raise _endless(path) from error
    finally:
        writer.close()


class ControlServer:
    """Serves a control socket from an asyncio program.

    Args:
        path: where the socket lies; a stale one is replaced.
        handlers: request name -> coroutine function from the request to the answer's fields (without `ok`).
        watchers: request name -> asynchronous generator of messages (without `ok`).
    """

    def __init__(
        self, path: pathlib.Path, handlers: dict[str, Handler], watchers: dict[str, Watcher] | None = None
    ) -> None:
        self._path = path
        self._handlers = handlers
        self._watchers = watchers or {}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Begin to listen."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            os.fchmod(listening.fileno(), MODE)  # before it has a name: at no moment may anybody else connect
            listening.bind(str(self._path))
        except OSError:
            listening.close()
            raise
        self._server = await asyncio.start_unix_server(self._serve, sock=listening, limit=MAX_LINE_BYTES)

    async def stop(self) -> None:
        """Stop listening and drop what is connected."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while (line := await reader.readline()) and await self._one(line, reader, writer):
                pass
        except (OSError, ValueError, asyncio.CancelledError):
            pass  # the caller went away, sent an endless line, or the server is being stopped: nothing to tell anyone
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _one(self, line: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; false when the connection is used up: a stream ends with it."""
        streamed = False
        try:
            request = decode(line)
            name = str(request.pop("do", ""))
            if name in self._watchers:
                streamed = True
                await self._stream(self._watchers[name](request), reader, writer)
                return False
            if name not in self._handlers:
                known = ", ".join(sorted([*self._handlers, *self._watchers]))
                raise RelevoError(f"There is no request {name!r} here.", f"Known: {known}.")
            answer = {"ok": True, **await self._handlers[name](request)}
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is answered; the daemon lives on
            if not isinstance(error, RelevoError):
                import structlog  # slow to import, and every command imports this module

                structlog.get_logger().exception("request_failed", request=line[:200])
            answer = error_answer(error)
        writer.write(encode(answer))
        await writer.drain()
        return not streamed

    async def _stream(
        self, messages: AsyncIterator[Message], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        gone = asyncio.ensure_future(reader.read(1))
        source = aiter(messages)
        try:
            while True:
                following = asyncio.ensure_future(anext(source))
                await asyncio.wait({gone, following}, return_when=asyncio.FIRST_COMPLETED)
                if not following.done():
                    following.cancel()
                    await asyncio.gather(following, return_exceptions=True)
                    return
                try:
                    message = following.result()
                except StopAsyncIteration:
                    return
                writer.write(encode({"ok": True, **message}))
                await writer.drain()
        finally:
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            if isinstance(messages, AsyncGenerator):
                await messages.aclose()
