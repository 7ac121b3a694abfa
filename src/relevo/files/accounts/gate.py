"""The page where people log in, and what forms about accounts have in common."""

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
    return empty(303, {"Location": to, "Cache-Control": "no-store", "Set-Cookie": session_cookie(call, word, session)})


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


def session_cookie(call: Call, word: str, session: tokens.Session) -> str:
    """The Set-Cookie field of a session that was just begun."""
    left_s = max(0, session.ends_s - int(time.time()))
    return identity.cookie(call.request, identity.COOKIE, word, max_age_s=left_s)


def _login_page(
    call: Call, to: str, status: int = 200, sentence: str = "", name: str = "", more: dict[str, str] | None = None
) -> web.Response:
    response = pages.answer(call, "login.html", status, here=LOGIN_URL, to=to, sentence=sentence, name=name[:64])
    response.headers["Cache-Control"] = "no-store"
    response.headers.update(more or {})
    return response
