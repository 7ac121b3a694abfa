"""What a page of a folder shows, in words and addresses; the templates only put them in their places.

Pure, but for whoever asks: addresses are written for them (`urls.through`), and the guard says what they may do.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping
from typing import Any

from relevo.files import guard, limits
from relevo.files.accounts.access import Kind, Verb
from relevo.files.bin import Binned
from relevo.files.entries import Entry
from relevo.files.kinds import SHOWN, content_type, kind_of
from relevo.files.pages.render import crumbs, date_text, link, size_text
from relevo.files.texts import text
from relevo.files.urls import door, quote, shown, url_of

_DONE = {
    "stored": "done_stored",
    "created": "done_created",
    "deleted": "done_deleted",
    "discarded": "done_discarded",
    "moved": "done_moved",
    "copied": "done_copied",
    "restored": "done_restored",
    "purged": "done_deleted",
}
BIN_URL = "/.relevo/bin/"


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
    where: str
    item: str
    open: str
    about: str
    size: str
    date: str
    stamp: str


def open_url(url: str, kind: str, query: Mapping[str, str]) -> str:
    """Where a click on a name leads: into a folder, to a preview, or to the file itself."""
    if kind == "folder":
        return link(url + "/", query)
    return link(url, query, preview="1") if kind in SHOWN else url + "?download=1"


def row(here: str, entry: Entry, language: str, query: Mapping[str, str], where: str = "") -> Row:
    """The line of an entry of the folder whose address is `here`."""
    name, item = shown(entry.name), quote(entry.name)
    moment = dt.datetime.fromtimestamp(entry.mtime_ns // 1_000_000_000, dt.UTC)
    kind = "folder" if entry.is_folder else kind_of(name)
    return Row(
        kind=kind,
        name=name,
        where=where,
        item=item,
        open=open_url(here + item, kind, query),
        about=link(here + item, query, about="1"),
        size="" if entry.is_folder else size_text(entry.size_bytes, language),
        date=date_text(entry.mtime_ns, language),
        stamp=f"{moment:%Y-%m-%dT%H:%M:%SZ}",
    )


def found_row(top: tuple[str, ...], way: tuple[str, ...], entry: Entry, language: str, query: Mapping[str, str]) -> Row:
    """The line of something that a search below the folder `top` found."""
    folder = (*top, *way[:-1])
    return row(url_of(folder, folder=True), entry, language, query, "/".join(shown(name) for name in way[:-1]))


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


def _is_top(names: tuple[str, ...]) -> bool:
    """Whether a path is what a share link opens: its reader goes no higher."""
    found = door()
    return found is not None and found.names == names


def title_of(names: tuple[str, ...], language: str) -> str:
    """The title of a folder's page."""
    found = door()
    if found is not None:  # of a link's own path only the last name is told
        names = names[max(0, len(found.names) - 1) :]
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
        "parent": url_of(view.names[:-1], folder=True) if view.names and not _is_top(view.names) else "",
        "rows": [row(here, entry, language, query) for entry in view.entries],
        "by": view.by,
        "descending": view.descending,
        "counts": _counts(view),
        "range": text(language, "shown", first=view.first + 1, last=last, n=view.total),
        "before": link(here, query, **{"from": before}) if view.first else "",
        "after": link(here, query, **{"from": str(last)}) if last < view.total else "",
        "notice": told,
        "risk": risk,
        "bin_url": BIN_URL,
        "may": may_do(view.names),
        "may_write": guard.may(Verb.WRITE, (*view.names, "*")),
    }


def search(names: tuple[str, ...], wanted: str, language: str) -> dict[str, Any]:
    """The context of `search.html`."""
    return {
        "here": url_of(names, folder=True),
        "here_query": {"search": wanted},
        "crumbs": crumbs(names, language),
        "wanted": wanted,
        "title": text(language, "search_title", wanted=wanted, folder=title_of(names, language)),
    }


def _facts(entry: Entry, language: str) -> list[tuple[str, str]]:
    kind = text(language, "folder") if entry.is_folder else content_type(shown(entry.name)).partition(";")[0]
    facts = [(text(language, "kind"), kind), (text(language, "date"), date_text(entry.mtime_ns, language))]
    return facts if entry.is_folder else [(text(language, "size"), size_text(entry.size_bytes, language)), *facts]


def about(names: tuple[str, ...], entry: Entry, language: str, query: Mapping[str, str]) -> dict[str, Any]:
    """The context of `about.html`: what can be done with one file or folder."""
    url = url_of(names, folder=False)
    kind = "folder" if entry.is_folder else kind_of(shown(entry.name))
    return {
        "here": url,
        "here_query": {"about": "1"},
        "crumbs": crumbs(names[:-1], language),
        "folder": url_of(names[:-1], folder=True),
        "folder_path": "/" + "/".join(shown(name) for name in names[:-1]),
        "name": shown(entry.name),
        "item": quote(entry.name),
        "kind": kind,
        "facts": _facts(entry, language),
        "shown": open_url(url, kind, query) if entry.is_folder or kind in SHOWN else "",
        "download": f"{url.rstrip('/')}/?zip=1" if entry.is_folder else f"{url}?download=1",
        "may": may_do(names),
    }


@dataclasses.dataclass(frozen=True, slots=True)
class May:
    """What whoever looks may do with something: a page offers nothing that is refused.

    Attributes:
        remove: delete it, give it another name or place.
        fetch: have all of it.
        duplicate: copy it to some place.
        share: make links to it.
        restore: they have a bin.
    """

    remove: bool
    fetch: bool
    duplicate: bool
    share: bool
    restore: bool


def may_do(names: tuple[str, ...]) -> May:
    """What whoever looks may do with something."""
    acting = guard.current()
    user, fetch = acting is None or acting.who.kind is Kind.USER, guard.may(Verb.READ_TREE, names)
    return May(
        remove=bool(names) and guard.may(Verb.REMOVE, names),
        fetch=fetch,
        duplicate=user and fetch,
        share=acting is not None and user and guard.may(Verb.MANAGE, names),
        restore=user,
    )


def preview(names: tuple[str, ...], entry: Entry, kind: str, language: str, query: Mapping[str, str]) -> dict[str, Any]:
    """The context of `preview.html`, but for the text of a text file."""
    return {
        **about(names, entry, language, query),
        "here_query": {"preview": "1"},
        "shown_as": kind,
        "cut": kind == "text" and entry.size_bytes > limits.PREVIEW_TEXT_BYTES,
        "source": url_of(names, folder=False) + ("?file=1" if _is_top(names) else ""),
        "about_url": link(url_of(names, folder=False), query, about="1"),
    }


def bin_page(
    found: list[Binned], first: int, total: int, expiry_ms: int, language: str, query: Mapping[str, str]
) -> dict[str, Any]:
    """The context of `bin.html`."""
    told, risk = notice(query, language)
    last = first + limits.LISTED_MAX
    rows = [
        {
            "id": one.id,
            "kind": "folder" if one.record.folder else kind_of(shown(one.record.names[-1])),
            "name": shown(one.record.names[-1]),
            "from": "/" + "/".join(shown(name) for name in one.record.names[:-1]),
            "size": "" if one.record.folder else size_text(one.record.size_bytes, language),
            "deleted": date_text(one.deleted_ms * 1_000_000, language),
            "expires": date_text((one.deleted_ms + expiry_ms) * 1_000_000, language),
        }
        for one in found
    ]
    return {
        "here": BIN_URL,
        "rows": rows,
        "notice": told,
        "risk": risk,
        "total": total,
        "days": max(1, round(expiry_ms / 86_400_000)),
        "range": text(language, "shown", first=first + 1, last=min(last, total), n=total),
        "before": link(BIN_URL, query, **{"from": str(max(0, first - limits.LISTED_MAX))}) if first else "",
        "after": link(BIN_URL, query, **{"from": str(last)}) if last < total else "",
    }


def ask(names: tuple[str, ...], action: str, items: list[str], language: str, *, keeps: bool) -> dict[str, Any]:
    """The context of `ask.html`: what is about to be done with several things of a folder.

    Args:
        names: the folder.
        action: `delete`, `move` or `copy`.
        items: their names.
        language: `en` or `es`.
        keeps: there is a bin.
    """
    code = "ask_delete_for_good" if action == "delete" and not keeps else f"ask_{action}"
    return {
        "here": url_of(names, folder=True),
        "crumbs": crumbs(names, language),
        "action": action,
        "items": [(quote(name), shown(name)) for name in items],
        "question": text(language, f"ask_{action}_title", n=len(items)),
        "note": text(language, code),
        "path": "/" + "/".join(shown(name) for name in names),
    }


def deletion(names: tuple[str, ...], entry: Entry, language: str, *, keeps: bool) -> dict[str, Any]:
    """The context of `delete.html`."""
    return {
        "here": url_of(names, folder=False),
        "here_query": {"delete": "ask"},
        "crumbs": crumbs(names[:-1], language),
        "question": text(language, "delete_question", name=shown(entry.name)),
        "note": text(
            language, "discard_note" if keeps else "delete_folder_note" if entry.is_folder else "delete_file_note"
        ),
        "parent": url_of(names[:-1], folder=True),
    }
