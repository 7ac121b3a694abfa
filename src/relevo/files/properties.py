"""What WebDAV's clients say about a file or folder (dead properties): an extended attribute of the thing itself.

    user.relevo.dav   a JSON array of [namespace, name, element as XML]

So it goes where the thing goes: renamed, moved, copied, into the bin and back, whichever way in does that, and it is
gone with it. A file that replaces another one takes over what was said about that (`Volume.publish`). ext4 keeps about
4000 bytes a thing, other file systems more; what does not fit is refused. Runs in threads of the pool.
"""

from __future__ import annotations

import errno
import os

import msgspec

from relevo.files.errors import FilesError
from relevo.files.limits import PROPERTIES_MAX_BYTES

ATTRIBUTE = "user.relevo.dav"
Name = tuple[str, str]
"""Namespace (or empty) and local name."""
Properties = dict[Name, str]
"""Elements as XML, by their names."""
_NOTHING = frozenset({errno.ENODATA, errno.EOPNOTSUPP, errno.EPERM, errno.ENOENT, errno.ELOOP})
_FULL = frozenset({errno.ENOSPC, errno.E2BIG, errno.ERANGE, errno.EDQUOT})


def raw(target: int | str) -> bytes:
    """The attribute as it is, of a descriptor or of `/proc/self/fd/FOLDER/NAME`; empty when there is none.

    Raises:
        OSError: as the system call does.
    """
    try:
        return os.getxattr(target, ATTRIBUTE, follow_symlinks=isinstance(target, int))
    except OSError as error:
        if error.errno not in _NOTHING:
            raise
        return b""


def beside(folder: int, name: str) -> str:
    """What `raw` takes for a name in an open folder: it is looked at without being opened, and no link is followed."""
    return f"/proc/self/fd/{folder}/{name}"


def decode(data: bytes) -> Properties:
    """What an attribute says; one that somebody else wrote says nothing."""
    try:
        return {(space, name): xml for space, name, xml in msgspec.json.decode(data, type=list[tuple[str, str, str]])}
    except msgspec.DecodeError:
        return {}


def write(fd: int, properties: Properties) -> None:
    """Replace what is said about an open file or folder; not yet durable.

    Raises:
        FilesError: 507, it is too much, or this file system keeps no attributes.
    """
    data = msgspec.json.encode([[*name, xml] for name, xml in properties.items()]) if properties else b""
    if len(data) > PROPERTIES_MAX_BYTES:
        raise FilesError(507, "properties_full")
    put_raw(fd, data)


def put_raw(fd: int, data: bytes) -> None:
    """Replace the attribute; empty removes it. Raises as `write`."""
    try:
        if data:
            os.setxattr(fd, ATTRIBUTE, data)
        elif raw(fd):
            os.removexattr(fd, ATTRIBUTE)
    except OSError as error:
        if error.errno in _FULL:
            raise FilesError(507, "properties_full") from error
        if error.errno == errno.EOPNOTSUPP:
            raise FilesError(507, "properties_none") from error
        raise


def carry(source: int | str, target: int) -> bool:
    """Let a thing take over what is said about another one; whether something had to be written.

    Raises:
        FilesError, OSError: as `write`.
    """
    data = raw(source)
    if data == raw(target):
        return False
    put_raw(target, data)
    return True
