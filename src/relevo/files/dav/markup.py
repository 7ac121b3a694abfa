"""The XML of WebDAV: what clients ask, and what they are answered. Pure.

Bodies are read by expat with everything refused that only attackers send: document types (and with them entities, which
can name other files or grow without end), more elements or deeper ones than any client's.
"""

from __future__ import annotations

import dataclasses
import re
import xml.parsers.expat
from xml.etree.ElementTree import Element, TreeBuilder, tostring
from xml.sax.saxutils import escape

from relevo.files.errors import FilesError
from relevo.files.limits import DAV_XML_DEPTH_MAX, DAV_XML_ELEMENTS_MAX
from relevo.files.properties import Name

DAV = "DAV:"
KIND = 'application/xml; charset="utf-8"'
HEAD = b'<?xml version="1.0" encoding="utf-8"?>\n'
_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")
"""Characters that XML 1.0 does not have, escaped or not."""


def parse(body: bytes) -> Element:
    """The root element of a body.

    Raises:
        FilesError: 400, it is not XML, has a document type, or is too large inside.
    """
    builder = TreeBuilder()
    parser = xml.parsers.expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    depth = count = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth, count
        depth, count = depth + 1, count + 1
        if depth > DAV_XML_DEPTH_MAX or count > DAV_XML_ELEMENTS_MAX:
            raise FilesError(400, "dav_xml")
        builder.start(_braced(tag), {_braced(name): value for name, value in attributes.items()})

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(_braced(tag))

    def refuse(*_: object) -> None:
        raise FilesError(400, "dav_doctype")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(body, True)  # noqa: FBT003 - expat names no arguments
        return builder.close()
    except (xml.parsers.expat.ExpatError, AssertionError, ValueError, LookupError) as error:
        raise FilesError(400, "dav_xml") from error


def _braced(name: str) -> str:
    return "{" + name if "}" in name else name


def split(tag: str) -> Name:
    """Namespace and local name of an element."""
    space, brace, name = tag.rpartition("}")
    return (space[1:], name) if brace else ("", tag)


def is_dav(element: Element, name: str) -> bool:
    """Whether it is an element of WebDAV itself."""
    return element.tag == f"{{{DAV}}}{name}"


def find(element: Element, name: str) -> Element | None:
    """The first child of this name in the namespace of WebDAV."""
    return element.find(f"{{{DAV}}}{name}")


# --- questions --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """What a PROPFIND asks.

    Attributes:
        names: the properties asked for.
        everything: all that there are, beside `names`.
        only_names: what there is, without values.
    """

    names: tuple[Name, ...] = ()
    everything: bool = False
    only_names: bool = False


def propfind(body: bytes) -> Wanted:
    """The question of a PROPFIND; no body asks for everything.

    Raises:
        FilesError: 400.
    """
    if not body:
        return Wanted(everything=True)
    root = parse(body)
    if not is_dav(root, "propfind"):
        raise FilesError(400, "dav_xml")
    if (prop := find(root, "prop")) is not None:
        return Wanted(_names(prop))
    if find(root, "propname") is not None:
        return Wanted(only_names=True)
    if find(root, "allprop") is None:
        raise FilesError(400, "dav_xml")
    include = find(root, "include")
    return Wanted(_names(include) if include is not None else (), everything=True)


def _names(prop: Element) -> tuple[Name, ...]:
    return tuple(dict.fromkeys(split(child.tag) for child in prop))


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One change of a PROPPATCH: the element as XML, or None: it is removed."""

    name: Name
    xml: str | None


def propertyupdate(body: bytes) -> tuple[Step, ...]:
    """The changes of a PROPPATCH, in their order.

    Raises:
        FilesError: 400.
    """
    root = parse(body)
    if not is_dav(root, "propertyupdate"):
        raise FilesError(400, "dav_xml")
    steps = []
    for part in root:
        setting = is_dav(part, "set")
        if not setting and not is_dav(part, "remove"):
            continue
        for prop in part.findall(f"{{{DAV}}}prop"):
            language = prop.get(_LANG) or part.get(_LANG) or root.get(_LANG)
            steps += [Step(split(child.tag), _xml(child, language) if setting else None) for child in prop]
    if not steps:
        raise FilesError(400, "dav_xml")
    return tuple(steps)


def _xml(element: Element, language: str | None) -> str:
    """An element as it is kept: with the language that held where it stood (RFC 4918, 4.3)."""
    if language is not None and _LANG not in element.attrib:
        element.set(_LANG, language)
    element.tail = None
    return tostring(element, encoding="unicode")


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """What a LOCK asks for: a shared lock or an exclusive one, and what the client says about itself, as XML."""

    shared: bool
    owner: str


def lockinfo(body: bytes) -> Asked:
    """The question of a LOCK.

    Raises:
        FilesError: 400; 422, another kind of lock.
    """
    root = parse(body)
    scope, kind = find(root, "lockscope"), find(root, "locktype")
    if not is_dav(root, "lockinfo") or scope is None or kind is None:
        raise FilesError(400, "dav_xml")
    shared, exclusive = find(scope, "shared") is not None, find(scope, "exclusive") is not None
    if shared == exclusive or find(kind, "write") is None:
        raise FilesError(422, "lock_kind")
    owner = find(root, "owner")
    return Asked(shared, _xml(owner, None) if owner is not None else "")


# --- answers ----------------------------------------------------------------------------------------------------------


def words(text: str) -> str:
    """Text as it stands in an element."""
    return escape(_NOT_XML.sub("\ufffd", text))


def element(name: Name, content: str = "") -> str:
    """An element of any namespace, with its content as XML; WebDAV's prefix is D."""
    space, local = name
    if space == DAV:
        return f"<D:{local}>{content}</D:{local}>" if content else f"<D:{local}/>"
    if not space:
        return f"<{local}>{content}</{local}>" if content else f"<{local}/>"
    return f'<x:{local} xmlns:x="{escape(space, {chr(34): "&quot;"})}">{content}</x:{local}>'


def response(href: str, parts: list[tuple[str, str]]) -> str:
    """A DAV:response: an address, and per status (`200 OK`) the properties as XML."""
    told = "".join(
        f"<D:propstat><D:prop>{content}</D:prop><D:status>HTTP/1.1 {status}</D:status></D:propstat>"
        for status, content in parts
    )
    return f"<D:response><D:href>{words(href)}</D:href>{told}</D:response>\n"


MULTISTATUS = HEAD + b'<D:multistatus xmlns:D="DAV:">\n'
MULTISTATUS_END = b"</D:multistatus>\n"


def multistatus(*responses: str) -> bytes:
    """A whole 207 answer."""
    return MULTISTATUS + "".join(responses).encode() + MULTISTATUS_END


def prop(content: str) -> bytes:
    """A DAV:prop alone: the answer to LOCK."""
    return HEAD + f'<D:prop xmlns:D="DAV:">{content}</D:prop>\n'.encode()


def error(condition: str, href: str = "") -> bytes:
    """A DAV:error: the condition that was not met, and where."""
    inner = f"<D:{condition}><D:href>{words(href)}</D:href></D:{condition}>" if href else f"<D:{condition}/>"
    return HEAD + f'<D:error xmlns:D="DAV:">{inner}</D:error>\n'.encode()
