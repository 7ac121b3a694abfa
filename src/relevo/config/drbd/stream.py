"""Walks over tokens for the parser: expects, names what stands there instead, and finds a place to go on."""

from __future__ import annotations

import re

from relevo.config.drbd.lexer import Kind, Lexed, Token
from relevo.config.drbd.options import KEYWORDS
from relevo.config.drbd.places import Findings, Place, quoted

MAX_MEANT_LENGTH = 1000
"""How far the end of a text with quotation marks inside is looked for."""
_LAST_MARK = re.compile(r'"(?=[ \t\r]*;)')


class Lost(Exception):
    """What stands here cannot be understood; it is written down already. Never leaves the parser."""


class Stream:
    """The tokens of one file and how far they are read."""

    def __init__(self, lexed: Lexed, found: Findings) -> None:
        self._lexed = lexed
        self._at = 0
        self._found = found
        self._last = 0
        """Index of the token given out last."""

    @property
    def peek(self) -> Token:
        """The next token; `END` when so much is wrong that reading on is of no use."""
        return self._lexed.tokens[-1 if self._found.full else self._at]

    def next(self) -> Token:
        """Take the next token; at the end it stays `END`."""
        token = self.peek
        self._last = self._at
        if token.kind is not Kind.END:
            self._at += 1
        return token

    def place(self, token: Token) -> Place:
        """Where a token begins."""
        return self._lexed.place(token)

    def at(self, text: str) -> bool:
        """Whether the next token is this punctuation or this word."""
        return self.peek.kind in {Kind.PUNCTUATION, Kind.WORD} and self.peek.text == text

    def lost(self, token: Token, what: str, remedy: str) -> Lost:
        """Write down a mistake at a token; to be raised."""
        self._found.wrong(self.place(token), what, remedy)
        return Lost()

    def unexpected(self, token: Token, wanted: str, remedy: str = "") -> Lost:
        """Write down that a token stands where something else has to; to be raised."""
        if token.kind is Kind.BAD:
            return self.lost(token, token.value, _BAD_REMEDY)
        if self._splits_text(token):
            return self._wrong_quotes()
        if token.kind is Kind.END:
            return self.lost(token, f"The file ends where {wanted} is expected.", remedy or "Complete it.")
        what = f"{wanted} is expected here, not {quoted(token.text)}."
        if not remedy and token.kind is Kind.WORD and token.text in KEYWORDS:
            remedy = f'{token.text} is a keyword: as a value it stands in quotation marks ("{token.text}").'
        return self.lost(token, what[0].upper() + what[1:], remedy or f"Write {wanted}.")

    def expect(self, text: str) -> Token:
        """Take this punctuation."""
        token = self.next()
        if token.kind is not Kind.PUNCTUATION or token.text != text:
            raise self.unexpected(token, repr(text))
        return token

    def string(self, wanted: str) -> Token:
        """Take a word that is no keyword, or a quoted text."""
        token = self.next()
        if not is_string(token):
            raise self.unexpected(token, wanted)
        return token

    def value(self, wanted: str) -> Token:
        """Take what an option may have as its value: a string, a number, or the word `on`."""
        token = self.next()
        if token.kind is Kind.NUMBER or is_string(token) or (token.kind is Kind.WORD and token.text == "on"):
            return token
        raise self.unexpected(token, wanted)

    def integer(self, wanted: str) -> Token:
        """Take a number of at most 8 digits."""
        token = self.next()
        if token.kind is not Kind.NUMBER:
            raise self.unexpected(token, wanted)
        return token

    def recover(self) -> None:
        """Go on behind the statement that was not understood: behind its `;` or its block, before a `}` around it."""
        self._at = self._last
        depth = 0
        while self.peek.kind is not Kind.END:
            token = self.peek
            if token.kind is Kind.PUNCTUATION:
                if token.text == "}" and depth == 0:
                    return
                depth += {"{": 1, "}": -1}.get(token.text, 0)
                if depth == 0 and token.text in {";", "}"}:
                    self._at += 1
                    return
            self._at += 1

    def skip_block(self) -> bool:
        """Take everything up to the `}` of a block whose `{` was taken; false when the file ends before."""
        depth = 1
        while depth:
            token = self.next()
            if token.kind is Kind.END:
                return False
            if token.kind is Kind.PUNCTUATION:
                depth += {"{": 1, "}": -1}.get(token.text, 0)
        return True

    # ---- quotation marks inside quotation marks ----------------------------------------------------------------

    def _splits_text(self, token: Token) -> bool:
        """Whether a token begins right where a quoted text ends: a quotation mark was meant to belong to the text."""
        if self._last == 0 or token is not self._lexed.tokens[self._last]:
            return False
        before = self._lexed.tokens[self._last - 1]
        touches = before.offset + len(before.text) == token.offset
        return before.kind is Kind.TEXT and touches and token.kind is not Kind.PUNCTUATION

    def _wrong_quotes(self) -> Lost:
        """Name the quotation mark, say how the whole text is written, and go on behind it."""
        first = self._lexed.tokens[self._last - 1]
        line = self._lexed.text[first.offset : first.offset + MAX_MEANT_LENGTH].partition("\n")[0]
        inner = line[1 : _end_of_text(line)]
        meant = inner.replace('\\"', '"').replace('"', '\\"')
        mark = first.offset + len(first.text) - 1
        self._found.wrong(
            self.place(first._replace(offset=mark)),
            "This quotation mark ends the text that begins before it, but the text goes on.",
            f'Inside of a text write \\" instead of ": "{meant}"',
        )
        stop = first.offset + len(inner) + 2
        while self.peek.kind is not Kind.END and self.peek.offset < stop:
            self._at += 1
        self._last = self._at
        return Lost()


_BAD_REMEDY = 'Quoted texts stand on one line, with \\" and \\\\ for the two characters; comments begin with #.'


def is_string(token: Token) -> bool:
    """Whether a token may stand where drbdadm expects a string."""
    return token.kind is Kind.TEXT or (token.kind is Kind.WORD and token.text not in KEYWORDS)


def _end_of_text(line: str) -> int:
    """Where the text that begins a line was meant to end: at the last quotation mark before a `;`, or at the last."""
    end = _LAST_MARK.search(line, 1)
    return end.start() if end is not None else line.rindex('"')
