"""What was kept of a copy before it was overwritten: where it lies, what it says, how it is read back.

The format is written down in docs/internals/mirror-saved.md. Making one is `relevo.mirror.saver`'s job.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil
import struct
from collections.abc import Iterator
from typing import Literal

import msgspec

from relevo.base.errors import NOT_JSON, RelevoError
from relevo.mirror import lvm
from relevo.mirror.create import open_disk

FORMAT = 1
INDEX = "index.json"
BLOCKS = "blocks"
RANGES = "ranges"
IMAGE = "image"
PIECE_BYTES = 1 << 20
FICLONE = 0x40049409
"""ioctl: let a file share all blocks of another (linux/fs.h)."""
Kind = Literal["blocks", "image", "lvm"]
_RANGE = struct.Struct(">QQ")


class SavedCopyUnusable(RelevoError):
    """A saved copy is not there, not complete or damaged."""


class TargetThere(RelevoError):
    """What a saved copy should be written to exists already (or does not)."""


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """index.json.

    Attributes:
        format: 1.
        mirror, node: whose copy it was.
        reason: `split-brain` or `resync`.
        saved_at: UTC, as `2026-11-26T07:00:00Z`.
        kind: `blocks`: only those that this side had changed; `image`: the whole backing file; `lvm`: a snapshot
            of the whole logical volume.
        data_bytes: size of the device.
        saved_bytes: how much of it was saved (for an image: how much was marked as changed).
        generations: current, bitmap, history 0 and history 1 of the copy, 16 hexadecimal digits each.
        ranges_sha256: of the file `ranges`.
        blocks_sha256: of the file `blocks`; empty for an image.
        image: path of the image or the snapshot's device; empty for blocks.
    """

    format: int
    mirror: str
    node: str
    reason: str
    saved_at: str
    kind: Kind
    data_bytes: int
    saved_bytes: int
    generations: tuple[str, str, str, str]
    ranges_sha256: str
    blocks_sha256: str = ""
    image: str = ""


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """One saved copy: its name and what its index says."""

    name: str
    folder: pathlib.Path
    index: Index


def store(state: pathlib.Path, mirror: str) -> pathlib.Path:
    """The folder that holds the saved copies of a mirror."""
    return state / "saved" / mirror


def pack_ranges(ranges: tuple[tuple[int, int], ...]) -> bytes:
    """(offset, length) pairs as the file `ranges` has them."""
    return b"".join(_RANGE.pack(*pair) for pair in ranges)


def unpack_ranges(data: bytes) -> list[tuple[int, int]]:
    """The other way round.

    Raises:
        SavedCopyUnusable: not a whole number of pairs.
    """
    if len(data) % _RANGE.size:
        raise SavedCopyUnusable("The list of ranges is cut off.", "Use another saved copy.")
    return list(_RANGE.iter_unpack(data))


def saved_copies(state: pathlib.Path, mirror: str) -> list[Saved]:
    """All complete ones, the oldest first; what has no index was never finished and is left out."""
    found = []
    for folder in sorted(store(state, mirror).glob("*/")):
        with contextlib.suppress(FileNotFoundError, SavedCopyUnusable):
            found.append(Saved(name=folder.name, folder=folder, index=_read_index(folder)))
    return found


def find(state: pathlib.Path, mirror: str, name: str) -> Saved:
    """A saved copy by its name.

    Raises:
        SavedCopyUnusable: there is none, or its index cannot be read.
    """
    folder = store(state, mirror) / name
    if "/" in name or not folder.is_dir():
        known = ", ".join(copy.name for copy in saved_copies(state, mirror)) or "there is none"
        raise SavedCopyUnusable(f"There is no saved copy {name!r} of mirror {mirror}.", f"Known: {known}.")
    try:
        return Saved(name=name, folder=folder, index=_read_index(folder))
    except FileNotFoundError as error:
        raise SavedCopyUnusable(f"The saved copy {name} was never finished.", "Remove its folder.") from error


def _read_index(folder: pathlib.Path) -> Index:
    try:
        index = msgspec.json.decode((folder / INDEX).read_bytes(), type=Index)
    except NOT_JSON as error:
        raise SavedCopyUnusable(f"{folder / INDEX} cannot be read ({error}).", "Use another saved copy.") from error
    if index.format != FORMAT:
        raise SavedCopyUnusable(f"{folder / INDEX} has format {index.format}, not {FORMAT}.", "Use the newer program.")
    return index


def image_path(saved: Saved) -> pathlib.Path:
    """Where the image of a saved copy lies: beside its index, or beside the disk that it was made of."""
    return pathlib.Path(saved.index.image)


def extract(saved: Saved, target: pathlib.Path, *, onto: bool) -> int:
    """Write a saved copy to a new sparse file, or (`onto`) over an image or a device that is there.

    Of a copy of kind `blocks` only those are written; a new file has holes elsewhere. Everything is stable at the end.

    Returns:
        bytes written.

    Raises:
        SavedCopyUnusable: it is damaged; nothing has been written.
        TargetThere: `target` exists, or with `onto` does not.
        DiskInUse: a mirror or a mount has it: what is written past them would differ from the other side's copy.
        OSError: the target cannot be written.
    """
    if target.exists() is not onto:
        if onto:
            raise TargetThere(f"{target} is not there.", "Leave out --onto to make a new file.")
        raise TargetThere(f"{target} exists.", "Name a new file, or say --onto to write over it.")
    pieces = checked_pieces(saved)
    if onto:
        fd, _ = open_disk(target, os.O_WRONLY, alone=True)
    else:
        fd = os.open(target, os.O_WRONLY | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        if not onto:
            os.ftruncate(fd, saved.index.data_bytes)
        written = sum(write_all(fd, offset, data) for offset, data in pieces)
        os.fsync(fd)
    finally:
        os.close(fd)
    return written


def checked_pieces(saved: Saved) -> Iterator[tuple[int, bytes]]:
    """Compare the checksums, then give the content piece by piece: (offset, bytes).

    Raises:
        SavedCopyUnusable: it is damaged.
    """
    if saved.index.kind != "blocks":
        path = image_path(saved)
        if not (path.is_file() or path.is_block_device()) or _size(path) < saved.index.data_bytes:
            raise SavedCopyUnusable(f"{path} is gone or cut off.", "Use another saved copy.")
        return _pieces(path, [(0, saved.index.data_bytes)])
    ranges = (saved.folder / RANGES).read_bytes()
    if hashlib.sha256(ranges).hexdigest() != saved.index.ranges_sha256:
        raise SavedCopyUnusable(f"{saved.folder / RANGES} is damaged (checksum).", "Use another saved copy.")
    with (saved.folder / BLOCKS).open("rb") as blocks:
        if hashlib.file_digest(blocks, "sha256").hexdigest() != saved.index.blocks_sha256:
            raise SavedCopyUnusable(f"{saved.folder / BLOCKS} is damaged (checksum).", "Use another saved copy.")
    return _pieces(saved.folder / BLOCKS, unpack_ranges(ranges))


def _size(path: pathlib.Path) -> int:
    with path.open("rb") as content:
        return content.seek(0, os.SEEK_END)


def _pieces(path: pathlib.Path, ranges: list[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as content:
        for offset, length in ranges:
            at, end = offset, offset + length
            while at < end:
                data = content.read(min(PIECE_BYTES, end - at))
                if not data:
                    raise SavedCopyUnusable(f"{path} is cut off.", "Use another saved copy.")
                yield at, data
                at += len(data)


def write_all(fd: int, offset: int, data: bytes | memoryview) -> int:
    """Write all of it, in as many calls as that takes; how much it was."""
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count
    return len(data)


def remove(saved: Saved) -> None:
    """Delete a saved copy, its index first: what is left of a deletion that was cut off counts as never finished."""
    (saved.folder / INDEX).unlink()
    if saved.index.kind == "image":
        image_path(saved).unlink(missing_ok=True)
    elif saved.index.kind == "lvm":
        lvm.give_back(image_path(saved))
    shutil.rmtree(saved.folder)


def share_blocks(source: int, target: int) -> None:
    """Make the empty file `target` share all blocks of the file `source`. Raises OSError where that cannot be done."""
    fcntl.ioctl(target, FICLONE, source)
