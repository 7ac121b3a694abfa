"""From text to tokens, as drbdadm's scanner cuts it: of all patterns that fit, the longest wins, then the first.

Every character belongs to a token, to white space or to a comment; what fits nothing becomes a `BAD` token, which the
parser reports unless it lies in a `skip` block.
"""

from __future__ import annotations

import enum
import pathlib
import re
from bisect import bisect_right
from typing import NamedTuple

from relevo.config.drbd.places import Place

MAX_WORD_LENGTH = 128
MAX_QUOTED_LENGTH = 255
"""Characters between quotation marks; `\\"` and `\\\\` count as one, others by their bytes in UTF-8."""
_WORD = r"[A-Za-z0-9/._-]"
_HEX = r"[0-9a-fA-F]{1,4}"
_IPV4 = r"(?:[0-9]{1,3}\.){3}[0-9]{1,3}"
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)+")
_PUNCTUATION = frozenset("{};[]:")
_QUOTED = re.compile(r'"((?:[^"\\\n]|\\[^\n])*)"')
_NOT_UTF8 = re.compile("[\ud800-\udfff]")
"""Bytes that could not be decoded, as `surrogateescape` leaves them."""
_ESCAPED = re.compile(r"\\(.)")


class Kind(enum.Enum):
    """What a token is."""

    WORD = "a word"
    TEXT = "a quoted text"
    NUMBER = "a number"
    IPV4 = "an IPv4 address"
    IPV6 = "an IPv6 address"
    PUNCTUATION = "punctuation"
    BAD = "unreadable"
    END = "the end of the file"


_PATTERNS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    (Kind.IPV4, re.compile(_IPV4)),
    (
        Kind.IPV6,
        re.compile(rf"(?:(?:{_HEX}:){{0,5}}{_HEX})?:(?:{_HEX})?:(?:{_HEX}(?::{_HEX}){{0,5}})?(?:%{_WORD}{{1,128}})?"),
    ),
    (Kind.IPV6, re.compile(rf"::[fF]{{4}}:{_IPV4}")),
    (Kind.NUMBER, re.compile(r"[0-9]{1,8}[MKGs]?")),
    (Kind.WORD, re.compile(rf"{_WORD}+")),
)


class Token(NamedTuple):
    """A piece of the file.

    Attributes:
        kind: what it is.
        text: as it is written.
        value: what it means: without quotation marks and escapes; for `BAD`, what is wrong with it.
        offset: where it begins in the text of its file, in characters.
    """

    kind: Kind
    text: str
    value: str
    offset: int


class Lexed:
    """The tokens of one file; the last one is `END`."""

    def __init__(self, file: pathlib.Path, text: str) -> None:
        self.file = file
        self.text = text
        self.tokens = _tokens(text)
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def place(self, token: Token) -> Place:
        """Where a token begins."""
        line = bisect_right(self._starts, token.offset)
        return Place(self.file, line, token.offset - self._starts[line - 1] + 1)


def _tokens(text: str) -> list[Token]:
    found = []
    at, end = 0, len(text)
    while True:
        blank = _BLANK.match(text, at)
        if blank is not None:
            at = blank.end()
        if at >= end:
            found.append(Token(Kind.END, "", "the end of the file", at))
            return found
        token = _quoted(text, at) if text[at] == '"' else _bare(text, at)
        found.append(token)
        at += len(token.text)


def _bare(text: str, at: int) -> Token:
    best, length = Kind.BAD, 0
    for kind, pattern in _PATTERNS:
        match = pattern.match(text, at)
        if match is not None and match.end() - at > length:
            best, length = kind, match.end() - at
    if text[at] in _PUNCTUATION and length <= 1:
        return Token(Kind.PUNCTUATION, text[at], text[at], at)
    if not length:
        return Token(Kind.BAD, text[at], f"The character {text[at]!r} has no meaning here.", at)
    word = text[at : at + length]
    if best is Kind.WORD and length > MAX_WORD_LENGTH:
        return Token(Kind.BAD, word, f"This word is longer than {MAX_WORD_LENGTH} characters.", at)
    return Token(best, word, word, at)


def _quoted(text: str, at: int) -> Token:
    match = _QUOTED.match(text, at)
    if match is None:
        line_end = text.find("\n", at)
        rest = text[at : line_end if line_end >= 0 else len(text)]
        return Token(Kind.BAD, rest, "This quoted text does not end on its line.", at)
    escapes = len(_ESCAPED.findall(match[1]))
    if "\0" in match[1]:
        return Token(Kind.BAD, match[0], "This quoted text has a NUL character.", at)
    if _NOT_UTF8.search(match[1]) is not None:
        return Token(Kind.BAD, match[0], "This quoted text is not UTF-8.", at)
    if len(match[1].encode()) - escapes > MAX_QUOTED_LENGTH:
        return Token(Kind.BAD, match[0], f"This quoted text is longer than {MAX_QUOTED_LENGTH} characters.", at)
    return Token(Kind.TEXT, match[0], _ESCAPED.sub(r"\1", match[1]), at)
