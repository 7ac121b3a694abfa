"""The bin: what a person deleted, on the volume, until it is restored or expires.

    .relevo/bin/ID       the file or the folder itself, renamed in one atomic step
    .relevo/bin/ID.info  JSON {names, folder, size}; written before that step

ID is 13 digits, the moment in milliseconds since 1970, and 16 hexadecimal digits, so that names alone tell what
expires. A record without its thing (the power failed in between) means nothing, and expires like the others.
Runs in threads of the pool.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time

import msgspec

from relevo.files import guard, limits, tree
from relevo.files.accounts.access import Verb
from relevo.files.entries import Condition, names_in, no_condition, split, write_all
from relevo.files.errors import FilesError
from relevo.files.urls import check_new
from relevo.files.volume import Volume

_ID = re.compile(r"[0-9]{13}-[0-9a-f]{16}")
_SUFFIX = ".info"
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_RECORD_MAX_BYTES = 64 << 10


class Record(msgspec.Struct, frozen=True):
    """What something in the bin is.

    Attributes:
        names: where it was.
        folder: a folder, else a file.
        size_bytes: of a file.
    """

    names: tuple[str, ...]
    folder: bool
    size_bytes: int


class Binned(msgspec.Struct, frozen=True):
    """Something in the bin: its id, when it was deleted (milliseconds since 1970), and what it is."""

    id: str
    deleted_ms: int
    record: Record


def is_id(text: str) -> bool:
    """Whether a text can be the id of something in the bin."""
    return _ID.fullmatch(text) is not None


def discard(volume: Volume, names: tuple[str, ...], condition: Condition = no_condition) -> str:
    """Put a file or a folder into the bin, in one step and durably; its id there.

    Raises:
        FilesError: 404, 403 for the root, what `condition` raises.
    """
    if not names:
        raise FilesError(403, "forbidden")
    guard.require(Verb.REMOVE, names)
    above, name = split(names)
    folder = volume.work("bin")
    with volume.folder(above) as parent:
        entry = volume.look_in(parent, name)
        if entry is None:
            raise FilesError(404, "not_found")
        bin_id = f"{time.time_ns() // 1_000_000:013d}-{secrets.token_hex(8)}"
        _write(volume, bin_id, Record(names, entry.is_folder, entry.size_bytes))
        try:
            with volume.names_lock:
                present = volume.look_in(parent, name)
                if present is None:
                    raise FilesError(404, "not_found")
                condition(present)
                volume.locks.require(names, member=True, tree=True)
                tree.rename_new(name, bin_id, source=parent, target=folder)
                tokens = volume.locks.forget(names)
        except BaseException:
            os.unlink(bin_id + _SUFFIX, dir_fd=folder)
            raise
        volume.commits.sync(folder, parent)
    volume.erase_locks(tokens)
    return bin_id


def _write(volume: Volume, bin_id: str, record: Record) -> None:
    fd = os.open(bin_id + _SUFFIX, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=volume.work("bin"))
    try:
        write_all(fd, [_encode(record)])
        volume.commits.before(fd)
    finally:
        os.close(fd)


def _encode(record: Record) -> bytes:
    """Names may hold bytes that are not UTF-8: they are written as the file system has them, in hexadecimal."""
    names = [os.fsencode(name).hex() for name in record.names]
    return msgspec.json.encode({"names": names, "folder": record.folder, "size_bytes": record.size_bytes}) + b"\n"


def _decode(raw: bytes) -> Record:
    found = msgspec.json.decode(raw, type=Record)
    record = Record(tuple(os.fsdecode(bytes.fromhex(name)) for name in found.names), found.folder, found.size_bytes)
    split(record.names)  # plain names only: the record lies where nobody but us writes, and is looked at all the same
    return record


def read(volume: Volume, bin_id: str) -> Binned:
    """What something in the bin is.

    Raises:
        FilesError: 404, it is not there (any more).
    """
    folder = volume.work("bin")
    try:
        if not is_id(bin_id):
            raise FilesError(404, "bin_gone")
        os.stat(bin_id, dir_fd=folder, follow_symlinks=False)
        fd = os.open(bin_id + _SUFFIX, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError as error:
        raise FilesError(404, "bin_gone") from error
    try:
        record = _decode(os.pread(fd, _RECORD_MAX_BYTES, 0))
    except (ValueError, msgspec.DecodeError, AssertionError) as error:
        raise FilesError(404, "bin_gone") from error
    finally:
        os.close(fd)
    return Binned(bin_id, int(bin_id[:13]), record)


def ids(volume: Volume) -> list[str]:
    """The ids of everything in the bin that whoever acts may put back or delete, newest first."""
    known = sorted((name for name in names_in(volume.work("bin")) if is_id(name)), reverse=True)
    return known if guard.current() is None else [bin_id for bin_id in known if _may_change(volume, bin_id)]


def _may_change(volume: Volume, bin_id: str) -> bool:
    """Whether whoever acts may delete what was at the place that something in the bin came from."""
    with contextlib.suppress(FilesError):
        return guard.may(Verb.REMOVE, read(volume, bin_id).record.names)
    return False


def contents(volume: Volume, first: int = 0, count: int = limits.LISTED_MAX) -> tuple[list[Binned], int]:
    """A page of what is in the bin, newest first, and how many things there are in all."""
    known = ids(volume)
    found = []
    for bin_id in known[first : first + count]:
        with contextlib.suppress(FilesError):
            found.append(read(volume, bin_id))
    return found, len(known)


def restore(volume: Volume, bin_id: str) -> tuple[str, ...]:
    """Put something back where it was, durably; beside what has its name by now. Where it is.

    Raises:
        FilesError: 404 it is not in the bin, 409 a file is where its folder was.
    """
    record = read(volume, bin_id).record
    names = record.names
    guard.require(Verb.REMOVE, names)
    check_new(names)
    above, name = split(names)
    folder = volume.work("bin")
    with volume.parent(above) as parent:
        for number in range(1, limits.SAME_NAME_MAX):
            candidate = name if number == 1 else numbered(name, number)
            guard.require(Verb.REMOVE, (*above, candidate))
            with contextlib.suppress(FileExistsError), volume.names_lock:
                volume.locks.require((*above, candidate), member=True)
                tree.rename_new(bin_id, candidate, source=folder, target=parent)  # it was counted all the time
                break
        else:
            raise FilesError(409, "exists")
        volume.commits.before(parent)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(bin_id + _SUFFIX, dir_fd=folder)
    volume.commits.sync(folder)
    return (*above, candidate)


def numbered(name: str, number: int) -> str:
    """`report (2).pdf` for `report.pdf`."""
    stem, dot, ending = name.rpartition(".")
    return f"{stem} ({number}).{ending}" if stem and dot else f"{name} ({number})"


def purge(volume: Volume, bin_id: str) -> str:
    """Delete something in the bin for good: it vanishes in one step; its name in the trash is left to `Volume.purge`.

    Raises:
        FilesError: 404, it is not in the bin.
    """
    names = read(volume, bin_id).record.names if guard.current() is not None else ()
    guard.require(Verb.REMOVE, names)
    folder, trash = volume.work("bin"), secrets.token_hex(16)
    if not is_id(bin_id):
        raise FilesError(404, "bin_gone")
    present = volume.look_in(folder, bin_id)
    try:
        os.rename(bin_id, trash, src_dir_fd=folder, dst_dir_fd=volume.work("trash"))
    except FileNotFoundError as error:
        raise FilesError(404, "bin_gone") from error
    with contextlib.suppress(FileNotFoundError):
        os.unlink(bin_id + _SUFFIX, dir_fd=folder)
    volume.commits.sync(folder)
    if present is not None:
        guard.gone(names, present)
    return trash


def expired(volume: Volume, expiry_ms: int) -> list[str]:
    """The ids of what is older than it may become; records without their thing are removed here."""
    limit_ms = time.time_ns() // 1_000_000 - expiry_ms
    folder = volume.work("bin")
    present = set(names_in(folder))
    for name in present:
        bin_id = name.removesuffix(_SUFFIX)
        if name.endswith(_SUFFIX) and is_id(bin_id) and bin_id not in present and int(bin_id[:13]) < limit_ms:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
    return [name for name in present if is_id(name) and int(name[:13]) < limit_ms]
