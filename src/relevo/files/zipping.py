"""A folder, or some things in it, as a ZIP file: written while it is sent, without a temporary file, stored as it is.

The format is PKWARE's APPNOTE 6.3.3 as Python's `zipfile` writes it to a stream: sizes follow each file, those of large
files in 64 bits. Memory: one slice of a file, and the table of contents (`limits.ZIP_FILES_MAX`).
"""

from __future__ import annotations

import contextlib
import os
import time
import zipfile
from collections.abc import Generator

from aiohttp import web

from relevo.files import guard, limits, walk
from relevo.files.accounts.access import Verb
from relevo.files.download import disposition
from relevo.files.entries import Entry
from relevo.files.errors import FilesError
from relevo.files.http import COMMON_HEADERS, Call
from relevo.files.service import Service
from relevo.files.texts import text
from relevo.files.traffic import deliver, reset
from relevo.files.urls import shown
from relevo.files.volume import Volume

_Pieces = Generator[bytes, None, None]
_FIRST_YEAR, _LAST_YEAR = 1980, 2107
"""What a date in a ZIP file can say."""
_FILE_ATTRIBUTES = 0o100644 << 16
_FOLDER_ATTRIBUTES = 0o40755 << 16 | 0x10


class _Sink:
    """What `zipfile` writes to: keeps it until it is taken."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes, /) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        """Nothing is held."""

    def take(self) -> bytes:
        whole, self._pieces = b"".join(self._pieces), []
        return whole


async def send(service: Service, call: Call, top: tuple[str, ...], names: list[str]) -> web.StreamResponse:
    """Answer with things of a folder as a ZIP file; without names, all of it.

    Raises:
        FilesError: 404, or 413 for more than can be told in one file.
    """
    ways: list[walk.Way] = [(name,) for name in names] or [()]
    for way in ways:
        guard.require(Verb.READ_TREE, (*top, *way))
    await _count(service, top, ways)
    label = names[0] if len(names) == 1 else top[-1] if top else text(call.language, "root")
    headers = {
        **COMMON_HEADERS,
        "Content-Type": "application/zip",
        "Content-Disposition": disposition(f"{label}.zip", attachment=True),
        "Cache-Control": "no-store",
    }
    response = web.StreamResponse(headers=headers)
    if call.request.method == "HEAD":
        return web.Response(headers=headers)
    await response.prepare(call.request)
    pieces = _pieces(service.volume, top, ways)
    whole = False
    try:
        while (piece := await service.run(next, pieces, None)) is not None:
            if piece:
                await deliver(call.request, response, piece)
        await response.write_eof()
        whole = True
    except FilesError as error:  # the head is sent: the only honest thing left is to break off
        raise ConnectionResetError("the volume failed while a ZIP file was being sent") from error
    finally:
        service.later(pieces.close)
        if not whole:
            reset(call.request.transport)
    return response


async def _count(service: Service, top: tuple[str, ...], ways: list[walk.Way]) -> None:
    found, number, ended = walk.below(service.volume, top, ways), 0, False
    while not ended:
        some, ended = await service.run(walk.some, found, limits.SEARCH_SLICE_S, limits.ZIP_FILES_MAX + 1)
        number += len(some)
        if number > limits.ZIP_FILES_MAX:
            raise FilesError(413, "zip_many", n=limits.ZIP_FILES_MAX)
    if number == 0 and ways != [()]:
        raise FilesError(404, "not_found")


def _info(way: walk.Way, entry: Entry) -> zipfile.ZipInfo:
    moment = time.localtime(entry.mtime_ns // 1_000_000_000)
    year = min(max(moment.tm_year, _FIRST_YEAR), _LAST_YEAR)
    name = "/".join(shown(part) for part in way) + ("/" if entry.is_folder else "")
    info = zipfile.ZipInfo(name, (year, *moment[1:6]))
    info.external_attr = _FOLDER_ATTRIBUTES if entry.is_folder else _FILE_ATTRIBUTES
    info.file_size = entry.size_bytes
    return info


def _pieces(volume: Volume, top: tuple[str, ...], ways: list[walk.Way]) -> _Pieces:
    """The ZIP file, piece by piece; to be advanced in threads of the pool."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as made:
        for number, (way, entry) in enumerate(walk.below(volume, top, ways)):
            if number >= limits.ZIP_FILES_MAX:  # it has grown since it was counted
                raise FilesError(413, "zip_many", n=limits.ZIP_FILES_MAX)
            if entry.is_folder:
                made.writestr(_info(way, entry), b"")
            else:
                yield from _file(volume, (*top, *way), way, made, sink)
    yield sink.take()


def _file(volume: Volume, names: tuple[str, ...], way: walk.Way, made: zipfile.ZipFile, sink: _Sink) -> _Pieces:
    try:
        handle = volume.open_file(names)
    except (FileNotFoundError, FilesError):
        return  # it was deleted meanwhile, or is no file any more
    if isinstance(handle, Entry):
        return
    with contextlib.closing(handle), made.open(_info(way, handle.entry), "w") as out:
        offset, end = 0, handle.entry.size_bytes
        while offset < end and (piece := os.pread(handle.fd, min(limits.CHUNK_BYTES, end - offset), offset)):
            out.write(piece)
            offset += len(piece)
            yield sink.take()
