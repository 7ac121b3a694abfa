"""From a request below /dav/ to its answer: which method is done by what."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from aiohttp import web

from relevo.files import changes, locks, store
from relevo.files.conditions import require
from relevo.files.dav import ask, locking, markup, propfind
from relevo.files.download import send_file
from relevo.files.entries import Condition, Entry
from relevo.files.errors import FilesError
from relevo.files.http import COMMON_HEADERS, Call, empty
from relevo.files.locks import Locked
from relevo.files.service import Service
from relevo.files.tree import Replace
from relevo.files.urls import url_of

METHODS = "OPTIONS, GET, HEAD, PUT, DELETE, MKCOL, COPY, MOVE, PROPFIND, PROPPATCH, LOCK, UNLOCK"
SPOKEN = {"Allow": METHODS, "DAV": "1, 2", "MS-Author-Via": "DAV"}
"""What OPTIONS tells; without the last field Windows takes it for something else."""
READING = frozenset({"OPTIONS", "GET", "HEAD", "PROPFIND"})
_FOR_GOOD = re.compile(r"\._.*|\.DS_Store|Thumbs\.db|desktop\.ini|~\$.*|\.~lock\..*#", re.IGNORECASE)
"""What programs leave beside people's files and take away again: not into the bin."""
_ERRORS = {
    "locked": "lock-token-submitted",
    "lock_conflict": "no-conflicting-lock",
    "lock_unknown": "lock-token-matches-request-uri",
    "dav_depth": "propfind-finite-depth",
    "dav_doctype": "no-external-entities",
    "quota_user": "quota-not-exceeded",
    "quota_share": "quota-not-exceeded",
    "no_room": "sufficient-disk-space",
    "full": "sufficient-disk-space",
}
"""Our sentences -> the conditions that WebDAV's clients know (RFC 4918, 16; RFC 4331, 6)."""


def is_here(call: Call) -> bool:
    """Whether WebDAV is spoken at an address."""
    return call.place.names[:1] == ask.ROOT


async def handle(service: Service, call: Call) -> web.StreamResponse:
    """Answer a request. `call.place` is the place on the volume (`ask.inside`).

    Raises:
        FilesError: as the operations do.
    """
    try:
        if "#" in call.request.raw_path:
            raise FilesError(400, "bad_path")
        if call.place.reserved:
            raise FilesError(404 if call.request.method in READING else 403, "reserved")
        conditions = ask.conditions(call)
        with locks.submitting(conditions.tokens):
            if conditions.groups:
                await service.run(conditions.require, service.volume)
            return await _route(service, call, conditions)
    except FilesError as error:
        condition = _ERRORS.get(error.code)
        if condition is None:
            raise
        where = ask.href(error.names, folder=False) if isinstance(error, Locked) else ""
        headers = {**COMMON_HEADERS, "Content-Type": markup.KIND, "Cache-Control": "no-store", **error.headers}
        return web.Response(status=error.status, headers=headers, body=markup.error(condition, where))


async def _route(service: Service, call: Call, conditions: ask.Conditions) -> web.StreamResponse:
    match call.request.method:
        case "OPTIONS":
            return empty(200, SPOKEN)
        case "GET" | "HEAD":
            return await _read(service, call)
        case "PROPFIND":
            return await propfind.propfind(service, call)
        case "PROPPATCH":
            return await propfind.proppatch(service, call, conditions)
        case "PUT":
            return await _put(service, call, conditions)
        case "MKCOL":
            return await _make_folder(service, call)
        case "DELETE":
            return await _delete(service, call, conditions)
        case "COPY":
            return await _copy(service, call)
        case "MOVE":
            return await _move(service, call, conditions)
        case "LOCK":
            return await locking.lock(service, call, conditions)
        case "UNLOCK":
            return await locking.unlock(service, call)
    raise FilesError(405, "method", headers={"Allow": METHODS})


async def _read(service: Service, call: Call) -> web.StreamResponse:
    found = await service.run(service.volume.open_file, call.place.names)
    if not isinstance(found, Entry):
        if call.place.slash:
            service.later(found.close)
            raise FilesError(404, "not_found")
        return await send_file(service, call, found)
    if call.wants_html:  # a person who followed the address: the page of the same folder
        return empty(303, {"Location": url_of(call.place.names, folder=True)})
    return empty(200, {"Cache-Control": "no-cache"})


async def _put(service: Service, call: Call, conditions: ask.Conditions) -> web.Response:
    if call.place.slash or not call.place.names:
        raise FilesError(405, "is_folder", headers={"Allow": METHODS})
    stored = await store.put(service, call, also=conditions.check(service.volume), make_folders=False)
    stored.headers["Location"] = ask.href(call.place.names, folder=False)
    return stored


async def _make_folder(service: Service, call: Call) -> web.Response:
    if not call.place.names:
        raise FilesError(405, "exists", headers={"Allow": METHODS})
    made = await changes.make_folder(service, call)
    made.headers["Location"] = ask.href(call.place.names, folder=True)
    return made


async def _delete(service: Service, call: Call, conditions: ask.Conditions) -> web.Response:
    """Into the bin, as on the pages: here people delete."""
    ask.depth(call.request, ("infinity",) if call.place.slash else ("0", "infinity"))
    names, condition = call.place.names, _matching(call, conditions.check(service.volume))
    if names and _FOR_GOOD.fullmatch(names[-1]):
        copies = await changes.remove(service, names, condition, recursive=True)
    else:
        copies = await changes.discard(service, names, condition)
    return empty(204, {"Relevo-Copies": str(copies)})


def _matching(call: Call, condition: Condition) -> Condition:
    """What is there is a folder where the address says so, and as the request expects."""

    def expected(entry: Entry | None) -> None:
        if call.place.slash and entry is not None and not entry.is_folder:
            raise FilesError(404, "not_found")
        require(call.request.method, call.request.headers, None if entry is None or entry.is_folder else entry.version)
        condition(entry)

    return expected


async def _copy(service: Service, call: Call) -> web.Response:
    deep = ask.depth(call.request, ("0", "infinity")) == "infinity"
    target, replace, there = await _target(service, call)
    with _overwriting(replace):
        copies = await changes.copy(service, call.place.names, target, replace=replace, deep=deep)
    return _relocated(target, copies, there=there)


async def _move(service: Service, call: Call, conditions: ask.Conditions) -> web.Response:
    ask.depth(call.request, ("infinity",) if call.place.slash else ("0", "infinity"))
    target, replace, there = await _target(service, call)
    condition = _matching(call, conditions.check(service.volume))
    with _overwriting(replace):
        copies = await changes.move(service, call.place.names, target, replace=replace, condition=condition)
    return _relocated(target, copies, there=there)


async def _target(service: Service, call: Call) -> tuple[tuple[str, ...], Replace, Entry | None]:
    """Where something goes, what it may replace there, and what is there now.

    Raises:
        FilesError: 403 onto itself, 404 there is nothing to go, 412 something is there and is to stay.
    """
    target, volume = ask.destination(call.request).names, service.volume
    replace = Replace.ANYTHING if ask.overwrite(call.request) else Replace.NOTHING
    if target == call.place.names:
        raise FilesError(403, "onto_itself")
    if await service.run(volume.look, call.place.names) is None:
        raise FilesError(404, "not_found")
    there = await service.run(volume.look, target)
    if there is not None and replace is Replace.NOTHING:
        raise FilesError(412, "exists")
    return target, replace, there


@contextlib.contextmanager
def _overwriting(replace: Replace) -> Iterator[None]:
    """What came to be at the destination while the request was under way is told as if it had been there before."""
    try:
        yield
    except FilesError as error:
        if error.code == "exists" and replace is Replace.NOTHING:
            raise FilesError(412, "exists") from error
        raise


def _relocated(target: tuple[str, ...], copies: int, *, there: Entry | None) -> web.Response:
    headers = {"Relevo-Copies": str(copies)}
    if there is None:
        headers["Location"] = ask.href(target, folder=False)
    return empty(201 if there is None else 204, headers)
