"""When to try again, and when to give up.

A failover looks like this from here: silence, then connections refused, unreachable or reset, then 503 for a moment,
then all is well. Each is a reason to try again soon; only a long time without any progress is a reason to give up.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator

import aiohttp

from relevo.base.units import format_duration_ms
from relevo.files import limits
from relevo.files.client.errors import CertificateNotTrusted, GaveUp, Interrupted, ServerRefused

_COME_AGAIN = frozenset({408, 423, 425, 429, 502, 503, 504})
_SENTENCE_MAX_BYTES = 4096


class Patience:
    """The attempts of one transfer.

    Args:
        what: named in the sentence when it fails.
        give_up_s: longest time without progress.
    """

    def __init__(self, what: str, give_up_s: float = limits.GIVE_UP_S) -> None:
        self._what = what
        self._give_up_s = give_up_s
        self._progress_s = time.monotonic()
        self._pause_s = limits.RETRY_FIRST_S
        self.retries = 0

    def progress(self) -> None:
        """Something went well: patience is fresh again."""
        self._progress_s = time.monotonic()
        self._pause_s = limits.RETRY_FIRST_S

    async def pause(self, why: str) -> None:
        """Wait before the next attempt.

        Raises:
            GaveUp: there was no progress for too long.
        """
        self.retries += 1
        if time.monotonic() - self._progress_s >= self._give_up_s:
            limit = format_duration_ms(round(self._give_up_s * 1000))
            raise GaveUp(f"{self._what}: no progress for {limit}; the last attempt ended with: {why}")
        await asyncio.sleep(self._pause_s * random.uniform(0.7, 1.0))
        self._pause_s = min(self._pause_s * 2, limits.RETRY_LAST_S)


class Timer:
    """A time limit for the next sign of life, moved on with each one."""

    def __init__(self, timeout: asyncio.Timeout) -> None:
        self._timeout = timeout

    def allow(self, seconds: float) -> None:
        """The next sign of life may take so long."""
        with contextlib.suppress(RuntimeError):  # it is over already: whoever still sends will notice
            self._timeout.reschedule(asyncio.get_running_loop().time() + seconds)


@contextlib.asynccontextmanager
async def attempt(first_s: float = limits.STALL_S) -> AsyncIterator[Timer]:
    """One attempt, which ends when there is no sign of life for too long.

    Raises:
        Interrupted: it broke off; the reason is its text.
        CertificateNotTrusted: no attempt will succeed.
    """
    try:
        async with asyncio.timeout(first_s) as timeout:
            yield Timer(timeout)
    except TimeoutError as error:
        raise Interrupted("the server does not answer") from error
    except aiohttp.ClientPayloadError as error:
        raise Interrupted("the answer broke off") from error
    except aiohttp.ServerDisconnectedError as error:
        raise Interrupted("the connection was closed") from error
    except aiohttp.InvalidURL as error:
        raise ServerRefused(f"{error} is not the address of a file server.", 0) from error
    except aiohttp.ClientConnectorCertificateError as error:
        why = getattr(error.certificate_error, "verify_message", "") or error.certificate_error
        raise CertificateNotTrusted(
            f"The certificate of {error.host} is not trusted ({why}).",
            "Name one that is: SSL_CERT_FILE=FILE relevo …; or use the name that it was made for.",
        ) from error
    except (aiohttp.ClientConnectionError, OSError) as error:
        raise Interrupted(_reason(error)) from error


def _reason(error: Exception) -> str:
    inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    text = inner.strerror if isinstance(inner, OSError) and inner.strerror else str(inner)
    return text or type(error).__name__


async def expect(answer: aiohttp.ClientResponse, *statuses: int) -> None:
    """Go on when the answer has one of these statuses.

    Raises:
        Interrupted: the server asks to come again.
        ServerRefused: it says no.
    """
    if answer.status in statuses:
        return
    sentence = (await answer.content.read(_SENTENCE_MAX_BYTES)).decode("utf-8", "replace").strip()
    told = f"{answer.status} {sentence or answer.reason or ''}".strip()
    if answer.status in _COME_AGAIN:
        raise Interrupted(told)
    raise ServerRefused(f"{answer.url.path}: {told}", answer.status)
