"""Who is acting: the second line of every permission. `volume.py` asks here before it touches a path.

The application binds a guard to the request's task; the pool carries it into the threads. Whatever way in is added,
and whatever it forgets to ask, the volume does not serve a path that the guard refuses. Housekeeping has no guard.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from relevo.files.accounts.access import Verb, Who

if TYPE_CHECKING:
    from relevo.files.entries import Entry


class Guard(Protocol):
    """Whoever acts.

    Attributes:
        uid, gid: owner of what they make; None: of the service.
        single: a file that has other names too (hard links) is refused: one of them may lie in another share.
        owner: whose unfinished uploads these are.
        admin: an administrator, logged in.
    """

    uid: int | None
    gid: int | None
    single: bool

    @property
    def owner(self) -> str:
        """As above."""

    @property
    def admin(self) -> bool:
        """As above."""

    @property
    def who(self) -> Who:
        """Somebody, as the request proved it."""

    def require(self, verb: Verb, names: tuple[str, ...]) -> None:
        """Raises FilesError: 401 or 403."""

    def require_room(self, names: tuple[str, ...], needed_bytes: int) -> None:
        """Raises FilesError: 507, a quota would be exceeded."""

    def require_share_room(self, names: tuple[str, ...], needed_bytes: int) -> None:
        """The same, asking only the share. Raises FilesError: 507."""

    def charge(self, names: tuple[str, ...], size_bytes: int) -> Callable[[], None]:
        """A file gets its name; what is returned takes that back. Raises FilesError: 507."""

    def gone(self, names: tuple[str, ...], entry: Entry) -> None:
        """Something does not have its name any more."""

    def weighs(self, source: tuple[str, ...], target: tuple[str, ...]) -> bool:
        """Whether a folder that moves has to be weighed first: it comes into a share that has a quota."""

    def moved(self, source: tuple[str, ...], target: tuple[str, ...], entry: Entry, inside_bytes: int) -> None:
        """Something gets another place, perhaps in another share. Raises FilesError: 507."""

    def uncounted(self) -> None:
        """Something changed whose size nobody knows without counting."""

    def quota_sentences(self, names: tuple[str, ...], language: str) -> tuple[list[str], bool]:
        """What a page says about quotas at a path, and whether one is nearly used up."""

    def may(self, verb: Verb, names: tuple[str, ...]) -> bool:
        """The same as a question."""


_acting: contextvars.ContextVar[Guard | None] = contextvars.ContextVar("acting", default=None)


@contextlib.contextmanager
def acting(guard: Guard | None) -> Iterator[None]:
    """Whoever acts while the body runs."""
    token = _acting.set(guard)
    try:
        yield
    finally:
        _acting.reset(token)


def current() -> Guard | None:
    """Whoever acts now; None: the service itself."""
    return _acting.get()


def require(verb: Verb, names: tuple[str, ...]) -> None:
    """Refuse what whoever acts may not do.

    Raises:
        FilesError: 401 or 403.
    """
    if (guard := _acting.get()) is not None:
        guard.require(verb, names)


def may(verb: Verb, names: tuple[str, ...]) -> bool:
    """Whether whoever acts may do something."""
    acting = _acting.get()
    return acting is None or acting.may(verb, names)


def require_room(names: tuple[str, ...], needed_bytes: int) -> None:
    """Refuse at once what would exceed a quota.

    Raises:
        FilesError: 507.
    """
    if (acting := _acting.get()) is not None:
        acting.require_room(names, needed_bytes)


@contextlib.contextmanager
def charged(names: tuple[str, ...], size_bytes: int, replaced: Entry | None) -> Iterator[None]:
    """Count a file that gets its name while the body runs, and give back what it replaces.

    Raises:
        FilesError: 507.
    """
    if (acting := _acting.get()) is None:
        yield
        return
    refund = acting.charge(names, size_bytes)
    try:
        yield
    except BaseException:
        refund()
        raise
    if replaced is not None:
        acting.gone(names, replaced)


def gone(names: tuple[str, ...], entry: Entry) -> None:
    """Something does not have its name any more."""
    if (acting := _acting.get()) is not None:
        acting.gone(names, entry)


def require_share_room(names: tuple[str, ...], needed_bytes: int) -> None:
    """Refuse what the share at a path may not hold, whoever owns it.

    Raises:
        FilesError: 507.
    """
    if (acting := _acting.get()) is not None:
        acting.require_share_room(names, needed_bytes)


def weighs(source: tuple[str, ...], target: tuple[str, ...]) -> bool:
    """Whether a folder that moves has to be weighed first."""
    acting = _acting.get()
    return acting is not None and acting.weighs(source, target)


def moved(source: tuple[str, ...], target: tuple[str, ...], entry: Entry, inside_bytes: int) -> None:
    """Something gets another place, perhaps in another share; asked just before.

    Raises:
        FilesError: 507.
    """
    if (acting := _acting.get()) is not None:
        acting.moved(source, target, entry, inside_bytes)


def uncounted() -> None:
    """Something changed whose size nobody knows without counting."""
    if (acting := _acting.get()) is not None:
        acting.uncounted()


def quota_sentences(names: tuple[str, ...], language: str) -> tuple[list[str], bool]:
    """What a page says about quotas at a path, and whether one is nearly used up."""
    acting = _acting.get()
    return acting.quota_sentences(names, language) if acting is not None else ([], False)
