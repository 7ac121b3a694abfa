"""Moving and copying within the volume: one atomic step for whoever looks, durable before it is answered.

Everything here but `copy` itself runs in threads of the pool, as all that touches the volume.
"""

from __future__ import annotations

import ctypes
import dataclasses
import enum
import errno
import os
import secrets
from typing import TYPE_CHECKING

from relevo.base.durable import sync_fd
from relevo.files import guard, limits, properties
from relevo.files.accounts.access import Verb
from relevo.files.entries import (
    FILE_MODE,
    FOLDER,
    FOLDER_MODE,
    Condition,
    Entry,
    closing,
    folder_below,
    no_condition,
    own,
    split,
)
from relevo.files.errors import FilesError
from relevo.files.volume import Handle, Volume

if TYPE_CHECKING:
    from relevo.files.service import Service

_LIBC = ctypes.CDLL(None, use_errno=True)
_NOREPLACE = 1
"""RENAME_NOREPLACE of renameat2(2): never over something that came into being a moment ago."""
_EXCHANGE = 2
"""RENAME_EXCHANGE: two things change their names in one step."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def rename_new(name: str, new: str, *, source: int, target: int) -> None:
    """Rename within open folders, only if nothing has the new name.

    Raises:
        FilesError: 409, a folder into itself.
        OSError: FileExistsError, and whatever renameat2 says.
    """
    _rename(name, new, source, target, _NOREPLACE)


def _rename(name: str, new: str, source: int, target: int, flags: int) -> None:
    if _LIBC.renameat2(source, os.fsencode(name), target, os.fsencode(new), flags) == 0:
        return
    number = ctypes.get_errno()
    if number == errno.EINVAL:
        raise FilesError(409, "inside_itself")
    raise OSError(number, os.strerror(number), name, None, new)


def _refuse_inside(source: tuple[str, ...], target: tuple[str, ...]) -> None:
    if not source or not target:
        raise FilesError(403, "forbidden")
    if target[: len(source)] == source and len(target) > len(source):
        raise FilesError(409, "inside_itself")


class Replace(enum.Enum):
    """What may be replaced by something that gets its name."""

    NOTHING = "nothing"
    FILE = "file"  # a file by a file
    ANYTHING = "anything"  # a folder with all that is in it too


def _check_present(present: Entry | None, entry: Entry, replace: Replace) -> None:
    """Refuse what may not be replaced.

    Raises:
        FilesError: 409.
    """
    if present is None or replace is Replace.ANYTHING:
        return
    if replace is Replace.NOTHING or present.is_folder or entry.is_folder:
        raise FilesError(409, "exists")


def _place(entry: Entry, name: str, old: int, parent: int, new: str, present: Entry | None) -> bool:
    """Give something its new name, which `present` has now; whether what had it has the old name now.

    Whoever looks finds the one or the other, at every moment.
    """
    if present is None:
        rename_new(name, new, source=old, target=parent)
    elif present.is_folder or entry.is_folder:
        _rename(name, new, old, parent, _EXCHANGE)
        return True
    else:
        os.rename(name, new, src_dir_fd=old, dst_dir_fd=parent)
    return False


def move(
    volume: Volume,
    source: tuple[str, ...],
    target: tuple[str, ...],
    *,
    replace: Replace = Replace.NOTHING,
    condition: Condition = no_condition,
    inside_bytes: int = 0,
) -> str | None:
    """Give a file or a folder another name or place, durably.

    Args:
        volume: the volume.
        source: what.
        target: its new path.
        replace: what may be there.
        condition: what the source must be.
        inside_bytes: how much is in a folder, where that counts.

    Returns:
        The name in the trash of a folder that was replaced, left to `Volume.purge`, or None.

    Raises:
        FilesError: 404 no source, 409 something in the way, no folder to put it in, a folder into itself, a lock.
    """
    _refuse_inside(source, target)
    guard.require(Verb.REMOVE, source)
    guard.require(Verb.REMOVE, target)  # as WRITE, and no share may be below what comes to lie there
    (source_above, name), (target_above, new), trash = split(source), split(target), None
    with volume.folder(source_above) as old, volume.existing(target_above) as parent:
        with volume.names_lock:
            entry = volume.look_in(old, name)
            if entry is None:
                raise FilesError(404, "not_found")
            condition(entry)
            if source == target:
                return None
            present = volume.look_in(parent, new)
            _check_present(present, entry, replace)
            volume.locks.require(source, member=True, tree=True)
            volume.locks.require(target, member=present is None, tree=True)
            guard.moved(source, target, entry, inside_bytes)
            if _place(entry, name, old, parent, new, present):
                trash = secrets.token_hex(16)
                os.rename(name, trash, src_dir_fd=old, dst_dir_fd=volume.work("trash"))
            if present is not None:
                guard.gone(target, present)
            tokens = volume.locks.forget(source) + volume.locks.forget(target, itself=False)
        volume.commits.sync(*((parent,) if source_above == target_above else (parent, old)))
    volume.erase_locks(tokens)
    return trash


# --- copies -----------------------------------------------------------------------------------------------------------


async def copy(
    service: Service,
    source: tuple[str, ...],
    target: tuple[str, ...],
    *,
    replace: Replace = Replace.NOTHING,
    deep: bool = True,
) -> None:
    """Copy a file or a folder with everything in it; it appears whole, and durable, or not at all.

    Args:
        service: with the volume open.
        source: what.
        target: the path of the copy.
        replace: what may be there.
        deep: a folder's content too; else only the folder and what is said about it.

    Raises:
        FilesError: as `move`, or the volume is full; nothing is left behind.
    """
    _refuse_inside(source, target)
    guard.require(Verb.READ_TREE if deep else Verb.LIST, source)
    guard.require(Verb.REMOVE, target)  # as in `move`
    volume = service.volume
    entry = await service.run(_look, volume, source, target, replace)
    name = secrets.token_hex(16)
    try:
        size_bytes = entry.size_bytes
        guard.require_room(target, size_bytes)
        if not entry.is_folder:
            await _copy_file(service, source, (name,))
        elif deep:
            size_bytes = await _copy_whole(service, source, name, target)
        else:
            await service.run(_copy_folder_alone, volume, source, name)
        copied = dataclasses.replace(entry, size_bytes=size_bytes)
        replaced = await service.run(_publish, volume, name, copied, target, replace)
    except BaseException:
        service.later(volume.purge, "tmp", name)
        raise
    if replaced:
        service.later(volume.purge, "tmp", name)


def _look(volume: Volume, source: tuple[str, ...], target: tuple[str, ...], replace: Replace) -> Entry:
    entry, present = volume.look(source), volume.look(target)
    if entry is None:
        raise FilesError(404, "not_found")
    _check_present(present, entry, replace)
    volume.locks.require(target, member=present is None, tree=True)
    return entry


async def _copy_whole(service: Service, source: tuple[str, ...], name: str, target: tuple[str, ...]) -> int:
    """Copy a folder below the work area, durably; how many bytes its files have.

    syncfs tells each descriptor once that something could not be written since it was opened. So each copy has its
    own, opened before the first byte: by a common one another copy would be told, and this one acknowledged.
    """
    witness = await service.run(service.volume.open_work, "tmp")
    try:
        size_bytes = await _copy_folders(service, source, name, target)
        await service.run(_sync_all, witness.fd)
    finally:
        service.later(witness.close)
    return size_bytes


async def _copy_folders(service: Service, source: tuple[str, ...], name: str, target: tuple[str, ...]) -> int:
    """Copy below the work area, folder by folder; how many bytes its files have.

    Raises:
        FilesError: 507, more than a quota of the target allows; and as `copy`.
    """
    volume, size_bytes = service.volume, 0
    ways: list[tuple[str, ...]] = [()]
    while ways:
        way = ways.pop()
        for entry in await service.run(_begin_folder, volume, (*source, *way), (name, *way)):
            if entry.is_folder:
                ways.append((*way, entry.name))
            else:
                size_bytes += entry.size_bytes
                guard.require_room(target, size_bytes)
                await _copy_file(service, (*source, *way, entry.name), (name, *way, entry.name))
    return size_bytes


def _begin_folder(volume: Volume, source: tuple[str, ...], way: tuple[str, ...]) -> list[Entry]:
    _make_folder(volume, source, way)
    return volume.entries(source)


def _make_folder(volume: Volume, source: tuple[str, ...], way: tuple[str, ...]) -> None:
    with folder_below(volume.work("tmp"), way[:-1]) as parent:
        os.mkdir(way[-1], FOLDER_MODE, dir_fd=parent)
        with closing(os.open(way[-1], FOLDER, dir_fd=parent)) as made, volume.folder(source) as old:
            own(made)
            properties.carry(old, made)


def _copy_folder_alone(volume: Volume, source: tuple[str, ...], name: str) -> None:
    _make_folder(volume, source, (name,))
    with folder_below(volume.work("tmp"), (name,)) as made:
        volume.commits.before(made)


async def _copy_file(service: Service, source: tuple[str, ...], way: tuple[str, ...]) -> None:
    """Copy one file, of which one version is held open: another one may get its name meanwhile."""
    handle = await service.run(service.volume.open_file, source)
    if isinstance(handle, Entry):
        raise FilesError(409, "is_folder")
    try:
        offset = 0
        while (step := await service.run(_copy_slice, service.volume, handle, way, offset)) > 0:
            offset += step
    finally:
        service.later(handle.close)


def _copy_slice(volume: Volume, handle: Handle, way: tuple[str, ...], offset: int) -> int:
    """Copy one slice, so that neither other requests nor a hand-over wait for a large file; 0 at its end."""
    flags = _NEW if offset == 0 else os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    with (
        folder_below(volume.work("tmp"), way[:-1]) as parent,
        closing(os.open(way[-1], flags, FILE_MODE, dir_fd=parent)) as out,
    ):
        if offset == 0:
            own(out)
            properties.carry(handle.fd, out)
        done, wanted = 0, limits.COPY_SLICE_BYTES
        while done < wanted:
            count = os.copy_file_range(handle.fd, out, wanted - done, offset + done, offset + done)
            if count == 0:
                break
            done += count
        if done == wanted:
            os.fdatasync(out)  # what the last flush has to wait for stays bounded
            return done
        os.utime(out, ns=(handle.entry.mtime_ns, handle.entry.mtime_ns))
        if len(way) == 1:
            volume.commits.before(out)  # of a folder's files all are brought to stable storage at once
        return 0


def _sync_all(folder: int) -> None:
    """Bring the whole file system to stable storage: one flush for the many files of a folder."""
    if _LIBC.syncfs(folder) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    sync_fd(folder)


def _publish(volume: Volume, name: str, entry: Entry, target: tuple[str, ...], replace: Replace) -> bool:
    """Give a copy its name; whether what it replaced has the copy's old name now."""
    guard.require(Verb.REMOVE, target)  # copying takes a while: as it is now
    above, new = split(target)
    with volume.existing(above) as parent:
        with volume.names_lock:
            present = volume.look_in(parent, new)
            _check_present(present, entry, replace)
            volume.locks.require(target, member=present is None, tree=True)
            with guard.charged(target, entry.size_bytes, present):
                replaced = _place(entry, name, volume.work("tmp"), parent, new, present)
            tokens = volume.locks.forget(target, itself=False)
        volume.commits.sync(parent)
    volume.erase_locks(tokens)
    return replaced
