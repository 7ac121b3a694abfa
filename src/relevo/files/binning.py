"""The page of the bin, and what its buttons do."""

from __future__ import annotations

import re

import msgspec
from aiohttp import web

from relevo.files import bin as rubbish
from relevo.files import changes, forms, guard, pages
from relevo.files.errors import FilesError
from relevo.files.http import COMMON_HEADERS, Call
from relevo.files.pages import views
from relevo.files.service import Service
from relevo.files.urls import WORK_FOLDER, shown

PLACE = (WORK_FOLDER, "bin")
_NUMBER = re.compile(r"[0-9]{1,9}")


async def handle(service: Service, call: Call) -> web.Response:
    """Answer a request for `/.relevo/bin/`: GET the page (or JSON), POST `?action=restore|purge` (`item`) or `empty`.

    Raises:
        FilesError: as the changes do.
    """
    if len(call.place.names) > len(PLACE):
        raise FilesError(404, "not_found")
    match call.request.method:
        case "GET" | "HEAD":
            return await _show(service, call)
        case "POST":
            return await _post(service, call)
    raise FilesError(405, "method", headers={"Allow": "GET, HEAD, POST"})


async def _show(service: Service, call: Call) -> web.Response:
    first = int(call.query["from"]) if _NUMBER.fullmatch(call.query.get("from", "")) else 0
    found, total = await service.run(rubbish.contents, service.volume, first)
    if call.wants_json:
        listed = [
            {"id": one.id, "path": "/" + "/".join(map(shown, one.record.names)), "deleted_ms": one.deleted_ms}
            for one in found
        ]
        headers = {**COMMON_HEADERS, "Content-Type": "application/json", "Cache-Control": "no-store"}
        return web.Response(body=msgspec.json.encode({"total": total, "entries": listed}), headers=headers)
    context = views.bin_page(found, first, total, service.resource.bin_expiry_ms, call.language, call.query)
    said, warn = guard.quota_sentences((), call.language)
    return pages.answer(call, "bin.html", **context, quotas=said, quota_warn=warn)


async def _post(service: Service, call: Call) -> web.Response:
    action = call.query.get("action", "")
    items = [value for name, value in await forms.fields(call) if name == "item"]
    copies, done = 2, []
    if action == "empty":
        items = await service.run(rubbish.ids, service.volume)
    elif not items:
        raise FilesError(400, "no_item")
    for item in items:
        if action == "restore":
            names, stored = await changes.restore(service, item)
            done.append("/" + "/".join(map(shown, names)))
        elif action in {"purge", "empty"}:
            stored = await changes.purge(service, item)
            done.append(item)
        else:
            raise FilesError(400, "form")
        copies = min(copies, stored)
    return forms.done(call, views.BIN_URL, "restored" if action == "restore" else "purged", copies, *done)
