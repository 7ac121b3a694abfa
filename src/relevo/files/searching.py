"""Search by name in a folder and below: the page is sent while the search goes on, for a bounded time."""

from __future__ import annotations

import time
import unicodedata

from aiohttp import web

from relevo.files import limits, walk
from relevo.files.entries import Entry
from relevo.files.errors import FilesError
from relevo.files.http import COMMON_HEADERS, Call
from relevo.files.pages import render, views
from relevo.files.service import Service
from relevo.files.texts import text
from relevo.files.traffic import deliver

_BATCH = 20_000


def plain(name: str) -> str:
    """A name as it is compared: without regard to case and accents."""
    return "".join(char for char in unicodedata.normalize("NFKD", name) if not unicodedata.combining(char)).casefold()


def matches(name: str, words: list[str]) -> bool:
    """Whether every word (already `plain`) is somewhere in a name."""
    compared = name.lower() if name.isascii() else plain(name)
    return all(word in compared for word in words)


async def answer(service: Service, call: Call) -> web.StreamResponse:
    """Answer GET FOLDER?search=WORDS: a page, streamed.

    Raises:
        FilesError: 404, there is no such folder.
    """
    names, wanted = call.place.names, call.query.get("search", "").strip()
    entry = await service.run(service.volume.look, names)
    if entry is None or not entry.is_folder:
        raise FilesError(404, "not_found")
    nonce = render.new_nonce()
    head, _, tail = render.document(
        "search.html", call.language, call.query, nonce, **views.search(names, wanted, call.language)
    ).partition("<!--found-->")
    response = web.StreamResponse(headers={**COMMON_HEADERS, **render.headers_for(call.language, nonce)})
    await response.prepare(call.request)
    if call.request.method == "HEAD":
        return response
    await deliver(call.request, response, head.encode())
    told = await _search(service, call, response, wanted)
    await deliver(call.request, response, tail.replace("<!--told-->", told).encode())
    await response.write_eof()
    return response


async def _search(service: Service, call: Call, response: web.StreamResponse, wanted: str) -> str:
    """Send what is found as lines of the table; what is said below it."""
    language, words = call.language, [plain(word) for word in wanted.split()]
    number, ended, until = 0, not words, time.monotonic() + limits.SEARCH_S
    found = walk.below(service.volume, call.place.names, [()])
    while not ended and number < limits.SEARCH_FOUND_MAX and time.monotonic() < until:
        some, ended = await service.run(walk.some, found, limits.SEARCH_SLICE_S, _BATCH)
        hits: list[tuple[walk.Way, Entry]] = [one for one in some if matches(one[1].name, words)]
        if len(hits) > limits.SEARCH_FOUND_MAX - number:
            hits, ended = hits[: limits.SEARCH_FOUND_MAX - number], False
        number += len(hits)
        rows = [views.found_row(call.place.names, way, entry, language, call.query) for way, entry in hits]
        if rows:
            await deliver(call.request, response, render.fragment("found.html", language, rows=rows).encode())
    if not ended:
        return text(language, "search_stopped", n=number)
    return text(language, "search_one" if number == 1 else "search_many", n=number)
