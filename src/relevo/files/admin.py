"""The administrators' pages, `/.relevo/admin?show=…`: what `relevo user|group|share|audit` does, in the browser.

A form is an order (`accounts/orders.py`), so that there is one set of rules for all ways of giving one. Each form
carries the token of its session.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from aiohttp import web

from relevo.base.units import BadUnit, parse_size_bytes
from relevo.files import pages, sharing
from relevo.files.accounts import audit, gate, nt, orders
from relevo.files.accounts.access import Kind, Policy
from relevo.files.accounts.keeper import refusal
from relevo.files.accounts.model import Accounts, Share, User
from relevo.files.errors import FilesError
from relevo.files.http import Call, empty
from relevo.files.pages import render
from relevo.files.pages.render import date_text, size_text
from relevo.files.service import Service
from relevo.files.texts import text
from relevo.files.urls import WORK_FOLDER, shown, url_of

PLACE = (WORK_FOLDER, "admin")
URL = url_of(PLACE, folder=False)
TABS = ("users", "groups", "shares", "links", "sessions", "audit")
_ONE = {"user": "users", "group": "groups", "share": "shares"}
_LEVELS = ("none", "read", "write", "manage")
_FLAG = {"yes": True, "no": False}
_AUDIT_SHOWN = 200
_FIELDS: dict[str, dict[str, str]] = {
    "user-add": {"name": "text", "password": "password", "admin": "flag"},
    "user-set": {"name": "text", "password": "password", "admin": "flag", "enabled": "flag", "quota_bytes": "quota"},
    "user-remove": {"name": "text"},
    "group-add": {"name": "text"},
    "group-remove": {"name": "text"},
    "group-member": {"name": "text", "user": "text", "member": "flag"},
    "share-add": {"name": "text", "path": "text"},
    "share-set": {"name": "text", "public": "flag", "quota_bytes": "quota"},
    "share-remove": {"name": "text"},
    "share-permit": {"name": "text", "holder": "text", "level": "text"},
    "link-remove": {"id": "text"},
    "session-end": {"id": "text"},
    "sessions-end": {"name": "text"},
}
"""The orders that forms give, and how each of their fields is read."""


async def handle(service: Service, call: Call) -> web.Response:
    """Answer a request for the administrators' pages.

    Raises:
        FilesError: 401 or 403 for everybody else; 404 for a page that there is not.
    """
    if not service.accounts.exist:
        raise FilesError(404, "no_accounts")
    acting = service.accounts.guard(call.who)
    if call.who.kind is not Kind.USER:
        raise refusal("log_in")
    if acting is None or not acting.admin:
        raise FilesError(403, "admins_only")
    match call.request.method:
        case "GET" | "HEAD":
            return await _page(service, call)
        case "POST":
            return await _post(service, call)
    raise FilesError(405, "method", headers={"Allow": "GET, HEAD, POST"})


async def _post(service: Service, call: Call) -> web.Response:
    given = await gate.fields(call)
    gate.require_token(service, call, given)
    try:
        order = orders.parse(await _order(service, call.query.get("action", ""), given))
        copies = (await orders.execute(service, order, call.who, call))["copies"]
    except FilesError as error:
        return await _page(service, call, error)
    back = {"show": _after(call.query), "done": "account", "copies": str(copies)}
    if back["show"] in _ONE:
        back["name"] = call.query.get("name", "")
    return empty(303, {"Location": render.link(URL, call.query, **back), "Cache-Control": "no-store"})


def _after(query: dict[str, str]) -> str:
    """The page that comes after a form: the one it was on, but for what has been removed."""
    show = query.get("show", TABS[0])
    return _ONE.get(show, show) if query.get("action", "").endswith(("-remove", "-add")) else show


async def _order(service: Service, name: str, given: dict[str, str]) -> dict[str, Any]:
    """The order that a form stands for.

    Raises:
        FilesError: 400.
    """
    if (known := _FIELDS.get(name)) is None:
        raise FilesError(400, "form")
    order: dict[str, Any] = {"order": name}
    for field, kind in known.items():
        value = given.get(field, "").strip() if kind != "password" else given.get(field, "")
        if field not in given:
            continue
        if kind == "password":
            order[field] = await service.accounts.verifier.hash_of(value)
            if service.smb:
                order["nt"] = nt.nt_hash(value)
        elif kind == "flag":
            order[field] = _FLAG.get(value, False)
        elif kind == "quota":
            order[field] = _quota(value)
        else:
            order[field] = value
    return order


def _quota(value: str) -> int:
    if not value:
        return 0
    try:
        return parse_size_bytes(value.replace(",", "."))
    except BadUnit as error:
        raise FilesError(400, "quota_text", text=value[:40]) from error


async def _page(service: Service, call: Call, error: FilesError | None = None) -> web.Response:
    show = call.query.get("show", TABS[0])
    accounts, acting = service.accounts.policy.accounts, service.accounts.guard(call.who)
    assert accounts is not None, "asked above"
    assert acting is not None, "asked above"
    if show == "audit":
        context = await _audit(service, call)
    elif show in _PAGES:
        context = _PAGES[show](service, call, accounts)
    else:
        raise FilesError(404, "not_found")
    notice, risk = _notice(call, error)
    response = pages.answer(
        call,
        f"admin_{show}.html",
        200 if error is None else error.status,
        here=URL,
        here_query={key: call.query[key] for key in ("show", "name") if key in call.query},
        tabs=[(tab, text(call.language, f"tab_{tab}"), tab == _ONE.get(show, show)) for tab in TABS],
        show=show,
        token=acting.form_token(),
        me=call.who.name,
        notice=notice,
        risk=risk,
        **context,
    )
    response.headers["Cache-Control"] = "no-store"
    return response


def _notice(call: Call, error: FilesError | None) -> tuple[str, bool]:
    if error is not None:
        return error.sentence(call.language), True
    if call.query.get("done") != "account":
        return "", False
    single = call.query.get("copies") == "1"
    return text(call.language, "done_account_one" if single else "done_account"), single


# --- users and groups -------------------------------------------------------------------------------------------------


def limit_text(used: int | None, limit: int | None, language: str) -> str:
    """How much is used, and of how much."""
    if limit is None:
        return text(language, "quota_none")
    if used is None:
        return size_text(limit, language)
    return text(language, "quota_of", used=size_text(used, language), limit=size_text(limit, language))


def _used(service: Service, what: str, name: str) -> int | None:
    found = service.quotas.shown().get("used")
    return found[what].get(name, 0) if found is not None else None


def _user(service: Service, accounts: Accounts, user: User, language: str) -> dict[str, Any]:
    marks = (("mark_admin", user.admin), ("mark_disabled", not user.enabled))
    return {
        "name": user.name,
        "groups": sorted(group.name for group in accounts.groups.values() if user.name in group.members),
        "quota": limit_text(_used(service, "users", user.name), user.quota_bytes, language),
        "limit": size_text(user.quota_bytes, language) if user.quota_bytes is not None else "",
        "marks": ", ".join(text(language, code) for code, there in marks if there),
        "admin": user.admin,
        "enabled": user.enabled,
    }


def _users(service: Service, call: Call, accounts: Accounts) -> dict[str, Any]:
    return {"rows": [_user(service, accounts, accounts.users[name], call.language) for name in sorted(accounts.users)]}


def _one_user(service: Service, call: Call, accounts: Accounts) -> dict[str, Any]:
    if (user := accounts.users.get(call.query.get("name", ""))) is None:
        raise FilesError(404, "no_user", name=call.query.get("name", "")[:64])
    others = [name for name in sorted(accounts.groups) if user.name not in accounts.groups[name].members]
    return {"user": _user(service, accounts, user, call.language), "other_groups": others}


def _groups(_service: Service, _call: Call, accounts: Accounts) -> dict[str, Any]:
    return {"rows": [{"name": name, "members": accounts.groups[name].members} for name in sorted(accounts.groups)]}


def _one_group(_service: Service, call: Call, accounts: Accounts) -> dict[str, Any]:
    if (group := accounts.groups.get(call.query.get("name", ""))) is None:
        raise FilesError(404, "no_group", name=call.query.get("name", "")[:64])
    return {"group": group, "outside": [name for name in sorted(accounts.users) if name not in group.members]}


# --- shares, links, sessions, audit -----------------------------------------------------------------------------------


def _share(service: Service, share: Share, language: str) -> dict[str, Any]:
    return {
        "name": share.name,
        "path": "/" + "/".join(map(shown, share.path)),
        "url": url_of(share.path, folder=True),
        "grants": [(holder, level, text(language, f"level_{level}")) for holder, level in sorted(share.grants.items())],
        "public": share.public,
        "quota": limit_text(_used(service, "shares", share.name), share.quota_bytes, language),
        "limit": size_text(share.quota_bytes, language) if share.quota_bytes is not None else "",
    }


def _shares(service: Service, call: Call, accounts: Accounts) -> dict[str, Any]:
    found = sorted(accounts.shares.values(), key=lambda share: share.path)
    return {"rows": [_share(service, share, call.language) for share in found]}


def _one_share(service: Service, call: Call, accounts: Accounts) -> dict[str, Any]:
    if (share := accounts.shares.get(call.query.get("name", ""))) is None:
        raise FilesError(404, "no_share", name=call.query.get("name", "")[:64])
    return {
        "share": _share(service, share, call.language),
        "holders": [*sorted(accounts.users), *(f"@{name}" for name in sorted(accounts.groups))],
        "levels": [(level, text(call.language, f"level_{level}")) for level in _LEVELS],
    }


def _links(service: Service, call: Call, accounts: Accounts) -> dict[str, Any]:
    return {"links": sharing.rows(service, list(accounts.links.values()), call.language)}


def session_rows(service: Service, call: Call, user: str = "") -> list[dict[str, Any]]:
    """Sessions as a page shows them, the one used last first; those of one user, or all."""
    now_s, language = time.time(), call.language
    found = [
        (key, one)
        for key, one in service.seen.saved.sessions.items()
        if one.ends_s > now_s and (not user or one.user == user) and _holds(service.accounts.policy, key, one.user)
    ]
    return [
        {
            "id": key,
            "user": one.user,
            "address": one.address,
            "agent": one.agent,
            "last": date_text(one.last_s * 10**9, language),
            "ends": date_text(one.ends_s * 10**9, language),
            "mine": key == call.who.session,
        }
        for key, one in sorted(found, key=lambda pair: -pair[1].last_s)
    ]


def _holds(policy: Policy, session: str, user: str) -> bool:
    return policy.user(user) is not None and policy.accounts is not None and session not in policy.accounts.revoked


def _sessions(service: Service, call: Call, _accounts: Accounts) -> dict[str, Any]:
    return {"sessions": session_rows(service, call)}


def _moment(text: str) -> str:
    """A moment of the log, to the second and without the letters for programs; it is UTC, as the heading says."""
    return text[:19].replace("T", " ")


async def _audit(service: Service, call: Call) -> dict[str, Any]:
    wanted = {key: call.query.get(key, "").strip()[:200] for key in ("who", "what", "text")}
    await service.audit.flush()
    notes = await service.run(audit.tail, service.volume, _AUDIT_SHOWN, audit.Filter(**wanted))
    known = ("at", "who", "what", "from")
    rows = [
        {key: str(note.get(key, "")) for key in known}
        | {"at": _moment(str(note.get("at", "")))}
        | {"rest": " ".join(f"{key}={value}" for key, value in note.items() if key not in known and value is not None)}
        for note in reversed(notes)
    ]
    return {"rows": rows, "wanted": wanted, "most": _AUDIT_SHOWN}


_PAGES: dict[str, Callable[[Service, Call, Accounts], dict[str, Any]]] = {
    "users": _users,
    "user": _one_user,
    "groups": _groups,
    "group": _one_group,
    "shares": _shares,
    "share": _one_share,
    "links": _links,
    "sessions": _sessions,
}
