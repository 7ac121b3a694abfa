"""PUT: a body becomes a file, whole and on stable storage, or nothing.

Written beside (in the work area), sent to the disk, renamed, and all of that made stable (`commits.py`); only then is
it answered. What is small is received first and then stored by one thread in one go.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import AsyncIterator, Callable

import structlog
from aiohttp import web

from relevo.base.units import format_bytes
from relevo.files import beside, digests, guard, limits
from relevo.files.accounts.access import Verb
from relevo.files.conditions import require
from relevo.files.entries import Condition, Entry, no_condition, write_all
from relevo.files.errors import FilesError, unavailable
from relevo.files.http import COMMON_HEADERS, Call, body_pieces, go_on, whole_number
from relevo.files.service import Service
from relevo.files.urls import check_new, url_of
from relevo.files.volume import Handle, Volume

_log = structlog.get_logger()


@dataclasses.dataclass(frozen=True, slots=True)
class Stored:
    """What became of an upload.

    Attributes:
        entry: the file.
        created: there was none of this name before.
        copies: on how many servers it is.
        digest: SHA-256 of what was received, when it was computed.
    """

    entry: Entry
    created: bool
    copies: int
    digest: bytes | None


_Publish = Callable[[Handle], tuple[Entry, bool]]
"""Gives a file of the work area its name: the new entry, and whether there was none before."""


async def put(
    service: Service, call: Call, *, also: Condition = no_condition, make_folders: bool = True
) -> web.Response:
    """Answer a PUT.

    Args:
        service: with the volume open.
        call: the request.
        also: a further condition on what is there now, beside those of RFC 9110.
        make_folders: missing folders on the way are made; else 409.

    Raises:
        FilesError: nothing was stored.
    """
    request, names = call.request, call.place.names
    if call.place.slash:
        raise FilesError(400, "file_slash")
    check_new(names)
    guard.require(Verb.WRITE, names)
    if "Content-Range" in request.headers:
        raise FilesError(400, "no_part")
    announced = digests.announced(request.headers)
    method, headers = request.method, request.headers

    def expected(entry: Entry | None) -> None:
        require(method, headers, entry.version if entry is not None and not entry.is_folder else None)
        also(entry)

    await service.require_copies()
    await service.run(_check_target, service.volume, names, expected, length_of(request), make_folders=make_folders)
    await go_on(request)
    stored = await receive(
        service, names, body_pieces(request), condition=expected, digest=announced, make_folders=make_folders
    )
    return answer(names, stored)


def length_of(request: web.BaseRequest) -> int | None:
    """How long a body will be: macOS sends it in chunks, and says so in a field of its own."""
    if request.content_length is not None or "X-Expected-Entity-Length" not in request.headers:
        return request.content_length
    return whole_number(request.headers["X-Expected-Entity-Length"])


def _check_target(
    volume: Volume, names: tuple[str, ...], expected: Condition, length: int | None, *, make_folders: bool
) -> None:
    present = volume.look(names)
    if present is None and not make_folders:
        with volume.existing(names[:-1]):
            pass
    expected(present)
    if present is not None and present.is_folder:
        raise FilesError(409, "is_folder")
    volume.locks.require(names, member=present is None)
    guard.require_room(names, length or 0)
    check_room(volume, length or 0)


def check_room(volume: Volume, needed_bytes: int) -> None:
    """Refuse at once what cannot fit.

    Raises:
        FilesError: 507.
    """
    free = volume.free_bytes()
    if needed_bytes > free:
        raise FilesError(507, "no_room", free=format_bytes(free), needed=format_bytes(needed_bytes))


def answer(names: tuple[str, ...], stored: Stored) -> web.Response:
    """201 or 204, with what the client may want to remember."""
    headers = {
        **COMMON_HEADERS,
        "ETag": stored.entry.version.etag,
        "Location": url_of(names, folder=False),
        "Relevo-Copies": str(stored.copies),
    }
    if stored.digest is not None:
        headers["Repr-Digest"] = digests.field(stored.digest)
    return web.Response(status=201 if stored.created else 204, headers=headers)


async def receive(
    service: Service,
    names: tuple[str, ...],
    body: AsyncIterator[bytes],
    *,
    condition: Condition = no_condition,
    digest: bytes | None = None,
    replaces: bool = True,
    make_folders: bool = True,
) -> Stored:
    """Store a body under a name.

    Args:
        service: with the volume open.
        names: checked names of the file.
        body: pieces; an exception from it leaves nothing behind.
        condition: looked at again in the moment of renaming.
        digest: the SHA-256 that it must have.
        replaces: a file of this name; else it gets a number beside it.
        make_folders: missing folders on the way are made.

    Raises:
        FilesError: nothing was stored.
    """
    volume = service.volume

    def publish(temporary: Handle) -> tuple[Entry, bool]:
        if replaces:
            return volume.publish(temporary, names, condition, make_folders=make_folders)
        return beside.publish(volume, temporary, names), True

    first, whole = await _first_piece(body)
    if whole and service.resource.when_degraded != "refuse":
        entry, created = await service.run(_store_whole, volume, first, digest, publish)
    else:
        entry, created = await _store_long(service, _again(first, body), digest, publish)
    copies = await service.copies()
    _log.info("stored", path="/".join((*names[:-1], entry.name)), bytes=entry.size_bytes, copies=copies)
    return Stored(entry, created, copies, digest)


async def _first_piece(body: AsyncIterator[bytes]) -> tuple[list[bytes], bool]:
    """What fits into one piece, and whether that is all."""
    pieces, length = [], 0
    async for piece in body:
        pieces.append(piece)
        length += len(piece)
        if length >= limits.CHUNK_BYTES:
            return pieces, False
    return pieces, True


async def _again(first: list[bytes], body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A body whose first pieces were received already; they are let go one by one."""
    first.reverse()
    while first:
        yield first.pop()
    async for piece in body:
        yield piece


def _store_whole(volume: Volume, pieces: list[bytes], digest: bytes | None, publish: _Publish) -> tuple[Entry, bool]:
    """Store a small body, in one thread: going to and fro between threads takes longer than writing it."""
    if digest is not None and hashlib.sha256(b"".join(pieces)).digest() != digest:
        raise FilesError(422, "digest_mismatch")
    temporary = volume.new_temporary()
    try:
        write_all(temporary.fd, pieces)
        volume.commits.before(temporary.fd)
        published = publish(temporary)
    except BaseException:
        volume.discard(temporary)
        raise
    volume.release(temporary)
    return published


async def _store_long(
    service: Service, body: AsyncIterator[bytes], digest: bytes | None, publish: _Publish
) -> tuple[Entry, bool]:
    """Store a body while it arrives."""
    volume = service.volume
    temporary = await service.run(volume.new_temporary)
    published = False
    try:
        checksum = hashlib.sha256() if digest is not None else None
        await _write_body(service, temporary, body, None if checksum is None else checksum.update)
        if checksum is not None and checksum.digest() != digest:
            raise FilesError(422, "digest_mismatch")
        await service.run(volume.commits.before, temporary.fd)
        if service.resource.when_degraded == "refuse" and await service.copies() < 2:
            raise unavailable("degraded")
        entry = await service.run(publish, temporary)
        published = True
    finally:
        service.later(volume.release if published else volume.discard, temporary)
    return entry


async def _write_body(
    service: Service, temporary: Handle, body: AsyncIterator[bytes], update: Callable[[bytes], None] | None
) -> None:
    pieces: list[bytes] = []
    waiting_bytes = unsynced_bytes = 0
    async for piece in body:
        pieces.append(piece)
        waiting_bytes += len(piece)
        if waiting_bytes >= limits.CHUNK_BYTES:
            await service.run(_append, temporary.fd, pieces, update)
            unsynced_bytes += waiting_bytes
            pieces, waiting_bytes = [], 0
        if unsynced_bytes >= limits.PUT_SYNC_EVERY_BYTES:
            await service.run(os.fdatasync, temporary.fd)
            unsynced_bytes = 0
    if pieces:
        await service.run(_append, temporary.fd, pieces, update)


def _append(fd: int, pieces: list[bytes], update: Callable[[bytes], None] | None) -> None:
    write_all(fd, pieces)
    if update is not None:
        for piece in pieces:
            update(piece)
