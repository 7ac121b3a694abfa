"""One's own account: password, sessions, links, logging out. What is changed are orders, as everywhere."""

from __future__ import annotations

import time

from aiohttp import web

from relevo.files import admin, pages, sharing
from relevo.files.accounts import changes, identity, nt, orders, tokens
from relevo.files.accounts.access import Kind
from relevo.files.accounts.gate import ACCOUNT_URL, LOGIN_URL, fields, require_token, session_cookie, to_login
from relevo.files.errors import FilesError
from relevo.files.http import Call, empty
from relevo.files.pages import render
from relevo.files.service import Service
from relevo.files.texts import text

_DONE = {
    "password": "done_password",
    "session-end": "done_account",
    "sessions-end": "done_sessions",
    "link-remove": "link_removed",
}


async def account(service: Service, call: Call) -> web.Response:
    """One's own account: GET the page; POST `?action=` `password`, `logout`, or an order about one's own things."""
    who = call.who
    if who.kind is not Kind.USER:
        if call.request.method in {"GET", "HEAD"} and service.accounts.exist:
            return to_login(call.request)
        raise FilesError(404 if not service.accounts.exist else 401, "log_in")
    match call.request.method:
        case "GET" | "HEAD":
            code = _DONE.get(call.query.get("done", ""))
            return _account_page(service, call, text(call.language, code) if code else "")
        case "POST":
            given = await fields(call)
            require_token(service, call, given)
            try:
                return await _change(service, call, given)
            except FilesError as error:
                return _account_page(service, call, error.sentence(call.language), error.status)
    raise FilesError(405, "method", headers={"Allow": "GET, HEAD, POST"})


async def _change(service: Service, call: Call, given: dict[str, str]) -> web.Response:
    action, name = call.query.get("action", ""), call.who.name
    match action:
        case "logout":
            return await _log_out(service, call)
        case "password":
            return await _change_password(service, call, given)
        case "session-end" | "link-remove":
            order = {"order": action, "id": given.get("id", "")}
        case "sessions-end":
            order = {"order": action, "name": name}
        case _:
            raise FilesError(400, "form")
    await orders.execute(service, orders.parse(order), call.who, call)
    place = render.link(ACCOUNT_URL, call.query, done=action)
    if action == "sessions-end" and call.who.session:  # this one goes on, as a new one
        return _with_new_session(service, call, place)
    return empty(303, {"Location": place, "Cache-Control": "no-store"})


def _with_new_session(service: Service, call: Call, place: str) -> web.Response:
    word, session = tokens.begin(service.accounts.policy, call.who.name, time.time())
    cookie = session_cookie(call, word, session)
    return empty(303, {"Location": place, "Cache-Control": "no-store", "Set-Cookie": cookie})


def _account_page(service: Service, call: Call, sentence: str, status: int = 200) -> web.Response:
    acting = service.accounts.guard(call.who)
    assert acting is not None, "a user is logged in"
    response = pages.answer(
        call,
        "account.html",
        status,
        here=ACCOUNT_URL,
        admin_url=admin.URL,
        name=call.who.name,
        notice=sentence,
        risk=status != 200,
        token=acting.form_token(),
        usage=" ".join(service.quotas.sentences(acting.user, None, call.language)[0]),
        sessions=admin.session_rows(service, call, call.who.name),
        links=sharing.rows(service, sharing.of_user(service, call.who.name), call.language),
    )
    response.headers["Cache-Control"] = "no-store"
    return response


async def _change_password(service: Service, call: Call, given: dict[str, str]) -> web.Response:
    keeper, name = service.accounts, call.who.name
    if given.get("new") != given.get("again"):
        raise FilesError(400, "passwords_differ")
    if not await identity.log_in(keeper, call.request, name, given.get("old", "")):
        raise FilesError(403, "bad_login")
    hashed = await keeper.verifier.hash_of(given.get("new", ""))
    windows = nt.nt_hash(given["new"]) if service.smb else ""
    changed = await service.change_accounts(lambda accounts: changes.set_password(accounts, name, hashed, windows))
    service.seen.forget(changed, name)
    await service.audit.durably(name, "password", call)
    return _with_new_session(service, call, render.link(ACCOUNT_URL, call.query, done="password"))


async def _log_out(service: Service, call: Call) -> web.Response:
    """The session ends on the volume: nobody who has kept its cookie can use it after a failover either."""
    session, now_s = call.who.session, int(time.time())
    if session:
        until_s = now_s + tokens.SESSION_S
        changed = await service.change_accounts(lambda accounts: changes.revoke(accounts, session, until_s, now_s))
        service.seen.forget(changed)
    service.audit.note(call.who.name, "logout", call)
    gone = identity.cookie(call.request, identity.COOKIE, "", max_age_s=0)
    return empty(303, {"Location": LOGIN_URL, "Set-Cookie": gone, "Cache-Control": "no-store"})
