"""What the volume's names lead to, and descriptors of it: entries of folders, folders walked by name."""

from __future__ import annotations

import array
import contextlib
import dataclasses
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator

from relevo.files import guard
from relevo.files.conditions import Version, version_of
from relevo.files.errors import FilesError
from relevo.files.limits import CHUNK_BYTES, DIGEST_SLICE_BYTES

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
FILE_MODE = 0o644
FOLDER_MODE = 0o755
WORK_MODE = 0o700


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A file or a folder as a listing shows it.

    Attributes:
        name: its name; undecodable bytes as surrogates.
        is_folder: a folder, else a regular file.
        size_bytes: length; 0 for a folder.
        mtime_ns: modification time since 1970.
        inode: inode number.
        uid: number of its owner.
    """

    name: str
    is_folder: bool
    size_bytes: int
    mtime_ns: int
    inode: int
    uid: int = 0

    @property
    def version(self) -> Version:
        """Its version for conditional requests."""
        return version_of(self.inode, self.mtime_ns, self.size_bytes)


Condition = Callable[[Entry | None], None]
"""Raises when the entry there is (or is not) is not the one a change expects."""


def no_condition(entry: Entry | None) -> None:
    """Any entry will do."""


def entry_of(name: str, found: os.stat_result) -> Entry | None:
    """A file or a folder as a listing shows it; None: it is neither."""
    if stat.S_ISDIR(found.st_mode):
        return Entry(name, True, 0, found.st_mtime_ns, found.st_ino, found.st_uid)  # noqa: FBT003
    if stat.S_ISREG(found.st_mode):
        return Entry(name, False, found.st_size, found.st_mtime_ns, found.st_ino, found.st_uid)  # noqa: FBT003
    return None


def special(found: os.stat_result) -> FilesError:
    """The refusal of what is neither file nor folder."""
    return FilesError(403, "link" if stat.S_ISLNK(found.st_mode) else "not_regular")


@contextlib.contextmanager
def folder_below(above: int, names: tuple[str, ...]) -> Iterator[int]:
    """A descriptor of a folder, walked name by name from another one; no link is followed.

    Raises:
        OSError: FileNotFoundError, NotADirectoryError (a link too), …
    """
    fd = os.open(".", FOLDER, dir_fd=above)
    try:
        for name in names:
            below = os.open(name, FOLDER, dir_fd=fd)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def closing(fd: int) -> Iterator[int]:
    """A descriptor that is closed at the end of the body."""
    try:
        yield fd
    finally:
        os.close(fd)


def split(names: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """The folder and the last name of a path. That all are plain names was checked where they came in."""
    assert names, "the root has no name"
    assert not any(name in {"", ".", ".."} or "/" in name for name in names), "only plain names get here"
    return names[:-1], names[-1]


_GETFLAGS = 0x80086601
_CASEFOLD = 0x40000000


def ignores_case(folder: int) -> bool:
    """Whether names in a folder do not distinguish upper and lower case (chattr +F; linux/fs.h: FS_CASEFOLD_FL)."""
    flags = array.array("l", [0])
    try:
        fcntl.ioctl(folder, _GETFLAGS, flags)
    except OSError:  # this file system has no such flags
        return False
    return bool(flags[0] & _CASEFOLD)


def own(fd: int) -> None:
    """What is made belongs to whoever acts, by the number that both servers have for them."""
    acting = guard.current()
    if acting is not None and acting.uid is not None and acting.gid is not None and os.geteuid() == 0:
        os.fchown(fd, acting.uid, acting.gid)


def names_in(folder: int | str) -> list[str]:
    """The names in a folder, in no order."""
    return os.listdir(folder)  # noqa: PTH208 - pathlib knows no descriptors


def write_all(fd: int, pieces: list[bytes]) -> None:
    """Append pieces at the file's position."""
    for piece in pieces:
        view = memoryview(piece)
        while view:
            view = view[os.write(fd, view) :]


def digest_slice(digest: hashlib._Hash, fd: int, offset: int) -> int:
    """Add a slice of a file to its checksum; its length, 0 at the end of the file."""
    begin, end = offset, offset + DIGEST_SLICE_BYTES
    while offset < end and (chunk := os.pread(fd, min(CHUNK_BYTES, end - offset), offset)):
        digest.update(chunk)
        offset += len(chunk)
    return offset - begin
