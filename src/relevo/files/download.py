"""GET and HEAD of a file: conditions, ranges, checksum on demand, and the kernel's sendfile, made in threads.

aiohttp's FileResponse and asyncio's `loop.sendfile` read the file on the event loop's thread; on a suspended device
that would stop the whole service (docs/adr/0001).
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import time
import urllib.parse

from aiohttp import web

from relevo.files import digests, limits
from relevo.files.conditions import Verdict, http_date, judge, range_of
from relevo.files.entries import Entry
from relevo.files.errors import FilesError
from relevo.files.http import COMMON_HEADERS, Call, empty, is_secure
from relevo.files.kinds import content_type
from relevo.files.service import Service
from relevo.files.traffic import deliver, reset
from relevo.files.urls import shown
from relevo.files.volume import Handle

_SHOWN_SAFELY = ("image/", "audio/", "video/", "application/pdf")
_SANDBOX = "sandbox; default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"


def disposition(name: str, *, attachment: bool) -> str:
    """The Content-Disposition of a file (RFC 6266): never more than one harmless quoted word and one encoded one."""
    plain = "".join(char if char.isascii() and char.isprintable() and char not in '"\\%' else "_" for char in name)
    encoded = urllib.parse.quote(os.fsencode(name), safe="")
    kind = "attachment" if attachment else "inline"
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{encoded}"


def _headers(entry: Entry, *, attachment: bool) -> dict[str, str]:
    kind = content_type(shown(entry.name))
    headers = {
        **COMMON_HEADERS,
        "ETag": entry.version.etag,
        "Last-Modified": http_date(entry.version.mtime_s),
        "Accept-Ranges": "bytes",
        "Cache-Control": "no-cache",
        "Content-Type": kind,
        "Content-Disposition": disposition(entry.name, attachment=attachment),
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    if kind.startswith("image/svg") or not kind.startswith(_SHOWN_SAFELY):
        headers["Content-Security-Policy"] = _SANDBOX  # a page that was uploaded must not act in our name
    return headers


async def send_file(service: Service, call: Call, handle: Handle) -> web.StreamResponse:
    """Answer with an open file, which is closed afterwards."""
    try:
        return await _answer(service, call, handle)
    finally:
        service.later(handle.close)


async def _answer(service: Service, call: Call, handle: Handle) -> web.StreamResponse:
    request, entry = call.request, handle.entry
    headers = _headers(entry, attachment="download" in call.query)
    verdict = judge(request.method, request.headers, entry.version)
    if verdict is Verdict.FAILED:
        raise FilesError(412, "precondition")
    if verdict is Verdict.NOT_MODIFIED:
        kept = {"ETag", "Last-Modified", "Cache-Control", *COMMON_HEADERS}
        return empty(304, {name: value for name, value in headers.items() if name in kept})
    # RFC 9110, 14.2: Range is defined for GET only
    part = range_of(request.headers, entry.version) if request.method == "GET" else None
    offset, count = part or (0, entry.size_bytes)
    if part is not None:
        headers["Content-Range"] = f"bytes {offset}-{offset + count - 1}/{entry.size_bytes}"
    if digests.wanted(request.headers):
        headers["Repr-Digest"] = digests.field(await service.sha256(handle.fd))
        headers["Relevo-Copies"] = str(await service.copies())
    status = 206 if part else 200
    if request.method == "GET" and count <= limits.SMALL_FILE_BYTES:
        body = await service.run(os.pread, handle.fd, count, offset)
        if len(body) != count:
            raise FilesError(503, "busy", headers={"Retry-After": "1"})  # it was cut while we looked at it
        return web.Response(status=status, headers=headers, body=body)
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = count
    await response.prepare(request)
    if request.method == "GET":
        await _send_body(service, request, response, handle, (offset, count))
    await response.write_eof()
    return response


async def _send_body(
    service: Service, request: web.BaseRequest, response: web.StreamResponse, handle: Handle, part: tuple[int, int]
) -> None:
    transport, (offset, count) = request.transport, part
    if transport is None:
        raise ConnectionResetError("the client went away")
    if is_secure(request):
        await _write_body(service, request, response, handle, (offset, count))
        return
    whole = False
    try:
        await _drain(request, transport)
        # A descriptor of our own: the loop may close the connection (and the number be used anew) while a thread sends.
        out = os.dup(transport.get_extra_info("socket").fileno())
        try:
            await _sendfile(service, out, handle.fd, offset, count)
        finally:
            os.close(out)
        whole = True
    except FilesError as error:  # the head is sent: the only honest thing left is to break off
        raise ConnectionResetError("the volume failed while a file was being sent") from error
    finally:
        if not whole:
            reset(transport)


async def _write_body(
    service: Service, request: web.BaseRequest, response: web.StreamResponse, handle: Handle, part: tuple[int, int]
) -> None:
    """The same over TLS: what goes out has to be encrypted here first, so the kernel cannot send the file by itself."""
    offset, count = part
    whole = False
    try:
        while count:
            piece = await service.run(os.pread, handle.fd, min(count, limits.CHUNK_BYTES), offset)
            if not piece:
                raise ConnectionResetError("the file was cut while it was being sent")
            await deliver(request, response, piece)
            offset, count = offset + len(piece), count - len(piece)
        whole = True
    except FilesError as error:  # as above
        raise ConnectionResetError("the volume failed while a file was being sent") from error
    finally:
        if not whole:
            reset(request.transport)


async def _drain(request: web.BaseRequest, transport: asyncio.Transport) -> None:
    """Wait until nothing that was written before is left in the transport's buffer."""
    transport.set_write_buffer_limits(high=0)
    try:
        async with asyncio.timeout(limits.IDLE_SEND_S):
            await request.writer.drain()
    except TimeoutError as error:
        raise ConnectionResetError("the client takes nothing") from error
    transport.set_write_buffer_limits()
    if transport.is_closing() or transport.get_write_buffer_size():
        raise ConnectionResetError("the client went away")


async def _sendfile(service: Service, out: int, source: int, offset: int, count: int) -> None:
    end = offset + count
    while offset < end:
        sent = await service.run(_send_slice, out, source, offset, min(end - offset, limits.SENDFILE_SLICE_BYTES))
        offset += sent
        if sent == 0:
            await _writable(out)


def _send_slice(out: int, source: int, offset: int, count: int) -> int:
    """Send until the slice is out or the client is slow; how much went out."""
    sent = 0
    poll = select.poll()
    poll.register(out, select.POLLOUT)
    until = time.monotonic() + limits.SENDFILE_SLICE_MS / 1000
    while sent < count and time.monotonic() < until:
        try:
            step = os.sendfile(out, source, offset + sent, count - sent)
        except BlockingIOError:
            if not poll.poll(limits.SENDFILE_PATIENCE_MS):
                break
            continue
        except OSError as error:
            if error.errno in {errno.EPIPE, errno.ECONNRESET, errno.ETIMEDOUT, errno.ENOTCONN}:
                raise ConnectionResetError("the client went away") from error
            raise
        if step == 0:
            raise ConnectionResetError("the file was cut while it was being sent")
        sent += step
    return sent


async def _writable(out: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(out, ready.set)
    try:
        async with asyncio.timeout(limits.IDLE_SEND_S):
            await ready.wait()
    except TimeoutError as error:
        raise ConnectionResetError("the client takes nothing") from error
    finally:
        loop.remove_writer(out)
