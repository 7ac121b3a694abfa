"""The pages that people see: plain HTML, no script, readable with any browser, screen reader or colour scheme. Pure."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import hashlib
import urllib.parse
from collections.abc import Mapping
from html import escape

from relevo.base.units import format_bytes
from relevo.files import limits
from relevo.files.style import CSS, ICONS
from relevo.files.texts import LANGUAGES, text
from relevo.files.urls import quote, shown, url_of
from relevo.files.volume import Entry

_STYLE_HASH = base64.b64encode(hashlib.sha256(CSS.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_MONTHS = {
    "en": "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(),  # noqa: SIM905 - a list of words reads best as words
    "es": "ene feb mar abr may jun jul ago sep oct nov dic".split(),  # noqa: SIM905
}
_KEPT = ("lang", "sort", "order")
_DONE = {"stored": "done_stored", "created": "done_created", "deleted": "done_deleted"}


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """What one page of a listing shows.

    Attributes:
        names: the folder.
        entries: those on this page, sorted.
        first: number of the first of them, from 0.
        total: how many entries the folder has.
        folders: how many of all are folders.
        size_bytes: of all files together.
        by: `name`, `size` or `date`.
        descending: the order.
        language: `en` or `es`.
        query: the parameters of the address.
    """

    names: tuple[str, ...]
    entries: list[Entry]
    first: int
    total: int
    folders: int
    size_bytes: int
    by: str
    descending: bool
    language: str
    query: Mapping[str, str]


def link(url: str, query: Mapping[str, str], **more: str) -> str:
    """An address that keeps the reader's language and order, ready for an attribute."""
    parameters = {name: query[name] for name in _KEPT if name in query} | more
    return escape(url + ("?" + urllib.parse.urlencode(parameters) if parameters else ""))


def size_text(size_bytes: int, language: str) -> str:
    """A size as people write it in a language."""
    written = format_bytes(size_bytes)
    return written.replace(".", ",") if language == "es" else written


def date_text(mtime_ns: int, language: str) -> str:
    """A moment in the server's time zone: `23 Nov 2026, 11:07`."""
    moment = dt.datetime.fromtimestamp(mtime_ns // 1_000_000_000, dt.UTC).astimezone()
    return f"{moment.day} {_MONTHS[language][moment.month - 1]} {moment.year}, {moment:%H:%M}"


def _document(title: str, language: str, body: str) -> str:
    return (
        f'<!doctype html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n{ICONS}\n{body}\n</body>\n</html>\n"
    )


def _icon(name: str) -> str:
    return f'<svg class="icon {name}" aria-hidden="true"><use href="#i-{name}"/></svg>'


def _header(names: tuple[str, ...], language: str, query: Mapping[str, str], *, here: str) -> str:
    crumbs = []
    for count in range(len(names) + 1):
        label = escape(shown(names[count - 1])) if count else text(language, "root")
        if count == len(names):
            crumbs.append(f'<li><span aria-current="page">{label}</span></li>')
        else:
            crumbs.append(f'<li><a href="{link(url_of(names[:count], folder=True), query)}">{label}</a></li>')
    return (
        f'<header>\n<nav aria-label="{text(language, "where")}"><ol class="crumbs">{"".join(crumbs)}</ol></nav>\n'
        f"{_language_switch(language, query, here)}\n</header>"
    )


def _language_switch(language: str, query: Mapping[str, str], here: str) -> str:
    others = (
        f'<a lang="{other}" hreflang="{other}" href="{link(here, query, lang=other)}">{text(other, "lang_name")}</a>'
        for other in LANGUAGES
        if other != language
    )
    return f'<p class="languages">{" ".join(others)}</p>'


def listing_page(view: View) -> str:
    """The page of a folder."""
    language, here = view.language, url_of(view.names, folder=True)
    path = "/".join(shown(name) for name in view.names)
    title = text(language, "title", path=path) if path else text(language, "root")
    parts = [
        _header(view.names, language, view.query, here=here),
        "<main>",
        f'<h1 class="hidden">{escape(title)}</h1>',
        _notice(view.query, language),
        _forms(here, view.query, language),
        _table(view, here),
        _foot(view, here),
        "</main>",
    ]
    return _document(title, language, "\n".join(part for part in parts if part))


def _notice(query: Mapping[str, str], language: str) -> str:
    code = _DONE.get(query.get("done", ""))
    if code is None:
        return ""
    single = query.get("copies") == "1"
    count = query.get("n", "")
    number = min(int(count), 1_000_000) if count.isascii() and count.isdecimal() and len(count) < 8 else 1
    what = text(language, "done_one_file" if number == 1 else "done_many_files", n=number)
    if code == "done_stored" and single:
        code = "done_stored_one"
    kind = "notice risk" if single else "notice"
    return f'<p class="{kind}" role="status">{text(language, code, what=what)}</p>'


def _forms(here: str, query: Mapping[str, str], language: str) -> str:
    return (
        '<div class="forms">\n'
        f'<form method="post" enctype="multipart/form-data" action="{link(here, query, action="upload")}">\n'
        f'<label for="file">{text(language, "upload_label")}</label>\n'
        '<div class="row"><input id="file" type="file" name="file" multiple required>'
        f'<button class="main">{_icon("up")}{text(language, "upload")}</button></div>\n</form>\n'
        f'<form method="post" action="{link(here, query, action="folder")}">\n'
        f'<label for="name">{text(language, "new_folder_label")}</label>\n'
        '<div class="row"><input id="name" name="name" required maxlength="255" autocomplete="off">'
        f"<button>{_icon('plus')}{text(language, 'create')}</button></div>\n</form>\n</div>"
    )


def _heading(view: View, here: str, column: str) -> str:
    language = view.language
    current = view.by == column
    turned = "asc" if current and view.descending else "desc" if current else "asc"
    label = text(language, column)
    state = ' aria-sort="descending"' if view.descending else ' aria-sort="ascending"'
    arrow = f'<span class="arrow" aria-hidden="true">{"↓" if view.descending else "↑"}</span>' if current else ""
    url = link(here, view.query, sort=column, order=turned)
    hint = text(language, "sort_by", column=label.lower())
    return (
        f'<th scope="col" class="{column}"{state if current else ""}>'
        f'<a href="{url}" title="{escape(hint)}">{label}{arrow}</a></th>'
    )


def _table(view: View, here: str) -> str:
    language = view.language
    columns = "".join(_heading(view, here, column) for column in ("name", "size", "date"))
    rows = [_row(view, here, entry) for entry in view.entries]
    if view.names:
        parent = link(url_of(view.names[:-1], folder=True), view.query)
        rows.insert(
            0,
            f'<tr><td class="name"><a href="{parent}">{_icon("back")}<span>{text(language, "parent")}</span></a></td>'
            '<td class="size"></td><td class="date"></td><td class="act"></td></tr>',
        )
    if not view.entries:
        rows.append(f'<tr><td class="none" colspan="4">{text(language, "empty")}</td></tr>')
    return (
        f'<table>\n<thead><tr>{columns}<th scope="col" class="act"><span class="hidden">'
        f"{text(language, 'actions')}</span></th></tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody>\n</table>"
    )


def _row(view: View, here: str, entry: Entry) -> str:
    language, name = view.language, escape(shown(entry.name))
    url = here + quote(entry.name) + ("/" if entry.is_folder else "")
    opened = link(url, view.query) if entry.is_folder else escape(url)
    kind = "folder" if entry.is_folder else "file"
    asked = link(here + quote(entry.name), view.query, delete="ask")
    moment = dt.datetime.fromtimestamp(entry.mtime_ns // 1_000_000_000, dt.UTC)
    size = "" if entry.is_folder else size_text(entry.size_bytes, language)
    word = escape(text(language, "delete_named", name=shown(entry.name)))
    return (
        f'<tr><td class="name"><a href="{opened}">{_icon(kind)}<span class="hidden">{text(language, kind)}: </span>'
        f'<span>{name}</span></a></td><td class="size">{size}</td>'
        f'<td class="date"><time datetime="{moment:%Y-%m-%dT%H:%M:%SZ}">'
        f"{date_text(entry.mtime_ns, language)}</time></td>"
        f'<td class="act"><a class="delete" href="{asked}" aria-label="{word}" title="{word}">'
        f"{_icon('bin')}</a></td></tr>"
    )


def _foot(view: View, here: str) -> str:
    language, files = view.language, view.total - view.folders
    size = size_text(view.size_bytes, language)
    counts = []
    if view.folders:
        counts.append(text(language, "one_folder" if view.folders == 1 else "many_folders", n=view.folders))
    if files:
        counts.append(text(language, "one_file" if files == 1 else "many_files", n=files, size=size))
    parts = [f"<span>{' · '.join(counts)}</span>"] if counts else []
    last = view.first + len(view.entries)
    if view.first or last < view.total:
        parts.append(f"<span>{text(language, 'shown', first=view.first + 1, last=last, n=view.total)}</span>")
    if view.first:
        before = str(max(0, view.first - limits.LISTED_MAX))
        parts.append(f'<a rel="prev" href="{link(here, view.query, **{"from": before})}">{text(language, "newer")}</a>')
    if last < view.total:
        after = link(here, view.query, **{"from": str(last)})
        parts.append(f'<a rel="next" href="{after}">{text(language, "older")}</a>')
    return f'<p class="foot">{" ".join(parts)}</p>' if parts else ""


def delete_page(names: tuple[str, ...], entry: Entry, language: str, query: Mapping[str, str]) -> str:
    """The question before something is deleted."""
    parent, name = names[:-1], shown(entry.name)
    question = text(language, "delete_question", name=name)
    note = text(language, "delete_folder_note" if entry.is_folder else "delete_file_note")
    here = url_of(names, folder=False)
    kept = {key: value for key, value in query.items() if key in _KEPT}
    header = _header(parent, language, query, here=f"{here}?delete=ask").replace("?delete=ask?", "?delete=ask&amp;")
    body = (
        f'{header}\n<main class="box">\n<h1>{escape(question)}</h1>\n<p>{note}</p>\n'
        f'<form method="post" class="row" action="{link(here, kept, action="delete")}">'
        '<input type="hidden" name="confirmed" value="1">'
        f'<button class="danger">{text(language, "delete")}</button>'
        f'<a class="button" href="{link(url_of(parent, folder=True), kept)}">{text(language, "cancel")}</a>'
        "</form>\n</main>"
    )
    return _document(question, language, body)


def error_page(status: int, sentence: str, language: str) -> str:
    """A page that tells what did not work."""
    title = text(language, "error")
    body = (
        f'<main class="box">\n<h1>{title}</h1>\n<p>{escape(sentence)}</p>\n'
        f'<p><a class="button" href="/">{text(language, "back")}</a></p>\n<p class="code">{status}</p>\n</main>'
    )
    return _document(title, language, body)
