"""Heartbeat's own `authkeys` file, as the original reads it.

A line whose first word begins with `#` is a comment, blank lines mean nothing. `auth N` names the key that signs;
`N METHOD KEY` is a key, whose text is one word, `#` included (`crc` has none). The original ignores what follows on a
line; here it may only be a comment. sha256 is an addition of ours.
"""

from __future__ import annotations

import pathlib

from relevo.config.errors import ConfigError
from relevo.config.model import AuthKey, AuthKeys
from relevo.config.table import nearest

METHODS = ("crc", "md5", "sha1", "sha256")
MAX_KEY_NUMBER = 15


def parse_authkeys(data: bytes, file: pathlib.Path) -> tuple[AuthKeys | None, list[ConfigError]]:
    """The keys, or None and every mistake.

    Args:
        data: content of the file.
        file: its path, for the sentences.
    """
    parser = _Parser(file)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return None, [ConfigError(file, line, "This is not UTF-8.", "Save the file as UTF-8.")]
    for at, written in enumerate(text.splitlines(), 1):
        words = written.split()
        if words and not words[0].startswith("#"):
            parser.line(at, words)
    return parser.result(), parser.mistakes


class _Parser:
    def __init__(self, file: pathlib.Path) -> None:
        self._file = file
        self._signing: tuple[int, int] | None = None
        self._keys: dict[int, AuthKey] = {}
        self.mistakes: list[ConfigError] = []

    def _wrong(self, line: int | None, what: str, remedy: str) -> None:
        self.mistakes.append(ConfigError(self._file, line, what, remedy))

    def line(self, at: int, words: list[str]) -> None:
        if words[0] == "auth":
            self._auth(at, words)
        elif (number := _key_number(words[0])) is not None:
            self._key(at, number, words)
        else:
            self._wrong(at, f"{words[0]!r} begins no line of this file.", "Write auth N, or N METHOD KEY.")

    def _auth(self, at: int, words: list[str]) -> None:
        number = _key_number(words[1]) if len(words) > 1 else None
        if number is None or _rest(words, 2):
            self._wrong(at, "The line auth names no key.", f"Write auth and a number up to {MAX_KEY_NUMBER}.")
        elif self._signing is not None:
            self._wrong(at, "There is a second line auth.", "Leave only one.")
        else:
            self._signing = (at, number)

    def _key(self, at: int, number: int, words: list[str]) -> None:
        method = words[1] if len(words) > 1 else ""
        expected = 2 if method == "crc" else 3
        if method not in METHODS:
            self._wrong(at, f"Key {number} has no known method: {method!r}.", nearest(method, METHODS))
        elif len(words) < expected:
            self._wrong(at, f"Key {number} has no text.", f"Write {number} {method} and one word that nobody guesses.")
        elif _rest(words, expected):
            self._wrong(at, f"Key {number} has more than one word.", "Write the key without blanks.")
        elif number in self._keys:
            self._wrong(at, f"Key {number} is there twice.", "Give each key its own number.")
        else:
            secret = words[2] if expected == 3 else ""
            self._keys[number] = AuthKey(number=number, method=method, secret=secret)  # type: ignore[arg-type]

    def result(self) -> AuthKeys | None:
        if self._signing is None:
            if not self.mistakes:
                self._wrong(None, "No line says which key signs.", "Add auth 1.")
            return None
        at, number = self._signing
        if number not in self._keys:
            if not self.mistakes:
                self._wrong(at, f"There is no key {number}.", f"Add a line {number} sha256 and one word.")
            return None
        return AuthKeys(signing=self._keys[number], accepted=self._keys)


def _rest(words: list[str], expected: int) -> bool:
    """Whether more than a comment follows the expected words."""
    return len(words) > expected and not words[expected].startswith("#")


def _key_number(word: str) -> int | None:
    return int(word) if word.isascii() and word.isdigit() and int(word) <= MAX_KEY_NUMBER else None
