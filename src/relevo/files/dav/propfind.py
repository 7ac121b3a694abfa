"""PROPFIND and PROPPATCH (RFC 4918, 9.1 and 9.2)."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from relevo.files import limits
from relevo.files.accounts.access import Kind
from relevo.files.dav import ask, live, markup, stored
from relevo.files.dav.markup import Step, Wanted, element
from relevo.files.entries import Entry
from relevo.files.errors import FilesError
from relevo.files.http import COMMON_HEADERS, Call
from relevo.files.properties import Properties
from relevo.files.service import Service
from relevo.files.traffic import deliver, reset
from relevo.files.urls import Place
from relevo.files.volume import Volume

_HEADERS = {**COMMON_HEADERS, "Content-Type": markup.KIND, "Cache-Control": "no-store"}
_SHALLOW = {"0": (True, False), "1": (True, True), "1,noroot": (False, True)}
"""Depth -> whether the thing itself and what is in it are described (`noroot` is Microsoft's)."""


def room_for(service: Service, call: Call) -> Callable[[tuple[str, ...]], tuple[int, int]]:
    """How much fits at a path for whoever asks, and how much is used: of a quota, or of the volume (in a thread)."""
    quotas, policy, volume = service.quotas, service.accounts.policy, service.volume
    user = policy.user(call.who.name) if call.who.kind is Kind.USER else None

    def room(names: tuple[str, ...]) -> tuple[int, int]:
        free, used = volume.space()
        limit = quotas.room(user, names)
        return (free, used) if limit is None else (min(free, limit[0]), limit[1])

    return room


async def propfind(service: Service, call: Call) -> web.StreamResponse:
    """Answer a PROPFIND; with infinite depth it is refused, for nobody could hold the answer (9.1, 9.1.1)."""
    depth = ask.depth(call.request, (*_SHALLOW, "infinity"))
    if depth == "infinity":
        raise FilesError(403, "dav_depth")
    itself, members = _SHALLOW[depth]
    wanted = markup.propfind(await ask.xml_body(call.request))
    volume, names, room = service.volume, call.place.names, room_for(service, call)
    entry = await service.run(volume.look, names)
    if entry is None or (call.place.slash and not entry.is_folder):
        raise FilesError(404, "not_found")
    entries = await service.run(volume.entries, names) if members and entry.is_folder else []
    head = await service.run(_one, volume, names, entry, wanted, room) if itself else b""
    if len(entries) <= limits.DAV_SLICE:
        told = await service.run(live.describe_all, volume, names, entries, wanted, room)
        body = markup.MULTISTATUS + head + told + markup.MULTISTATUS_END
        return web.Response(status=207, headers=_HEADERS, body=body)
    response = web.StreamResponse(status=207, headers=_HEADERS)
    await response.prepare(call.request)
    try:
        await deliver(call.request, response, markup.MULTISTATUS + head)
        for first in range(0, len(entries), limits.DAV_SLICE):
            some = entries[first : first + limits.DAV_SLICE]
            await deliver(
                call.request, response, await service.run(live.describe_all, volume, names, some, wanted, room)
            )
        await deliver(call.request, response, markup.MULTISTATUS_END)
    except FilesError as error:  # the head is sent: the only honest thing left is to break off
        reset(call.request.transport)
        raise ConnectionResetError("the volume failed while a folder was being described") from error
    await response.write_eof()
    return response


def _one(
    volume: Volume,
    names: tuple[str, ...],
    entry: Entry,
    wanted: Wanted,
    room: Callable[[tuple[str, ...]], tuple[int, int]],
) -> bytes:
    said = stored.look(volume, names)
    subject = live.Subject(names, entry, volume.locks.covering(names), volume, room)
    return live.describe(subject, said, wanted).encode()


async def proppatch(service: Service, call: Call, conditions: ask.Conditions) -> web.Response:
    """Answer a PROPPATCH: all of it is done, or nothing (9.2)."""
    steps = markup.propertyupdate(await ask.xml_body(call.request))
    names = call.place.names
    await service.require_copies()
    entry = await service.run(service.volume.look, names)
    if entry is None:
        raise FilesError(404, "not_found")
    why, blamed = "", frozenset(step.name for step in steps if step.name in live.PROTECTED)
    if blamed:
        why = "403 Forbidden"
    else:
        try:
            volume = service.volume
            await service.run(stored.change, volume, names, lambda said: _after(said, steps), conditions.check(volume))
        except FilesError as error:
            if error.code != "properties_full":
                raise
            blamed = frozenset(step.name for step in steps if step.xml is not None)
            why = "507 Insufficient Storage"
    place = Place(names, entry.is_folder)
    headers = {**_HEADERS, "Relevo-Copies": str(await service.copies())}
    return web.Response(status=207, headers=headers, body=_outcome(place, steps, blamed, why))


def _after(said: Properties, steps: tuple[Step, ...]) -> Properties:
    """What is said about a thing after some changes."""
    said = dict(said)
    for step in steps:
        if step.xml is None:
            said.pop(step.name, None)
        else:
            said[step.name] = step.xml
    return said


def _outcome(place: Place, steps: tuple[Step, ...], blamed: frozenset[tuple[str, str]], why: str) -> bytes:
    names = dict.fromkeys(step.name for step in steps)
    guilty = "".join(element(name) for name in names if name in blamed)
    others = "".join(element(name) for name in names if name not in blamed)
    parts = [(why, guilty)] if guilty else []
    if others:
        parts.append(("424 Failed Dependency" if guilty else "200 OK", others))
    return markup.multistatus(markup.response(ask.href(place.names, folder=place.slash), parts))
