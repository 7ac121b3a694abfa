"""`relevo witness run`: answers the nodes of its clusters, and has on stable storage what it says before it says it."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import secrets
import signal
import time
from typing import cast

import msgspec
import structlog

from relevo.arbiter.desk import BadDatagram, Desk, Reply, decode_request, encode_reply
from relevo.arbiter.register import Book
from relevo.base.control import ControlServer, Message
from relevo.base.durable import write_durably
from relevo.base.errors import NOT_JSON, RelevoError
from relevo.base.paths import Paths
from relevo.base.sole import sole
from relevo.witness.settings import Settings

COMPLAINTS_PAUSE_S = 10.0
"""What is wrong with datagrams is logged this often at most: anybody can send some."""
SESSION_BYTES = 8
_log = structlog.get_logger()


class CannotKeep(RelevoError):
    """The witness cannot read or store what it knows."""


def now_ms() -> int:
    """A clock that only grows and goes on while the machine sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class Witness(asyncio.DatagramProtocol):
    """All clusters of one witness.

    Args:
        settings: where it listens, whom it serves.
        folder: one file per cluster lies there.

    Raises:
        CannotKeep: a file is damaged. A witness that went on without it would let a stale copy win.
    """

    def __init__(self, settings: Settings, folder: pathlib.Path) -> None:
        self._settings = settings
        self._folder = folder
        self._transport: asyncio.DatagramTransport | None = None
        session = secrets.token_hex(SESSION_BYTES)
        self._desks = {name: Desk(self._load(name), session, now_ms()) for name in settings.keys}
        self._complained_s = 0.0

    def _load(self, cluster: str) -> Book:
        path = self._folder / f"{cluster}.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Book)
        except FileNotFoundError:
            return Book()
        except (OSError, *NOT_JSON) as error:
            raise CannotKeep(
                f"What the witness knows of cluster {cluster} cannot be read from {path} ({error}).",
                "Remove the file only while all mirrors of the cluster are connected and up to date: it is made anew.",
            ) from error

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is there."""
        self._transport = cast("asyncio.DatagramTransport", transport)  # no base class says so before Python 3.12

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        """Answer, if it is signed by a cluster that is served; whatever else comes gets no answer."""
        try:
            request = decode_request(data, self._settings.keys)
        except BadDatagram as error:
            self._complain(f"{error}", addr)
            return
        desk = self._desks[request.cluster]
        reply = desk.serve(request, now_ms())
        if desk.register.changed and not self._store(request.cluster, desk):
            return  # what is not stored must not be said; the change stands and is stored with the next request
        self._send(request.cluster, reply, addr)

    def _send(self, cluster: str, reply: Reply, addr: tuple[str | object, int]) -> None:
        assert self._transport is not None
        self._transport.sendto(encode_reply(reply, self._settings.keys[cluster]), addr)

    def _store(self, cluster: str, desk: Desk) -> bool:
        try:
            write_durably(self._folder / f"{cluster}.json", msgspec.json.encode(desk.register.book))
        except OSError as error:
            _log.error("not_stored", cluster=cluster, folder=str(self._folder), error=error.strerror)
            return False
        desk.register.changed = False
        return True

    def _complain(self, problem: str, addr: object) -> None:
        if time.monotonic() - self._complained_s >= COMPLAINTS_PAUSE_S:
            self._complained_s = time.monotonic()
            _log.warning("not_answered", problem=problem, sender=str(addr))

    async def status(self, _request: Message) -> Message:
        """What is known of each cluster."""
        now = now_ms()
        return {
            "clusters": {
                name: {
                    "mirrors": msgspec.to_builtins(desk.register.book.mirrors),
                    "leaders": {
                        service: {"node": leader.node, "left_ms": desk.register.left_ms(service, now)}
                        for service, leader in desk.register.book.leaders.items()
                    },
                }
                for name, desk in self._desks.items()
            }
        }


async def run(settings: Settings, paths: Paths) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        CannotKeep: what it knew cannot be read, or the address cannot be used.
        AlreadyRuns: another one keeps its books in the same folder, and would say something else.
    """
    folder = paths.state / "witness"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with sole(folder, "witness"):
        await _serve(settings, paths, folder)


async def _serve(settings: Settings, paths: Paths, folder: pathlib.Path) -> None:
    witness = Witness(settings, folder)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        transport, _ = await loop.create_datagram_endpoint(lambda: witness, (settings.address, settings.port))
    except OSError as error:
        where = f"{settings.address}, UDP port {settings.port}"
        raise CannotKeep(f"The witness cannot listen on {where} ({error.strerror}).", "Write another.") from error
    control = ControlServer(paths.socket("witness"), {"status": witness.status})
    await control.start()
    _log.info("witness_runs", address=settings.address, port=settings.port, clusters=sorted(settings.keys))
    with contextlib.closing(transport):
        await stop.wait()
    await control.stop()
