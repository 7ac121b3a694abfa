"""What relevo.toml says now, beside what the daemon has read: a change that nobody has taken over yet is told."""

from __future__ import annotations

import pathlib

from relevo.base.errors import RelevoError
from relevo.config.load import load
from relevo.config.model import Config
from relevo.manager.model import UNUSABLE

_Stamp = tuple[tuple[str, int, int, int], ...]


class ConfigFile:
    """The files that a configuration was read from.

    Args:
        path: relevo.toml; what lies beside it belongs to it (secrets, keys).
        read: what the daemon goes by.
    """

    def __init__(self, path: pathlib.Path, read: Config) -> None:
        self._path = path
        self._hash = read.hash
        self._others = tuple(sorted(set(read.drbd.values())))
        self._stamp: _Stamp | None = None
        self._unread = ""

    def look(self) -> str:
        """What a daemon that started now would go by, if that is something else.

        Returns:
            "" while it means the same as what was read, else its hash, or `UNUSABLE`. The files are read only when one
            of them has another size, time or number than at the last look.
        """
        stamp = self._stamps()
        if stamp != self._stamp:
            self._stamp = stamp
            self._unread = self._compared()
        return self._unread

    def _compared(self) -> str:
        try:
            found = load(self._path).hash
        except (RelevoError, OSError):
            return UNUSABLE
        return "" if found == self._hash else found

    def _stamps(self) -> _Stamp:
        stamps = []
        for folder in (self._path.parent, *(path.parent / "drbd.d" for path in self._others)):
            paths = sorted(folder.iterdir()) if folder.is_dir() else []
            stamps += [stamp for path in paths if (stamp := _stamp(path))]
        return (*stamps, *(stamp for path in self._others if (stamp := _stamp(path))))


def _stamp(path: pathlib.Path) -> tuple[str, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return str(path), found.st_mtime_ns, found.st_size, found.st_ino
