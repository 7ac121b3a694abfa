"""The service's own addresses for people: logging in and out, one's password."""

from __future__ import annotations

import time
import urllib.parse
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from relevo.files import pages
from relevo.files.accounts import changes, identity, nt, tokens
from relevo.files.accounts.access import Kind
from relevo.files.errors import FilesError
from relevo.files.http import Call, empty, form_body
from relevo.files.texts import text
from relevo.files.urls import WORK_FOLDER, parse_path, split_target, url_of

if TYPE_CHECKING:
    from relevo.files.service import Service

LOGIN = (WORK_FOLDER, "login")
ACCOUNT = (WORK_FOLDER, "account")
LOGIN_URL = url_of(LOGIN, folder=False)
ACCOUNT_URL = url_of(ACCOUNT, folder=False)
_log = structlog.get_logger()


async def fields(call: Call) -> dict[str, str]:
    """The fields of a form.

    Raises:
        FilesError: 400, 413 or 415.
    """
    body = await form_body(call.request, FilesError(413, "form"))
    try:
        return dict(urllib.parse.parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=64))
    except ValueError as error:
        raise FilesError(400, "form") from error


def safe_target(target: str) -> str:
    """Where a person goes after logging in: an address of ours, whatever the parameter says."""
    path, query = split_target(target)
    try:
        place = parse_path(path)
    except FilesError:
        return "/"
    if place.reserved:
        return "/"
    again = url_of(place.names, folder=place.slash)
    return again + (f"?{urllib.parse.quote(query, safe='=&%+-._~')}" if query else "")


def require_token(service: Service, call: Call, given: dict[str, str]) -> None:
    """A form of ours carries the token of its session.

    Raises:
        FilesError: 403.
    """
    owner = tokens.form_of(call.who.name, call.who.session)
    if call.who.kind is not Kind.USER or not tokens.is_form_token(
        service.accounts.policy, owner, given.get("token", "")
    ):
        raise FilesError(403, "form_token")


def to_login(request: web.BaseRequest) -> web.Response:
    """Send a person to the login page, and back afterwards."""
    path, query = split_target(request.raw_path)
    to = path + (f"?{query}" if query else "")
    return empty(303, {"Location": f"{LOGIN_URL}?{urllib.parse.urlencode({'to': to})}", "Cache-Control": "no-store"})


async def login(service: Service, call: Call) -> web.Response:
    """GET the login page, POST name and password."""
    keeper, request = service.accounts, call.request
    if not keeper.exist:
        raise FilesError(404, "no_accounts")
    to = safe_target(call.query.get("to", "/"))
    if request.method in {"GET", "HEAD"}:
        return _login_page(call, to)
    if request.method != "POST":
        raise FilesError(405, "method", headers={"Allow": "GET, HEAD, POST"})
    given = await fields(call)
    name, to = given.get("name", "").strip(), safe_target(given.get("to", "/"))
    try:
        right = await identity.log_in(keeper, request, name, given.get("password", ""))
    except FilesError as error:
        if error.status != 429:
            raise
        return _login_page(call, to, 429, error.sentence(call.language), name, error.headers)
    service.audit.note(name[:64], "login" if right else "login_failed", call)
    if not right:
        return _login_page(call, to, 403, text(call.language, "bad_login"), name)
    await _learn_nt(service, name, given.get("password", ""))
    word, session = tokens.begin(keeper.policy, name, time.time())
    _log.info("logged_in", user=name)
    return empty(303, {"Location": to, "Cache-Control": "no-store", "Set-Cookie": _session_cookie(call, word, session)})


async def _learn_nt(service: Service, name: str, password: str) -> None:
    """Whose password is older than SMB here can use network drives after the first login on the page."""
    user = service.accounts.policy.user(name)
    if not service.smb or user is None or user.nt:
        return
    hashed, windows = user.password, nt.nt_hash(password)
    try:
        await service.change_accounts(lambda accounts: changes.learn_nt(accounts, name, hashed, windows))
    except FilesError as error:  # the next login tries again; this one is right all the same
        _log.warning("nt_hash_not_stored", user=name, why=error.what)


def _session_cookie(call: Call, word: str, session: tokens.Session) -> str:
    left_s = max(0, session.ends_s - int(time.time()))
    return identity.cookie(call.request, identity.COOKIE, word, max_age_s=left_s)


def _login_page(
    call: Call, to: str, status: int = 200, sentence: str = "", name: str = "", more: dict[str, str] | None = None
) -> web.Response:
    response = pages.answer(call, "login.html", status, here=LOGIN_URL, to=to, sentence=sentence, name=name[:64])
    response.headers["Cache-Control"] = "no-store"
    response.headers.update(more or {})
    return response


async def account(service: Service, call: Call) -> web.Response:
    """One's own account: GET the page; POST `?action=password` or `logout`."""
    who = call.who
    if who.kind is not Kind.USER:
        if call.request.method in {"GET", "HEAD"} and service.accounts.exist:
            return to_login(call.request)
        raise FilesError(404 if not service.accounts.exist else 401, "log_in")
    match call.request.method:
        case "GET" | "HEAD":
            done = call.query.get("done") == "password"
            return _account_page(service, call, text(call.language, "done_password") if done else "")
        case "POST":
            given = await fields(call)
            require_token(service, call, given)
            if call.query.get("action") == "logout":
                return await _log_out(service, call)
            try:
                return await _change_password(service, call, given)
            except FilesError as error:
                return _account_page(service, call, error.sentence(call.language), error.status)
    raise FilesError(405, "method", headers={"Allow": "GET, HEAD, POST"})


def _account_page(service: Service, call: Call, sentence: str, status: int = 200) -> web.Response:
    acting = service.accounts.guard(call.who)
    assert acting is not None, "a user is logged in"
    response = pages.answer(
        call,
        "account.html",
        status,
        here=ACCOUNT_URL,
        name=call.who.name,
        sentence=sentence,
        wrong=status != 200,
        token=acting.form_token(),
        usage=" ".join(service.quotas.sentences(acting.user, None, call.language)[0]),
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
    await service.change_accounts(lambda accounts: changes.set_password(accounts, name, hashed, windows))
    await service.audit.durably(name, "password", call)
    word, session = tokens.begin(keeper.policy, name, time.time())
    return empty(303, {"Location": f"{ACCOUNT_URL}?done=password", "Set-Cookie": _session_cookie(call, word, session)})


async def _log_out(service: Service, call: Call) -> web.Response:
    """The session ends on the volume: nobody who has kept its cookie can use it after a failover either."""
    session, now_s = call.who.session, int(time.time())
    if session:
        until_s = now_s + tokens.SESSION_S
        await service.change_accounts(lambda accounts: changes.revoke(accounts, session, until_s, now_s))
    service.audit.note(call.who.name, "logout", call)
    gone = identity.cookie(call.request, identity.COOKIE, "", max_age_s=0)
    return empty(303, {"Location": LOGIN_URL, "Set-Cookie": gone, "Cache-Control": "no-store"})
