"""The way in by a share link: `/.relevo/link/SECRET/…` shows what the link names, or takes files and shows nothing.

The secret is 192 random bits; only its SHA-256 is kept. What is asked for below is answered by the same handlers as
everything else, as whoever came by the link (`access.Kind.LINK`), with addresses that lead through it (`urls.through`).
A link that is unknown, over, revoked, or of something that is gone gets one and the same answer.

With a password: a form sets a cookie for this link alone; programs send it by HTTP Basic, with any user name.
"""

from __future__ import annotations

import dataclasses
import hmac
import time
from typing import TYPE_CHECKING

from aiohttp import web

from relevo.files import guard, pages
from relevo.files.accounts import changes, gate, identity, tokens
from relevo.files.accounts.access import Kind, Policy, Who
from relevo.files.accounts.keeper import CHALLENGE
from relevo.files.accounts.model import ShareLink
from relevo.files.errors import FilesError
from relevo.files.http import Call, empty
from relevo.files.kinds import SHOWN, kind_of
from relevo.files.pages import render, views
from relevo.files.texts import text
from relevo.files.urls import TUS, WORK_FOLDER, Door, Place, home, quote, shown, url_of

if TYPE_CHECKING:
    from relevo.files.service import Service

PLACE = (WORK_FOLDER, "link")
COOKIE = "relevo_link"
SECRET_BYTES = 24
_LOOKS = frozenset({"GET", "HEAD"})


def url_for(secret: str) -> str:
    """The address of a link, from the root."""
    return f"/{'/'.join(PLACE)}/{quote(secret)}"


def _gone() -> FilesError:
    return FilesError(404, "link_gone")


def find(policy: Policy, secret: str, now_s: float) -> ShareLink:
    """The link that a secret opens.

    Raises:
        FilesError: 404, there is none, or its time is over, or its maker may not give such links any more.
    """
    if policy.accounts is None:
        raise _gone()
    digest = changes.digest_of(secret)
    link = policy.accounts.links.get(digest[: changes.LINK_ID_DIGITS])
    if link is None or not hmac.compare_digest(link.digest, digest) or changes.expired(link, now_s):
        raise _gone()
    if policy.user(link.creator) is None:
        raise _gone()
    return link


def enter(policy: Policy, call: Call, now_s: float) -> tuple[Call, Door]:
    """The call that a request by a link is, as somebody who came by it; and the door they came through.

    Raises:
        FilesError: 404.
    """
    names = call.place.names[len(PLACE) :]
    if not names:
        raise _gone()
    link, rest = find(policy, names[0], now_s), names[1:]
    way = rest if rest[: len(TUS)] == TUS else (*link.path, *rest)
    place = Place(way, call.place.slash)
    return dataclasses.replace(call, place=place, who=Who(Kind.LINK, link.id, link)), Door(link.path, url_for(names[0]))


async def prepare(service: Service, call: Call) -> web.Response | None:
    """What comes before the answer itself: the password, and whether what the link names is still there.

    Returns:
        The answer, when this is already one: the question for the password.

    Raises:
        FilesError: 401, 403, 404 or 429.
    """
    link = call.who.link
    assert link is not None, "they came by a link"
    if link.password and not await _proven(service, call, link):
        return await _password(service, call, link)
    with guard.acting(None):  # whoever takes files into a folder may not even see that it is there
        entry = await service.run(service.volume.look, link.path)
    if entry is None or (link.kind == "drop" and not entry.is_folder):
        raise _gone()
    if call.request.method == "POST" and call.query.get("action") == "open":
        return empty(303, {"Location": home(), "Cache-Control": "no-store"})  # there is no password any more
    return None


async def beginning(service: Service, call: Call) -> web.Response | None:
    """The page of the link itself, where that is not simply what it names; None: it is.

    A drop link has a form. A person who opens the link of a single file gets a page about it, not its bytes.
    """
    link = call.who.link
    assert link is not None, "they came by a link"
    if call.request.method not in _LOOKS or call.place.names != link.path:
        return None
    if link.kind == "drop":
        service.seen.link(link.id, opened=1)
        return _drop_page(call, link)
    if call.query.keys() & {"preview", "about", "download", "file"} or not call.wants_html:
        return None
    entry = await service.run(service.volume.look, link.path)
    if entry is None or entry.is_folder:
        return None
    word = "preview" if kind_of(shown(entry.name)) in SHOWN else "about"
    return empty(303, {"Location": render.link(home(), call.query, **{word: "1"}), "Cache-Control": "no-store"})


def _drop_page(call: Call, link: ShareLink) -> web.Response:
    told, risk = views.notice(call.query, call.language)
    name = shown(link.path[-1]) if link.path else text(call.language, "root")
    here = url_of(link.path, folder=True)
    response = pages.answer(call, "drop.html", here=here, name=name, notice=told, risk=risk)
    response.headers["Cache-Control"] = "no-store"
    return response


# --- passwords --------------------------------------------------------------------------------------------------------


async def _proven(service: Service, call: Call, link: ShareLink) -> bool:
    """Whether they have shown that they know the password: by the cookie, or with this request.

    Raises:
        FilesError: 401 or 429, it is wrong.
    """
    cookie = call.request.cookies.get(COOKIE, "")
    if tokens.has_opened(service.accounts.policy, link.id, link.password, cookie, time.time()):
        return True
    if (field := call.request.headers.get("Authorization")) is None:
        return False
    _, password = identity.basic(field)
    if not await identity.opens(service.accounts, call.request, call.who.label, link.password, password):
        service.audit.note(call.who.label, "link_password_wrong", call)
        raise FilesError(401, "bad_link_password", headers={"WWW-Authenticate": CHALLENGE})
    return True


async def _password(service: Service, call: Call, link: ShareLink) -> web.Response:
    """Ask a person for the password, or take it.

    Raises:
        FilesError: 401, a program asks without one.
    """
    if not call.wants_html:
        raise FilesError(401, "link_password", headers={"WWW-Authenticate": CHALLENGE})
    if call.request.method != "POST" or call.query.get("action") != "open":
        return _question(call)
    given = await gate.fields(call)
    keeper = service.accounts
    try:
        right = await identity.opens(keeper, call.request, call.who.label, link.password, given.get("password", ""))
    except FilesError as error:
        if error.status != 429:
            raise
        return _question(call, 429, error.sentence(call.language), error.headers)
    if not right:
        service.audit.note(call.who.label, "link_password_wrong", call)
        return _question(call, 403, text(call.language, "bad_link_password"))
    word = tokens.opened(keeper.policy, link.id, link.password, time.time())
    cookie = identity.cookie(call.request, COOKIE, word, max_age_s=tokens.LINK_S, path=home())
    return empty(303, {"Location": render.link(home(), call.query), "Cache-Control": "no-store", "Set-Cookie": cookie})


def _question(call: Call, status: int = 401, sentence: str = "", more: dict[str, str] | None = None) -> web.Response:
    response = pages.answer(call, "link_password.html", status, here=home(), sentence=sentence)
    response.headers["Cache-Control"] = "no-store"
    response.headers.update(more or {})
    return response


# --- counting ---------------------------------------------------------------------------------------------------------


def count(service: Service, call: Call, response: web.StreamResponse) -> None:
    """Count what a link was used for, and note what was fetched by it; what was put is noted where it is stored."""
    link = call.who.link
    assert link is not None, "they came by a link"
    if call.request.method == "HEAD" or response.status not in {200, 206}:
        return
    if "Content-Disposition" in response.headers:
        if response.headers.get("Content-Range", "bytes 0-").startswith("bytes 0-"):  # not each part of one download
            service.seen.link(link.id, fetched=1)
            path = "/" + "/".join(shown(name) for name in call.place.names)
            service.audit.note(call.who.label, "link_fetch", call, path=path, by=link.creator)
    elif call.request.method == "GET" and call.place.names == link.path:
        service.seen.link(link.id, opened=1)
