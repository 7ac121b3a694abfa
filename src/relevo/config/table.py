"""Typed reading of TOML tables that writes down every mistake instead of stopping at the first."""

from __future__ import annotations

import dataclasses
import difflib
import pathlib
import re
import tomllib
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from relevo.base import units
from relevo.config.errors import ConfigError
from relevo.config.locate import KeyPath, line_numbers
from relevo.config.names import MAX_NAME_LENGTH, is_name

MAX_CONFIG_BYTES = 1 << 20
MAX_DURATION_MS = 366 * 86_400_000
MAX_SIZE_BYTES = 1 << 50
_SYNTAX_LINE = re.compile(r" \(at line (\d+), column \d+\)")
_KEYS = re.compile(r"\('[^)]*\)")
"""A table as tomllib names it: a tuple of words."""
_WORD = re.compile(r"'([^']*)'")


@dataclasses.dataclass(slots=True)
class Source:
    """One TOML file: its values, where each stands, and the list to which mistakes go."""

    file: pathlib.Path
    mistakes: list[ConfigError]
    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    lines: dict[KeyPath, int] = dataclasses.field(default_factory=dict)

    def parse(self, data: bytes) -> bool:
        """Read the text; false when it is no TOML (which is then written down)."""
        try:
            text = data.decode("utf-8").replace("\r\n", "\n")
            self.values = tomllib.loads(text)
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            self.mistakes.append(ConfigError(self.file, line, "This is not UTF-8.", "Save the file as UTF-8."))
            return False
        except tomllib.TOMLDecodeError as error:
            match = _SYNTAX_LINE.search(str(error))
            line = int(match[1]) if match else text.count("\n") + 1
            what = _SYNTAX_LINE.sub("", str(error)).removesuffix(" (at end of document)")
            what = _KEYS.sub(lambda keys: f"[{'.'.join(_WORD.findall(keys[0]))}]", what)
            remedy = "Correct this line, or the one before." if _KEYS.search(str(error)) else "Correct this line."
            self.mistakes.append(ConfigError(self.file, line, f"This is not TOML: {what}.", remedy))
            return False
        self.lines = line_numbers(text)
        return True

    def line_of(self, path: KeyPath) -> int | None:
        """The line of a key, or of the nearest thing around it that is written down."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[:-1]
        return None

    def mistake(self, path: KeyPath, what: str, remedy: str) -> None:
        """Write down a mistake at a path."""
        self.mistakes.append(ConfigError(self.file, self.line_of(path), what, remedy))


def spell(path: KeyPath) -> str:
    """A path as people write it: `services.web.resources[2].root` (elements counted from 1)."""
    words = ""
    for part in path:
        words += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if words else part
    return words


def nearest(word: str, known: Iterable[str]) -> str:
    """A remedy that names the most similar known word, or all of them."""
    known = sorted(known)
    similar = difflib.get_close_matches(word, known, 1)
    if similar:
        return f"Did you mean {similar[0]!r}?"
    return f"Known here: {', '.join(known)}." if known else "Remove it."


class Table:
    """One table of a file.

    Each reading method returns a value of its type whatever is written; what is wrong or missing is written down, and
    `sound` turns false: then the returned values mean nothing. `finish` writes down the keys nobody asked for.
    """

    def __init__(self, source: Source, path: KeyPath, values: dict[str, Any]) -> None:
        self.source = source
        self.path = path
        self.sound = True
        self._values = values
        self._asked: set[str] = set()

    def finish(self) -> None:
        """Write down every key that was not asked for."""
        for key in self._values:
            if key not in self._asked:
                inside = f"[{spell(self.path)}]" if self.path else "this file"
                self.source.mistake(
                    (*self.path, key), f"{inside} has no key {key!r}.", nearest(key, self._asked - set(self._values))
                )

    def wrong(self, key: str, what: str, remedy: str) -> None:
        """Write down that the value of a key is wrong: `what` completes the sentence that its path begins."""
        self.sound = False
        path = (*self.path, key)
        self.source.mistake(path, f"{spell(path)} {what}", remedy)

    def names(self) -> tuple[str, ...]:
        """The keys, for tables whose keys are names; those that cannot be names are written down."""
        for key in self._values:
            self._asked.add(key)
            if not is_name(key):
                self.wrong(key, "is not a name.", f"Use up to {MAX_NAME_LENGTH} letters, digits, dots, _ and -.")
        return tuple(self._values)

    def _raw(self, key: str, kind: type, word: str, example: str, default: object) -> Any:
        self._asked.add(key)
        if key not in self._values:
            if default is None:
                self.wrong(key, "is missing.", f"Add {key} = {example}.")
            return None
        value = self._values[key]
        if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
            return value
        self.wrong(key, f"must be {word}, not {value!r}.", f"Write {key} = {example}.")
        return None

    def has(self, key: str) -> bool:
        """Whether a key is written down."""
        self._asked.add(key)
        return key in self._values

    def text(self, key: str, default: str | None = None, example: str = '"…"') -> str:
        """A text that is not empty."""
        value = self._raw(key, str, "a text", example, default)
        if value == "":
            self.wrong(key, "is empty.", f"Write {key} = {example}, or leave the line out if it has a default.")
        return value if value is not None else default or ""

    def texts(self, key: str, example: str) -> tuple[str, ...]:
        """A list of texts; empty when it is left out."""
        value = self._raw(key, list, "a list of texts", example, [])
        if value is not None and not all(isinstance(entry, str) for entry in value):
            self.wrong(key, f"must be a list of texts, not {value!r}.", f"Write {key} = {example}.")
            return ()
        return tuple(value or ())

    def name(self, key: str, default: str | None = None, example: str = '"…"') -> str:
        """A text that can be part of a file name."""
        value = self.text(key, default, example)
        if value and not is_name(value):
            self.wrong(
                key, f"is not a name: {value!r}.", f"Use up to {MAX_NAME_LENGTH} letters, digits, dots, _ and -."
            )
        return value

    def choice(self, key: str, choices: tuple[str, ...], default: str | None = None) -> Any:
        """One of a few words."""
        value = self.text(key, default, " or ".join(f'"{choice}"' for choice in choices))
        if value in choices:
            return value
        if value:
            self.wrong(key, f"cannot be {value!r}.", nearest(value, choices))
        return choices[0]

    def boolean(self, key: str, *, default: bool) -> bool:
        """True or false."""
        value = self._raw(key, bool, "true or false", "true", default)
        return default if value is None else bool(value)

    def integer(self, key: str, default: int, lowest: int, highest: int) -> int:
        """A whole number within limits."""
        value = self._raw(key, int, "a whole number", str(default), default)
        if value is None:
            return default
        if not lowest <= value <= highest:
            self.wrong(key, f"is {value}.", f"Write a number from {lowest} to {highest}.")
        return int(value)

    def duration_ms(self, key: str, default: int, *, zero: bool = False) -> int:
        """A duration with its unit, in milliseconds."""
        example = f'"{units.format_duration_ms(default)}"'
        limits = (0 if zero else 1, MAX_DURATION_MS)
        return self._quantity(key, default, units.parse_duration_ms, "ms", example, limits)

    def duration_us(self, key: str, default: int, highest: int) -> int:
        """A very short duration with its unit, or zero, in microseconds."""
        return self._quantity(key, default, units.parse_duration_us, "us", f'"{default} us"', (0, highest))

    def size_bytes(self, key: str, default: int, *, zero: bool = False) -> int:
        """A size with its unit, in bytes."""
        limits = (0 if zero else 1, MAX_SIZE_BYTES)
        return self._quantity(key, default, units.parse_size_bytes, "MiB", '"100 MiB"', limits)

    def _quantity(self, key: str, default: int, parse: Any, unit: str, example: str, limits: tuple[int, int]) -> int:
        self._asked.add(key)
        value = self._values.get(key, None)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            self.wrong(key, f"has no unit: {value}.", f'Write the unit, such as {key} = "{value} {unit}".')
            return default
        value = self._raw(key, str, "a text with a unit", example, default)
        if value is None:
            return default
        try:
            parsed = int(parse(value))
        except units.BadUnit as error:
            self.wrong(key, f"is wrong: {error.what}", error.remedy)
            return default
        if not limits[0] <= parsed <= limits[1]:
            self.wrong(key, "is too large." if parsed else "is zero.", f"Write another, such as {key} = {example}.")
        return parsed

    def address(self, key: str) -> IPv4Address:
        """An IPv4 address."""
        value = self._raw(key, str, "a text", '"192.168.0.27"', None)
        try:
            return IPv4Address(value or 0)
        except ValueError:
            self.wrong(key, f"is not an IPv4 address: {value!r}.", f'Write one such as {key} = "192.168.0.27".')
            return IPv4Address(0)

    def network(self, key: str) -> IPv4Network:
        """An IPv4 network with its prefix length."""
        value = self._raw(key, str, "a text", '"192.168.0.0/24"', None)
        try:
            if value is not None and "/" not in value:
                raise ValueError
            return IPv4Network(value or 0)
        except ValueError:
            pass  # what to write instead depends on what is wrong with it
        try:
            example = str(IPv4Network(value, strict=False)) if "/" in value else f"{IPv4Address(value)}/24"
        except ValueError:
            example = "192.168.0.0/24"
        self.wrong(key, f"is not an IPv4 network: {value!r}.", f'Write one such as {key} = "{example}".')
        return IPv4Network(0)

    def address_with_prefix(self, key: str) -> IPv4Interface:
        """An IPv4 address with the prefix length of its network."""
        value = self._raw(key, str, "a text", '"192.168.0.29/24"', None)
        try:
            if value is not None and "/" not in value:
                self.wrong(key, f"has no prefix length: {value!r}.", f'Write it, such as {key} = "{value}/24".')
            return IPv4Interface(value or 0)
        except ValueError:
            example = "192.168.0.29/24"
            self.wrong(
                key, f"is not an IPv4 address with prefix: {value!r}.", f'Write one such as {key} = "{example}".'
            )
            return IPv4Interface(0)

    def absolute_path(self, key: str, example: str) -> pathlib.Path:
        """An absolute path without `..`."""
        value = self.text(key, None, f'"{example}"')
        path = pathlib.Path(value or example)
        if not path.is_absolute() or ".." in path.parts:
            self.wrong(key, f"is not an absolute path: {value!r}.", f'Write one such as {key} = "{example}".')
        return path

    def table(self, key: str, *, required: bool = False) -> Table:
        """A table inside this one; an empty one when it is left out."""
        value = self._raw(key, dict, "a table", "{ … }", None if required else {})
        inner = Table(self.source, (*self.path, key), value or {})
        inner.sound = value is not None or (not required and key not in self._values)
        return inner

    def switch(self, key: str) -> Table | None:
        """What is switched on by `true`, or by a table that says how; None when it is left out or false."""
        self._asked.add(key)
        value = self._values.get(key, False)
        if value is False:
            return None
        if value is True or isinstance(value, dict):
            return Table(self.source, (*self.path, key), {} if value is True else value)
        self.wrong(key, f"must be true, false or a table, not {value!r}.", f"Write {key} = true.")
        return None

    def tables(self, key: str) -> list[Table]:
        """An array of tables inside this one."""
        value = self._raw(key, list, "an array of tables", "[{ … }]", None)
        found = []
        for index, element in enumerate(value or ()):
            path = (*self.path, key, index)
            if isinstance(element, dict):
                found.append(Table(self.source, path, element))
            else:
                self.sound = False
                self.source.mistake(path, f"{spell(path)} must be a table.", f"Write [[{spell(self.path)}.{key}]].")
        return found
