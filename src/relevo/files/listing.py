"""A folder: sorted entries, as a page for people or as JSON for programs."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import msgspec
from aiohttp import web

from relevo.files import guard, limits, pages
from relevo.files.entries import Entry
from relevo.files.errors import FilesError
from relevo.files.http import COMMON_HEADERS, Call
from relevo.files.order import natural_key
from relevo.files.pages import views
from relevo.files.service import Service
from relevo.files.traffic import deliver
from relevo.files.urls import quote, shown
from relevo.files.volume import Volume

SORTS = ("name", "size", "date")
_NUMBER = re.compile(r"[0-9]{1,9}")


def sort(entries: list[Entry], by: str, *, descending: bool) -> list[Entry]:
    """Folders first, then files, each by name, size or date; equal ones by name."""
    entries = sorted(entries, key=lambda entry: (natural_key(entry.name), entry.name))
    if by == "size":
        entries.sort(key=lambda entry: entry.size_bytes, reverse=descending)
    elif by == "date":
        entries.sort(key=lambda entry: entry.mtime_ns, reverse=descending)
    elif descending:
        entries.reverse()
    return sorted(entries, key=lambda entry: not entry.is_folder)


def as_json(place_url: str, entries: list[Entry]) -> bytes:
    """A listing for programs; `href` is relative to the folder, times are UTC."""
    listed: list[dict[str, Any]] = []
    for entry in entries:
        moment = dt.datetime.fromtimestamp(entry.mtime_ns / 1e9, dt.UTC)
        item: dict[str, Any] = {
            "name": shown(entry.name),
            "href": "./" + quote(entry.name) + ("/" if entry.is_folder else ""),
            "type": "folder" if entry.is_folder else "file",
            "modified": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        if not entry.is_folder:
            item |= {"size": entry.size_bytes, "etag": entry.version.etag}
        listed.append(item)
    return msgspec.json.encode({"path": place_url, "entries": listed})


async def answer(service: Service, call: Call) -> web.StreamResponse:
    """Answer GET or HEAD of a folder; a long answer is sent here, where a client that takes nothing is given up."""
    by = call.query.get("sort", "name")
    by = by if by in SORTS else "name"
    descending = call.query.get("order") == "desc"
    if call.wants_json:
        body = await service.run(_as_json, service.volume, call, by, descending=descending)
        headers = {**COMMON_HEADERS, "Vary": "Accept", "Cache-Control": "no-cache", "Content-Type": "application/json"}
        if len(body) <= limits.CHUNK_BYTES or call.request.method == "HEAD":
            return web.Response(status=200, headers=headers, body=body)
        response = web.StreamResponse(status=200, headers=headers)
        response.content_length = len(body)
        await response.prepare(call.request)
        await deliver(call.request, response, body)
        await response.write_eof()
        return response
    return await service.run(_as_page, service, call, by, descending=descending)


def _as_json(volume: Volume, call: Call, by: str, *, descending: bool) -> bytes:
    return as_json(call.place.folder_url(), sort(volume.entries(call.place.names), by, descending=descending))


def _as_page(service: Service, call: Call, by: str, *, descending: bool) -> web.Response:
    """In a thread: reading, sorting and writing a large folder takes a while."""
    volume, names, count = service.volume, call.place.names, limits.LISTED_MAX
    first = int(call.query["from"]) if _NUMBER.fullmatch(call.query.get("from", "")) else 0
    if by == "name":
        shown_now, known = service.orders.page(volume, names, first, count, descending=descending)
        total, folders = known.total, len(known.folders)
        first = min(first, max(0, total - 1))
    else:
        entries = sort(volume.entries(names), by, descending=descending)
        total, folders = len(entries), sum(entry.is_folder for entry in entries)
        first = min(first, max(0, total - 1))
        shown_now = entries[first : first + count]
    view = views.View(
        names=names,
        entries=shown_now,
        first=first,
        total=total,
        folders=folders,
        by=by,
        descending=descending,
        language=call.language,
        query=call.query,
    )
    said, warn = guard.quota_sentences(call.place.names, call.language)
    return pages.answer(call, "listing.html", **views.listing(view), quotas=said, quota_warn=warn)


async def one(service: Service, call: Call) -> web.Response:
    """Answer `?about=1`, all that can be done with one file or folder, or `?delete=ask`, the question before it goes.

    Raises:
        FilesError: 404.
    """
    names = call.place.names
    entry = await service.run(service.volume.look, names)
    if entry is None:
        raise FilesError(404, "not_found")
    if "delete" in call.query:
        keeps = service.resource.bin_expiry_ms > 0
        return pages.answer(call, "delete.html", **views.deletion(names, entry, call.language, keeps=keeps))
    return pages.answer(call, "about.html", **views.about(names, entry, call.language, call.query))
