"""The resumable upload protocol tus 1.0 (https://tus.io/protocols/).

Spoken are: core, creation, creation-with-upload, checksum, termination, expiration.

POST   /.relevo/tus/     Upload-Length, Upload-Metadata, perhaps the first bytes -> 201, Location
HEAD   /.relevo/tus/ID   -> Upload-Offset: what is on stable storage
PATCH  /.relevo/tus/ID   Upload-Offset, body -> 204, Upload-Offset; the last one gives the file its name
DELETE /.relevo/tus/ID   -> 204

Upload-Metadata: path|relativePath|filename, sha256, ifexists (`refuse`: a file of this name stays).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import time

import structlog
from aiohttp import web

from relevo.files import digests, guard, limits, uploads
from relevo.files.accounts.access import Verb
from relevo.files.conditions import http_date
from relevo.files.entries import write_all
from relevo.files.errors import FilesError
from relevo.files.http import COMMON_HEADERS, Call, body_pieces, empty, go_on, whole_number
from relevo.files.service import Service
from relevo.files.store import check_room
from relevo.files.urls import TUS, check_new, door, name_in_form, relative_path, url_of
from relevo.files.volume import Handle, Volume

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,checksum,termination,expiration"
CHECKSUMS = {"sha1": hashlib.sha1, "sha256": hashlib.sha256, "md5": hashlib.md5}
"""sha1 is what tus demands; it protects from broken networks, not from anybody."""
PART_TYPE = "application/offset+octet-stream"
ENDPOINT = url_of(TUS, folder=True)
_HEADERS = {**COMMON_HEADERS, "Tus-Resumable": VERSION, "Cache-Control": "no-store"}
_METADATA_MAX_BYTES = 6000
_SHA256 = re.compile(r"[0-9a-f]{64}")
_log = structlog.get_logger()


def parse_metadata(field: str) -> dict[str, str]:
    """The pairs of an Upload-Metadata field: comma-separated `key base64(value)`.

    Raises:
        FilesError: 400.
    """
    pairs: dict[str, str] = {}
    if len(field) > _METADATA_MAX_BYTES or not (field.isascii() and field.isprintable()):  # it is sent back as it is
        raise FilesError(400, "tus_metadata")
    for part in filter(None, (piece.strip() for piece in field.split(","))):
        key, _, value = part.partition(" ")
        try:
            pairs[key] = base64.b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, ValueError) as error:
            raise FilesError(400, "tus_metadata") from error
    return pairs


def place_of(metadata: dict[str, str]) -> tuple[str, ...]:
    """Where an upload belongs: `path` (ours), `relativePath` (Uppy's) or `filename`.

    Raises:
        FilesError: 400, nothing says it, or it is no path.
    """
    for key in ("path", "relativePath"):
        if (value := metadata.get(key, "")) not in {"", "null"}:
            return relative_path(value)
    if name := metadata.get("filename") or metadata.get("name"):
        names = (name_in_form(name),)
        check_new(names)
        return names
    raise FilesError(400, "tus_metadata")


def checksum_of(field: str | None) -> tuple[hashlib._Hash, bytes] | None:
    """An Upload-Checksum field: a hash to be fed, and what it has to give; None when there is no field.

    Raises:
        FilesError: 400, another algorithm, or not readable.
    """
    if field is None:
        return None
    name, _, value = field.strip().partition(" ")
    try:
        return CHECKSUMS[name](usedforsecurity=False), base64.b64decode(value.strip(), validate=True)
    except (KeyError, binascii.Error, ValueError) as error:
        raise FilesError(400, "bad_digest") from error


async def handle(service: Service, call: Call) -> web.Response:
    """Answer a request below `/.relevo/tus/`.

    Raises:
        FilesError: with the fields that tus asks for.
    """
    try:
        return await _route(service, call)
    except FilesError as error:
        error.headers |= {"Tus-Resumable": VERSION, "Cache-Control": "no-store"}
        raise


async def _route(service: Service, call: Call) -> web.Response:
    method, names = call.request.method, call.place.names
    if method == "OPTIONS":
        return empty(
            204,
            {
                **_HEADERS,
                "Tus-Version": VERSION,
                "Tus-Extension": EXTENSIONS,
                "Tus-Checksum-Algorithm": ",".join(CHECKSUMS),
            },
        )
    if call.request.headers.get("Tus-Resumable") != VERSION:
        raise FilesError(412, "tus_version", headers={"Tus-Version": VERSION})
    if len(names) == len(TUS):
        if method != "POST":
            raise FilesError(405, "method", headers={"Allow": "OPTIONS, POST"})
        return await _create(service, call)
    upload_id = names[len(TUS)]
    if len(names) > len(TUS) + 1 or not uploads.is_id(upload_id):
        raise FilesError(404, "tus_gone")
    await _require_own(service, upload_id)
    match method:
        case "HEAD":
            return await _head(service, upload_id)
        case "PATCH":
            return await _patch(service, call, upload_id)
        case "DELETE":
            async with service.claims.claim(upload_id):
                await _load(service, upload_id)
                await service.run(uploads.delete, service.volume, upload_id)
            return empty(204, _HEADERS)
    raise FilesError(405, "method", headers={"Allow": "OPTIONS, HEAD, PATCH, DELETE"})


async def _require_own(service: Service, upload_id: str) -> None:
    """Only whoever began an upload goes on with it; to others it does not exist. Asked before anybody is interrupted.

    Raises:
        FilesError: 404, or that they may not write there any more.
    """
    if (acting := guard.current()) is None:
        return
    info = (await service.run(uploads.load, service.volume, upload_id)).info
    if info.owner != acting.owner or not info.owner:
        raise FilesError(404, "tus_gone")
    acting.require(Verb.WRITE, info.names)


async def _load(service: Service, upload_id: str) -> uploads.Upload:
    """What is known of an upload that is claimed; one that is being finished by an earlier request is waited for."""
    await service.finishing(upload_id)
    return await service.run(uploads.load, service.volume, upload_id)


def _expires(service: Service, upload: uploads.Upload) -> dict[str, str]:
    if upload.published:
        return {}
    return {"Upload-Expires": http_date(time.time() + service.resource.upload_expiry_ms / 1000)}


def _info(metadata: dict[str, str], length: int, field: str) -> uploads.Info:
    """What an upload is; by a drop link it goes into the link's folder, whatever path it says."""
    sha256 = metadata.get("sha256", "")
    if sha256 and _SHA256.fullmatch(sha256) is None:
        raise FilesError(400, "bad_digest")
    names, acting = place_of(metadata), guard.current()
    if acting is None:
        return uploads.Info(names, length, field, sha256, metadata.get("ifexists", "") != "refuse")
    if (link := acting.who.link) is not None:
        return uploads.Info((*link.path, names[-1]), length, field, sha256, False, acting.owner, True)  # noqa: FBT003
    return uploads.Info(names, length, field, sha256, metadata.get("ifexists", "") != "refuse", acting.owner)


def _endpoint() -> str:
    """Where uploads lie, for whoever asks: by a link they lie behind it."""
    return (found.url if (found := door()) is not None else "") + ENDPOINT


async def _create(service: Service, call: Call) -> web.Response:
    headers = call.request.headers
    length = whole_number(headers.get("Upload-Length"))
    field = headers.get("Upload-Metadata", "")
    metadata = parse_metadata(field)
    info = _info(metadata, length, field)
    guard.require(Verb.WRITE, info.names)
    with_body = call.request.content_type == PART_TYPE and call.request.can_read_body
    if with_body and (call.request.content_length or 0) > length:
        raise FilesError(413, "tus_overflow")
    checksum = checksum_of(headers.get("Upload-Checksum")) if with_body else None
    await service.require_copies()
    upload = await service.run(_create_checked, service.volume, info)
    result = {**_HEADERS, "Location": _endpoint() + upload.id}
    if upload.complete or with_body:  # an empty file has nothing to wait for
        async with service.claims.claim(upload.id):
            upload = await _load(service, upload.id)  # housekeeping may have been quicker
            if with_body and not upload.complete:
                await _append_body(service, call, upload, checksum)
            if upload.complete and not upload.published:
                result |= await _finish(service, upload)
    return empty(201, result | {"Upload-Offset": str(upload.offset)} | _expires(service, upload))


def _create_checked(volume: Volume, info: uploads.Info) -> uploads.Upload:
    present = None if info.beside else volume.look(info.names)
    if present is not None and present.is_folder:
        raise FilesError(409, "is_folder")
    if present is not None and not info.replace:
        raise FilesError(409, "exists")
    volume.locks.require(info.names, member=present is None)  # and again when it gets its name
    guard.require_room(info.names, info.length_bytes)
    check_room(volume, info.length_bytes)
    return uploads.create(volume, info)


async def _head(service: Service, upload_id: str) -> web.Response:
    async with service.claims.claim(upload_id):
        upload = await _load(service, upload_id)
        if upload.published:
            extra = {"Relevo-Copies": str(await service.copies())}
        else:
            extra = await _finish(service, upload) if upload.complete else {}
    headers = {**_HEADERS, **extra, "Upload-Offset": str(upload.offset), "Upload-Length": str(upload.info.length_bytes)}
    if upload.info.metadata:
        headers["Upload-Metadata"] = upload.info.metadata
    return empty(200, headers | _expires(service, upload))


async def _patch(service: Service, call: Call, upload_id: str) -> web.Response:
    request = call.request
    if request.content_type != PART_TYPE:
        raise FilesError(415, "tus_type", type=PART_TYPE)
    offset = whole_number(request.headers.get("Upload-Offset"))
    checksum = checksum_of(request.headers.get("Upload-Checksum"))
    await service.require_copies()
    async with service.claims.claim(upload_id):
        upload = await _load(service, upload_id)
        if offset != upload.offset:
            raise FilesError(409, "tus_offset", headers={"Upload-Offset": str(upload.offset)}, offset=upload.offset)
        if (request.content_length or 0) > upload.info.length_bytes - offset:
            raise FilesError(413, "tus_overflow")
        if not upload.complete:
            await _append_body(service, call, upload, checksum)
        extra = await _finish(service, upload) if upload.complete and not upload.published else {}
    headers = {**_HEADERS, **extra, "Upload-Offset": str(upload.offset)}
    return empty(204, headers | _expires(service, upload))


async def _append_body(
    service: Service, call: Call, upload: uploads.Upload, checksum: tuple[hashlib._Hash, bytes] | None
) -> None:
    """Store what arrives; whatever ends it, what has arrived is brought to stable storage and counted.

    With a checksum all of it counts or nothing does.

    Raises:
        FilesError: 460, the checksum differs.
    """
    volume = service.volume
    handle = await service.run(uploads.open_to_append, volume, upload)
    whole = False
    try:
        await go_on(call.request)
        await _write_body(service, call, upload, handle, checksum)
        if checksum is not None and checksum[0].digest() != checksum[1]:
            raise FilesError(460, "digest_mismatch")
        whole = True
    finally:
        try:
            if whole or checksum is None:
                await service.run(uploads.sync, volume, upload, handle)
        finally:
            service.later(handle.close)


async def _write_body(
    service: Service,
    call: Call,
    upload: uploads.Upload,
    handle: Handle,
    checksum: tuple[hashlib._Hash, bytes] | None,
) -> None:
    pieces: list[bytes] = []
    waiting, room, unsynced = 0, upload.info.length_bytes - upload.offset, 0
    try:
        async for piece in body_pieces(call.request):
            if len(piece) > room:
                raise FilesError(413, "tus_overflow")
            pieces.append(piece)
            if checksum is not None:
                checksum[0].update(piece)
            waiting, room = waiting + len(piece), room - len(piece)
            if waiting >= limits.CHUNK_BYTES:
                full, pieces = pieces, []
                await service.run(write_all, handle.fd, full)
                waiting, unsynced = 0, unsynced + waiting
            if unsynced >= limits.SYNC_EVERY_BYTES and checksum is None:
                await service.run(uploads.sync, service.volume, upload, handle)
                unsynced = 0
    finally:
        if pieces:  # what came before a break is kept
            await service.run(write_all, handle.fd, pieces)


async def _finish(service: Service, upload: uploads.Upload) -> dict[str, str]:
    """Give a complete upload its name; the fields that tell so."""
    entry = await service.finish(upload)
    copies = await service.copies()
    _log.info("stored", path="/".join(upload.info.names), bytes=entry.size_bytes, copies=copies, upload=upload.id)
    headers = {"Relevo-Copies": str(copies)}
    if not upload.info.beside:  # whoever drops something is not told what else is there
        headers |= {"Content-Location": url_of(upload.info.names, folder=False), "ETag": entry.version.etag}
    if upload.info.sha256:
        headers["Repr-Digest"] = digests.field(bytes.fromhex(upload.info.sha256))
    return headers
