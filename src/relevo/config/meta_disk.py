"""Where a mirror's meta-data lies: `internal`, `/dev/NAME` (flexible external) or `/dev/NAME[INDEX]` (external)."""

from __future__ import annotations

import pathlib
import re
from typing import Literal

import msgspec

from relevo.base.errors import RelevoError

MAX_INDEX = 255
"""The highest index of an external slot (128 MiB each) that is taken; drbd knows no bound but the disk's end."""
_INDEXED = re.compile(r"(?P<path>.+)\[(?P<index>[0-9]{1,9})\]")


class MetaDiskWrong(RelevoError):
    """A text that names no place of meta-data."""


class MetaDisk(msgspec.Struct, frozen=True, kw_only=True):
    """A place of meta-data.

    Attributes:
        kind: `internal` (at the end of the data disk), `external` (slot `index` of 128 MiB on `path`), `flexible`
            (the whole of `path`).
        path: the disk that holds it; None when internal.
        index: the slot; 0 unless external.
    """

    kind: Literal["internal", "external", "flexible"] = "internal"
    path: pathlib.Path | None = None
    index: int = 0

    def __str__(self) -> str:
        """As it is written down."""
        return f"{self.path}[{self.index}]" if self.kind == "external" else str(self.path or self.kind)

    def overlaps(self, other: MetaDisk) -> bool:
        """Whether both cannot hold meta-data at the same time."""
        if self.path is None or self.path != other.path:
            return False
        return self.kind != other.kind or self.kind == "flexible" or self.index == other.index


INTERNAL = MetaDisk()


def parse_meta_disk(text: str) -> MetaDisk:
    """Read `internal`, `PATH` or `PATH[INDEX]`.

    Raises:
        MetaDiskWrong: none of these, a path that is not absolute, or an index above `MAX_INDEX`.
    """
    if text == "internal":
        return INTERNAL
    found = _INDEXED.fullmatch(text)
    path = pathlib.Path(found["path"] if found else text)
    index = int(found["index"]) if found else 0
    if not path.is_absolute() or ".." in path.parts or index > MAX_INDEX:
        raise MetaDiskWrong(
            f"is no place of meta-data: {text!r}.",
            f'Write "internal", "/dev/NAME" or "/dev/NAME[INDEX]" (an index up to {MAX_INDEX}).',
        )
    if found:
        return MetaDisk(kind="external", path=path, index=index)
    return MetaDisk(kind="flexible", path=path)
