"""Addresses: from the bytes of a request line to names below the root, and back: the first line of defence.

A path becomes a tuple of names; each is a plain name (never empty, `.`, `..`, with `/` or NUL). The second line of
defence is `volume.py`, which walks these names one by one and follows no link.

Everything here is pure but for one thing: while somebody looks at the volume through a share link, the addresses that
are made begin with that link (`through`), so that no page has to know by which way its reader came.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import os
import urllib.parse
from collections.abc import Iterator

from relevo.files.errors import FilesError
from relevo.files.limits import NAME_MAX_BYTES, PATH_MAX_BYTES

WORK_FOLDER = ".relevo"
"""At the root of the volume: what is being uploaded. On the wire: the service's own addresses."""
DAV_FOLDER = "dav"
"""Below this address WebDAV is spoken, so the root of the volume has no folder of this name."""
HIDDEN_AT_ROOT = frozenset({WORK_FOLDER, DAV_FOLDER, "lost+found"})
HEALTH = (WORK_FOLDER, "health")
TUS = (WORK_FOLDER, "tus")
_SAFE = "!$&'()*+,;=:@~-._"  # RFC 3986 pchar, so that names stay readable


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A path below the root.

    Attributes:
        names: the names on the way; undecodable bytes are kept as surrogates (`os.fsdecode`).
        slash: the address ended with `/`: a folder is meant.
    """

    names: tuple[str, ...]
    slash: bool

    @property
    def reserved(self) -> bool:
        """Whether it lies where users have no business: the work area and the file system's own folder."""
        return bool(self.names) and self.names[0] in HIDDEN_AT_ROOT

    def folder_url(self) -> str:
        """Its address as a folder."""
        return url_of(self.names, folder=True)


def split_target(target: str) -> tuple[str, str]:
    """Path and query of a request target in origin form or absolute form (RFC 9112, 3.2)."""
    if not target.startswith("/") and "://" in target:
        rest = target.split("://", 1)[1]
        slash = rest.find("/")
        target = rest[slash:] if slash >= 0 else "/"
    path, _, query = target.partition("?")
    return path.partition("#")[0], query.partition("#")[0]


def parse_path(path: str) -> Place:
    """The place that an undecoded path names. Repeated slashes count as one.

    Raises:
        FilesError: 400 for tricks (`..`, encoded separators, NUL), 414 for what is too long.
    """
    if not path.startswith("/"):
        raise FilesError(400, "bad_path")
    names = []
    for segment in path.split("/"):
        if segment:
            raw = urllib.parse.unquote_to_bytes(segment.encode("utf-8", "surrogateescape"))
            names.append(_checked(raw))
    if sum(len(os.fsencode(name)) + 1 for name in names) > PATH_MAX_BYTES:
        raise FilesError(414, "name_too_long", bytes=NAME_MAX_BYTES)
    return Place(tuple(names), path.endswith("/"))


def _checked(raw: bytes) -> str:
    if not raw or raw in {b".", b".."} or b"/" in raw or b"\0" in raw:
        raise FilesError(400, "bad_name")
    if len(raw) > NAME_MAX_BYTES:
        raise FilesError(414, "name_too_long", bytes=NAME_MAX_BYTES)
    return os.fsdecode(raw)


def check_new(names: tuple[str, ...]) -> None:
    """New names are valid UTF-8 without control characters; old ones may be whatever is on the disk.

    Raises:
        FilesError: 400, or 403 for a reserved place.
    """
    for name in names:
        if any(ord(char) < 0x20 or ord(char) == 0x7F or 0xD800 <= ord(char) <= 0xDFFF for char in name):
            raise FilesError(400, "bad_name")
        _checked(name.encode())
    if sum(len(name.encode()) + 1 for name in names) > PATH_MAX_BYTES:
        raise FilesError(414, "name_too_long", bytes=NAME_MAX_BYTES)
    if not names:
        raise FilesError(409, "is_folder")
    if names[0] in HIDDEN_AT_ROOT:
        raise FilesError(403, "reserved")


def name_in_form(name: str) -> str:
    """The file name of an upload form, to be checked by `check_new`: browsers may send a path of the user's machine.

    Raises:
        FilesError: nothing is left of it.
    """
    name = name.replace("\\", "/").rsplit("/", 1)[-1].strip()
    if not name:
        raise FilesError(400, "bad_name")
    return name


def relative_path(text: str) -> tuple[str, ...]:
    """The names of a path in an upload's metadata: plain text, `/` between names.

    Raises:
        FilesError: as `check_new`.
    """
    names = tuple(name for name in text.split("/") if name)
    if not names:
        raise FilesError(400, "bad_name")
    check_new(names)
    return names


def quote(name: str) -> str:
    """One name as a segment of an address."""
    return urllib.parse.quote(os.fsencode(name), safe=_SAFE)


@dataclasses.dataclass(frozen=True, slots=True)
class Door:
    """A share link that somebody came by.

    Attributes:
        names: what it opens; its reader sees nothing above.
        url: its address, without `/` at the end.
    """

    names: tuple[str, ...]
    url: str


_door: contextvars.ContextVar[Door | None] = contextvars.ContextVar("door", default=None)


@contextlib.contextmanager
def through(door: Door) -> Iterator[None]:
    """Addresses that are made while the body runs lead through a share link."""
    token = _door.set(door)
    try:
        yield
    finally:
        _door.reset(token)


def door() -> Door | None:
    """The share link that whoever asks came by; None: they came by the front."""
    return _door.get()


def home() -> str:
    """The address that a reader calls the beginning."""
    found = _door.get()
    return found.url if found is not None else "/"


def url_of(names: tuple[str, ...], *, folder: bool) -> str:
    """The address of names, as whoever asks may write it; what lies above a share link becomes the link itself."""
    found = _door.get()
    if found is None:
        begin = ""
    else:
        begin = found.url
        names = names[len(found.names) :] if names[: len(found.names)] == found.names else ()
    path = begin + "".join(f"/{quote(name)}" for name in names)
    return path + "/" if not path or (folder and (names or begin)) else path


def shown(name: str) -> str:
    """A name as it can be shown: undecodable bytes become the replacement character."""
    return os.fsencode(name).decode("utf-8", "replace")
