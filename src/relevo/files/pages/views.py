"""What a page of a folder shows, in words and addresses; the templates only put them in their places. Pure."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping
from typing import Any

from relevo.files import limits
from relevo.files.kinds import kind_of
from relevo.files.pages.render import crumbs, date_text, link, size_text
from relevo.files.texts import text
from relevo.files.urls import quote, shown, url_of
from relevo.files.volume import Entry

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
    by: str
    descending: bool
    language: str
    query: Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One line of a listing; every attribute is a text that the template escapes."""

    kind: str
    name: str
    item: str
    open: str
    delete: str
    size: str
    date: str
    stamp: str


def row(here: str, entry: Entry, language: str, query: Mapping[str, str]) -> Row:
    """The line of an entry of the folder whose address is `here`."""
    name, item = shown(entry.name), quote(entry.name)
    moment = dt.datetime.fromtimestamp(entry.mtime_ns // 1_000_000_000, dt.UTC)
    return Row(
        kind="folder" if entry.is_folder else kind_of(name),
        name=name,
        item=item,
        open=link(f"{here}{item}/", query) if entry.is_folder else here + item,
        delete=link(here + item, query, delete="ask"),
        size="" if entry.is_folder else size_text(entry.size_bytes, language),
        date=date_text(entry.mtime_ns, language),
        stamp=f"{moment:%Y-%m-%dT%H:%M:%SZ}",
    )


def notice(query: Mapping[str, str], language: str) -> tuple[str, bool]:
    """What the address says was just done, as a sentence (or nothing), and whether it is on one server only."""
    code = _DONE.get(query.get("done", ""))
    if code is None:
        return "", False
    single = query.get("copies") == "1"
    count = query.get("n", "")
    number = min(int(count), 1_000_000) if count.isascii() and count.isdecimal() and len(count) < 8 else 1
    what = text(language, "done_one_file" if number == 1 else "done_many_files", n=number)
    if code == "done_stored" and single:
        code = "done_stored_one"
    return text(language, code, what=what), single


def title_of(names: tuple[str, ...], language: str) -> str:
    """The title of a folder's page."""
    path = "/".join(shown(name) for name in names)
    return text(language, "title", path=path) if path else text(language, "root")


def _counts(view: View) -> list[str]:
    language, files = view.language, view.total - view.folders
    counts = []
    if view.folders:
        counts.append(text(language, "one_folder" if view.folders == 1 else "many_folders", n=view.folders))
    if files:
        counts.append(text(language, "one_file" if files == 1 else "many_files", n=files))
    return counts


def listing(view: View) -> dict[str, Any]:
    """The context of `listing.html`."""
    here, language, query = url_of(view.names, folder=True), view.language, view.query
    last = view.first + len(view.entries)
    before = str(max(0, view.first - limits.LISTED_MAX))
    told, risk = notice(query, language)
    return {
        "here": here,
        "title": title_of(view.names, language),
        "crumbs": crumbs(view.names, language),
        "parent": url_of(view.names[:-1], folder=True) if view.names else "",
        "rows": [row(here, entry, language, query) for entry in view.entries],
        "by": view.by,
        "descending": view.descending,
        "counts": _counts(view),
        "range": text(language, "shown", first=view.first + 1, last=last, n=view.total),
        "before": link(here, query, **{"from": before}) if view.first else "",
        "after": link(here, query, **{"from": str(last)}) if last < view.total else "",
        "notice": told,
        "risk": risk,
    }


def deletion(names: tuple[str, ...], entry: Entry, language: str) -> dict[str, Any]:
    """The context of `delete.html`."""
    return {
        "here": url_of(names, folder=False),
        "here_query": {"delete": "ask"},
        "crumbs": crumbs(names[:-1], language),
        "question": text(language, "delete_question", name=shown(entry.name)),
        "note": text(language, "delete_folder_note" if entry.is_folder else "delete_file_note"),
        "parent": url_of(names[:-1], folder=True),
    }
