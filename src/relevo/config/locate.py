"""Where a key stands in a TOML text: tomllib gives values without lines, so this finds the lines.

The text has to be valid TOML 1.0 (tomllib has read it before); then a small scanner that knows keys, strings and
brackets is enough, and every other token is skipped.
"""

from __future__ import annotations

import re
import tomllib

KeyPath = tuple[str | int, ...]

_BLANK = re.compile(r"[ \t\r\n]*(?:#[^\n]*[\r\n \t]*)*")
_KEY_PART = re.compile(r'[ \t]*("(?:\\.|[^"\\])*"|\'[^\']*\'|[A-Za-z0-9_-]+)[ \t]*')
_STRING = re.compile(r"'''(?:.|\n)*?'{3,5}|\"\"\"(?:\\(?:.|\n)|[^\\])*?\"{3,5}|'[^'\n]*'|\"(?:\\.|[^\"\\\n])*\"")
_BARE = re.compile(r"[^\s,\]}#]+(?: [^\s,\]}#]+)?")


def line_numbers(text: str) -> dict[KeyPath, int]:
    """The line (from 1) of each key, table and array element, by its path; elements of arrays have their index.

    Args:
        text: valid TOML.
    """
    scanner = _Scanner(text)
    scanner.document()
    return scanner.lines


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._counted_to = 0
        self._line = 1
        self._lengths: dict[KeyPath, int] = {}
        self.lines: dict[KeyPath, int] = {}

    def document(self) -> None:
        table: KeyPath = ()
        self._skip_blank()
        while self._at < len(self._text):
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._pair(table)
            self._skip_blank()

    def _skip_blank(self) -> None:
        match = _BLANK.match(self._text, self._at)
        assert match is not None
        self._at = match.end()

    def _mark(self, path: KeyPath) -> None:
        self._line += self._text.count("\n", self._counted_to, self._at)
        self._counted_to = self._at
        self.lines.setdefault(path, self._line)

    def _key(self, inside: KeyPath) -> KeyPath:
        path = inside
        while True:
            match = _KEY_PART.match(self._text, self._at)
            assert match is not None, "tomllib has accepted this text"
            # Only tomllib knows every escape of a quoted key.
            part = match[1] if match[1][0] not in "\"'" else next(iter(tomllib.loads(f"{match[1]} = 0")))
            path = (*self._newest(path), part)
            self._mark(path)
            self._at = match.end()
            if not self._text.startswith(".", self._at):
                return path
            self._at += 1

    def _newest(self, path: KeyPath) -> KeyPath:
        """A path through an array of tables means its newest element."""
        return (*path, self._lengths[path] - 1) if path in self._lengths else path

    def _header(self) -> KeyPath:
        double = self._text.startswith("[[", self._at)
        start = self._at
        self._at += 2 if double else 1
        path = self._key(())
        if double:
            index = self._lengths.get(path, 0)
            self._lengths[path] = index + 1
            path = (*path, index)
            end, self._at = self._at, start
            self._mark(path)
            self._at = end
        self._at = self._text.index("]", self._at) + (2 if double else 1)
        return path

    def _pair(self, table: KeyPath) -> None:
        path = self._key(table)
        assert self._text[self._at] == "=", "tomllib has accepted this text"
        self._at += 1
        self._skip_blank()
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        char = self._text[self._at]
        if char == "[":
            self._elements(path, "]")
        elif char == "{":
            self._elements(path, "}")
        else:
            match = (_STRING if char in "\"'" else _BARE).match(self._text, self._at)
            assert match is not None, "tomllib has accepted this text"
            self._at = match.end()

    def _elements(self, path: KeyPath, closing: str) -> None:
        self._at += 1
        index = 0
        while True:
            self._skip_blank()
            if self._text[self._at] == closing:
                self._at += 1
                return
            if self._text[self._at] == ",":
                self._at += 1
                continue
            if closing == "}":
                self._pair(path)
            else:
                self._mark((*path, index))
                self._value((*path, index))
                index += 1
