"""The If field of WebDAV (RFC 4918, 10.4): lists of states that a thing must be in. Pure.

If: (<opaquelocktoken:…> ["etag"]) (Not <DAV:no-lock>)      about the thing of the request
If: </dav/a> (<opaquelocktoken:…>) <http://host/dav/b> (…)  about the things named
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

from relevo.files.errors import FilesError
from relevo.files.limits import DAV_IF_MAX_CONDITIONS

_SPACE = re.compile(r"[ \t]*")
_TAG = re.compile(r"<([^<>\s]{1,4096})>")
_NOT = re.compile(r"Not\b", re.IGNORECASE)
_ETAG = re.compile(r'\[((?:W/)?"[\x21\x23-\x7e\x80-\uffff]*")\]')


@dataclasses.dataclass(frozen=True, slots=True)
class Condition:
    """One state.

    Attributes:
        wanted: it must be so; else it must not (`Not`).
        token: a lock token; empty: it is an entity tag.
        etag: an entity tag, quotes included; empty: it is a token.
    """

    wanted: bool
    token: str = ""
    etag: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """A list: all of its conditions about one thing. `tag` is the thing's URI, or empty: the thing of the request."""

    tag: str
    conditions: tuple[Condition, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """What a thing is in: its entity tag (empty: it has none, or is not there), and the tokens of the locks on it."""

    etag: str = ""
    tokens: frozenset[str] = frozenset()


def tokens(groups: tuple[Group, ...]) -> frozenset[str]:
    """The tokens that a request submits: all that it names."""
    return frozenset(one.token for group in groups for one in group.conditions if one.token)


def holds(groups: tuple[Group, ...], state: Callable[[str], State]) -> bool:
    """Whether one of the lists is true.

    Args:
        groups: what `parse` gave.
        state: the state of the thing that a tag names (empty: that of the request).
    """
    return any(all(_is_so(one, found) for one in group.conditions) for group in groups for found in [state(group.tag)])


def _is_so(condition: Condition, state: State) -> bool:
    if condition.token:
        return (condition.token in state.tokens) is condition.wanted
    # weak tags match nothing: all of ours are strong (RFC 9110, 8.8.3.2)
    return (bool(state.etag) and condition.etag == state.etag) is condition.wanted


def parse(field: str) -> tuple[Group, ...]:
    """The lists of a field.

    Raises:
        FilesError: 400, it is no such field.
    """
    reader, tag, count = _Reader(field), "", 0
    groups: list[Group] = []
    while not reader.done():
        if (found := reader.take(_TAG)) is not None:
            tag = found[1]
        conditions = _conditions(reader)
        count += len(conditions)
        if count > DAV_IF_MAX_CONDITIONS:
            raise _wrong()
        groups.append(Group(tag, conditions))
    if not groups or (groups[-1].tag and not groups[0].tag):  # lists with and without tags do not go together
        raise _wrong()
    return tuple(groups)


def _conditions(reader: _Reader) -> tuple[Condition, ...]:
    found = []
    reader.expect("(")
    while not reader.starts(")"):
        wanted = reader.take(_NOT) is None
        if (token := reader.take(_TAG)) is not None:
            found.append(Condition(wanted, token=token[1]))
        elif (etag := reader.take(_ETAG)) is not None:
            found.append(Condition(wanted, etag=etag[1]))
        else:
            raise _wrong()
    reader.expect(")")
    if not found:
        raise _wrong()
    return tuple(found)


def _wrong() -> FilesError:
    return FilesError(400, "dav_if")


class _Reader:
    """A text and how far it has been read; blanks between words are passed over."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._skip()

    def _skip(self) -> None:
        found = _SPACE.match(self._text, self._at)
        assert found is not None, "it matches nothing too"
        self._at = found.end()

    def done(self) -> bool:
        return self._at >= len(self._text)

    def starts(self, char: str) -> bool:
        return self._text.startswith(char, self._at)

    def expect(self, char: str) -> None:
        if not self.starts(char):
            raise _wrong()
        self._at += len(char)
        self._skip()

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self._text, self._at)
        if found is not None:
            self._at = found.end()
            self._skip()
        return found
