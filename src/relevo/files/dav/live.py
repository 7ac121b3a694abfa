"""The properties that the service itself knows (RFC 4918, 15; RFC 4331), and how things are described with them."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
from collections.abc import Callable, Iterable

from relevo.files import properties
from relevo.files.conditions import http_date
from relevo.files.dav import markup
from relevo.files.dav.ask import href
from relevo.files.dav.markup import DAV, Wanted, element, words
from relevo.files.entries import Entry
from relevo.files.kinds import content_type
from relevo.files.locks import Lock
from relevo.files.properties import Name, Properties
from relevo.files.urls import shown
from relevo.files.volume import Volume

Path = tuple[str, ...]
_OK, _MISSING = "200 OK", "404 Not Found"
_LOCKENTRY = "<D:lockentry><D:lockscope><D:{}/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>"
_SUPPORTED = _LOCKENTRY.format("exclusive") + _LOCKENTRY.format("shared")
_QUOTAS = frozenset({(DAV, "quota-available-bytes"), (DAV, "quota-used-bytes")})
"""Told when they are asked for by name only (RFC 4331, 2)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """A thing that is described.

    Attributes:
        names: its path.
        entry: what it is.
        locks: the locks on it.
        volume: where it lies; seconds left of a lock and free space are asked there.
        room: bytes that still fit there and bytes used, asked when they are wanted.
    """

    names: Path
    entry: Entry
    locks: list[Lock]
    volume: Volume
    room: Callable[[Path], tuple[int, int]]


def _created(it: Subject) -> str:
    # each upload is a new inode: what a file is was made when it was last written
    moment = dt.datetime.fromtimestamp(it.entry.mtime_ns / 1e9, dt.UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _type(it: Subject) -> str:
    return element((DAV, "collection")) if it.entry.is_folder else ""


def _display(it: Subject) -> str:
    return words(shown(it.names[-1])) if it.names else "Relevo"


def _discovery(it: Subject) -> str:
    return "".join(activelock(lock, it.volume.locks.left_s(lock)) for lock in it.locks)


_EVERYWHERE: dict[str, Callable[[Subject], str]] = {
    "creationdate": _created,
    "displayname": _display,
    "getlastmodified": lambda it: http_date(it.entry.mtime_ns // 1_000_000_000),
    "lockdiscovery": _discovery,
    "resourcetype": _type,
    "supportedlock": lambda _: _SUPPORTED,
}
_FILES: dict[str, Callable[[Subject], str]] = {
    "getcontentlength": lambda it: str(it.entry.size_bytes),
    "getcontenttype": lambda it: words(content_type(shown(it.entry.name))),
    "getetag": lambda it: words(it.entry.version.etag),
}
_FOLDERS: dict[str, Callable[[Subject], str]] = {
    "quota-available-bytes": lambda it: str(it.room(it.names)[0]),
    "quota-used-bytes": lambda it: str(it.room(it.names)[1]),
}
PROTECTED = frozenset((DAV, name) for name in {**_EVERYWHERE, **_FILES, **_FOLDERS}) - {(DAV, "displayname")}
"""What clients cannot change."""


def activelock(lock: Lock, left_s: int) -> str:
    """A DAV:activelock."""
    scope = "shared" if lock.shared else "exclusive"
    depth = "infinity" if lock.deep else "0"
    root = words(href(lock.names, folder=False))
    return (
        f"<D:activelock><D:locktype><D:write/></D:locktype><D:lockscope><D:{scope}/></D:lockscope>"
        f"<D:depth>{depth}</D:depth>{lock.owner}<D:timeout>Second-{left_s}</D:timeout>"
        f"<D:locktoken><D:href>{words(lock.token)}</D:href></D:locktoken>"
        f"<D:lockroot><D:href>{root}</D:href></D:lockroot></D:activelock>"
    )


def describe(it: Subject, said: Properties, wanted: Wanted) -> str:
    """The DAV:response about one thing.

    Args:
        it: the thing.
        said: what clients have said about it.
        wanted: what is asked.
    """
    known = _EVERYWHERE | (_FOLDERS if it.entry.is_folder else _FILES)
    names = {(DAV, name): None for name in known if (DAV, name) not in _QUOTAS} | dict.fromkeys(said)
    address = href(it.names, folder=it.entry.is_folder)
    if wanted.only_names:
        return markup.response(address, [(_OK, "".join(map(element, names)))])
    asked: Iterable[Name] = (
        dict.fromkeys(wanted.names) if not wanted.everything else {**names, **dict.fromkeys(wanted.names)}
    )
    found, missing = [], []
    for name in asked:
        if name in said:
            found.append(said[name])
        elif name[0] == DAV and name[1] in known:
            found.append(element(name, known[name[1]](it)))
        else:
            missing.append(element(name))
    parts = [(_OK, "".join(found))] if found or not missing else []
    return markup.response(address, parts + ([(_MISSING, "".join(missing))] if missing else []))


def describe_all(
    volume: Volume, folder: Path, entries: list[Entry], wanted: Wanted, room: Callable[[Path], tuple[int, int]]
) -> bytes:
    """The DAV:responses about some things of a folder (in a thread); of what is gone meanwhile nothing is said."""
    found = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), volume.folder(folder) as parent:
        for entry in entries:
            names = (*folder, entry.name)
            said = properties.decode(properties.raw(properties.beside(parent, entry.name)))
            subject = Subject(names, entry, volume.locks.covering(names), volume, room)
            found.append(describe(subject, said, wanted))
    return "".join(found).encode()
