"""The first line of every permission: what a request wants is known, or it is refused.

`volume.py` asks again for each path it is given (`guard.py`). Here stands which ways in there are at all, so that one
that is added later and forgotten here is closed (403) on a volume with accounts, and not open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relevo.files import guard
from relevo.files.accounts.access import Kind, Verb
from relevo.files.accounts.keeper import refusal
from relevo.files.errors import FilesError
from relevo.files.urls import TUS, WORK_FOLDER

if TYPE_CHECKING:
    from relevo.files.accounts.model import ShareLink
    from relevo.files.http import Call

_BIN = (WORK_FOLDER, "bin")
_SHOWN = frozenset({"lang", "sort", "order", "from", "done", "n", "copies", "format", "download", "file"})
"""Fields of an address that change only how something is shown."""
_READ = {"zip": Verb.READ_TREE, "search": Verb.LIST, "preview": Verb.READ, "about": Verb.SEE}
_MANY = {**_READ, "delete": Verb.REMOVE, "share": Verb.MANAGE}
"""The same for those who came by the front, and may change things."""
_CHANGE = {"PUT": Verb.WRITE, "MKCOL": Verb.WRITE, "DELETE": Verb.REMOVE}
_FORMS = {
    "upload": Verb.LIST,  # what is written is asked for name by name
    "folder": Verb.LIST,
    "delete": Verb.SEE,
    "rename": Verb.LIST,
    "move": Verb.LIST,
    "copy": Verb.LIST,
    "zip": Verb.LIST,
    "ask": Verb.LIST,
    "share": Verb.MANAGE,
    "unshare": Verb.MANAGE,
}
_DAV = {
    "GET": Verb.SEE,
    "HEAD": Verb.SEE,
    "PROPFIND": Verb.SEE,
    "PUT": Verb.WRITE,
    "MKCOL": Verb.WRITE,
    "PROPPATCH": Verb.WRITE,
    "LOCK": Verb.WRITE,
    "UNLOCK": Verb.WRITE,
    "DELETE": Verb.REMOVE,
    "MOVE": Verb.REMOVE,
    "COPY": Verb.LIST,  # `tree.py` asks for what is really copied, and for the destination
}
_BIN_FORMS = frozenset({"restore", "purge", "empty"})


def admit(call: Call) -> None:
    """Refuse what no rule knows, and what whoever acts may not do at this place at all.

    Raises:
        FilesError: 401 or 403 (409: a share is there).
    """
    names, method = call.place.names, call.request.method
    if call.who.link is not None:
        _admit_by_link(call, call.who.link)
        return
    if names[: len(TUS)] == TUS:
        return  # each upload has its place and its owner: `tus.py` asks for both
    if names[: len(_BIN)] == _BIN:
        _admit_to_bin(call)
        return
    if call.place.reserved:
        raise FilesError(404 if method in {"GET", "HEAD", "OPTIONS"} else 403, "reserved")
    match method:
        case "OPTIONS":
            pass
        case "GET" | "HEAD":
            _look(call, _MANY)
        case "POST":
            _known(call, _SHOWN | {"action"})
            guard.require(_rule(_FORMS, call.query.get("action", "upload")), names)
        case _:
            _known(call, _SHOWN | {"recursive"})
            guard.require(_rule(_CHANGE, method), names)


def _look(call: Call, fields: dict[str, Verb]) -> None:
    """GET: each thing that is asked for needs its verb."""
    wanted = _known(call, _SHOWN | fields.keys())
    for verb in [fields[field] for field in fields if field in wanted] or [Verb.SEE]:
        guard.require(verb, call.place.names)


def _admit_by_link(call: Call, link: ShareLink) -> None:
    """Who came by a link looks and fetches, or puts files: nothing else, whatever its maker may do."""
    names, method = call.place.names, call.request.method
    if method == "OPTIONS":
        return
    if link.kind == "read" and not call.place.reserved:
        if method in {"GET", "HEAD"}:
            _look(call, _READ)
            return
        if method == "POST" and call.query.get("action") == "zip":
            _known(call, _SHOWN | {"action"})
            guard.require(Verb.LIST, names)
            return
    if link.kind == "drop":
        if names[: len(TUS)] == TUS:
            return
        _known(call, _SHOWN | {"action"})
        if names == link.path and method in {"GET", "HEAD"}:
            return  # the page with its form
        if names == link.path and method == "POST" and call.query.get("action", "upload") == "upload":
            guard.require(Verb.WRITE, (*names, "*"))
            return
    raise refusal("no_access")


def admit_to_dav(call: Call) -> None:
    """The same for WebDAV, where everybody says who they are: a client that is let in unasked never asks for a name.

    Raises:
        FilesError: 401 or 403 (409: a share is there).
    """
    method = call.request.method
    if method == "OPTIONS":  # asked before anything else, and without a name
        return
    if call.who.kind is not Kind.USER:
        raise refusal("log_in" if call.who.kind is Kind.ANONYMOUS else "no_access")
    _known(call, frozenset())
    guard.require(_rule(_DAV, method), call.place.names)


def _admit_to_bin(call: Call) -> None:
    """The bin is for users; each finds in it what they may put back (`bin.py`)."""
    if call.who.kind is not Kind.USER:
        raise refusal("log_in" if call.who.kind is Kind.ANONYMOUS else "no_access")
    _known(call, _SHOWN | {"action"})
    if call.request.method == "POST" and call.query.get("action", "") not in _BIN_FORMS:
        raise FilesError(403, "forbidden")


def _known(call: Call, fields: frozenset[str] | set[str]) -> frozenset[str]:
    """The fields of the address, all of which must be known."""
    given = frozenset(call.query)
    if not given <= fields:
        raise FilesError(403, "forbidden")
    return given


def _rule(rules: dict[str, Verb], what: str) -> Verb:
    if what not in rules:
        raise FilesError(403, "forbidden")
    return rules[what]
