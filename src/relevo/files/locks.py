"""The locks of WebDAV (RFC 4918, sections 6 and 7): who has reserved what. No I/O; `lock_store.py` keeps them.

They bind every way in: `volume.py`, `tree.py` and `bin.py` ask `Locks.require` where they ask the guard. A request
names the locks that it knows by their tokens (`submitting`); a token counts only for whoever took the lock. The table
is asked from threads of the pool and from the event loop; each method holds its mutex for a moment, and waits for no
disk.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterator

from relevo.files import guard
from relevo.files.errors import FilesError
from relevo.files.limits import LOCKS_MAX

Path = tuple[str, ...]
SCHEME = "opaquelocktoken:"
"""RFC 4918, appendix C: the form of a token that Windows expects."""


@dataclasses.dataclass(frozen=True, slots=True)
class Lock:
    """One lock.

    Attributes:
        token: its secret name, a URI.
        names: what it was taken on.
        deep: it covers everything below as well (depth infinity).
        shared: others may have a shared one too; else it is exclusive.
        owner: what the client says about itself: the content of DAV:owner, as XML.
        creator: the user who took it; empty without accounts.
        timeout_s: how long it holds after it was taken or refreshed.
        ends_s: when that is over, seconds since 1970.
    """

    token: str
    names: Path
    deep: bool
    shared: bool
    owner: str
    creator: str
    timeout_s: int
    ends_s: float

    def covers(self, names: Path) -> bool:
        """Whether something is locked by it."""
        return names == self.names or (self.deep and names[: len(self.names)] == self.names)


class Locked(FilesError):
    """Somebody else has reserved it. Attributes: `names`, where the lock was taken."""

    def __init__(self, code: str, names: Path) -> None:
        # for pages and programs without locks it is a conflict; 423 would make them wait and try again by themselves
        super().__init__(423 if _submitted.get() is not None else 409, code)
        self.names = names


_submitted: contextvars.ContextVar[frozenset[str] | None] = contextvars.ContextVar("lock_tokens", default=None)


@contextlib.contextmanager
def submitting(tokens: frozenset[str]) -> Iterator[None]:
    """Whoever acts knows these locks while the body runs; the pool carries that into its threads."""
    before = _submitted.set((_submitted.get() or frozenset()) | tokens)
    try:
        yield
    finally:
        _submitted.reset(before)


def new_token() -> str:
    """A token that nobody can guess."""
    return SCHEME + str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))


def acting() -> str:
    """Whoever takes a lock now; empty without accounts."""
    who = guard.current()
    return who.owner if who is not None else ""


class Locks:
    """All locks of a volume.

    Args:
        now: seconds since 1970: locks outlive a failover, so their end is a moment that both servers understand.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._mutex = threading.Lock()
        self._locks: dict[str, Lock] = {}
        self._at: dict[Path, set[str]] = {}

    def put(self, lock: Lock) -> None:
        """Take in a lock that is written down on the volume."""
        with self._mutex:
            self._keep(lock)

    def renew(self, lock: Lock) -> bool:
        """A lock holds longer, unless it is over by now; whether it does."""
        with self._mutex:
            held = lock.token in self._locks
            if held:
                self._keep(lock)
            return held

    def add(self, lock: Lock) -> None:
        """Take a new lock.

        Raises:
            FilesError: 423 it contradicts another one, 507 there are too many.
        """
        with self._mutex:
            if len(self._locks) >= LOCKS_MAX:
                raise FilesError(507, "locks_many")
            for other in self._covering(lock.names) + (self._below(lock.names) if lock.deep else []):
                if not (lock.shared and other.shared):
                    raise Locked("lock_conflict", other.names)
            self._keep(lock)

    def drop(self, token: str) -> None:
        """Forget a lock."""
        with self._mutex:
            self._lose(token)

    def forget(self, names: Path, *, itself: bool = True) -> list[str]:
        """What was there is gone, and the locks on it and below with it; their tokens."""
        with self._mutex:
            gone = [lock.token for lock in self._locks.values() if lock.names[: len(names)] == names]
            gone = [token for token in gone if itself or self._locks[token].names != names]
            for token in gone:
                self._lose(token)
            return gone

    def expired(self) -> list[str]:
        """Forget what is over; the tokens."""
        with self._mutex:
            gone = [lock.token for lock in self._locks.values() if lock.ends_s <= self._now()]
            for token in gone:
                self._lose(token)
            return gone

    def covering(self, names: Path) -> list[Lock]:
        """The locks that hold for something now."""
        with self._mutex:
            return self._covering(names)

    def find(self, token: str) -> Lock | None:
        """The lock of a token, if it holds now."""
        with self._mutex:
            lock = self._locks.get(token)
            return lock if lock is not None and lock.ends_s > self._now() else None

    def left_s(self, lock: Lock) -> int:
        """How long a lock still holds."""
        return max(0, round(lock.ends_s - self._now()))

    def require(self, names: Path, *, member: bool = False, tree: bool = False) -> None:
        """Refuse a change of what somebody else has locked.

        Args:
            names: what is changed.
            member: its name comes or goes, which changes the folder above too.
            tree: everything below goes with it.

        Raises:
            Locked: whoever acts has not submitted a token of theirs for it.
        """
        known, who = _submitted.get() or frozenset(), acting()
        with self._mutex:
            affected = {names} | ({names[:-1]} if member and names else set())
            if tree:
                affected |= {lock.names for lock in self._below(names)}
            for place in sorted(affected):
                found = self._covering(place)
                if found and not any(lock.token in known and lock.creator == who for lock in found):
                    raise Locked("locked", found[0].names)

    # --- with the mutex held ------------------------------------------------------------------------------------------

    def _keep(self, lock: Lock) -> None:
        self._locks[lock.token] = lock
        self._at.setdefault(lock.names, set()).add(lock.token)

    def _lose(self, token: str) -> None:
        if (lock := self._locks.pop(token, None)) is not None:
            self._at[lock.names].discard(token)
            if not self._at[lock.names]:
                del self._at[lock.names]

    def _covering(self, names: Path) -> list[Lock]:
        """A folder of many things is described by asking this for each: only the way to it is looked at."""
        if not self._locks:
            return []
        now_s = self._now()
        found = [self._locks[token] for count in range(len(names) + 1) for token in self._at.get(names[:count], ())]
        return [lock for lock in found if lock.ends_s > now_s and lock.covers(names)]

    def _below(self, names: Path) -> list[Lock]:
        now_s = self._now()
        return [lock for lock in self._locks.values() if lock.ends_s > now_s and lock.names[: len(names)] == names]
