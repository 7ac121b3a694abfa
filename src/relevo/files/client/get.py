"""Fetch one file: into `NAME.part`, continued with Range and If-Range, verified, and only then given its name."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import pathlib

import aiohttp
import msgspec
import yarl

from relevo.base.errors import NOT_JSON
from relevo.files import digests, limits
from relevo.files.client import connection
from relevo.files.client.errors import ChecksumDiffers, Interrupted, ServerRefused, TransferFailed
from relevo.files.client.patience import Patience, attempt, expect
from relevo.files.client.report import SILENT, Fetched, Observer

_READ_BYTES = 256 << 10
_MODE = 0o644


class _Note(msgspec.Struct, frozen=True):
    """Which version of what the `.part` file is a part of; lies beside it as `.part.json`."""

    url: str
    etag: str


class _Changed(Exception):
    """The file at the server is another one by now."""


async def get_file(
    url: str | yarl.URL,
    target: pathlib.Path,
    *,
    give_up_s: float = limits.GIVE_UP_S,
    observer: Observer = SILENT,
    http: aiohttp.ClientSession | None = None,
) -> Fetched:
    """Fetch the file at `url` into `target`, which is replaced when all of it is there and verified.

    Args:
        url: its address at the server.
        target: where it is to lie; `target.part` is continued if it is there and still the same version.
        give_up_s: longest time without any progress.
        observer: is told what goes on.
        http: a session to use; by default one of its own.

    Raises:
        TransferFailed: it was not fetched; the sentence says why.
    """
    source = connection.parse(url) if isinstance(url, str) else url
    async with connection.session(http) as using:
        fetching = _Fetching(using, source, target, Patience(source.path, give_up_s), observer)
        try:
            return await fetching.run()
        except OSError as error:
            raise TransferFailed(f"{error.filename or target}: {error.strerror}.") from error


class _Fetching:
    """One file on its way."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        source: yarl.URL,
        target: pathlib.Path,
        patience: Patience,
        observer: Observer,
    ) -> None:
        self._http = http
        self._source = source
        self._target = target
        self._part = target.with_name(target.name + ".part")
        self._note = target.with_name(target.name + ".part.json")
        self._patience = patience
        self._observer = observer
        self._fd = -1
        self._have = 0
        self._size: int | None = None
        self._etag = ""

    async def run(self) -> Fetched:
        self._fd = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
        try:
            self._resume()
            sha256 = await self._until_verified()
            await asyncio.to_thread(os.fsync, self._fd)
        except BaseException:
            if not self._have:  # refused, or a folder: nothing that another run could go on with
                self._part.unlink(missing_ok=True)
                self._note.unlink(missing_ok=True)
            raise
        finally:
            os.close(self._fd)
        await asyncio.to_thread(self._publish)
        return Fetched(str(self._target), self._have, sha256.hex(), self._patience.retries)

    def _resume(self) -> None:
        """Go on with what an earlier run left, when it says what it is."""
        with contextlib.suppress(FileNotFoundError, *NOT_JSON):
            note = msgspec.json.decode(self._note.read_bytes(), type=_Note)
            if note.url == str(self._source):
                self._etag, self._have = note.etag, os.fstat(self._fd).st_size
        os.ftruncate(self._fd, self._have)

    async def _until_verified(self) -> bytes:
        while True:
            try:
                if self._size is None or self._have < self._size:
                    await self._fetch()
                return await self._verify()
            except _Changed:
                self._restart("")
                await self._again("the file was changed at the server")
            except Interrupted as error:
                await self._again(str(error))

    async def _again(self, why: str) -> None:
        self._observer.retrying(self._source.path, why)
        await self._patience.pause(why)

    def _restart(self, etag: str) -> None:
        """Begin at the first byte, of the version `etag`."""
        os.ftruncate(self._fd, 0)
        self._have, self._size, self._etag = 0, None, etag
        self._note.write_bytes(msgspec.json.encode(_Note(str(self._source), etag)))

    async def _fetch(self) -> None:
        headers = {}
        if self._have and self._etag:
            headers = {"Range": f"bytes={self._have}-", "If-Range": self._etag}
        async with attempt() as timer, self._http.get(self._source, headers=headers, allow_redirects=False) as answer:
            if answer.status in {301, 302, 307, 308}:
                raise ServerRefused(_folder(self._source), answer.status)
            await expect(answer, 200, 206, 416)
            if answer.status == 416:  # it is all here (or it changed: the verification tells)
                self._size = self._have
                return
            self._begin(answer)
            async for piece in answer.content.iter_chunked(_READ_BYTES):
                timer.allow(limits.STALL_S)
                await asyncio.to_thread(_write, self._fd, piece, self._have)
                self._have += len(piece)
                self._patience.progress()
                self._observer.moved(self._source.path, self._have)
        if self._size is not None and self._have != self._size:
            raise Interrupted("the answer broke off")
        self._size = self._have

    def _begin(self, answer: aiohttp.ClientResponse) -> None:
        etag = answer.headers.get("ETag", "")
        if answer.content_type == "text/html" and self._source.raw_path.endswith("/"):
            raise ServerRefused(_folder(self._source), answer.status)
        if answer.status == 206:
            start, size = _content_range(answer.headers.get("Content-Range", ""))
            if start != self._have or etag != self._etag:
                raise _Changed
            self._size = size
        else:
            self._restart(etag)
            self._size = answer.content_length
        self._observer.found(self._source.path, self._size or 0)
        self._observer.moved(self._source.path, self._have)

    async def _verify(self) -> bytes:
        """Compare the checksum of what is here with the one that the server computes.

        Raises:
            _Changed: the server has another version by now.
            ChecksumDiffers: the same version, other bytes.
        """
        headers = {"Want-Repr-Digest": f"{digests.ALGORITHM}=1"}
        if self._etag:
            headers["If-Match"] = self._etag
        async with attempt(limits.DIGEST_S), self._http.head(self._source, headers=headers) as answer:
            if answer.status == 412:
                raise _Changed
            await expect(answer, 200)
            told = digests.parse(answer.headers.get("Repr-Digest", ""))
        if told is None:
            raise ChecksumDiffers(f"{self._source.host} does not tell checksums: {self._target} is not verified.")
        mine = await asyncio.to_thread(_sha256, self._fd)
        if mine != told:
            self._restart("")
            raise ChecksumDiffers(f"What came from {self._source} does not have the checksum of the file there.")
        return told

    def _publish(self) -> None:
        self._part.replace(self._target)
        self._note.unlink(missing_ok=True)
        folder = os.open(self._target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _folder(url: yarl.URL) -> str:
    whole = url / "" if not url.raw_path.endswith("/") else url
    return f"{url} is a folder. All of it in one ZIP file: curl -o folder.zip '{whole.with_query('zip')}'"


def _content_range(field: str) -> tuple[int, int | None]:
    """First byte and whole length of a Content-Range field; (-1, None) when it is none."""
    unit, _, rest = field.partition(" ")
    span, _, size = rest.partition("/")
    start = span.partition("-")[0]
    if unit != "bytes" or not start.isdecimal():
        return -1, None
    return int(start), int(size) if size.isdecimal() else None


def _write(fd: int, piece: bytes, offset: int) -> None:
    view = memoryview(piece)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def _sha256(fd: int) -> bytes:
    digest, offset = hashlib.sha256(), 0
    while piece := os.pread(fd, 1 << 20, offset):
        digest.update(piece)
        offset += len(piece)
    return digest.digest()
