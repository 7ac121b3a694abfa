"""The resumable upload protocol tus 1.0: core, creation, termination and expiration (https://tus.io/protocols/).

POST   /.relevo/tus/     Upload-Length, Upload-Metadata: path|relativePath|filename, sha256  -> 201, Location
HEAD   /.relevo/tus/ID   -> Upload-Offset: what is on stable storage
PATCH  /.relevo/tus/ID   Upload-Offset, body -> 204, Upload-Offset; the last one gives the file its name
DELETE /.relevo/tus/ID   -> 204
"""

from __future__ import annotations

import base64
import binascii
import re
import time

import structlog
from aiohttp import web

from relevo.files import digests, limits, uploads
from relevo.files.conditions import http_date
from relevo.files.errors import FilesError
from relevo.files.http import COMMON_HEADERS, Call, body_pieces, empty, go_on, whole_number
from relevo.files.service import Service
from relevo.files.store import check_room
from relevo.files.urls import TUS, check_new, name_in_form, relative_path, url_of
from relevo.files.volume import Handle, Volume, write_all

VERSION = "1.0.0"
EXTENSIONS = "creation,termination,expiration"
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
        return empty(204, {**_HEADERS, "Tus-Version": VERSION, "Tus-Extension": EXTENSIONS})
    if call.request.headers.get("Tus-Resumable") != VERSION:
        raise FilesError(412, "tus_version", headers={"Tus-Version": VERSION})
    if len(names) == len(TUS):
        if method != "POST":
            raise FilesError(405, "method", headers={"Allow": "OPTIONS, POST"})
        return await _create(service, call)
    upload_id = names[len(TUS)]
    if len(names) > len(TUS) + 1 or not uploads.is_id(upload_id):
        raise FilesError(404, "tus_gone")
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


async def _load(service: Service, upload_id: str) -> uploads.Upload:
    """What is known of an upload that is claimed; one that is being finished by an earlier request is waited for."""
    await service.finishing(upload_id)
    return await service.run(uploads.load, service.volume, upload_id)


def _expires(service: Service, upload: uploads.Upload) -> dict[str, str]:
    if upload.published:
        return {}
    return {"Upload-Expires": http_date(time.time() + service.resource.upload_expiry_ms / 1000)}


async def _create(service: Service, call: Call) -> web.Response:
    headers = call.request.headers
    length = whole_number(headers.get("Upload-Length"))
    field = headers.get("Upload-Metadata", "")
    metadata = parse_metadata(field)
    sha256 = metadata.get("sha256", "")
    if sha256 and _SHA256.fullmatch(sha256) is None:
        raise FilesError(400, "bad_digest")
    info = uploads.Info(place_of(metadata), length, field, sha256)
    await service.require_copies()
    upload = await service.run(_create_checked, service.volume, info)
    result = {**_HEADERS, "Location": ENDPOINT + upload.id, "Upload-Offset": "0"}
    if upload.complete:  # an empty file has nothing to wait for
        async with service.claims.claim(upload.id):
            upload = await _load(service, upload.id)  # housekeeping may have been quicker
            if not upload.published:
                result |= await _finish(service, upload)
    return empty(201, result | _expires(service, upload))


def _create_checked(volume: Volume, info: uploads.Info) -> uploads.Upload:
    present = volume.look(info.names)
    if present is not None and present.is_folder:
        raise FilesError(409, "is_folder")
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
    await service.require_copies()
    async with service.claims.claim(upload_id):
        upload = await _load(service, upload_id)
        if offset != upload.offset:
            raise FilesError(409, "tus_offset", headers={"Upload-Offset": str(upload.offset)}, offset=upload.offset)
        if (request.content_length or 0) > upload.info.length_bytes - offset:
            raise FilesError(413, "tus_overflow")
        if not upload.complete:
            await _append_body(service, call, upload)
        extra = await _finish(service, upload) if upload.complete and not upload.published else {}
    headers = {**_HEADERS, **extra, "Upload-Offset": str(upload.offset)}
    return empty(204, headers | _expires(service, upload))


async def _append_body(service: Service, call: Call, upload: uploads.Upload) -> None:
    """Store what arrives; whatever ends it, what has arrived is brought to stable storage and counted."""
    volume = service.volume
    handle = await service.run(uploads.open_to_append, volume, upload)
    try:
        await go_on(call.request)
        await _write_body(service, call, upload, handle)
    finally:
        try:
            await service.run(uploads.sync, volume, upload, handle)
        finally:
            service.later(handle.close)


async def _write_body(service: Service, call: Call, upload: uploads.Upload, handle: Handle) -> None:
    pieces: list[bytes] = []
    waiting, room, unsynced = 0, upload.info.length_bytes - upload.offset, 0
    try:
        async for piece in body_pieces(call.request):
            if len(piece) > room:
                raise FilesError(413, "tus_overflow")
            pieces.append(piece)
            waiting, room = waiting + len(piece), room - len(piece)
            if waiting >= limits.CHUNK_BYTES:
                full, pieces = pieces, []
                await service.run(write_all, handle.fd, full)
                waiting, unsynced = 0, unsynced + waiting
            if unsynced >= limits.SYNC_EVERY_BYTES:
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
    headers = {
        "Content-Location": url_of(upload.info.names, folder=False),
        "ETag": entry.version.etag,
        "Relevo-Copies": str(copies),
    }
    if upload.info.sha256:
        headers["Repr-Digest"] = digests.field(bytes.fromhex(upload.info.sha256))
    return headers
