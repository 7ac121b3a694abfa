"""POST: what a person does with the page's forms, without JavaScript. Each ends with a redirect to the listing."""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import AsyncIterator

import msgspec
from aiohttp import BodyPartReader, MultipartReader, web

from relevo.files import changes, limits
from relevo.files.errors import FilesError
from relevo.files.http import COMMON_HEADERS, Call, body_pieces, empty, go_on
from relevo.files.service import Service
from relevo.files.store import check_room, receive
from relevo.files.urls import check_new, name_in_form, shown, url_of

_PART_BYTES = 256 << 10


async def post(service: Service, call: Call) -> web.Response:
    """Answer a POST: `?action=upload` (multipart) or `folder` (`name`) to a folder, `delete` to anything."""
    match call.query.get("action", "upload"):
        case "upload":
            return await _upload(service, call)
        case "folder":
            name = name_in_form((await _fields(call)).get("name", ""))
            copies = await changes.create_folder(service, (*call.place.names, name))
            return _done(call, call.place.names, "created", copies, name)
        case "delete":
            names = call.place.names
            copies = await changes.remove(service, names, recursive=True)
            return _done(call, names[:-1], "deleted", copies, shown(names[-1]))
    raise FilesError(400, "form")


def _done(call: Call, folder: tuple[str, ...], what: str, copies: int, *names: str) -> web.Response:
    """Back to the listing, which tells what was done; for a program the same as JSON."""
    headers = {"Relevo-Copies": str(copies)}
    if call.wants_json:
        body = msgspec.json.encode({what: names, "copies": copies})
        return web.Response(
            status=201, body=body, headers={**COMMON_HEADERS, **headers, "Content-Type": "application/json"}
        )
    query = {"done": what, "n": len(names), "copies": copies}
    kept = {name: value for name, value in call.query.items() if name in {"lang", "sort", "order"}}
    return empty(303, headers | {"Location": f"{url_of(folder, folder=True)}?{urllib.parse.urlencode(kept | query)}"})


async def _fields(call: Call) -> dict[str, str]:
    request = call.request
    if request.content_type != "application/x-www-form-urlencoded":
        raise FilesError(415, "form")
    await go_on(request)
    body = b""
    async for piece in body_pieces(request):
        body += piece
        if len(body) > limits.FORM_MAX_BYTES:
            raise FilesError(413, "form")
    try:
        return dict(
            urllib.parse.parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=32, strict_parsing=True)
        )
    except ValueError as error:
        raise FilesError(400, "form") from error


async def _upload(service: Service, call: Call) -> web.Response:
    request = call.request
    if request.content_type != "multipart/form-data":
        raise FilesError(415, "form")
    await service.require_copies()
    await service.run(check_room, service.volume, request.content_length or 0)
    present = await service.run(service.volume.look, call.place.names)
    if present is None or not present.is_folder:
        raise FilesError(404, "not_found")
    await go_on(request)
    names, copies = [], 2
    try:
        reader = await request.multipart()
    except (ValueError, AssertionError) as error:
        raise FilesError(400, "form") from error
    while (part := await _next(reader)) is not None:
        if isinstance(part, BodyPartReader) and part.filename:
            name = name_in_form(part.filename)
            check_new((*call.place.names, name))
            stored = await receive(service, (*call.place.names, name), _pieces(part))
            names.append(name)
            copies = min(copies, stored.copies)
    if not names:
        raise FilesError(400, "no_file")
    return _done(call, call.place.names, "stored", copies, *names)


async def _next(reader: MultipartReader) -> MultipartReader | BodyPartReader | None:
    try:
        async with asyncio.timeout(limits.IDLE_BODY_S):
            return await reader.next()
    except TimeoutError as error:
        raise _trickle() from error
    except ConnectionError:
        raise
    except Exception as error:
        raise FilesError(400, "form", headers={"Connection": "close"}) from error


def _trickle() -> FilesError:
    return FilesError(408, "trickle", headers={"Connection": "close"}, seconds=round(limits.IDLE_BODY_S))


async def _pieces(part: BodyPartReader) -> AsyncIterator[bytes]:
    """The content of one part; a form that breaks off inside it raises."""
    while True:
        try:
            async with asyncio.timeout(limits.IDLE_BODY_S):
                piece = await part.read_chunk(_PART_BYTES)
        except TimeoutError as error:
            raise _trickle() from error
        except ConnectionError:
            raise
        except Exception as error:
            raise FilesError(400, "cut_off", headers={"Connection": "close"}) from error
        if not piece:
            break
        yield bytes(piece)
    if not part.at_eof():
        raise FilesError(400, "cut_off", headers={"Connection": "close"})
