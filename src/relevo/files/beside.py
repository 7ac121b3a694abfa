"""A file gets its name where nothing has it yet, else a number beside it: what is put by a link replaces nothing.

Runs in threads of the pool.
"""

from __future__ import annotations

import secrets

from relevo.files import limits
from relevo.files.bin import numbered
from relevo.files.entries import Entry
from relevo.files.errors import FilesError
from relevo.files.volume import Handle, Volume


def publish(volume: Volume, handle: Handle, names: tuple[str, ...], *, area: str = "tmp") -> Entry:
    """Give a file of the work area its name, or one beside it, durably; the new entry says which.

    Raises:
        FilesError: as `Volume.publish`.
    """

    def free(present: Entry | None) -> None:
        if present is not None:
            raise FilesError(409, "exists")

    for number in range(1, limits.SAME_NAME_MAX):
        name = names[-1] if number == 1 else numbered(names[-1], number)
        try:
            return volume.publish(handle, (*names[:-1], name), free, area=area)[0]
        except FilesError as error:
            if error.code not in {"exists", "is_folder", "link", "not_regular"}:
                raise
    unique = f"{secrets.token_hex(8)} {names[-1]}"
    return volume.publish(handle, (*names[:-1], unique), free, area=area)[0]
