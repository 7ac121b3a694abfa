"""POST: what a person does with the page's forms, without JavaScript. Each ends with a redirect to the listing."""

from __future__ import annotations

import asyncio
import functools
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
from aiohttp import BodyPartReader, MultipartReader, web

from relevo.files import changes, guard, limits, pages, sharing, tree, zipping
from relevo.files.accounts.access import Kind, Verb
from relevo.files.bin import numbered
from relevo.files.errors import FilesError
from relevo.files.http import COMMON_HEADERS, Call, empty, form_body, go_on
from relevo.files.pages import views
from relevo.files.service import Service
from relevo.files.store import check_room, receive
from relevo.files.urls import check_new, name_in_form, parse_path, relative_path, shown, url_of

_PART_BYTES = 256 << 10


async def post(service: Service, call: Call) -> web.StreamResponse:
    """Answer a POST to a file or folder: `?action=` says what the form wants.

    `upload` (multipart) and `folder` (`name`) in a folder; `delete` of the thing itself, or of the folder's `item`s;
    `rename` (`item`, `name`), `move`, `copy` (`item`…, `to`, `conflict`: empty, `replace` or `both`), `zip` (`item`…);
    `ask` (`what`, `item`…) is the question before one of them; `share` and `unshare` make and remove a link to it.
    """
    action = call.query.get("action", "upload")
    if action == "upload":
        return await _upload(service, call)
    if action in {"share", "unshare"}:
        return await sharing.post(service, call, action)
    given = await fields(call)
    values, items = dict(given), _items(call, given)
    match action:
        case "folder":
            name = name_in_form(values.get("name", ""))
            copies = await changes.create_folder(service, (*call.place.names, name))
            return done(call, _here(call), "created", copies, name)
        case "delete":
            return await _delete(service, call, items, for_good=values.get("forever") == "1")
        case "rename" | "move" | "copy":
            return await _relocate(service, call, action, values, items)
        case "zip":
            return await zipping.send(service, call, call.place.names, items)
        case "ask":
            return _ask(service, call, values.get("what", ""), items)
    raise FilesError(400, "form")


def _here(call: Call) -> str:
    return url_of(call.place.names, folder=True)


def done(call: Call, back: str, what: str, copies: int, *names: str) -> web.Response:
    """Back to the listing, which tells what was done; for a program the same as JSON."""
    headers = {"Relevo-Copies": str(copies)}
    if call.wants_json:
        body = msgspec.json.encode({what: names, "copies": copies})
        return web.Response(
            status=201, body=body, headers={**COMMON_HEADERS, **headers, "Content-Type": "application/json"}
        )
    query = {"done": what, "n": len(names), "copies": copies}
    kept = {name: value for name, value in call.query.items() if name in {"lang", "sort", "order"}}
    return empty(303, headers | {"Location": f"{back}?{urllib.parse.urlencode(kept | query)}"})


async def fields(call: Call) -> list[tuple[str, str]]:
    """The fields of a form that is no upload, in their order.

    Raises:
        FilesError: 415, 413, 400.
    """
    request = call.request
    if not request.can_read_body:
        return []
    body = await form_body(request, FilesError(413, "items_many", n=limits.ITEMS_MAX))
    many = limits.ITEMS_MAX + 32
    try:
        return urllib.parse.parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=many, strict_parsing=True)
    except ValueError as error:
        raise FilesError(400, "form") from error


def _items(call: Call, given: list[tuple[str, str]]) -> list[str]:
    """The names that a form chose in a folder; each is one segment as its address has it.

    Raises:
        FilesError: 400, it is none; 403, it is the service's own: the address of the form alone does not show that.
    """
    items = []
    for field, value in given:
        if field == "item":
            place = parse_path("/" + value)
            if len(place.names) != 1:
                raise FilesError(400, "bad_name")
            if not call.place.names and place.reserved:
                raise FilesError(403, "reserved")
            items.append(place.names[0])
    return items


async def _each(steps: list[Callable[[], Awaitable[int]]]) -> int:
    """Do one thing after the other; the fewest servers that one of them is on.

    Of several some may be gone: a form whose answer a failover lost is sent again, and has done part of its work.

    Raises:
        FilesError: one cannot be done, and those after it were not begun; or all are gone.
    """
    copies, gone = 2, 0
    for step in steps:
        try:
            copies = min(copies, await step())
        except FilesError as error:
            gone += 1
            if error.status != 404 or gone == len(steps):
                raise
    return copies


async def _delete(service: Service, call: Call, items: list[str], *, for_good: bool) -> web.Response:
    names = call.place.names
    chosen = [(*names, item) for item in items] or [names]

    async def remove(one: tuple[str, ...]) -> int:
        return await (changes.remove(service, one, recursive=True) if for_good else changes.discard(service, one))

    copies = await _each([functools.partial(remove, one) for one in chosen])
    back = url_of(names if items else names[:-1], folder=True)
    gone = for_good or service.resource.bin_expiry_ms == 0
    return done(call, back, "deleted" if gone else "discarded", copies, *(shown(one[-1]) for one in chosen))


async def _relocate(
    service: Service, call: Call, action: str, values: dict[str, str], items: list[str]
) -> web.Response:
    """Rename, move or copy things of a folder, one after the other."""
    names, conflict = call.place.names, values.get("conflict", "")
    if not items:
        raise FilesError(400, "no_item")
    if action == "rename":
        if len(items) != 1:
            raise FilesError(400, "form")
        targets = [(*names, name_in_form(values.get("name", "")))]
    else:
        to = values.get("to", "").strip("/")
        folder = relative_path(to) if to else ()
        targets = [(*folder, item) for item in items]
    change = changes.copy if action == "copy" else changes.move
    replace = tree.Replace.FILE if conflict == "replace" else tree.Replace.NOTHING

    async def relocate(item: str, target: tuple[str, ...]) -> int:
        free = await _free_name(service, target) if conflict == "both" else target
        return await change(service, (*names, item), free, replace=replace)

    copies = await _each([functools.partial(relocate, *pair) for pair in zip(items, targets, strict=True)])
    return done(call, _here(call), "copied" if action == "copy" else "moved", copies, *map(shown, items))


async def _free_name(service: Service, target: tuple[str, ...]) -> tuple[str, ...]:
    """A name beside one that is taken."""
    for number in range(1, limits.SAME_NAME_MAX):
        free = target if number == 1 else (*target[:-1], numbered(target[-1], number))
        if await service.run(service.volume.look, free) is None:
            return free
    raise FilesError(409, "exists")


def _ask(service: Service, call: Call, what: str, items: list[str]) -> web.Response:
    if what not in {"delete", "move", "copy"}:
        raise FilesError(400, "form")
    if not items:
        raise FilesError(400, "no_item")
    for item in items:
        guard.require(Verb.READ_TREE if what == "copy" else Verb.REMOVE, (*call.place.names, item))
    keeps = service.resource.bin_expiry_ms > 0
    return pages.answer(call, "ask.html", **views.ask(call.place.names, what, items, call.language, keeps=keeps))


async def _upload(service: Service, call: Call) -> web.Response:
    request = call.request
    if request.content_type != "multipart/form-data":
        raise FilesError(415, "form")
    guard.require(Verb.WRITE, (*call.place.names, "*"))  # each name again when it is known
    await service.require_copies()
    guard.require_room((*call.place.names, "*"), request.content_length or 0)
    await service.run(check_room, service.volume, request.content_length or 0)
    dropped = call.who.kind is Kind.LINK  # that its folder is there was looked at; who drops may not see it
    if not dropped:
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
            guard.require(Verb.WRITE, (*call.place.names, name))
            stored = await receive(service, (*call.place.names, name), _pieces(part), replaces=not dropped)
            service.note_put(call.who.label, (*call.place.names, stored.entry.name), call)
            names.append(name)
            copies = min(copies, stored.copies)
    if not names:
        raise FilesError(400, "no_file")
    return done(call, _here(call), "stored", copies, *names)


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
