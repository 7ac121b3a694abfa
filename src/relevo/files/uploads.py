"""Resumable uploads on the volume. What `offset` says is on stable storage, whatever happens to this server.

Two files in the work area's `uploads` folder: `ID` holds the bytes, `ID.info` says what they are:

    bytes 0-19   the durable offset, decimal, padded with zeros
    byte 20      newline
    the rest     one JSON object (`Info`) and a newline

Order of writing: bytes, commit, offset, commit. The length of the bytes' file proves nothing after a power cut
(its blocks may be written back in any order), so it is cut to the recorded offset before it is continued. The record of
a finished upload stays until it expires, so that a client whose last answer was lost learns that it is finished; then
the offset is the length and `ID` is gone (it was renamed to its place).
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time

import msgspec

from relevo.files import beside, limits
from relevo.files.entries import Entry, names_in, own, write_all
from relevo.files.errors import FilesError
from relevo.files.urls import check_new
from relevo.files.volume import Handle, Volume

_OFFSET_DIGITS = 20
_ID = re.compile(r"[0-9a-f]{32}")
_SUFFIX = ".info"
_INFO_MAX_BYTES = 64 << 10
_MODE = 0o644
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


class Info(msgspec.Struct, frozen=True):
    """What an upload is; written once, when it is created.

    Attributes:
        names: where it belongs.
        length_bytes: how long the whole file is.
        metadata: the Upload-Metadata field as the client sent it.
        sha256: the checksum (hexadecimal) that the client announced, or empty.
        replace: whether a file of this name is replaced.
        owner: the user or link who began it, or empty: there were no accounts then.
        beside: it replaces nothing, and gets a number when its name is taken.
    """

    names: tuple[str, ...]
    length_bytes: int
    metadata: str = ""
    sha256: str = ""
    replace: bool = True
    owner: str = ""
    beside: bool = False


class Upload:
    """A resumable upload.

    Attributes:
        id: 32 hexadecimal digits.
        info: what it is.
        offset: how many bytes are on stable storage.
        published: it has its name; there is nothing left to do.
        touched_s: when something last arrived, seconds since 1970.
    """

    __slots__ = ("id", "info", "offset", "published", "touched_s")

    def __init__(self, upload_id: str, info: Info, offset: int, *, published: bool, touched_s: float) -> None:
        assert 0 <= offset <= info.length_bytes, "an offset lies within the file"
        self.id = upload_id
        self.info = info
        self.offset = offset
        self.published = published
        self.touched_s = touched_s

    @property
    def complete(self) -> bool:
        """Every byte is on stable storage."""
        return self.offset == self.info.length_bytes


class ChecksumWrong(FilesError):
    """A complete upload is not what its client announced; it has been deleted."""

    def __init__(self) -> None:
        super().__init__(422, "digest_mismatch")


def is_id(text: str) -> bool:
    """Whether a text can be the id of an upload."""
    return _ID.fullmatch(text) is not None


def create(volume: Volume, info: Info) -> Upload:
    """Record a new upload, durably.

    Raises:
        FilesError: 503 when there are too many.
        OSError: as the system calls do.
    """
    folder = volume.uploads_folder()
    if len(names_in(folder)) >= 2 * limits.UPLOADS_MAX:
        raise FilesError(503, "tus_many", headers={"Retry-After": "60"})
    upload_id = secrets.token_hex(16)
    fd = os.open(upload_id, _FLAGS | os.O_CREAT | os.O_EXCL, _MODE, dir_fd=folder)
    try:
        own(fd)
    finally:
        os.close(fd)
    fd = os.open(upload_id + _SUFFIX, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
    try:
        write_all(fd, [_offset_line(0), msgspec.json.encode(info), b"\n"])
        volume.commits.before(fd)
    finally:
        os.close(fd)
    volume.commits.sync(folder)
    return Upload(upload_id, info, 0, published=False, touched_s=time.time())


def _offset_line(offset: int) -> bytes:
    return b"%0*d\n" % (_OFFSET_DIGITS, offset)


def load(volume: Volume, upload_id: str) -> Upload:
    """Read what is known of an upload.

    Raises:
        FilesError: 404, there is none of this id, or its record is damaged.
    """
    folder = volume.uploads_folder()
    try:
        fd = os.open(upload_id + _SUFFIX, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError as error:
        raise FilesError(404, "tus_gone") from error
    try:
        raw = os.pread(fd, _INFO_MAX_BYTES, 0)
        touched_s = os.fstat(fd).st_mtime
    finally:
        os.close(fd)
    info, offset = _parse(raw)
    try:
        touched_s = max(touched_s, os.stat(upload_id, dir_fd=folder, follow_symlinks=False).st_mtime)
    except FileNotFoundError:
        if offset < info.length_bytes:
            raise FilesError(404, "tus_gone") from None
        return Upload(upload_id, info, offset, published=True, touched_s=touched_s)
    return Upload(upload_id, info, offset, published=False, touched_s=touched_s)


def _parse(raw: bytes) -> tuple[Info, int]:
    try:
        offset = int(raw[:_OFFSET_DIGITS])
        info = msgspec.json.decode(raw[_OFFSET_DIGITS + 1 :], type=Info)
        check_new(info.names)
    except (ValueError, msgspec.DecodeError, FilesError) as error:
        raise FilesError(404, "tus_gone") from error
    if not 0 <= offset <= info.length_bytes:
        raise FilesError(404, "tus_gone")
    return info, offset


def open_to_append(volume: Volume, upload: Upload) -> Handle:
    """Open the bytes of an upload, cut to what is durable, positioned at their end.

    Raises:
        OSError: as the system calls do.
    """
    fd = os.open(upload.id, _FLAGS, dir_fd=volume.uploads_folder())
    handle = volume.keep_upload(fd, upload.id)
    os.ftruncate(fd, upload.offset)
    os.lseek(fd, 0, os.SEEK_END)
    return handle


def sync(volume: Volume, upload: Upload, handle: Handle) -> None:
    """Bring what was written to stable storage, and then record how much that is.

    Raises:
        OSError: as the system calls do; the recorded offset is then the former one.
    """
    written = os.lseek(handle.fd, 0, os.SEEK_CUR)
    assert upload.offset <= written <= upload.info.length_bytes, "only new bytes within the file were appended"
    if written == upload.offset:
        return
    volume.commits.sync(handle.fd, data_only=True)
    fd = os.open(upload.id + _SUFFIX, _FLAGS, dir_fd=volume.uploads_folder())
    try:
        os.pwrite(fd, _offset_line(written), 0)
        volume.commits.sync(fd, data_only=True)
    finally:
        os.close(fd)
    upload.offset = written


def open_complete(volume: Volume, upload: Upload) -> Handle:
    """Open the bytes of a complete upload, to compare their checksum and to `finish` it.

    Raises:
        OSError: as the system call does.
    """
    assert upload.complete, "only complete uploads are published"
    assert not upload.published, "an upload is published once"
    return volume.keep_upload(os.open(upload.id, _FLAGS, dir_fd=volume.uploads_folder()), upload.id)


def finish(volume: Volume, upload: Upload, handle: Handle) -> Entry:
    """Give a complete upload, whose checksum was compared, its name, durably; returns the new entry.

    Raises:
        FilesError: its place is taken by a folder, …; the upload stays.
    """
    volume.commits.before(handle.fd)

    def expected(present: Entry | None) -> None:
        if present is not None and not upload.info.replace:
            raise FilesError(409, "exists")

    if upload.info.beside:
        entry = beside.publish(volume, handle, upload.info.names, area="uploads")
    else:
        entry, _ = volume.publish(handle, upload.info.names, expected, area="uploads")
    upload.published = True
    return entry


def delete(volume: Volume, upload_id: str) -> None:
    """Forget an upload, whatever there is of it; its record goes first, so that it never comes back half."""
    folder = volume.uploads_folder()
    for name in (upload_id + _SUFFIX, upload_id):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
    volume.commits.sync(folder)


def ids(volume: Volume) -> list[str]:
    """The ids of every upload that something lies there for."""
    return sorted({name.removesuffix(_SUFFIX) for name in names_in(volume.uploads_folder())})


def expired(volume: Volume, upload_id: str, expiry_ms: int) -> bool:
    """Whether an upload is so old that it is to be deleted; without a readable record its files' age counts."""
    try:
        touched_s = load(volume, upload_id).touched_s
    except FilesError:
        touched_s = 0.0
        for name in (upload_id, upload_id + _SUFFIX):
            with contextlib.suppress(FileNotFoundError):
                found = os.stat(name, dir_fd=volume.uploads_folder(), follow_symlinks=False)
                touched_s = max(touched_s, found.st_mtime)
    return time.time() - touched_s > expiry_ms / 1000
