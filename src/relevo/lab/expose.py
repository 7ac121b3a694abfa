"""A door into a lab: a TCP port of the host's loopback that reaches the virtual IP, for a real browser.

The listening socket is made in the host's network namespace, then the process moves into the client's: connections come
in here and go out there. It ends with the lab, or when the client is switched off and on again and it is made anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import socket
import sys

from relevo.lab import kernel
from relevo.lab.process import Process, become_daemon, open_log
from relevo.lab.scene import VIRTUAL_IP

HOST = "127.0.0.1"
TARGET_PORT = 80
CHUNK_BYTES = 256 << 10
CONNECT_LIMIT_S = 5.0
BACKLOG = 128


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.close()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(CONNECT_LIMIT_S):
            far_reader, far_writer = await asyncio.open_connection(VIRTUAL_IP, TARGET_PORT)
        try:
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        finally:
            far_writer.close()
    writer.close()


async def _serve(listener: socket.socket) -> None:
    server = await asyncio.start_server(_forward, sock=listener)
    async with server:
        await server.serve_forever()


def main(argv: list[str]) -> None:
    """Forward until killed. Arguments: the lab's folder, the port, number and start time of the client's PID 1."""
    folder, port = pathlib.Path(argv[1]), int(argv[2])
    client = Process(int(argv[3]), int(argv[4]))
    log = open_log(folder / "expose.log")
    listener = socket.create_server((HOST, port), backlog=BACKLOG)
    birth = become_daemon()
    fd = os.pidfd_open(client.pid)
    if not client.alive():
        raise SystemExit("the client is off")
    kernel.setns(fd, kernel.CLONE_NEWNET)
    os.close(fd)
    own = Process.of(os.getpid())
    assert own is not None
    beside = folder / "expose.json.new"
    beside.write_text(json.dumps({"pid": own.pid, "start": own.start, "port": listener.getsockname()[1]}))
    beside.replace(folder / "expose.json")
    birth.ready(log)
    asyncio.run(_serve(listener))


if __name__ == "__main__":
    main(sys.argv)
