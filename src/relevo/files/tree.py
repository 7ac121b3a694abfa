"""Moving and copying within the volume: one atomic step for whoever looks, durable before it is answered.

Everything here but `copy` itself runs in threads of the pool, as all that touches the volume.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import os
import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING

from relevo.base.durable import sync_fd
from relevo.files import guard, limits
from relevo.files.accounts.access import Verb
from relevo.files.errors import FilesError
from relevo.files.volume import FILE_MODE, FOLDER, FOLDER_MODE, Entry, Handle, Volume, closing, folder_below, own, split

if TYPE_CHECKING:
    from relevo.files.service import Service

_LIBC = ctypes.CDLL(None, use_errno=True)
_NOREPLACE = 1
"""RENAME_NOREPLACE of renameat2(2): never over something that came into being a moment ago."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def rename_new(name: str, new: str, *, source: int, target: int) -> None:
    """Rename within open folders, only if nothing has the new name.

    Raises:
        FilesError: 409, a folder into itself.
        OSError: FileExistsError, and whatever renameat2 says.
    """
    if _LIBC.renameat2(source, os.fsencode(name), target, os.fsencode(new), _NOREPLACE) == 0:
        return
    number = ctypes.get_errno()
    if number == errno.EINVAL:
        raise FilesError(409, "inside_itself")
    raise OSError(number, os.strerror(number), name, None, new)


@contextlib.contextmanager
def existing(volume: Volume, names: tuple[str, ...]) -> Iterator[int]:
    """The folder that something is to be put in; it must exist, for a typing error must not make folders.

    Raises:
        FilesError: 409, there is none.
    """
    with contextlib.ExitStack() as stack:
        try:
            fd = stack.enter_context(volume.folder(names))
        except FileNotFoundError as error:
            raise FilesError(409, "parent_missing") from error
        except NotADirectoryError as error:
            raise FilesError(409, "not_folder") from error
        yield fd


def _refuse_inside(source: tuple[str, ...], target: tuple[str, ...]) -> None:
    if not source or not target:
        raise FilesError(403, "forbidden")
    if target[: len(source)] == source and len(target) > len(source):
        raise FilesError(409, "inside_itself")


def _present(parent: int, entry: Entry, new: str, *, replace: bool) -> Entry | None:
    """What has a name that something is about to get; only a file replaces a file, and only if told to."""
    present = Volume.look_in(parent, new)
    if present is not None and (present.is_folder or entry.is_folder or not replace):
        raise FilesError(409, "exists")
    return present


def _place(name: str, old: int, parent: int, new: str, present: Entry | None) -> None:
    """Give something its new name, which `present` has now."""
    if present is None:
        rename_new(name, new, source=old, target=parent)
    else:
        os.rename(name, new, src_dir_fd=old, dst_dir_fd=parent)


def move(volume: Volume, source: tuple[str, ...], target: tuple[str, ...], *, replace: bool = False) -> None:
    """Give a file or a folder another name or place, durably.

    Raises:
        FilesError: 404 no source, 409 something in the way, no folder to put it in, a folder into itself.
    """
    _refuse_inside(source, target)
    guard.require(Verb.REMOVE, source)
    guard.require(Verb.REMOVE, target)  # as WRITE, and no share may be below what comes to lie there
    (source_above, name), (target_above, new) = split(source), split(target)
    with volume.folder(source_above) as old, existing(volume, target_above) as parent:
        with volume.names_lock:
            entry = volume.look_in(old, name)
            if entry is None:
                raise FilesError(404, "not_found")
            if source == target:
                return
            present = _present(parent, entry, new, replace=replace)
            guard.moved(source, target, entry)
            _place(name, old, parent, new, present)
            if present is not None:
                guard.gone(target, present)
        sync_fd(parent)
        if source_above != target_above:
            sync_fd(old)


# --- copies -----------------------------------------------------------------------------------------------------------


async def copy(service: Service, source: tuple[str, ...], target: tuple[str, ...], *, replace: bool = False) -> None:
    """Copy a file or a folder with everything in it; it appears whole, and durable, or not at all.

    Raises:
        FilesError: as `move`, or the volume is full; nothing is left behind.
    """
    _refuse_inside(source, target)
    guard.require(Verb.READ_TREE, source)
    guard.require(Verb.REMOVE, target)  # as in `move`
    volume = service.volume
    entry = await service.run(_look, volume, source, target, replace=replace)
    name = secrets.token_hex(16)
    try:
        size_bytes = entry.size_bytes
        guard.require_room(target, size_bytes)
        if entry.is_folder:
            size_bytes = await _copy_folders(service, source, name, target)
            await service.run(_sync_all, volume.work("tmp"))
        else:
            await _copy_file(service, source, (name,))
        copied = dataclasses.replace(entry, size_bytes=size_bytes)
        await service.run(_publish, volume, name, copied, target, replace=replace)
    except BaseException:
        service.later(volume.purge, "tmp", name)
        raise


def _look(volume: Volume, source: tuple[str, ...], target: tuple[str, ...], *, replace: bool) -> Entry:
    entry, present = volume.look(source), volume.look(target)
    if entry is None:
        raise FilesError(404, "not_found")
    if present is not None and (present.is_folder or entry.is_folder or not replace):
        raise FilesError(409, "exists")
    return entry


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
    with folder_below(volume.work("tmp"), way[:-1]) as parent:
        os.mkdir(way[-1], FOLDER_MODE, dir_fd=parent)
        with closing(os.open(way[-1], FOLDER, dir_fd=parent)) as made:
            own(made)
    return volume.entries(source)


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
            sync_fd(out)  # of a folder's files all are brought to stable storage at once
        return 0


def _sync_all(folder: int) -> None:
    """Bring the whole file system to stable storage: one flush for the many files of a folder."""
    if _LIBC.syncfs(folder) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    sync_fd(folder)


def _publish(volume: Volume, name: str, entry: Entry, target: tuple[str, ...], *, replace: bool) -> None:
    guard.require(Verb.REMOVE, target)  # copying takes a while: as it is now
    above, new = split(target)
    with existing(volume, above) as parent:
        with volume.names_lock:
            present = _present(parent, entry, new, replace=replace)
            with guard.charged(target, entry.size_bytes, present):
                _place(name, volume.work("tmp"), parent, new, present)
        sync_fd(parent)
