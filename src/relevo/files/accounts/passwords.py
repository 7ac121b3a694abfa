"""Passwords: argon2id, off the event loop, few at a time; and what was verified a moment ago is not computed again."""

from __future__ import annotations

import asyncio
import concurrent.futures
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

import argon2

from relevo.files.errors import FilesError, unavailable

MIN_LENGTH = 8
MAX_BYTES = 1024
THREADS = 2
"""argon2id takes 64 MiB and a few hundredths of a second each."""
WAITING_MAX = 64
"""Verifications that may wait for a thread; one more is answered 503."""
REMEMBERED_S = 60.0
"""How long a verified password is not verified again: 1000 small PUTs with Basic cost one argon2, not 1000."""
REMEMBERED_MAX = 1024
_HASHER = argon2.PasswordHasher()
_NOBODY = _HASHER.hash(secrets.token_hex(16))
"""Compared with when there is no such user: whether a name exists must not show in the time an answer takes."""


def check(password: str) -> str:
    """A password that somebody wants to have.

    Raises:
        FilesError: 400, it is too short or too long.
    """
    if len(password) < MIN_LENGTH or len(password.encode("utf-8", "surrogateescape")) > MAX_BYTES or "\0" in password:
        raise FilesError(400, "password_length", min=MIN_LENGTH, max=MAX_BYTES)
    return password


def hash_of(password: str) -> str:
    """The argon2id hash of a password (PHC string); takes its time.

    Raises:
        FilesError: as `check`.
    """
    return _HASHER.hash(check(password).encode("utf-8", "surrogateescape"))


def is_hash(text: str) -> bool:
    """Whether a text is an argon2id hash."""
    try:
        return argon2.extract_parameters(text).type is argon2.Type.ID
    except argon2.exceptions.InvalidHashError:
        return False


def matches(password: str, hashed: str) -> bool:
    """Whether a password is the one of a hash; without a hash never, after the same time."""
    raw = password.encode("utf-8", "surrogateescape")[: MAX_BYTES + 1]
    try:
        return _HASHER.verify(hashed or _NOBODY, raw) and bool(hashed)
    except argon2.exceptions.VerificationError:
        return False
    except argon2.exceptions.InvalidHashError:
        return False


class Verifier:
    """Verifies passwords in threads of its own, and remembers for a short while what it verified."""

    def __init__(self) -> None:
        self._threads = concurrent.futures.ThreadPoolExecutor(THREADS, "argon2")
        self._secret = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self._running: dict[bytes, asyncio.Task[bool]] = {}
        self._turns = asyncio.Semaphore(THREADS)
        self.computed = 0

    async def hash_of(self, password: str) -> str:
        """As the function, in a thread. Raises FilesError: 400, 503."""
        check(password)
        self._bounded()
        return await asyncio.get_running_loop().run_in_executor(self._threads, hash_of, password)

    def knows(self, name: str, password: str, hashed: str) -> bool:
        """Whether this was verified within the last `REMEMBERED_S`."""
        until = self._known.get(self._mark(name, password, hashed))
        return until is not None and until > time.monotonic()

    async def verify(
        self,
        name: str,
        password: str,
        hashed: str,
        *,
        admit: Callable[[], object] = lambda: None,
        tell: Callable[[bool], object] = lambda _: None,
    ) -> bool:
        """Whether a password is right; the same question at the same time is computed once.

        Args:
            name: whose; with the next two it is the question.
            password: the one to be verified.
            hashed: what it is compared with.
            admit: asked when a thread is free for it, and may refuse: whoever sends many guesses at once finds their
                tries used up by the first of them.
            tell: told the outcome before the thread takes another question.

        Raises:
            FilesError: 503, too many wait; what `admit` raises.
        """
        if self.knows(name, password, hashed):
            return True
        mark = self._mark(name, password, hashed)
        running = self._running.get(mark)
        if running is None:
            self._bounded()
            running = asyncio.create_task(self._compute(mark, password, hashed, admit, tell))
            self._running[mark] = running
            running.add_done_callback(lambda task: self._ended(mark, task))
        return await asyncio.shield(running)

    async def _compute(
        self, mark: bytes, password: str, hashed: str, admit: Callable[[], object], tell: Callable[[bool], object]
    ) -> bool:
        async with self._turns:
            admit()
            self.computed += 1
            right = await asyncio.get_running_loop().run_in_executor(self._threads, matches, password, hashed)
            tell(right)
        if right:
            self._known[mark] = time.monotonic() + REMEMBERED_S
            self._known.move_to_end(mark)
            while len(self._known) > REMEMBERED_MAX:
                self._known.popitem(last=False)
        return right

    def _ended(self, mark: bytes, task: asyncio.Task[bool]) -> None:
        del self._running[mark]
        if not task.cancelled():
            task.exception()  # whoever waits is told; perhaps everybody has gone away

    def forget(self) -> None:
        """Verify everything anew: the accounts have changed hands."""
        self._known.clear()

    def _bounded(self) -> None:
        if len(self._running) >= WAITING_MAX:
            raise unavailable("busy")

    def _mark(self, name: str, password: str, hashed: str) -> bytes:
        """What stands for name, password and the hash it was compared with; useless without this process's secret."""
        parts = (part.encode("utf-8", "surrogateescape") for part in (name, password, hashed))
        return hmac.digest(self._secret, b"".join(len(part).to_bytes(4, "big") + part for part in parts), "sha256")
