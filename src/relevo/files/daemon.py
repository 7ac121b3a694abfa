"""`relevo files run NAME`: warm on both servers; the volume is opened by an order over the control socket.

Requests on `files-NAME.sock`: `open`, `quiesce`, `close`, `status` (see docs/internals/files.md).
"""

from __future__ import annotations

import asyncio
import logging
import pathlib
import resource
import signal
import socket
import ssl
from ipaddress import IPv4Address

import structlog
from aiohttp.http import HttpProcessingError

from relevo.base.control import ControlServer, Handler, Message, Watcher
from relevo.base.errors import RelevoError
from relevo.base.paths import Paths
from relevo.config.model import AddressResource, Config, FilesResource, FilesystemResource, SmbResource
from relevo.files import limits
from relevo.files.accounts import network, orders, remote
from relevo.files.app import App
from relevo.files.clients import Clients
from relevo.files.errors import FilesError
from relevo.files.service import Service
from relevo.files.traffic import Server

ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - the virtual address comes and goes while we listen
_BACKLOG = 512
_log = structlog.get_logger()


class NoSuchResource(RelevoError):
    """The configuration has no files resource of this name."""


class PortTaken(RelevoError):
    """Someone else listens on the port."""


def find(config: Config, name: str) -> FilesResource:
    """The files resource of an id.

    Raises:
        NoSuchResource: there is none.
    """
    found = [
        item for service in config.services.values() for item in service.resources if isinstance(item, FilesResource)
    ]
    for item in found:
        if item.id == name:
            return item
    known = ", ".join(item.id for item in found) or "none"
    raise NoSuchResource(f"The configuration has no files resource called {name!r}.", f"Known: {known}.")


def mountpoint_of(config: Config, files: FilesResource) -> pathlib.Path | None:
    """Where the file system below a files resource's root is mounted, as configured."""
    points = [
        item.mountpoint
        for service in config.services.values()
        for item in service.resources
        if isinstance(item, FilesystemResource) and files.root.is_relative_to(item.mountpoint)
    ]
    return max(points, key=lambda point: len(point.parts), default=None)


def has_smb(config: Config, name: str) -> bool:
    """Whether the shares of a files resource are network drives as well."""
    parts = (item for service in config.services.values() for item in service.resources)
    return any(isinstance(item, SmbResource) and item.files == name for item in parts)


def addresses_with(config: Config, files: FilesResource) -> list[IPv4Address]:
    """The addresses that move with a files resource."""
    return [
        item.address.ip
        for service in config.services.values()
        if files in service.resources
        for item in service.resources
        if isinstance(item, AddressResource)
    ]


def order_key(config: Config) -> bytes | None:
    """What signs orders between the servers; None: the heartbeats' key is no secret (crc)."""
    signing = config.authkeys.signing
    return remote.key_of(signing.secret) if signing.secret else None


def names_of(config: Config, files: FilesResource) -> tuple[str, ...]:
    """What a certificate that is made is for: the names that are configured, the service's addresses, the nodes."""
    addresses = (str(address) for address in addresses_with(config, files))
    return (*(files.tls.names if files.tls is not None else ()), *addresses, *config.nodes)


def _worth_a_line(record: logging.LogRecord) -> bool:
    """Strangers that send what is no HTTP and clients that go away are no fault of ours; tracebacks would fill the log.

    A connection that we break off because the volume fails is.
    """
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, ConnectionError):
        return isinstance(error.__cause__, FilesError)
    return not isinstance(error, HttpProcessingError)


async def listen(
    service: Service, host: str, port: int, tls: ssl.SSLContext | None = None
) -> tuple[asyncio.Server, int]:
    """Serve HTTP; the listening server and its port (chosen by the kernel when `port` is 0). With `tls`: HTTPS.

    Raises:
        PortTaken: someone else listens there.
    """
    logger = logging.getLogger("relevo.files")
    logger.addFilter(_worth_a_line)
    server = service.traffic.server or Server(
        App(service),
        keepalive_timeout=limits.IDLE_CONNECTION_S,
        access_log=None,
        logger=logger,
        max_line_size=limits.REQUEST_LINE_MAX_BYTES,
        max_field_size=limits.HEADER_FIELD_MAX_BYTES,
        max_headers=limits.HEADERS_MAX,
        lingering_time=limits.LINGER_S,
        read_bufsize=limits.READ_BUFFER_BYTES,
        auto_decompress=False,
    )
    service.traffic.server, server.busy = server, service.traffic.busy
    loop = asyncio.get_running_loop()
    try:
        limit_s = None if tls is None else limits.HANDSHAKE_S
        listening = await loop.create_server(
            server, host, port, backlog=_BACKLOG, family=socket.AF_INET, ssl=tls, ssl_handshake_timeout=limit_s
        )
    except OSError as error:
        raise PortTaken(
            f"Nobody can listen on {host}:{port} ({error.strerror}).", "Does another server run?"
        ) from error
    return listening, int(listening.sockets[0].getsockname()[1])


def control(service: Service, path: pathlib.Path) -> ControlServer:
    """The control socket of a service."""

    async def do_open(_: Message) -> Message:
        await service.open()
        return service.status()

    async def do_quiesce(_: Message) -> Message:
        await service.quiesce()
        return service.status()

    async def do_close(_: Message) -> Message:
        await service.close()
        return service.status()

    async def do_status(_: Message) -> Message:
        return service.status()

    async def do_order(message: Message) -> Message:
        service.require_open()
        return await orders.execute(service, orders.parse(message["order"]), None)

    async def do_drives(_: Message) -> Message:
        service.require_open()
        return network.told(service.accounts.policy)

    async def do_clients(_: Message) -> Message:
        return {"clients": service.clients.former}

    watchers: dict[str, Watcher] = {"accounts": lambda _: service.follow_accounts()}
    handlers: dict[str, Handler] = {
        "clients": do_clients,
        "drives": do_drives,
        "open": do_open,
        "quiesce": do_quiesce,
        "close": do_close,
        "status": do_status,
        "order": do_order,
    }
    return ControlServer(path, handlers, watchers)


def _allow_descriptors() -> None:
    """A connection and a file each need one: take as many as this process is allowed to have."""
    wanted = 4 * limits.CONNECTIONS_MAX
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


async def run(config: Config, me: str, paths: Paths, name: str) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        config: the cluster.
        me: this node.
        paths: where control sockets lie.
        name: id of the files resource.

    Raises:
        RelevoError: it is not configured, or the port is taken.
    """
    files = find(config, name)
    _allow_descriptors()
    mirror, point = paths.socket(f"mirror-{files.mirror}"), mountpoint_of(config, files)
    service = Service(files, me, mirror, mountpoint=point, names=names_of(config, files))
    service.desk = remote.Desk(order_key(config))
    service.smb = has_smb(config, name)
    service.clients = Clients(addresses_with(config, files))
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    listening = [(await listen(service, ANY_ADDRESS, files.port))[0]]
    watching = None
    if service.tls is not None:
        listening.append((await listen(service, ANY_ADDRESS, service.tls.wanted.port, service.tls.ports))[0])
        if service.tls.wanted.given:
            watching = asyncio.create_task(service.tls.watch())
    orders = control(service, paths.socket(f"files-{name}"))
    await orders.start()
    _log.info("listening", port=files.port, tls=service.tls.wanted.port if service.tls is not None else None)
    try:
        await stopping.wait()
    finally:
        for one in listening:
            one.close()
        if watching is not None:
            watching.cancel()
        await orders.stop()
        await service.close()
        _log.info("stopped")
