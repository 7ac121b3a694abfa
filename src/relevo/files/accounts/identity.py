"""From a request to somebody: HTTP Basic (RFC 7617), or the cookie of a session."""

from __future__ import annotations

import base64
import binascii
import math
import time

from aiohttp import web

from relevo.files.accounts import tokens
from relevo.files.accounts.access import ANONYMOUS, EVERYONE, Kind, Who
from relevo.files.accounts.keeper import CHALLENGE, Keeper
from relevo.files.errors import FilesError
from relevo.files.http import is_secure

COOKIE = "relevo_session"
_BASIC_MAX = 2048
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def cookie(request: web.BaseRequest, name: str, value: str, *, max_age_s: int, path: str = "/") -> str:
    """A Set-Cookie field that scripts and other sites do not get."""
    secure = "; Secure" if is_secure(request) else ""
    return f"{name}={value}; Path={path}; Max-Age={max_age_s}; HttpOnly; SameSite=Lax{secure}"


def is_foreign_script(request: web.BaseRequest) -> bool:
    """Whether a browser's script asks: it is told no with a sentence, not with the browser's own password window."""
    return "Sec-Fetch-Mode" in request.headers


def _wrong() -> FilesError:
    return FilesError(401, "bad_login", headers={"WWW-Authenticate": CHALLENGE})


def basic(field: str) -> tuple[str, str]:
    """Name and password of an Authorization field.

    Raises:
        FilesError: 401, there are none in it.
    """
    scheme, _, value = field.partition(" ")
    if scheme.lower() != "basic" or len(value) > _BASIC_MAX:
        raise _wrong()
    try:
        name, colon, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError) as error:
        raise _wrong() from error
    if not colon:
        raise _wrong()
    return name, password


async def log_in(keeper: Keeper, request: web.BaseRequest, name: str, password: str) -> bool:
    """Whether name and password belong together; wrong ones are counted.

    Raises:
        FilesError: 429, too many were wrong.
    """
    user = keeper.policy.user(name)
    right = await opens(keeper, request, name, user.password if user is not None else "", password)
    return right and keeper.policy.user(name) is not None


async def opens(keeper: Keeper, request: web.BaseRequest, name: str, hashed: str, password: str) -> bool:
    """Whether a password is that of a hash; wrong ones are counted for a user's name, or for the label of a link.

    Raises:
        FilesError: 429, too many were wrong; 503.
    """
    if keeper.verifier.knows(name, password, hashed):
        return True
    address, throttle = request.remote or "", keeper.throttle

    def tell(right: bool) -> None:
        if right:
            throttle.succeeded(address, name)
        else:
            throttle.failed(address, name, time.monotonic())

    require_patience(keeper, address, name)
    return await keeper.verifier.verify(
        name, password, hashed, admit=lambda: require_patience(keeper, address, name), tell=tell
    )


def require_patience(keeper: Keeper, address: str, name: str) -> None:
    """Refuse a further guess.

    Raises:
        FilesError: 429.
    """
    wait_s = math.ceil(keeper.throttle.wait_s(address, name, time.monotonic()))
    if wait_s:
        raise FilesError(429, "throttled", headers={"Retry-After": str(wait_s)}, seconds=wait_s)


async def of(keeper: Keeper, request: web.BaseRequest, *, sessions: bool = True) -> Who:
    """Who asks.

    Args:
        keeper: the accounts.
        request: whose fields say it.
        sessions: the cookie of a session counts; else only name and password.

    Raises:
        FilesError: 401 or 429: they say who they are, but do not prove it; 403, another site's page uses their session.
    """
    if not keeper.exist:
        return EVERYONE
    if (field := request.headers.get("Authorization")) is not None:
        name, password = basic(field)
        if not await log_in(keeper, request, name, password):
            raise _wrong()
        return Who(Kind.USER, name)
    if not sessions:
        return ANONYMOUS
    session = tokens.session_of(keeper.policy, request.cookies.get(COOKIE, ""), time.time())
    if session is None:
        return ANONYMOUS
    if request.method not in _SAFE:
        _require_own_page(request)
    keeper.seen.session(session, request.remote or "", request.headers.get("User-Agent", ""))
    return Who(Kind.USER, session.user, session=session.id)


def _require_own_page(request: web.BaseRequest) -> None:
    """A browser sends the cookie by itself: a change needs a sign that our own page sent it (others were refused).

    Raises:
        FilesError: 403.
    """
    if "Origin" not in request.headers and request.headers.get("Sec-Fetch-Site") != "same-origin":
        raise FilesError(403, "foreign_page")
