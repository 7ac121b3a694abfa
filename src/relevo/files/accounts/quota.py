"""How much users and shares take up, and what is refused before it would be too much.

The tree itself is the account: files carry their owner's uid, the share is the nearest one above. What lies in the bin
still counts for its owner, and for the share that it came from, until it is gone for good. Each `open` counts the tree
anew in the background, so a crash leaves nothing wrong; until that is done the last count that was saved holds. In
between every file is charged before it gets its name and given back when it goes. What cannot be followed one by one
(a folder deleted or moved, other ways in) makes it stale: it is counted again. Errors are to the careful side: what is
deleted during a count may be given back only by the next one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from relevo.base.units import format_bytes
from relevo.files import bin as rubbish
from relevo.files.accounts.access import Policy
from relevo.files.accounts.model import Path, Share, User
from relevo.files.entries import Entry
from relevo.files.errors import FilesError
from relevo.files.texts import text
from relevo.files.urls import WORK_FOLDER
from relevo.files.volume import Volume

if TYPE_CHECKING:
    from relevo.files.accounts.keeper import Keeper

RECOUNT_S = 3600.0
"""Counted again after this, for what other ways in have stored."""
STALE_S = 5.0
"""And this long after something that could not be followed."""
_BIN = (WORK_FOLDER, "bin")
SLICE_S = 0.05
"""A thread counts for this long before others get their turn."""
WARN_SHARE = 0.9
"""From this share of a quota on the page warns."""


@dataclasses.dataclass
class Usage:
    """Bytes by number of the owner, and by name of the share."""

    users: Counter[int] = dataclasses.field(default_factory=Counter)
    shares: Counter[str] = dataclasses.field(default_factory=Counter)

    def add(self, uid: int, share: Share | None, size_bytes: int) -> None:
        """A file came (or went, with a negative size)."""
        self.users[uid] += size_bytes
        if share is not None:
            self.shares[share.name] += size_bytes


@dataclasses.dataclass
class Count:
    """A walk through the tree, done in slices."""

    policy: Policy
    left: list[tuple[Path, Path]] = dataclasses.field(default_factory=lambda: [((), ()), (_BIN, ())])
    """Folders to be counted, each with the path that it counts for: what is in the bin, for where it came from."""
    usage: Usage = dataclasses.field(default_factory=Usage)

    def go_on(self, volume: Volume) -> bool:
        """Count for a short while (in a thread); whether everything is counted now."""
        until = time.monotonic() + SLICE_S
        while self.left:
            folder, counted_for = self.left.pop()
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # deleted meanwhile
                if folder == _BIN:
                    self._bin(volume)
                else:
                    self._folder(volume, folder, counted_for)
            if time.monotonic() > until:
                break
        return not self.left

    def _folder(self, volume: Volume, folder: Path, counted_for: Path) -> None:
        share = self.policy.share_of(counted_for)
        for name, found in volume.stats(folder):
            if found is None:
                self.left.append(((*folder, name), (*counted_for, name)))
            else:
                self.usage.add(found[0], share, found[1])

    def _bin(self, volume: Volume) -> None:
        for name, found in volume.stats(_BIN):
            if not rubbish.is_id(name):
                continue  # the record of one
            with contextlib.suppress(FilesError):  # it has none: the power failed, and it expires
                names = rubbish.read(volume, name).record.names
                if found is None:
                    self.left.append(((*_BIN, name), names))
                else:
                    self.usage.add(found[0], self.policy.share_of(names), found[1])


class Quotas:
    """What is used, against what is allowed; threads of the pool charge it too."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._lock = threading.Lock()
        self._used = Usage()
        self._during: Usage | None = None
        self.counted = False
        self.wake: Callable[[], object] = lambda: None

    @property
    def wanted(self) -> bool:
        """Whether anybody or anything has a quota."""
        accounts = self._keeper.policy.accounts
        if accounts is None:
            return False
        users = any(user.quota_bytes is not None for user in accounts.users.values())
        return users or any(share.quota_bytes is not None for share in accounts.shares.values())

    def begin(self, saved: Usage | None = None) -> Count:
        """A new count; `saved` holds until it is done."""
        with self._lock:
            if saved is not None:
                self._used = saved
            self._during = Usage()
        return Count(self._keeper.policy)

    def end(self, count: Count) -> Usage:
        """Everything was counted: that holds now, and what was charged meanwhile."""
        with self._lock:
            during, self._during = self._during or Usage(), None
            self._used = Usage(count.usage.users + during.users, count.usage.shares + during.shares)
            self.counted = True
            return Usage(Counter(self._used.users), Counter(self._used.shares))

    def stale(self) -> None:
        """Something changed that could not be followed: whoever counts is woken."""
        self.wake()

    # --- asked by whoever stores --------------------------------------------------------------------------------------

    def left(self, user: User | None, path: Path) -> tuple[int | None, str, str]:
        """How much more fits for a user at a path: bytes (None: no limit), whose limit (`user`, `share`), its name."""
        share = self._keeper.policy.share_of(path)
        found: tuple[int | None, str, str] = (None, "", "")
        if user is not None and user.quota_bytes is not None:
            found = (user.quota_bytes - self._used.users[user.uid], "user", user.name)
        if share is not None and share.quota_bytes is not None:
            left = share.quota_bytes - self._used.shares[share.name]
            if found[0] is None or left < found[0]:
                found = (left, "share", share.name)
        return found

    def room(self, user: User | None, path: Path) -> tuple[int, int] | None:
        """How much more fits at a path and how much of that limit is used, in bytes; None: there is no limit."""
        left, whose, name = self.left(user, path)
        if left is None:
            return None
        used = self._used.users[user.uid] if whose == "user" and user is not None else self._used.shares[name]
        return max(0, left), max(0, used)

    def require(self, user: User | None, path: Path, needed_bytes: int) -> None:
        """Refuse what would be too much.

        Raises:
            FilesError: 507.
        """
        left, whose, name = self.left(user, path)
        if left is not None and needed_bytes > left:
            free, needed = format_bytes(max(0, left)), format_bytes(needed_bytes)
            raise FilesError(507, f"quota_{whose}", free=free, needed=needed, name=name)

    def charge(self, user: User | None, path: Path, size_bytes: int) -> Callable[[], None]:
        """Count a file that is about to get its name; the result takes that back.

        Raises:
            FilesError: 507.
        """
        share, uid = self._keeper.policy.share_of(path), user.uid if user is not None else 0
        with self._lock:
            self.require(user, path, size_bytes)
            self._add(uid, share, size_bytes)

        def refund() -> None:
            with self._lock:
                self._add(uid, share, -size_bytes)

        return refund

    def gone(self, path: Path, entry: Entry) -> None:
        """A file is not there any more: deleted or replaced."""
        share = self._keeper.policy.share_of(path)
        with self._lock:
            self._used.add(entry.uid, share, -entry.size_bytes)  # not `during`: perhaps it was not counted yet

    def weighs(self, source: Path, target: Path) -> bool:
        """Whether what moves has to be weighed first: it comes into a share that has a quota."""
        old, new = self._keeper.policy.share_of(source), self._keeper.policy.share_of(target)
        return new is not None and new.quota_bytes is not None and old != new

    def moved(self, source: Path, target: Path, size_bytes: int) -> None:
        """Something is about to move: its owner stays, its share may change.

        Raises:
            FilesError: 507.
        """
        old, new = self._keeper.policy.share_of(source), self._keeper.policy.share_of(target)
        if old == new:
            return
        with self._lock:
            self.require(None, target, size_bytes)
            for share, sign in ((old, -1), (new, 1)):
                if share is not None:
                    self._used.shares[share.name] += sign * size_bytes
            if new is not None and self._during is not None:
                self._during.shares[new.name] += size_bytes

    def _add(self, uid: int, share: Share | None, size_bytes: int) -> None:
        self._used.add(uid, share, size_bytes)
        if self._during is not None:
            self._during.add(uid, share, size_bytes)

    # --- shown --------------------------------------------------------------------------------------------------------

    def shown(self) -> dict[str, Any]:
        """What is used, for programs; only counted while there are quotas."""
        accounts = self._keeper.policy.accounts
        if accounts is None or not self.wanted:
            return {}
        users = {user.name: max(0, self._used.users[user.uid]) for user in accounts.users.values()}
        shares = {name: max(0, self._used.shares[name]) for name in accounts.shares}
        return {"used": {"users": users, "shares": shares, "counted": self.counted}}

    def sentences(self, user: User | None, path: Path | None, language: str) -> tuple[list[str], bool]:
        """What a page says about quotas, and whether one is nearly used up."""
        share = self._keeper.policy.share_of(path) if path is not None else None
        said, warn = [], False
        limits = []
        if user is not None and user.quota_bytes is not None:
            limits.append(("quota_yours", self._used.users[user.uid], user.quota_bytes))
        if share is not None and share.quota_bytes is not None:
            limits.append(("quota_share_used", self._used.shares[share.name], share.quota_bytes))
        for code, used, limit in limits:
            said.append(_sentence(language, code, max(0, used), limit))
            warn = warn or used >= limit * WARN_SHARE
        return said, warn


def _sentence(language: str, code: str, used: int, limit: int) -> str:
    sizes = {"used": format_bytes(used), "limit": format_bytes(limit), "left": format_bytes(max(0, limit - used))}
    if language == "es":
        sizes = {key: value.replace(".", ",") for key, value in sizes.items()}
    return text(language, code, **sizes)
