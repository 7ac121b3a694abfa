"""Reads a drbd.conf with everything that it includes."""

from __future__ import annotations

import glob
import os
import pathlib

from relevo.config.drbd import check, resolve
from relevo.config.drbd.lexer import Lexed
from relevo.config.drbd.parser import FileParser
from relevo.config.drbd.places import Findings, Place, quoted
from relevo.config.drbd.tree import Conf
from relevo.config.errors import ConfigErrors

MAX_FILE_BYTES = 1 << 20
MAX_ALL_BYTES = 8 << 20
MAX_FILES = 1024
MAX_DEPTH = 16
"""How deep files may include one another."""
_WILD = frozenset("*?[")


def read(path: pathlib.Path, me: str) -> Conf:
    """What a file and all that it includes say to node `me`; resources have inherited what they do not say themselves.

    Args:
        path: the file, such as /etc/drbd.conf.
        me: this node's name (`uname -n`).

    Raises:
        ConfigErrors: every mistake that was found, with file, line and column.
    """
    conf = read_tree(path)
    if not conf.found.mistakes:
        check.uniqueness(conf)
        resolve.expand(conf)
        check.completeness(conf, me)
    if conf.found.mistakes:
        raise ConfigErrors(conf.found.mistakes)
    return conf


def read_tree(path: pathlib.Path) -> Conf:
    """What a file and all that it includes say, as it is written; mistakes are in `found`."""
    conf = Conf(path, Findings())
    start = Place(path, 1, 1)
    _Reader(conf).file(path, start, wanted=True)
    return conf


class _Reader:
    def __init__(self, conf: Conf) -> None:
        self._conf = conf
        self._seen: set[str] = set()
        self._open: list[str] = []
        self._bytes = 0

    def file(self, path: pathlib.Path, place: Place, *, wanted: bool) -> None:
        """Read one file, unless it was read before.

        Args:
            path: the file.
            place: where it is asked for.
            wanted: it is named, not merely matched: that it is being read already is worth a warning.
        """
        real = os.path.realpath(path)
        found = self._conf.found
        if real in self._seen:
            if wanted and real in self._open:
                found.warn(place, f"{path} includes itself: this does nothing.")
            return
        if len(self._seen) >= MAX_FILES or len(self._open) >= MAX_DEPTH:
            what = f"More than {MAX_FILES} files, or includes deeper than {MAX_DEPTH}."
            found.wrong(place, what, "Include fewer.")
            return
        self._seen.add(real)
        text = self._text(path, place)
        if text is None:
            return
        self._open.append(real)
        FileParser(Lexed(path, text), self._conf, lambda pattern, at: self._include(path, pattern, at)).parse()
        self._open.pop()

    def _include(self, including: pathlib.Path, pattern: str, place: Place) -> None:
        """As drbdadm: relative to the folder of the including file, in the order of names."""
        if "\0" in pattern:
            self._conf.found.wrong(place, "A file name has no NUL.", "Write another name.")
            return
        folder = pathlib.Path(os.path.realpath(including)).parent
        plain = not _WILD & set(pattern)
        matches = sorted(glob.glob(pattern, root_dir=folder))  # noqa: PTH207 - Path.glob takes no absolute pattern
        if plain and not matches:
            self._conf.found.wrong(
                place, f"There is no file {quoted(pattern)} in {folder}.", "Create it, or remove this line."
            )
        for match in matches:
            self.file(folder / match, place, wanted=plain)

    def _text(self, path: pathlib.Path, place: Place) -> str | None:
        wrong = self._conf.found.wrong
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            with os.fdopen(fd, "rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            if place.file == path:  # the one that was asked for: no line names it
                wrong(place._replace(line=0), "There is no such file.", "Create it, or name another one.")
            else:
                wrong(place, f"There is no file {path}.", "Create it, or name another one.")
            return None
        except OSError as error:
            wrong(place, f"{path} cannot be read ({error.strerror}).", "Run as root; name a file.")
            return None
        self._bytes += len(data or b"")
        if data is None or len(data) > MAX_FILE_BYTES or self._bytes > MAX_ALL_BYTES:
            wrong(place, f"{path} is too large ({MAX_FILE_BYTES >> 20} MiB at most).", "Make it smaller.")
            return None
        # Comments may hold anything; a text that is no UTF-8 is refused by the lexer.
        return data.decode(errors="surrogateescape")
