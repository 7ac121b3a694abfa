"""From a template to an answer: language, links, the policy that forbids foreign scripts, compression."""

from __future__ import annotations

import datetime as dt
import functools
import pathlib
import secrets
import urllib.parse
from collections.abc import Mapping
from typing import Any

import jinja2
from aiohttp import web

from relevo.base.units import format_bytes
from relevo.files import guard
from relevo.files.accounts.access import Kind
from relevo.files.http import COMMON_HEADERS, Call, lasting_tls
from relevo.files.pages import assets
from relevo.files.texts import LANGUAGES, text
from relevo.files.urls import door, home, shown, url_of

KEPT = ("lang", "sort", "order")
"""Parameters that links keep."""
_MONTHS = {
    "en": "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(),  # noqa: SIM905 - a list of words reads best as words
    "es": "ene feb mar abr may jun jul ago sep oct nov dic".split(),  # noqa: SIM905
}
_PACK_LEVEL = 4
_PACK_FROM_BYTES = 1400
"""What fits into one packet is not compressed."""


@functools.cache
def _templates() -> jinja2.Environment:
    """The templates, all compiled; a word that a template misses is an error, not a gap."""
    loader = jinja2.FileSystemLoader(pathlib.Path(__file__).parent / "templates")
    made = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.globals["asset"] = assets.url
    for name in made.list_templates():
        made.get_template(name)
    return made


def size_text(size_bytes: int, language: str) -> str:
    """A size as people write it in a language."""
    written = format_bytes(size_bytes)
    return written.replace(".", ",") if language == "es" else written


def date_text(mtime_ns: int, language: str) -> str:
    """A moment in the server's time zone: `23 Nov 2026, 11:07`."""
    moment = dt.datetime.fromtimestamp(mtime_ns // 1_000_000_000, dt.UTC).astimezone()
    return f"{moment.day} {_MONTHS[language][moment.month - 1]} {moment.year}, {moment:%H:%M}"


def link(url: str, query: Mapping[str, str], **more: str) -> str:
    """An address that keeps the reader's language and order; templates escape it."""
    parameters = {name: query[name] for name in KEPT if name in query} | more
    return url + ("?" + urllib.parse.urlencode(parameters) if parameters else "")


def crumbs(names: tuple[str, ...], language: str) -> list[tuple[str, str]]:
    """Label and address of each folder on the way to one."""
    labels = [text(language, "root"), *(shown(name) for name in names)]
    found = door()
    first = 0 if found is None else len(found.names)
    return [(label, url_of(names[:count], folder=True)) for count, label in enumerate(labels) if count >= first]


def _account() -> dict[str, Any] | None:
    """Who is logged in, for the bar of a page; None: there are no accounts."""
    if (acting := guard.current()) is None or acting.who.kind is Kind.LINK:
        return None
    logged_in = acting.who.kind is Kind.USER
    url = "/.relevo/account" if logged_in else "/.relevo/login"
    return {"name": acting.who.name if logged_in else "", "admin": acting.admin, "url": url}


def document(template: str, language: str, query: Mapping[str, str], nonce: str, **context: Any) -> str:
    """The text of a page.

    Args:
        template: its file name.
        language: `en` or `es`.
        query: the parameters of the address; links keep some of them.
        nonce: what scripts of this answer carry.
        context: what the template asks for. Known to `base.html`: `here` (the page's own address, so that it can be
            had in the other language), `here_query` (parameters it needs).
    """

    def say(code: str, **params: object) -> str:
        return text(language, code, **params)

    def link_to(url: str, **more: str) -> str:
        return link(url, query, **more)

    def other_language(other: str) -> str:
        needed = {**context.get("here_query", {}), "lang": other}
        return link(context.get("here", home()), query, **needed)

    known = {
        "language": language,
        "others": [
            (other, text(other, "lang_name"), other_language(other)) for other in LANGUAGES if other != language
        ],
        "t": say,
        "link": link_to,
        "nonce": nonce,
        "query": query,
        "here": "",
        "home": home(),
        "account": _account(),
    }
    return _templates().get_template(template).render({**known, **context})


def fragment(template: str, language: str, **context: Any) -> str:
    """A part of a page that is sent in parts."""

    def say(code: str, **params: object) -> str:
        return text(language, code, **params)

    return _templates().get_template(template).render({"t": say, "language": language, **context})


def policy(nonce: str) -> str:
    """The Content-Security-Policy of our pages: only what we sent ourselves acts, whatever a file's name contains."""
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self'; img-src 'self' data: blob:; "
        "media-src 'self'; frame-src 'self'; connect-src 'self'; worker-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    )


def new_nonce() -> str:
    """A word that scripts of one answer carry, and that nobody can guess."""
    return secrets.token_urlsafe(16)


def headers_for(language: str, nonce: str) -> dict[str, str]:
    """The fields of every page."""
    return {
        **COMMON_HEADERS,
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": policy(nonce),
        "Content-Language": language,
        "Referrer-Policy": "same-origin",  # with no-referrer a form without script is sent with `Origin: null`
        "Cache-Control": "no-cache",
        "Vary": "Accept, Accept-Language, Accept-Encoding",
    }


def takes_gzip(request: web.BaseRequest) -> bool:
    """Whether the client unpacks gzip (a refusal by `q=0` is not worth a parser: nobody sends it)."""
    return "gzip" in request.headers.get("Accept-Encoding", "").lower()


def packed(request: web.BaseRequest, body: bytes, headers: dict[str, str]) -> tuple[bytes, dict[str, str]]:
    """The body, compressed if the client wants that and it is worth it, and its fields."""
    if len(body) < _PACK_FROM_BYTES or not takes_gzip(request):
        return body, headers
    return assets.pack(body, _PACK_LEVEL), {**headers, "Content-Encoding": "gzip"}


def answer(call: Call, template: str, status: int = 200, **context: Any) -> web.Response:
    """A page as the answer to a call; `context` as for `document`."""
    nonce = new_nonce()
    body = document(template, call.language, call.query, nonce, **context).encode()
    known = headers_for(call.language, nonce) | lasting_tls(call.request)
    body, headers = packed(call.request, body, known)
    return web.Response(status=status, headers=headers, body=body)
