"""A further name of a served device, such as /dev/drbd0: a node of its own, there as long as the device is."""

from __future__ import annotations

import contextlib
import os
import pathlib
import stat

from relevo.base.errors import RelevoError
from relevo.device.loop import MAJOR

NODE_MODE = 0o660


class NameTaken(RelevoError):
    """Something else has the name that the device shall have."""


class Alias:
    """The name. A node, not a link: what is mounted from it is listed under it.

    Args:
        path: where; None: no further name is wanted.
    """

    def __init__(self, path: pathlib.Path | None) -> None:
        self._path = path

    def make(self, number: int) -> None:
        """Let the name stand for loopN; what an earlier life has left is replaced.

        Raises:
            NameTaken: something is there that is not ours; it is left alone.
        """
        path = self._path
        if path is None:
            return
        if not self._ours_or_nothing(path):
            raise NameTaken(
                f"{path} is there already and is no device of a mirror here.",
                "Is the kernel's drbd loaded? Remove it, or configure another device.",
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.new")
        beside.unlink(missing_ok=True)
        os.mknod(beside, stat.S_IFBLK | NODE_MODE, os.makedev(MAJOR, number))
        beside.replace(path)

    def remove(self) -> None:
        """Take the name away, if it is ours."""
        if self._path is not None and self._ours_or_nothing(self._path):
            with contextlib.suppress(OSError):  # a read-only /dev: then it was not made here either
                self._path.unlink(missing_ok=True)

    @staticmethod
    def _ours_or_nothing(path: pathlib.Path) -> bool:
        try:
            found = path.lstat()
        except FileNotFoundError:
            return True
        return stat.S_ISBLK(found.st_mode) and os.major(found.st_rdev) == MAJOR
