"""A file service on a temporary folder, its HTTP port on loopback, and a mirror's control socket that says `copies`."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import pathlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import aiohttp

from relevo.base.control import ControlServer, Message
from relevo.config.model import FilesResource
from relevo.files.daemon import listen
from relevo.files.errors import FilesError
from relevo.files.pool import Pool
from relevo.files.service import Service

T = TypeVar("T")
SYNCED = {"connection": "Connected", "peer_disk": "UpToDate"}
ALONE = {"connection": "WFConnection", "peer_disk": "DUnknown"}


async def until(condition: Callable[[], object], limit_s: float = 20.0) -> None:
    """Look again and again at what has no event: files in a folder, a number in a process."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        await asyncio.sleep(0.005)


def outcome(call: Callable[[], T]) -> tuple[T | None, int]:
    """What a rule says: its result and 200, or None and the status of its refusal."""
    try:
        return call(), 200
    except FilesError as error:
        return None, error.status


@dataclasses.dataclass
class Bench:
    service: Service
    root: pathlib.Path
    port: int
    http: aiohttp.ClientSession
    mirror: dict[str, Any]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    async def raw(self, request: bytes) -> bytes:
        """Send bytes on a connection of their own and read everything until the server closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            return await reader.read()
        finally:
            writer.close()

    async def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """One GET of an undecoded path, exactly as it is written."""
        fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        answer = await self.raw(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n".encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        return int(lines[0].split()[1]), dict(line.lower().split(": ", 1) for line in lines[1:]), body

    def work_files(self) -> list[str]:
        """What lies in the work area; a folder that the cleaner deletes meanwhile counts as gone (os.walk skips it)."""
        found = os.walk(self.root / ".relevo")
        return sorted(str((pathlib.Path(at) / name).relative_to(self.root)) for at, _, names in found for name in names)


@contextlib.asynccontextmanager
async def bench(
    folder: pathlib.Path, *, opened: bool = True, pool: Pool | None = None, **resource: Any
) -> AsyncIterator[Bench]:
    """A running service; `resource` are fields of FilesResource."""
    root = resource.pop("root", folder / "volume")
    root.mkdir(exist_ok=True)
    mirror = dict(SYNCED)

    async def status(_: Message) -> Message:
        return mirror

    peer = ControlServer(folder / "mirror-r0.sock", {"status": status})
    await peer.start()
    files = FilesResource(id="files", root=root, mirror="r0", **resource)
    service = Service(files, "nodo1", folder / "mirror-r0.sock", pool)
    listening, port = await listen(service, "127.0.0.1", 0)
    try:
        if opened:
            await service.open()
        async with aiohttp.ClientSession(auto_decompress=False, headers={"Accept-Encoding": "identity"}) as http:
            yield Bench(service, root, port, http, mirror)
    finally:
        listening.close()
        await service.close()
        await peer.stop()
