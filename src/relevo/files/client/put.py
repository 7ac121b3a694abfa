"""Store one file: by one PUT when it is small, by a resumable upload otherwise."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import pathlib
from collections.abc import AsyncIterator, Mapping

import aiohttp
import yarl

from relevo.files import digests, limits
from relevo.files.client import connection
from relevo.files.client.errors import ChecksumDiffers, Interrupted, ServerRefused, SourceChanged, TransferFailed
from relevo.files.client.patience import Patience, Timer, attempt, expect
from relevo.files.client.report import SILENT, Observer, Stored

_READ_BYTES = 256 << 10
_HASHED_BYTES_PER_S = 50 << 20
"""A slow server's speed of checking a checksum: the answer to the last part may take this much longer."""
_ENDPOINT = "/.relevo/tus/"
_TUS = {"Tus-Resumable": "1.0.0"}
_PART_TYPE = "application/offset+octet-stream"


async def put_file(
    source: pathlib.Path,
    url: str | yarl.URL,
    *,
    give_up_s: float = limits.GIVE_UP_S,
    observer: Observer = SILENT,
    http: aiohttp.ClientSession | None = None,
) -> Stored:
    """Store a file under the exact address `url`, through whatever failovers happen meanwhile.

    Args:
        source: the file.
        url: its address at the server.
        give_up_s: longest time without any progress.
        observer: is told what goes on.
        http: a session to use; by default one of its own.

    Raises:
        TransferFailed: it was not stored; the sentence says why.
    """
    target = connection.parse(url) if isinstance(url, str) else url
    async with connection.session(http) as using:
        sending = _Sending(using, source, target, Patience(str(source), give_up_s), observer)
        result = await sending.run()
    observer.stored(source, result)
    return result


def answer_s(size_bytes: int) -> float:
    """How long the server may take for its answer to the last byte of a file: it flushes, and reads it once more."""
    return limits.ANSWER_S + size_bytes / _HASHED_BYTES_PER_S


class _Sending:
    """One file on its way."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        source: pathlib.Path,
        target: yarl.URL,
        patience: Patience,
        observer: Observer,
    ) -> None:
        self._http = http
        self._source = source
        self._target = target
        self._patience = patience
        self._observer = observer
        self._fd = -1
        self._size = 0
        self._sha256 = b""
        self._position = 0
        self._shrunk = False

    async def run(self) -> Stored:
        try:
            self._fd = os.open(self._source, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise TransferFailed(f"{self._source}: {error.strerror}.") from error
        try:
            before = os.fstat(self._fd)
            self._size = before.st_size
            self._observer.found(self._source, self._size)
            self._sha256 = await asyncio.to_thread(_sha256, self._fd)
            small = self._size <= limits.SMALL_PUT_BYTES
            try:
                copies = await (self._put() if small else self._resumable())
            except ServerRefused as error:
                if error.status in {400, 422} and _moved_on(before, os.fstat(self._fd)):
                    raise SourceChanged(f"{self._source} was changed while it was being stored.") from error
                raise
            path = "/" + "/".join(connection.names_of(self._target))
            return Stored(path, self._size, self._sha256.hex(), copies, self._patience.retries)
        finally:
            os.close(self._fd)

    # --- small files --------------------------------------------------------------------------------------------------

    async def _put(self) -> int:
        field = digests.field(self._sha256)
        body = await asyncio.to_thread(os.pread, self._fd, self._size, 0)
        while True:
            try:
                async with (
                    attempt(limits.STALL_S + limits.ANSWER_S) as timer,
                    self._http.put(self._target, data=body, headers={"Repr-Digest": field}) as answer,
                ):
                    timer.allow(limits.ANSWER_S)
                    await expect(answer, 201, 204)
                    self._observer.moved(self._source, self._size)
                    copies = _copies(answer.headers)
                    if self._confirmed(answer.headers):
                        return copies
                return await self._verify()
            except Interrupted as error:
                await self._again(error)

    # --- large files --------------------------------------------------------------------------------------------------

    async def _resumable(self) -> int:
        upload: yarl.URL | None = None
        headers: Mapping[str, str] = {}
        while True:
            try:
                if upload is None:
                    upload = await self._create()
                    offset, headers = 0, {}
                else:
                    offset, headers = await self._offset(upload)
                while offset < self._size:
                    offset, headers = await self._patch(upload, offset)
                return _copies(headers) if self._confirmed(headers) else await self._verify()
            except Interrupted as error:
                await self._again(error)
            except ServerRefused as error:
                if upload is None or error.status not in {404, 409, 410}:
                    raise
                if error.status != 409:  # it has expired: from the beginning
                    upload = None
                await self._again(error)

    async def _create(self) -> yarl.URL:
        values = {"path": "/".join(connection.names_of(self._target)), "sha256": self._sha256.hex()}
        metadata = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in values.items())
        headers = {**_TUS, "Upload-Length": str(self._size), "Upload-Metadata": metadata}
        url = connection.at_root(self._target, _ENDPOINT)
        async with attempt(limits.ANSWER_S), self._http.post(url, headers=headers) as answer:
            await expect(answer, 201)
            return connection.at_root(self._target, answer.headers["Location"])

    async def _offset(self, upload: yarl.URL) -> tuple[int, Mapping[str, str]]:
        async with attempt(answer_s(self._size)), self._http.head(upload, headers=_TUS) as answer:
            await expect(answer, 200)
            return self._reached(answer.headers), answer.headers

    async def _patch(self, upload: yarl.URL, offset: int) -> tuple[int, Mapping[str, str]]:
        count = min(self._size - offset, limits.PATCH_BYTES)
        last = offset + count == self._size
        headers = {
            **_TUS,
            "Content-Type": _PART_TYPE,
            "Content-Length": str(count),
            "Upload-Offset": str(offset),
        }
        async with attempt() as timer:
            body = self._body(offset, count, timer, answer_s(self._size) if last else limits.ANSWER_S)
            async with self._http.patch(upload, data=body, headers=headers) as answer:
                await expect(answer, 204)
                return self._reached(answer.headers), answer.headers

    async def _body(self, offset: int, count: int, timer: Timer, finally_s: float) -> AsyncIterator[bytes]:
        end = offset + count
        while offset < end:
            piece = await asyncio.to_thread(os.pread, self._fd, min(_READ_BYTES, end - offset), offset)
            if not piece:
                self._shrunk = True
                raise EOFError
            timer.allow(limits.STALL_S)
            yield piece
            offset += len(piece)
            self._observer.moved(self._source, offset)
        timer.allow(finally_s)

    def _reached(self, headers: Mapping[str, str]) -> int:
        """What the server has on stable storage; more than before is progress."""
        text = headers.get("Upload-Offset", "")
        offset = int(text) if text.isdecimal() else -1
        if not 0 <= offset <= self._size:
            raise TransferFailed(f"{self._target.host} speaks the upload protocol in a way that is not understood.")
        if offset > self._position:
            self._patience.progress()
        self._position = offset
        self._observer.moved(self._source, offset)
        return offset

    # --- both ---------------------------------------------------------------------------------------------------------

    async def _again(self, error: Exception) -> None:
        if self._shrunk:
            raise SourceChanged(f"{self._source} became shorter while it was being stored.") from error
        self._observer.retrying(self._source, str(error))
        await self._patience.pause(str(error))

    def _confirmed(self, headers: Mapping[str, str]) -> bool:
        """Whether the server has vouched for the checksum in this answer.

        Raises:
            ChecksumDiffers: it has another one.
        """
        told = digests.parse(headers.get("Repr-Digest", ""))
        if told is not None and told != self._sha256:
            raise ChecksumDiffers(f"{self._target} does not have the checksum of {self._source}.")
        return told is not None

    async def _verify(self) -> int:
        """Ask for the checksum of what is stored there now."""
        headers = {"Want-Repr-Digest": f"{digests.ALGORITHM}=1"}
        async with attempt(limits.DIGEST_S), self._http.head(self._target, headers=headers) as answer:
            await expect(answer, 200)
            if not self._confirmed(answer.headers):
                raise ChecksumDiffers(f"{self._target.host} does not tell checksums: {self._source} is not verified.")
            return _copies(answer.headers)


def _copies(headers: Mapping[str, str]) -> int:
    """The number of copies that the answer vouches for; an answer that says nothing vouches for one."""
    return 2 if headers.get("Relevo-Copies") == "2" else 1


def _sha256(fd: int) -> bytes:
    digest, offset = hashlib.sha256(), 0
    while piece := os.pread(fd, 1 << 20, offset):
        digest.update(piece)
        offset += len(piece)
    return digest.digest()


def _moved_on(before: os.stat_result, after: os.stat_result) -> bool:
    return (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)
