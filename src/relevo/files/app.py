"""From a request to its answer: who handles what, and how errors are told."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import time
from typing import Any

import msgspec
import structlog
from aiohttp import web

from relevo.files import (
    account,
    admin,
    binning,
    changes,
    forms,
    guard,
    limits,
    link,
    listing,
    pages,
    previews,
    searching,
    sharing,
    store,
    tus,
    zipping,
)
from relevo.files.accounts import gate, identity, nt, orders, remote, rules
from relevo.files.dav import ask
from relevo.files.dav import handler as dav
from relevo.files.download import send_file
from relevo.files.entries import Entry
from relevo.files.errors import FilesError, unavailable
from relevo.files.http import (
    COMMON_HEADERS,
    Call,
    body_pieces,
    empty,
    is_secure,
    language_of,
    refuse_foreign_pages,
    take_apart,
)
from relevo.files.pages import assets, render
from relevo.files.service import Service, State
from relevo.files.urls import HEALTH, TUS, shown, split_target, through, url_of

ALLOWED = "OPTIONS, GET, HEAD, PUT, POST, DELETE, MKCOL"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_NOT_NOTED = _SAFE | {"PROPFIND", "LOCK", "UNLOCK"}
"""What changes no file (a LOCK that makes an empty one is followed by the PUT of its content)."""
_HTTPS = 443
_PORT = re.compile(r":[0-9]{1,5}$")
_HOST = re.compile(r"[A-Za-z0-9.-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\]")
_log = structlog.get_logger()


class App:
    """The request handler of one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request; every failure becomes a status and one sentence in the reader's language."""
        traffic = self._service.traffic
        with traffic.request(request):
            try:
                if traffic.crowded(request.method):
                    raise unavailable("busy")
                return await self._answer(request)
            except FilesError as error:
                return self._tell(request, error)
            except (ConnectionError, asyncio.CancelledError):
                raise
            except Exception:  # noqa: BLE001 - whatever fails is answered and logged; the service lives on
                path = request.raw_path.partition("/link/")[0][:200]  # what follows is a secret
                _log.exception("request_failed", method=request.method, path=path)
                return self._tell(request, FilesError(500, "internal"))

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        call = take_apart(request)
        if (early := await self._early(call)) is not None:
            return early
        if request.method not in _SAFE:
            refuse_foreign_pages(request)
            if request.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise FilesError(415, "no_encoding")
        if self._service.state is not State.OPEN:
            raise unavailable("closed")
        if call.place.names == remote.PLACE:
            return await _order(self._service, call)
        if call.place.names[: len(link.PLACE)] == link.PLACE:
            return await self._by_link(call)
        accounts, over_dav = self._service.accounts, dav.is_here(call)
        who = await identity.of(accounts, request, sessions=not over_dav)
        call = dataclasses.replace(call, who=who, place=ask.inside(call.place) if over_dav else call.place)
        with guard.acting(accounts.guard(who)):
            try:
                response = await (self._over_dav(call) if over_dav else self._for_somebody(call))
            except FilesError as error:
                if accounts.exist:
                    self._note(call, error.status)
                    if not over_dav and error.code == "log_in" and request.method in _SAFE and call.wants_html:
                        return gate.to_login(request)
                raise
            if accounts.exist:
                self._note(call, response.status)
            return response

    async def _early(self, call: Call) -> web.Response | None:
        """What the server without the volume answers as well, and to everybody."""
        if call.place.names == HEALTH:
            return await self._health(call)
        if call.place.names[: len(assets.FOLDER)] == assets.FOLDER:
            return _asset(call)
        tls = self._service.tls
        if tls is not None and tls.wanted.only and not is_secure(call.request) and call.place.names != remote.PLACE:
            return _to_tls(call.request, tls.wanted.port)  # orders between the servers are signed, and carry no secret
        return None

    async def _by_link(self, call: Call) -> web.StreamResponse:
        """A request through a share link; its errors lead back to the link, not to the front."""
        service, request = self._service, call.request
        call, door = link.enter(service.accounts.policy, call, time.time())
        with through(door), guard.acting(service.accounts.guard(call.who)), service.traffic.called(call.who.label):
            try:
                if (early := await link.prepare(service, call)) is not None:
                    return early
                rules.admit(call)
                if (page := await link.beginning(service, call)) is not None:
                    return page
                if call.place.names[: len(TUS)] == TUS:
                    return await tus.handle(service, call)
                response = await self._on_files(call)
            except FilesError as error:
                self._note(call, error.status)
                return self._tell(request, error)
            link.count(service, call, response)
            return response

    async def _for_somebody(self, call: Call) -> web.StreamResponse:
        """A request of somebody who is known by now; whatever they ask for, the volume asks the guard."""
        if call.place.names == gate.LOGIN:
            return await gate.login(self._service, call)
        if call.place.names == gate.ACCOUNT:
            return await account.account(self._service, call)
        if call.place.names == admin.PLACE:
            return await admin.handle(self._service, call)
        if self._service.accounts.exist:
            rules.admit(call)
        if call.place.names[: len(TUS)] == TUS:
            return await tus.handle(self._service, call)
        if call.place.names[: len(binning.PLACE)] == binning.PLACE:
            return await binning.handle(self._service, call)
        if call.place.reserved:
            raise FilesError(404 if call.request.method in _SAFE else 403, "reserved")
        return await self._on_files(call)

    async def _over_dav(self, call: Call) -> web.StreamResponse:
        if self._service.accounts.exist:
            rules.admit_to_dav(call)
        return await dav.handle(self._service, call)

    def _note(self, call: Call, status: int) -> None:
        """Into the audit log: changes of files, and what was refused."""
        request = call.request
        changed = request.method not in _NOT_NOTED and status < 400
        if not changed and status not in {401, 403}:
            return
        if call.place.names in {gate.LOGIN, gate.ACCOUNT} or (changed and call.place.names == admin.PLACE):
            return  # they take notes themselves
        path, _ = split_target(request.raw_path)
        if call.who.link is not None:  # the address holds the link's secret
            path = "/" + "/".join(map(shown, call.place.names))
        more = {"action": call.query["action"][:32]} if "action" in call.query else {}
        if "Destination" in request.headers:
            more["to"] = request.headers["Destination"][: limits.PATH_MAX_BYTES]
        self._service.audit.note(
            call.who.label, request.method, call, path=path[: limits.PATH_MAX_BYTES], status=status, **more
        )

    async def _on_files(self, call: Call) -> web.StreamResponse:
        service = self._service
        match call.request.method:
            case "GET" | "HEAD":
                return await self._read(call)
            case "PUT":
                return await store.put(service, call)
            case "POST":
                return await forms.post(service, call)
            case "DELETE":
                return await changes.delete(service, call)
            case "MKCOL":
                return await changes.make_folder(service, call)
            case "OPTIONS":
                more = (
                    {} if call.place.names else {"DAV": "1, 2", "MS-Author-Via": "DAV"}
                )  # Windows asks the root first
                return empty(204, {"Allow": ALLOWED, "Tus-Resumable": tus.VERSION, **more})
        raise FilesError(405, "method", headers={"Allow": ALLOWED})

    async def _read(self, call: Call) -> web.StreamResponse:
        service, names, query = self._service, call.place.names, call.query
        if "share" in query:
            return await sharing.show(service, call)
        if names and ("delete" in query or "about" in query):
            return await listing.one(service, call)
        if "zip" in query:
            return await zipping.send(service, call, names, [])
        if "search" in query:
            return await searching.answer(service, call)
        found = await service.run(service.volume.open_file, names)
        if not isinstance(found, Entry):
            if call.place.slash:
                service.later(found.close)
                raise FilesError(404, "not_found")
            if "preview" in query:
                service.later(found.close)
                return await previews.answer(service, call, found.entry)
            return await send_file(service, call, found)
        if names and not call.place.slash:
            asked = call.request.raw_path.partition("?")[2]
            return empty(308, {"Location": url_of(names, folder=True) + (f"?{asked}" if asked else "")})
        return await listing.answer(service, call)

    async def _health(self, call: Call) -> web.Response:
        if call.request.method not in _SAFE:
            raise FilesError(405, "method", headers={"Allow": "GET, HEAD"})
        service = self._service
        state = {
            "state": service.state.value,
            "copies": await service.copies(limits.HEALTH_TIMEOUT_S),
            "node": service.node,
        }
        return web.Response(
            status=200,
            body=msgspec.json.encode(state),
            headers={**COMMON_HEADERS, "Content-Type": "application/json", "Cache-Control": "no-store"},
        )

    def _tell(self, request: web.BaseRequest, error: FilesError) -> web.Response:
        """An error as the client wants to read it."""
        language = language_of(request)
        sentence = error.sentence(language)
        headers = {**COMMON_HEADERS, "Cache-Control": "no-store", **error.headers, "Content-Language": language}
        if self._service.state is not State.OPEN:
            headers["Connection"] = "close"  # the next request is to go to the server that has the files
        accept = request.headers.get("Accept", "")
        if "text/html" in accept:
            nonce = render.new_nonce()
            headers |= render.headers_for(language, nonce) | {"Cache-Control": "no-store"}
            context = {"status": error.status, "sentence": sentence, "code": error.code}
            body = pages.document("error.html", language, {}, nonce, **context).encode()
        elif "application/json" in accept:
            headers["Content-Type"], body = (
                "application/json",
                msgspec.json.encode({"error": error.code, "what": sentence}),
            )
        else:
            headers["Content-Type"], body = "text/plain; charset=utf-8", f"{sentence}\n".encode()
        response = web.Response(status=error.status, headers=headers, body=body)
        if headers.get("Connection") == "close":
            response.force_close()
        return response


def _asset(call: Call) -> web.Response:
    """A style sheet or a script: from memory, so that the server without the volume has them too."""
    if call.request.method not in {"GET", "HEAD"}:
        raise FilesError(405, "method", headers={"Allow": "GET, HEAD"})
    found = assets.find(call.place.names[len(assets.FOLDER) :])
    if found is None:
        raise FilesError(404, "not_found")
    asset, lasting = found
    headers = {
        **COMMON_HEADERS,
        "Content-Type": asset.kind,
        "Cache-Control": "public, max-age=31536000, immutable" if lasting else "no-store",
        "Vary": "Accept-Encoding",
    }
    if call.place.names[-1] == "sw.js":
        headers["Service-Worker-Allowed"] = "/"
    if render.takes_gzip(call.request):
        return web.Response(status=200, headers={**headers, "Content-Encoding": "gzip"}, body=asset.packed)
    return web.Response(status=200, headers=headers, body=asset.plain)


def _to_tls(request: web.BaseRequest, port: int) -> web.Response:
    """Send on to TLS what can be asked again there; a change is refused, for what it carries has been read by all.

    Raises:
        FilesError: 403.
    """
    if request.method not in _SAFE:
        raise FilesError(403, "tls_only")
    host = request.headers.get("Host", "")
    name = host.rpartition(":")[0] if _PORT.search(host) else host
    if not name or _HOST.fullmatch(name) is None:
        raise FilesError(400, "bad_path")
    path, query = split_target(request.raw_path)
    suffix = "" if port == _HTTPS else f":{port}"
    return empty(308, {"Location": f"https://{name}{suffix}{path}" + (f"?{query}" if query else "")})


async def _order(service: Service, call: Call) -> web.Response:
    """An order about accounts from the other server: only its signature counts. Refusals are answered signed too."""
    request = call.request
    if request.method != "POST":
        raise FilesError(405, "method", headers={"Allow": "POST"})
    body = b""
    async for piece in body_pieces(request):
        body += piece
        if len(body) > remote.ORDER_MAX_BYTES:
            raise FilesError(413, "too_large")
    key = service.desk.key
    nonce = service.desk.check(request.headers.get(remote.FIELD, ""), body, int(time.time()))
    assert key is not None, "the signature was right"
    try:
        order = orders.parse(nt.opened(key, msgspec.json.decode(body, type=dict[str, Any])))
        answer, status = await orders.execute(service, order, None, call), 200
    except FilesError as error:
        answer, status = {"error": error.code, "what": error.what}, error.status
    except msgspec.DecodeError:
        answer, status = {"error": "account_request", "what": "The order is not JSON."}, 400
    told = msgspec.json.encode(answer)
    signature = remote.sign_answer(key, nonce, status, told)
    headers = {**COMMON_HEADERS, "Content-Type": "application/json", remote.ANSWER_FIELD: signature}
    return web.Response(status=status, body=told, headers=headers)
