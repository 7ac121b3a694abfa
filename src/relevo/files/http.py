"""What every handler needs from a request, and the fields that every answer carries."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import urllib.parse
from collections.abc import AsyncIterator

from aiohttp import web

from relevo.files import limits, texts
from relevo.files.accounts.access import EVERYONE, Who
from relevo.files.errors import FilesError
from relevo.files.tls import Ports
from relevo.files.urls import Place, parse_path, split_target

COMMON_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin", "Server": "relevo"}
HSTS_S = 31_536_000
"""A year."""
_DIGITS = re.compile(r"[0-9]{1,18}")


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """A request, taken apart.

    Attributes:
        request: aiohttp's.
        place: the path.
        query: the parameters; of repeated ones the last.
        language: `en` or `es`.
        who: somebody, as the request proves it.
    """

    request: web.BaseRequest
    place: Place
    query: dict[str, str]
    language: str
    who: Who = EVERYONE

    @property
    def wants_json(self) -> bool:
        """`?format=json`, or Accept prefers JSON to HTML."""
        chosen = self.query.get("format")
        if chosen:
            return chosen == "json"
        accept = self.request.headers.get("Accept", "")
        return "application/json" in accept and "text/html" not in accept

    @property
    def wants_html(self) -> bool:
        """A browser asks."""
        return not self.wants_json and "text/html" in self.request.headers.get("Accept", "")


def language_of(request: web.BaseRequest) -> str:
    """`?lang=` when it is one of ours, else what Accept-Language prefers."""
    chosen = _query(split_target(request.raw_path)[1]).get("lang", "")
    return chosen if chosen in texts.LANGUAGES else texts.choose(request.headers.get("Accept-Language", ""))


def _query(text: str) -> dict[str, str]:
    try:
        return dict(urllib.parse.parse_qsl(text, keep_blank_values=True, max_num_fields=32))
    except ValueError:
        return {}


def take_apart(request: web.BaseRequest) -> Call:
    """The call that a request is.

    Raises:
        FilesError: its path is none.
    """
    path, query = split_target(request.raw_path)
    return Call(request, parse_path(path), _query(query), language_of(request))


def content_length(request: web.BaseRequest) -> int | None:
    """The announced length of the body; None when it is sent in chunks."""
    return request.content_length


def whole_number(value: str | None, code: str = "bad_length") -> int:
    """A number in a field.

    Raises:
        FilesError: 400.
    """
    if value is None or _DIGITS.fullmatch(value) is None:
        raise FilesError(400, code)
    return int(value)


def refuse_foreign_pages(request: web.BaseRequest) -> None:
    """A page of another site could make a visitor's browser change files, with accounts or without: refuse.

    Raises:
        FilesError: 403.
    """
    if request.headers.get("Sec-Fetch-Site") in {"cross-site", "same-site"}:
        raise FilesError(403, "foreign_page")
    origin = request.headers.get("Origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("Host", ""):
        raise FilesError(403, "foreign_page")


def is_secure(request: web.BaseRequest) -> bool:
    """Whether it came over TLS."""
    return request.transport is not None and request.transport.get_extra_info("sslcontext") is not None


def lasting_tls(request: web.BaseRequest) -> dict[str, str]:
    """What tells browsers to come by TLS only from now on, where that is safe to say."""
    context = request.transport.get_extra_info("sslcontext") if request.transport is not None else None
    return {"Strict-Transport-Security": f"max-age={HSTS_S}"} if isinstance(context, Ports) and context.lasting else {}


async def go_on(request: web.BaseRequest) -> None:
    """Tell a client that waits for it (Expect: 100-continue) to send the body; refusals come before this."""
    if request.headers.get("Expect", "").lower() == "100-continue" and request.version >= (1, 1):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


async def body_pieces(request: web.BaseRequest) -> AsyncIterator[bytes]:
    """The body as it arrives.

    Raises:
        FilesError: 408 when next to nothing arrives while `limits.IDLE_BODY_S` are waited, 400 when it breaks off.
    """
    expected, received, clock = content_length(request), 0, asyncio.get_running_loop().time
    waited_s, meanwhile = 0.0, 0
    while True:
        begun_s = clock()
        try:
            async with asyncio.timeout(limits.IDLE_BODY_S - waited_s):
                piece = await request.content.readany()
        except TimeoutError as error:
            raise FilesError(
                408, "trickle", headers={"Connection": "close"}, seconds=round(limits.IDLE_BODY_S)
            ) from error
        except ConnectionError:
            raise
        except Exception as error:
            if request.transport is None:
                raise ConnectionResetError("the client went away") from error
            raise FilesError(400, "cut_off", headers={"Connection": "close"}) from error
        if not piece:
            break
        received += len(piece)
        waited_s, meanwhile = waited_s + clock() - begun_s, meanwhile + len(piece)
        if meanwhile >= limits.TRICKLE_BYTES:
            waited_s, meanwhile = 0.0, 0
        yield piece
    if expected is not None and received != expected:
        raise FilesError(400, "cut_off", headers={"Connection": "close"})


async def form_body(request: web.BaseRequest, too_much: FilesError) -> bytes:
    """The body of a form that is no upload.

    Args:
        request: whose body is read; a client that waits for it is told to go on.
        too_much: raised when there are more than `limits.FORM_MAX_BYTES`.

    Raises:
        FilesError: 415, it is no such form; `too_much`; what `body_pieces` raises.
    """
    if request.content_type != "application/x-www-form-urlencoded":
        raise FilesError(415, "form")
    await go_on(request)
    body = b""
    async for piece in body_pieces(request):
        body += piece
        if len(body) > limits.FORM_MAX_BYTES:
            raise too_much
    return body


def empty(status: int, headers: dict[str, str] | None = None) -> web.Response:
    """An answer without a body."""
    return web.Response(status=status, headers={**COMMON_HEADERS, **(headers or {})})
