"""What every method of WebDAV needs from a request: its conditions, other addresses in it, its XML."""

from __future__ import annotations

import dataclasses
import re
import urllib.parse

from aiohttp import web

from relevo.files import guard
from relevo.files.accounts.access import Verb
from relevo.files.dav import ifheader
from relevo.files.entries import Condition, Entry
from relevo.files.errors import FilesError
from relevo.files.http import Call, body_pieces, go_on
from relevo.files.limits import DAV_XML_MAX_BYTES, LOCK_DEFAULT_S, LOCK_MAX_S
from relevo.files.urls import DAV_FOLDER, Place, parse_path, split_target, url_of
from relevo.files.volume import Volume

ROOT = (DAV_FOLDER,)
_SECONDS = re.compile(r"Second-([0-9]{1,12})", re.IGNORECASE)
_PORTS = re.compile(r":(80|443)$")


def href(names: tuple[str, ...], *, folder: bool) -> str:
    """The address of something below /dav/."""
    return url_of((*ROOT, *names), folder=folder)


def inside(place: Place) -> Place:
    """The place on the volume that an address below /dav/ means."""
    assert place.names[:1] == ROOT, "the application has looked"
    return Place(place.names[1:], place.slash)


def place_of(request: web.BaseRequest, uri: str) -> Place | None:
    """The place that an address in a field means; None: it is another server's, or not below /dav/.

    Raises:
        FilesError: 400, it is a trick.
    """
    if "#" in uri:
        raise FilesError(400, "bad_path")
    if not uri.startswith("/"):
        scheme, _, rest = uri.partition("://")
        host = rest.partition("/")[0].rpartition("@")[2]
        if scheme.lower() not in {"http", "https"} or _host(host) != _host(request.headers.get("Host", "")):
            return None
    elif uri.startswith("//"):
        return None
    place = parse_path(split_target(uri)[0])
    return inside(place) if place.names[:1] == ROOT else None


def _host(text: str) -> str:
    """A host without the port that goes without saying (a proxy may have taken TLS off)."""
    return _PORTS.sub("", text.lower())


def destination(request: web.BaseRequest) -> Place:
    """Where a COPY or MOVE goes to.

    Raises:
        FilesError: 400 no such field, 502 another server.
    """
    field = request.headers.get("Destination")
    if field is None:
        raise FilesError(400, "dav_destination")
    place = place_of(request, urllib.parse.quote(field.strip(), safe="/:@!$&'()*+,;=~-._%?#[]"))
    if place is None:
        raise FilesError(502, "dav_elsewhere")
    if place.reserved:
        raise FilesError(403, "reserved")
    return place


def overwrite(request: web.BaseRequest) -> bool:
    """Whether what is at the destination is replaced.

    Raises:
        FilesError: 400.
    """
    field = request.headers.get("Overwrite", "T").strip().upper()
    if field not in {"T", "F"}:
        raise FilesError(400, "dav_field", field="Overwrite")
    return field == "T"


def depth(request: web.BaseRequest, allowed: tuple[str, ...], missing: str = "infinity") -> str:
    """The Depth field.

    Raises:
        FilesError: 400.
    """
    found = request.headers.get("Depth", missing).strip().lower()
    if found not in allowed:
        raise FilesError(400, "dav_field", field="Depth")
    return found


def timeout_s(request: web.BaseRequest) -> int:
    """How long a lock is to hold: the first wish that is understood, within our bound."""
    for wish in request.headers.get("Timeout", "").split(","):
        if wish.strip().lower() == "infinite":
            return LOCK_MAX_S
        if (match := _SECONDS.fullmatch(wish.strip())) is not None:
            return max(1, min(int(match[1]), LOCK_MAX_S))
    return LOCK_DEFAULT_S


async def xml_body(request: web.BaseRequest) -> bytes:
    """A body that is XML, or nothing.

    Raises:
        FilesError: 413, and what `body_pieces` raises.
    """
    if not request.can_read_body:
        return b""
    await go_on(request)
    body = b""
    async for piece in body_pieces(request):
        body += piece
        if len(body) > DAV_XML_MAX_BYTES:
            raise FilesError(413, "dav_large", headers={"Connection": "close"})
    return body


@dataclasses.dataclass(frozen=True, slots=True)
class Conditions:
    """The If field of a request, with the places of its tags.

    Attributes:
        groups: its lists; empty: there is no such field.
        places: what the tags mean; one that is not ours is missing.
        here: the place of the request.
    """

    groups: tuple[ifheader.Group, ...]
    places: dict[str, tuple[str, ...]]
    here: tuple[str, ...]

    @property
    def tokens(self) -> frozenset[str]:
        """What is submitted."""
        return ifheader.tokens(self.groups)

    def check(self, volume: Volume) -> Condition:
        """The condition for a change: that the field holds in that moment (in a thread)."""

        def holds(entry: Entry | None) -> None:
            if self.groups and not ifheader.holds(self.groups, lambda tag: self._state(volume, tag, entry)):
                raise FilesError(412, "precondition")

        return holds

    def require(self, volume: Volume) -> None:
        """Refuse if the field does not hold now (in a thread).

        Raises:
            FilesError: 412.
        """
        if self.groups:
            self.check(volume)(_look(volume, self.here))

    def _state(self, volume: Volume, tag: str, here: Entry | None) -> ifheader.State:
        names = self.places.get(tag) if tag else self.here
        if names is None:
            return ifheader.State()
        entry = here if names == self.here else _look(volume, names)
        etag = entry.version.etag if entry is not None and not entry.is_folder else ""
        return ifheader.State(etag, frozenset(lock.token for lock in volume.locks.covering(names)))


def _look(volume: Volume, names: tuple[str, ...]) -> Entry | None:
    """What is there, as far as whoever acts may know."""
    if not guard.may(Verb.SEE, names):
        return None
    try:
        return volume.look(names)
    except (FilesError, FileNotFoundError, NotADirectoryError):
        return None


def conditions(call: Call) -> Conditions:
    """The If field of a request.

    Raises:
        FilesError: 400.
    """
    field = call.request.headers.get("If")
    if field is None:
        return Conditions((), {}, call.place.names)
    groups = ifheader.parse(field)
    places = {}
    for tag in {group.tag for group in groups if group.tag}:
        place = place_of(call.request, tag)
        if place is not None and not place.reserved:
            places[tag] = place.names
    return Conditions(groups, places, call.place.names)
