"""What clients have said about things, on the volume (`properties.py` says how). Runs in threads of the pool."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from relevo.files import guard, properties
from relevo.files.accounts.access import Verb
from relevo.files.entries import READ, Condition, closing, entry_of, no_condition, special, split
from relevo.files.errors import FilesError
from relevo.files.properties import Properties
from relevo.files.volume import Volume


def look(volume: Volume, names: tuple[str, ...]) -> Properties:
    """The properties that clients have given a file or folder.

    Raises:
        OSError: as the system calls do.
    """
    guard.require(Verb.SEE, names)
    if not names:
        with volume.folder(()) as root:
            return properties.decode(properties.raw(root))
    above, name = split(names)
    with volume.folder(above) as parent:
        return properties.decode(properties.raw(properties.beside(parent, name)))


def change(
    volume: Volume,
    names: tuple[str, ...],
    change: Callable[[Properties], Properties],
    condition: Condition = no_condition,
) -> None:
    """Change the properties of a file or folder, all or none, durably.

    Raises:
        FilesError: 404; 409 or 423 for a lock; 507, they do not fit; what `condition` raises.
    """
    guard.require(Verb.WRITE, names)
    with _opened(volume, names) as fd:
        found = os.fstat(fd)
        entry = entry_of(names[-1] if names else "", found)
        if entry is None:
            raise special(found)
        acting = guard.current()
        if not entry.is_folder and found.st_nlink > 1 and acting is not None and acting.single:
            raise FilesError(403, "hard_link")
        with volume.names_lock:
            condition(entry)
            volume.locks.require(names)
            properties.write(fd, change(properties.decode(properties.raw(fd))))
        volume.commits.sync(fd)


@contextlib.contextmanager
def _opened(volume: Volume, names: tuple[str, ...]) -> Iterator[int]:
    if not names:
        with volume.folder(()) as fd:
            yield fd
        return
    above, name = split(names)
    with volume.folder(above) as parent:
        if volume.look_in(parent, name) is None:  # links and devices are refused before they are opened
            raise FilesError(404, "not_found")
        with closing(os.open(name, READ, dir_fd=parent)) as fd:
            yield fd
