"""LOCK and UNLOCK (RFC 4918, 9.10 and 9.11)."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import AsyncIterator

from aiohttp import web

from relevo.files import guard, limits, lock_store, locks, store
from relevo.files.accounts.access import Verb
from relevo.files.dav import ask, live, markup
from relevo.files.dav.markup import DAV, element
from relevo.files.entries import Condition, Entry
from relevo.files.errors import FilesError
from relevo.files.http import COMMON_HEADERS, Call, empty
from relevo.files.locks import Lock
from relevo.files.service import Service
from relevo.files.urls import check_new

_TOKEN = re.compile(r"<([^<>\s]{1,4096})>")


async def lock(service: Service, call: Call, conditions: ask.Conditions) -> web.Response:
    """Answer a LOCK: a new one with a body, else a refreshed one. On what is not there an empty file is made (7.3)."""
    deep = ask.depth(call.request, ("0", "infinity")) == "infinity"
    seconds = ask.timeout_s(call.request)
    body = await ask.xml_body(call.request)
    guard.require(Verb.WRITE, call.place.names)
    await service.require_copies()
    if not body:
        return await _refresh(service, call, conditions, seconds)
    asked = markup.lockinfo(body)
    if len(asked.owner.encode()) > limits.LOCK_OWNER_MAX_BYTES:
        raise FilesError(413, "dav_large")
    new = Lock(
        token=locks.new_token(),
        names=call.place.names,
        deep=deep,
        shared=asked.shared,
        owner=asked.owner,
        creator=locks.acting(),
        timeout_s=seconds,
        ends_s=time.time() + seconds,
    )
    created = await _take(service, call, new, conditions.check(service.volume))
    return await _answer(service, new, 201 if created else 200, {"Lock-Token": f"<{new.token}>"})


async def _take(service: Service, call: Call, new: Lock, condition: Condition) -> bool:
    """Take a lock, and make the file that is not there yet; whether it was made.

    Raises:
        FilesError: neither was done.
    """
    volume, names = service.volume, call.place.names
    if await service.run(volume.look, names) is not None:
        await service.run(lock_store.take, volume, new, condition)
        return False
    check_new(names)
    if call.place.slash:
        raise FilesError(409, "parent_missing")
    guard.require_room(names, 0)
    await service.run(lock_store.take, volume, new, condition)
    try:
        with locks.submitting(frozenset({new.token})):
            stored = await store.receive(service, names, _nothing(), condition=_absent, make_folders=False)
    except FilesError as error:
        if error.code == "exists":  # somebody was quicker: it is locked all the same
            return False
        await service.run(lock_store.release, volume, new)
        raise
    return stored.created


def _absent(entry: Entry | None) -> None:
    if entry is not None:
        raise FilesError(409, "exists")


async def _nothing() -> AsyncIterator[bytes]:
    """The body of a file that is empty."""
    yield b""


async def _refresh(service: Service, call: Call, conditions: ask.Conditions, seconds: int) -> web.Response:
    table = service.volume.locks
    who = locks.acting()
    for token in conditions.tokens:
        found = table.find(token)
        if found is not None and found.covers(call.place.names) and found.creator == who:
            renewed = dataclasses.replace(found, timeout_s=seconds, ends_s=time.time() + seconds)
            await service.run(lock_store.refresh, service.volume, renewed)
            return await _answer(service, renewed, 200, {})
    raise FilesError(412 if conditions.tokens else 400, "lock_unknown")


async def _answer(service: Service, new: Lock, status: int, headers: dict[str, str]) -> web.Response:
    discovery = element((DAV, "lockdiscovery"), live.activelock(new, service.volume.locks.left_s(new)))
    copies = {"Relevo-Copies": str(await service.copies())}
    fields = {**COMMON_HEADERS, "Content-Type": markup.KIND, "Cache-Control": "no-store", **copies, **headers}
    return web.Response(status=status, headers=fields, body=markup.prop(discovery))


async def unlock(service: Service, call: Call) -> web.Response:
    """Answer an UNLOCK."""
    match = _TOKEN.fullmatch(call.request.headers.get("Lock-Token", "").strip())
    if match is None:
        raise FilesError(400, "dav_field", field="Lock-Token")
    guard.require(Verb.WRITE, call.place.names)
    await service.require_copies()
    found = service.volume.locks.find(match[1])
    if found is None or not found.covers(call.place.names):
        raise FilesError(409, "lock_unknown")
    await service.run(lock_store.release, service.volume, found)
    return empty(204, {"Relevo-Copies": str(await service.copies())})
