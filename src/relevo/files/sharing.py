"""Making links by the page: `?share=1` shows those of something and a form; `share` and `unshare` are its buttons.

The secret of a link is shown once, in the answer to `share`: only its digest is kept.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

from aiohttp import web

from relevo.files import link, pages
from relevo.files.accounts import changes, gate, orders
from relevo.files.accounts.access import Verb, decide
from relevo.files.accounts.model import ShareLink
from relevo.files.entries import Entry
from relevo.files.errors import FilesError
from relevo.files.http import Call, is_secure
from relevo.files.pages import render
from relevo.files.pages.render import crumbs, date_text
from relevo.files.service import Service
from relevo.files.texts import text
from relevo.files.urls import shown, url_of

DAYS = (1, 7, 30, 90, 0)
"""How long a link may hold, to choose from; 0: until it is removed."""
DAYS_FIRST = 7
_DAY_S = 86_400


async def show(service: Service, call: Call) -> web.Response:
    """Answer GET `?share=1`.

    Raises:
        FilesError: 404, it is not there, or there are no accounts.
    """
    return _page(service, call, await _entry(service, call))


async def _entry(service: Service, call: Call) -> Entry:
    if not service.accounts.exist:
        raise FilesError(404, "no_accounts")
    entry = await service.run(service.volume.look, call.place.names)
    if entry is None:
        raise FilesError(404, "not_found")
    return entry


async def post(service: Service, call: Call, action: str) -> web.Response:
    """Make a link, or remove one.

    Raises:
        FilesError: nothing was changed.
    """
    entry = await _entry(service, call)
    given = await gate.fields(call)
    gate.require_token(service, call, given)
    if action == "unshare":
        await orders.execute(service, orders.parse({"order": "link-remove", "id": given.get("id", "")}), call.who, call)
        return _page(service, call, entry, notice=text(call.language, "link_removed"))
    return _page(service, call, entry, url=await _make(service, call, given), status=201)


async def _make(service: Service, call: Call, given: dict[str, str]) -> str:
    """A new link; its address."""
    secret = secrets.token_urlsafe(link.SECRET_BYTES)
    days = given.get("days", str(DAYS_FIRST))
    if days not in map(str, DAYS):
        raise FilesError(400, "form")
    password = given.get("password", "")
    order = {
        "order": "link-add",
        "digest": changes.digest_of(secret),
        "path": "/".join(call.place.names),
        "kind": given.get("kind", "read"),
        "creator": call.who.name,
        "expires_s": int(time.time()) + int(days) * _DAY_S if days != "0" else None,
        "password": await service.accounts.verifier.hash_of(password) if password else "",
    }
    await orders.execute(service, orders.parse(order), call.who, call)
    scheme = "https" if is_secure(call.request) else "http"
    return f"{scheme}://{call.request.host}{link.url_for(secret)}"


def rows(service: Service, found: list[ShareLink], language: str) -> list[dict[str, Any]]:
    """Links as a page shows them, the newest first."""
    now_s, told = time.time(), []
    for one in sorted(found, key=lambda one: -one.created_s):
        use = service.seen.saved.links.get(one.id)
        code = "link_used_drop" if one.kind == "drop" else "link_used"
        counts = (
            {"opened": 0, "n": 0}
            if use is None
            else {"opened": use.opened, "n": use.stored if one.kind == "drop" else use.fetched}
        )
        told.append(
            {
                "id": one.id,
                "path": "/" + "/".join(map(shown, one.path)),
                "creator": one.creator,
                "kind": text(language, f"link_kind_{one.kind}"),
                "over": changes.expired(one, now_s),
                "until": date_text(one.expires_s * 10**9, language) if one.expires_s else text(language, "link_never"),
                "password": bool(one.password),
                "used": text(language, code, **counts),
                "last": date_text(use.last_s * 10**9, language) if use is not None and use.last_s else "",
            }
        )
    return told


def of_user(service: Service, name: str) -> list[ShareLink]:
    """The links that somebody made."""
    accounts = service.accounts.policy.accounts
    return [one for one in accounts.links.values() if one.creator == name] if accounts is not None else []


def _page(
    service: Service, call: Call, entry: Entry, *, url: str = "", notice: str = "", status: int = 200
) -> web.Response:
    names, language, policy = call.place.names, call.language, service.accounts.policy
    acting = service.accounts.guard(call.who)
    assert acting is not None, "there are accounts"
    assert policy.accounts is not None, "there are accounts"
    here = url_of(names, folder=entry.is_folder)
    found = [one for one in policy.accounts.links.values() if one.path == names]
    response = pages.answer(
        call,
        "share.html",
        status,
        here=here,
        here_query={"share": "1"},
        crumbs=crumbs(names[:-1], language) if names else [],
        back=here if entry.is_folder else render.link(here, call.query, about="1"),
        name=shown(names[-1]) if names else text(language, "root"),
        folder=entry.is_folder,
        may_drop=decide(policy, call.who, Verb.WRITE, (*names, "*")).allowed,
        days=[(str(days), text(language, "link_days", n=days) if days > 1 else _word(days, language)) for days in DAYS],
        days_first=str(DAYS_FIRST),
        links=rows(service, found, language),
        token=acting.form_token(),
        url=url,
        notice=notice,
        risk=False,
    )
    response.headers["Cache-Control"] = "no-store"
    return response


def _word(days: int, language: str) -> str:
    return text(language, "link_day" if days else "link_never")
