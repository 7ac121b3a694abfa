"""The file service alone: `python -m bench.files_service ROOT FOLDER PORT`.

A socket in FOLDER answers as a mirror in sync does.
"""

from __future__ import annotations

import asyncio
import logging
import pathlib
import signal
import sys

import structlog

from relevo.base.control import ControlServer, Message
from relevo.config.model import FilesResource
from relevo.files.daemon import listen
from relevo.files.service import Service


async def serve(root: pathlib.Path, folder: pathlib.Path, port: int) -> None:
    """Until SIGTERM."""

    async def status(_: Message) -> Message:
        return {"connection": "Connected", "peer_disk": "UpToDate"}

    mirror = ControlServer(folder / "mirror.sock", {"status": status})
    await mirror.start()
    service = Service(FilesResource(id="files", root=root, mirror="r0"), "nodo1", folder / "mirror.sock")
    await service.open()
    listening, _ = await listen(service, "127.0.0.1", port)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    listening.close()
    await service.close()
    await mirror.stop()


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    asyncio.run(serve(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])))
