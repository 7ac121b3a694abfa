"""The volume: its system calls are made here and in `entries.py`, in threads of the pool, never on the event loop.

Names are walked one by one from the root's descriptor and no link is followed (openat with O_NOFOLLOW), so no path can
lead outside, whatever happens to the tree meanwhile. Users see the root without its work area:

    .relevo/tmp/      bodies of uploads that are under way; emptied at `open`
    .relevo/uploads/  resumable uploads (`uploads.py`)
    .relevo/trash/    folders that were deleted with their content; emptied in the background
    .relevo/bin/      what a person deleted and may want back (`bin.py`)
    .relevo/locks/    what WebDAV's clients have reserved (`lock_store.py`)

Larger changes of the tree stand in `tree.py` (move, copy) and `bin.py`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import secrets
import stat
import threading
from collections.abc import Iterator

from relevo.base.durable import sync_fd
from relevo.files import guard, properties
from relevo.files.accounts.access import Verb
from relevo.files.commits import Commits
from relevo.files.entries import (
    FILE_MODE,
    FOLDER,
    FOLDER_MODE,
    READ,
    WORK_MODE,
    Condition,
    Entry,
    closing,
    entry_of,
    folder_below,
    ignores_case,
    names_in,
    no_condition,
    own,
    special,
    split,
)
from relevo.files.errors import FilesError, IgnoresCase, NotMounted
from relevo.files.limits import RESERVED_SPACE_BYTES
from relevo.files.locks import SCHEME, Locks
from relevo.files.urls import HIDDEN_AT_ROOT, WORK_FOLDER

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Handle:
    """An open file of the volume; the volume closes those that are left when it is closed.

    Attributes:
        fd: the descriptor.
        entry: the file as it was when it was opened.
        name: its name in the work area (uploads), else empty.
    """

    __slots__ = ("_volume", "entry", "fd", "name")

    def __init__(self, volume: Volume, fd: int, entry: Entry, name: str = "") -> None:
        self._volume = volume
        self.fd = fd
        self.entry = entry
        self.name = name

    def close(self) -> None:
        """Close it; again is fine."""
        self._volume.release(self)


class Volume:
    """One mounted file system, below a root folder.

    Args:
        root: absolute path of the folder that users see as `/`.
        mountpoint: where its file system is mounted, or None when that is not to be looked at.
    """

    def __init__(self, root: pathlib.Path, mountpoint: pathlib.Path | None = None) -> None:
        self._path = root
        self._mountpoint = mountpoint
        self._root = -1
        self._work: dict[str, int] = {}
        self._handles: set[Handle] = set()
        self._lock = threading.Lock()
        self.names_lock = threading.Lock()
        self.locks = Locks()
        self._folders_lock = threading.Lock()
        self._folders_pending = 0
        self._commits: Commits | None = None

    # --- open and close -----------------------------------------------------------------------------------------------

    def open(self) -> list[tuple[str, str]]:
        """Open the root and the work area (made when missing); what an earlier run left there is returned.

        Returns:
            Work folder and name of each leftover, to be handed to `purge`.

        Raises:
            NotMounted: what would be stored would lie on this server's own disk.
            IgnoresCase: other spellings of our folder would be reached as anybody's.
            OSError: the root is not there, or the work area cannot be made.
        """
        assert self._root < 0, "opened twice"
        self._root = os.open(self._path, FOLDER & ~os.O_NOFOLLOW)
        try:
            if self._mountpoint is not None and not self._mountpoint.is_mount():  # looked at while the root is held
                raise NotMounted(f"Nothing is mounted at {self._mountpoint}.")
            if ignores_case(self._root):
                raise IgnoresCase(
                    f"names in {self._path} do not distinguish upper and lower case",
                    "Serve one without the flag F (lsattr -d): other spellings of our own folder would be open to all.",
                )
            work = self._open_or_make(self._root, WORK_FOLDER)
            with closing(work):
                for name in ("tmp", "uploads", "trash", "bin", "accounts", "audit", "locks", "tls"):
                    self._work[name] = self._open_or_make(work, name)
            self._commits = Commits(self._work["tmp"])
        except BaseException:
            self.close()
            raise
        return [(area, name) for area in ("tmp", "trash") for name in names_in(self._work[area])]

    @staticmethod
    def _open_or_make(parent: int, name: str) -> int:
        try:
            return os.open(name, FOLDER, dir_fd=parent)
        except FileNotFoundError:
            os.mkdir(name, WORK_MODE, dir_fd=parent)
            sync_fd(parent)
            return os.open(name, FOLDER, dir_fd=parent)

    def close(self) -> None:
        """Close every descriptor on the volume. Nothing may be inside another method by now."""
        with self._lock:
            handles, self._handles = self._handles, set()
        for fd in [*(handle.fd for handle in handles), *self._work.values(), self._root]:
            if fd >= 0:
                with contextlib.suppress(OSError):  # it belongs to a write that was never acknowledged
                    os.close(fd)
        self._work.clear()
        self._root, self._commits = -1, None

    @property
    def commits(self) -> Commits:
        """How what is changed here becomes durable."""
        assert self._commits is not None, "an open volume"
        return self._commits

    def open_descriptors(self) -> list[int]:
        """Descriptors of this process that still lie on the volume: empty after `close` (it checks itself)."""
        found = []
        for name in names_in("/proc/self/fd"):
            with contextlib.suppress(OSError):
                target = str(pathlib.Path("/proc/self/fd", name).readlink())
                if target == str(self._path) or target.startswith(f"{self._path}/"):
                    found.append(int(name))
        return found

    def _keep(self, fd: int, entry: Entry, name: str = "") -> Handle:
        handle = Handle(self, fd, entry, name)
        with self._lock:
            self._handles.add(handle)
        return handle

    def release(self, handle: Handle) -> None:
        """Close a handle, once."""
        with self._lock:
            if handle not in self._handles:
                return
            self._handles.remove(handle)
        os.close(handle.fd)

    # --- reading ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def folder(self, names: tuple[str, ...]) -> Iterator[int]:
        """A descriptor of a folder, walked from the root.

        Raises:
            OSError: FileNotFoundError, NotADirectoryError (a link too), …
        """
        with folder_below(self._root, names) as fd:
            yield fd

    def look(self, names: tuple[str, ...]) -> Entry | None:
        """The entry of a path, None when there is none.

        Raises:
            FilesError: 403, neither file nor folder.
            OSError: as the system calls do.
        """
        guard.require(Verb.SEE, names)
        if not names:
            found = entry_of("", os.fstat(self._root))
            assert found is not None, "the root was opened as a folder"
            return found
        above, name = split(names)
        try:
            with self.folder(above) as parent:
                return self.look_in(parent, name)
        except (FileNotFoundError, NotADirectoryError):
            return None

    @staticmethod
    def look_in(parent: int, name: str) -> Entry | None:
        """The entry of a name in an open folder; as `look`."""
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return None
        entry = entry_of(name, found)
        if entry is None:
            raise special(found)
        return entry

    def open_file(self, names: tuple[str, ...]) -> Handle | Entry:
        """Open a file for reading, or give the entry of a folder.

        Raises:
            FilesError: 404; 403 for links, devices and the like, which are never opened.
        """
        guard.require(Verb.SEE, names)
        if not names:
            return Entry("", True, 0, 0, 0)  # noqa: FBT003
        above, name = split(names)
        with self.folder(above) as parent:
            entry = self.look_in(parent, name)
            if entry is None:
                raise FilesError(404, "not_found")
            if entry.is_folder:
                return entry
            guard.require(Verb.READ, names)
            fd = os.open(name, READ, dir_fd=parent)
        found = os.fstat(fd)
        opened = entry_of(name, found)
        if opened is None or opened.is_folder:  # it was exchanged between the two calls
            os.close(fd)
            raise FilesError(404, "not_found")
        if found.st_nlink > 1 and (acting := guard.current()) is not None and acting.single:
            os.close(fd)
            raise FilesError(403, "hard_link")
        return self._keep(fd, opened)

    def entries(self, names: tuple[str, ...]) -> list[Entry]:
        """The files and folders in a folder, in no order; links and special files are left out."""
        guard.require(Verb.LIST, names)
        acting, found = guard.current(), []
        with self.folder(names) as fd, os.scandir(fd) as scan:
            for item in scan:
                if not names and item.name in HIDDEN_AT_ROOT:
                    continue
                if acting is not None and not acting.may(Verb.SEE, (*names, item.name)):
                    continue
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    entry = entry_of(item.name, item.stat(follow_symlinks=False))
                    if entry is not None:
                        found.append(entry)
        return found

    def stats(self, names: tuple[str, ...]) -> Iterator[tuple[str, tuple[int, int] | None]]:
        """Owner and size of each file in a folder, None for a folder: what quotas count. No guard is asked.

        Raises:
            OSError: as `folder`.
        """
        with self.folder(names) as fd, os.scandir(fd) as scan:
            for item in scan:
                if not names and item.name in HIDDEN_AT_ROOT:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    found = item.stat(follow_symlinks=False)
                    if stat.S_ISDIR(found.st_mode):
                        yield item.name, None
                    elif stat.S_ISREG(found.st_mode):
                        yield item.name, (found.st_uid, found.st_size)

    def prepare_share(self, names: tuple[str, ...]) -> None:
        """Make the folder of a share if it is missing, and see that permissions by exact names hold there.

        Raises:
            FilesError: 409, a part of the path is no folder, or names there do not distinguish upper and lower case.
        """
        with self.parent(names):
            pass
        for count in range(len(names)):
            with self.folder(names[:count]) as fd:
                if ignores_case(fd):
                    raise FilesError(409, "share_casefold")

    def free_bytes(self) -> int:
        """Space that uploads may use."""
        return self.space()[0]

    def space(self) -> tuple[int, int]:
        """Space that uploads may use, and space that is used, in bytes."""
        found = os.fstatvfs(self._root)
        free, used = found.f_bavail * found.f_frsize, (found.f_blocks - found.f_bfree) * found.f_frsize
        return max(0, free - RESERVED_SPACE_BYTES), used

    # --- the work area ------------------------------------------------------------------------------------------------

    def new_temporary(self) -> Handle:
        """A new empty file that users do not see."""
        name = secrets.token_hex(16)
        fd = os.open(name, _NEW, FILE_MODE, dir_fd=self._work["tmp"])
        temporary = self._keep(fd, Entry(name, False, 0, 0, 0), name)  # noqa: FBT003
        try:
            own(fd)
        except OSError:
            self.discard(temporary)
            raise
        return temporary

    def discard(self, temporary: Handle) -> None:
        """Close and delete a file of `new_temporary` that was not published."""
        self.release(temporary)
        if "tmp" in self._work:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary.name, dir_fd=self._work["tmp"])

    def work(self, area: str) -> int:
        """The descriptor of a folder of the work area: `tmp`, `uploads`, `trash`, `bin`, `locks`, …"""
        return self._work[area]

    def open_work(self, area: str) -> Handle:
        """A folder of the work area by a descriptor of its own."""
        fd = os.open(".", FOLDER, dir_fd=self._work[area])
        return self._keep(fd, Entry(area, True, 0, 0, 0))  # noqa: FBT003

    def uploads_folder(self) -> int:
        """The descriptor of the folder of resumable uploads."""
        return self._work["uploads"]

    def keep_upload(self, fd: int, name: str) -> Handle:
        """Take charge of an open file of a resumable upload."""
        return self._keep(fd, Entry(name, False, 0, 0, 0), name)  # noqa: FBT003

    def purge(self, area: str, name: str) -> None:
        """Delete something in the work area for good, with everything below it.

        Folders below are first moved up, so that no depth exhausts descriptors or the stack.
        """
        area_fd, left = self._work[area], [name]
        while left:
            name = left.pop()
            try:
                os.unlink(name, dir_fd=area_fd)
            except IsADirectoryError:
                left += self._empty_folder(area_fd, name)
            except FileNotFoundError:
                continue

    @staticmethod
    def _empty_folder(area: int, name: str) -> list[str]:
        """Remove a folder of the work area; the folders that were in it now lie beside it, under the names returned."""
        moved = []
        with closing(os.open(name, FOLDER, dir_fd=area)) as fd:
            for child in names_in(fd):
                try:
                    os.unlink(child, dir_fd=fd)
                except IsADirectoryError:
                    moved.append(secrets.token_hex(16))
                    os.rename(child, moved[-1], src_dir_fd=fd, dst_dir_fd=area)
        os.rmdir(name, dir_fd=area)
        return moved

    # --- changing -----------------------------------------------------------------------------------------------------

    def publish(
        self,
        handle: Handle,
        names: tuple[str, ...],
        condition: Condition = no_condition,
        *,
        area: str = "tmp",
        make_folders: bool = True,
    ) -> tuple[Entry, bool]:
        """Give a file of the work area its name, durably, after `commits.before`.

        Args:
            handle: the file.
            names: its path.
            condition: what is there now must be what is expected.
            area: the work folder that it lies in.
            make_folders: missing folders on the way are made.

        Returns:
            The new entry, and whether there was none before.

        Raises:
            FilesError: 409 for a folder in the way or missing, or a lock; what `condition` raises. The file is then
                still in the work area.
        """
        guard.require(Verb.WRITE, names)
        above, name = split(names)
        with self.parent(above) if make_folders else self.existing(above) as parent:
            replaced = properties.beside(parent, name)
            if properties.carry(replaced, handle.fd):
                self.commits.before(handle.fd)
            with self.names_lock:
                present = self.look_in(parent, name)
                condition(present)
                if present is not None and present.is_folder:
                    raise FilesError(409, "is_folder")
                self.locks.require(names, member=present is None)
                if properties.carry(replaced, handle.fd):  # they were changed a moment ago
                    self.commits.before(handle.fd)
                with guard.charged(names, os.fstat(handle.fd).st_size, present):
                    self._rename_in(handle.name, name, self._work[area], parent)
            self.commits.sync(*((parent,) if area == "tmp" else (parent, self._work[area])))
        published = entry_of(name, os.fstat(handle.fd))
        assert published is not None, "a temporary file is a regular file"
        return published, present is None

    @staticmethod
    def _rename_in(old: str, new: str, area: int, parent: int) -> None:
        try:
            os.rename(old, new, src_dir_fd=area, dst_dir_fd=parent)
        except FileNotFoundError as error:
            raise FilesError(409, "folder_gone") from error

    @contextlib.contextmanager
    def existing(self, names: tuple[str, ...]) -> Iterator[int]:
        """The folder that something is to be put in, where a typing error must not make folders.

        Raises:
            FilesError: 409, there is none.
        """
        with contextlib.ExitStack() as stack:
            try:
                fd = stack.enter_context(self.folder(names))
            except FileNotFoundError as error:
                raise FilesError(409, "parent_missing") from error
            except NotADirectoryError as error:
                raise FilesError(409, "not_folder") from error
            self._await_pending()
            yield fd

    @contextlib.contextmanager
    def parent(self, names: tuple[str, ...]) -> Iterator[int]:
        """The folder in which something is about to get a name, made when missing and then durable.

        Raises:
            FilesError: 409, a part of the path is a file.
        """
        try:
            with self.folder(names) as fd:
                self._await_pending()
                yield fd
                return
        except FileNotFoundError:
            pass  # it is made below
        except NotADirectoryError as error:
            raise FilesError(409, "not_folder") from error
        self._make_folders(names)
        with self.folder(names) as fd:
            yield fd

    def _await_pending(self) -> None:
        """A folder that someone else has just made may not be durable yet: wait for its fsync."""
        if self._folders_pending:
            with self._folders_lock:
                pass

    def _make_folders(self, names: tuple[str, ...]) -> None:
        with self._folders_lock:
            self._folders_pending += 1
            try:
                self._make_missing(names)
            except NotADirectoryError as error:
                raise FilesError(409, "not_folder") from error
            finally:
                self._folders_pending -= 1

    def _make_missing(self, names: tuple[str, ...]) -> None:
        fd = os.open(".", FOLDER, dir_fd=self._root)
        try:
            for count, name in enumerate(names, 1):
                try:
                    below = os.open(name, FOLDER, dir_fd=fd)
                except FileNotFoundError:
                    self.locks.require(names[:count], member=True)
                    below = self._make_one(fd, name)
                os.close(fd)
                fd = below
        finally:
            os.close(fd)

    def _make_one(self, parent: int, name: str) -> int:
        """Make a folder in an open one, durable before anything that follows; its descriptor."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, FOLDER_MODE, dir_fd=parent)
        made = os.open(name, FOLDER, dir_fd=parent)
        try:
            own(made)
            self.commits.before(parent)
        except BaseException:
            os.close(made)
            raise
        return made

    def make_folder(self, names: tuple[str, ...]) -> None:
        """Make one folder, durably.

        Raises:
            FilesError: 409 when the folder above is missing or something has the name.
        """
        guard.require(Verb.WRITE, names)
        above, name = split(names)
        try:
            with self.folder(above) as parent:
                self._await_pending()
                with self.names_lock:
                    if self.look_in(parent, name) is None:  # else mkdir says what is wrong
                        self.locks.require(names, member=True)
                    os.mkdir(name, FOLDER_MODE, dir_fd=parent)
                with closing(os.open(name, FOLDER, dir_fd=parent)) as fd:
                    own(fd)
                self.commits.sync(parent)
        except FileNotFoundError as error:
            raise FilesError(409, "parent_missing") from error
        except NotADirectoryError as error:
            raise FilesError(409, "not_folder") from error

    def remove(
        self, names: tuple[str, ...], condition: Condition = no_condition, *, recursive: bool = False
    ) -> str | None:
        """Delete a file or a folder, durably. A folder with content vanishes in one step, into the trash.

        Returns:
            The name in the trash that is left to `purge`, or None.

        Raises:
            FilesError: 404, 409 for a folder with content when not `recursive`, what `condition` raises.
        """
        guard.require(Verb.REMOVE, names)
        above, name = split(names)
        with self.folder(above) as parent:
            with self.names_lock:
                entry = self.look_in(parent, name)
                if entry is None:
                    raise FilesError(404, "not_found")
                condition(entry)
                self.locks.require(names, member=True, tree=True)
                trash = self._unlink(parent, entry, recursive=recursive)
                tokens = self.locks.forget(names)
            guard.gone(names, entry)
            self.commits.sync(parent)
        self.erase_locks(tokens)
        return trash

    def erase_locks(self, tokens: list[str]) -> None:
        """Delete what is written about locks that do not hold any more, durably."""
        for token in tokens:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(token.removeprefix(SCHEME), dir_fd=self._work["locks"])
        if tokens:
            self.commits.sync(self._work["locks"])

    def _unlink(self, parent: int, entry: Entry, *, recursive: bool) -> str | None:
        if not entry.is_folder:
            os.unlink(entry.name, dir_fd=parent)
            return None
        try:
            os.rmdir(entry.name, dir_fd=parent)
        except OSError as error:
            if not isinstance(error, FileExistsError) and error.errno != errno.ENOTEMPTY:
                raise
            if not recursive:
                raise FilesError(409, "not_empty") from error
            trash = secrets.token_hex(16)
            os.rename(entry.name, trash, src_dir_fd=parent, dst_dir_fd=self._work["trash"])
            return trash
        return None
