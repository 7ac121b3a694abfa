"""The names of a folder in the order of people, quickly: only the page that is shown is looked at closely.

The order of large folders is remembered for as long as the folder's modification time stands still: every name that
comes or goes changes it. Then the names are read anew, and those that came or went are put in or taken out: to sort
takes four times as long as to read.
"""

from __future__ import annotations

import bisect
import collections
import dataclasses
import os
import re
import threading
import time
import unicodedata

from relevo.files import guard, limits
from relevo.files.accounts.access import Verb
from relevo.files.entries import Entry
from relevo.files.errors import FilesError
from relevo.files.limits import ORDERS_MAX_NAMES, ORDERS_MIN_NAMES, SETTLED_NS
from relevo.files.urls import HIDDEN_AT_ROOT
from relevo.files.volume import Volume

_DIGITS = re.compile(r"\d+")
_NEVER = -1
"""No modification time: this order is only where the next one begins."""
_LENGTH_MAX = 0x1F
"""Numbers are preceded by their length, as a character below every printable one."""


class _Bases(dict[int, str]):
    """Character -> what it is compared as: without accents; filled as characters are met."""

    def __missing__(self, code: int) -> str:
        parts = unicodedata.normalize("NFKD", chr(code))
        found = self[code] = "".join(part for part in parts if not unicodedata.combining(part)).casefold()
        return found


_BASES = _Bases()


def _number(match: re.Match[str]) -> str:
    digits = match[0].lstrip("0") or "0"
    return chr(min(len(digits), _LENGTH_MAX)) + digits


def natural_key(name: str) -> str:
    """How people sort names: without regard to case and accents, numbers by their value."""
    plain = name.lower() if name.isascii() else name.translate(_BASES)
    return _DIGITS.sub(_number, plain)


@dataclasses.dataclass(frozen=True, slots=True)
class Names:
    """The names in a folder, sorted: those of folders and those of files."""

    folders: list[str]
    files: list[str]

    @property
    def total(self) -> int:
        """How many there are."""
        return len(self.folders) + len(self.files)

    def part(self, first: int, count: int, *, descending: bool) -> list[str]:
        """A page of them, folders first."""
        step = -1 if descending else 1
        folders = self.folders[::step]
        if first + count <= len(folders):
            return folders[first : first + count]
        before = max(0, first - len(folders))
        left = first + count - max(first, len(folders))
        return folders[first:] + self.files[::step][before : before + left]


def _place(name: str) -> tuple[str, str]:
    return natural_key(name), name


def sorted_names(names: list[str], known: list[str]) -> list[str]:
    """Names in their order, by way of an earlier order of nearly the same ones."""
    before = set(known)
    new = [name for name in names if name not in before]
    if len(new) > limits.ORDERS_MAX_NEW:
        names.sort()
        names.sort(key=natural_key)
        return names
    result = known.copy()
    if len(known) + len(new) > len(names):
        present = set(names)
        result = [name for name in known if name in present]
    for name in new:
        bisect.insort(result, name, key=_place)
    return result


def _scan(fd: int, known: Names, *, root: bool) -> Names:
    folders, files = [], []
    with os.scandir(fd) as found:
        for item in found:
            if item.is_file(follow_symlinks=False):
                files.append(item.name)
            elif item.is_dir(follow_symlinks=False) and not (root and item.name in HIDDEN_AT_ROOT):
                folders.append(item.name)
    return Names(sorted_names(folders, known.folders), sorted_names(files, known.files))


class Orders:
    """What is remembered of large folders; used by threads."""

    def __init__(self) -> None:
        self._known: collections.OrderedDict[tuple[int, int], tuple[int, Names]] = collections.OrderedDict()
        self._lock = threading.Lock()

    def page(
        self, volume: Volume, names: tuple[str, ...], first: int, count: int, *, descending: bool
    ) -> tuple[list[Entry], Names]:
        """The entries of a page of a folder, by name, and all its names.

        Only what whoever acts may see; what is remembered is everything, for whoever comes next.

        Raises:
            FilesError: 401 or 403.
            OSError: as the system calls do.
        """
        guard.require(Verb.LIST, names)
        with volume.folder(names) as fd:
            found = _seen(names, self._names(fd, root=not names))
            first = min(first, max(0, found.total - 1))
            shown = [_entry(fd, name) for name in found.part(first, count, descending=descending)]
        return [entry for entry in shown if entry is not None], found

    def _names(self, fd: int, *, root: bool) -> Names:
        about = os.fstat(fd)
        key = (about.st_dev, about.st_ino)
        with self._lock:
            moment, known = self._known.get(key, (_NEVER, Names([], [])))
            if moment == about.st_mtime_ns:
                self._known.move_to_end(key)
                return known
        found = _scan(fd, known, root=root)
        settled = os.fstat(fd).st_mtime_ns == about.st_mtime_ns and time.time_ns() - about.st_mtime_ns > SETTLED_NS
        with self._lock:
            self._known.pop(key, None)
            if found.total >= ORDERS_MIN_NAMES:
                self._known[key] = about.st_mtime_ns if settled else _NEVER, found
            while sum(one.total for _, one in self._known.values()) > ORDERS_MAX_NAMES and len(self._known) > 1:
                self._known.popitem(last=False)
        return found


def _seen(names: tuple[str, ...], found: Names) -> Names:
    if guard.may(Verb.READ_TREE, names):  # without accounts too; large folders need not be asked name by name
        return found

    def seen(some: list[str]) -> list[str]:
        return [name for name in some if guard.may(Verb.SEE, (*names, name))]

    return Names(seen(found.folders), seen(found.files))


def _entry(fd: int, name: str) -> Entry | None:
    try:
        return Volume.look_in(fd, name)
    except FilesError:  # it has become something else meanwhile
        return None
