"""The accounts of an open volume: read at `open`, changed one after the other, asked by every request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from relevo.files.accounts import store, tokens
from relevo.files.accounts.access import EVERYONE, Kind, Policy, Verb, Who, decide
from relevo.files.accounts.model import Accounts, Path, User
from relevo.files.accounts.passwords import Verifier
from relevo.files.accounts.quota import Quotas
from relevo.files.accounts.seen import Seen
from relevo.files.accounts.throttle import Throttle
from relevo.files.entries import Entry
from relevo.files.errors import FilesError
from relevo.files.volume import Volume

Change = Callable[[Accounts], Accounts]
Run = Callable[..., Awaitable[Any]]
_STATUS = {"link_gone": 404, "share_inside": 409, "share_itself": 409}
"""Of a refusal; 403 when it is not here."""
CHALLENGE = 'Basic realm="Relevo", charset="UTF-8"'
_log = structlog.get_logger()


def refusal(why: str) -> FilesError:
    """The answer that a decision of `access.decide` means."""
    if why == "log_in":
        return FilesError(401, why, headers={"WWW-Authenticate": CHALLENGE})
    return FilesError(_STATUS.get(why, 403), why)


class Keeper:
    """The accounts, and what this process remembers about passwords.

    Attributes:
        policy: what holds now.
        verifier: of passwords.
        throttle: of guesses.
        quotas: what is used and allowed.
        seen: which sessions there are, and how often links were used.
    """

    def __init__(self) -> None:
        self.policy = Policy(None)
        self.verifier = Verifier()
        self.throttle = Throttle()
        self.quotas = Quotas(self)
        self.seen = Seen()
        self._changing = asyncio.Lock()

    @property
    def exist(self) -> bool:
        """Whether there are accounts; without them everyone may do everything."""
        return self.policy.accounts is not None

    def load(self, volume: Volume) -> None:
        """Take what the volume says (in a thread).

        Raises:
            AccountsDamaged: its accounts cannot be read.
        """
        self.policy = store.load(volume)
        self.verifier.forget()

    async def change(self, run: Run, volume: Volume, change: Change) -> Accounts:
        """Change the accounts; on stable storage when this returns, and only then do they count.

        Args:
            run: makes a blocking call in a thread (`Service.run`).
            volume: the open one.
            change: one of `changes`.

        Raises:
            FilesError: nothing was changed.
        """
        async with self._changing:
            present = self.policy.accounts
            accounts = change(present if present is not None else store.new())
            self.policy = await run(store.save, volume, accounts)
        _log.info("accounts_changed", generation=accounts.generation)
        return accounts

    def guard(self, who: Who) -> Acting | None:
        """What the volume asks while somebody acts; None without accounts."""
        return Acting(self, who) if who is not EVERYONE else None


class Acting:
    """Somebody who acts, for `guard.py`: each question is answered by the accounts as they are at that moment."""

    def __init__(self, keeper: Keeper, who: Who) -> None:
        self._keeper = keeper
        self.who = who
        user = self.user
        self.single = user is None or not user.admin or who.kind is not Kind.USER
        self.uid = user.uid if user is not None else None
        self.gid = self.uid

    @property
    def user(self) -> User | None:
        """The user whose quota and number count: who came by a link acts for its maker."""
        name = self.who.link.creator if self.who.link is not None else self.who.name
        return self._keeper.policy.user(name)

    @property
    def owner(self) -> str:
        """Whose unfinished uploads these are."""
        return self.who.label

    @property
    def admin(self) -> bool:
        """An administrator, logged in."""
        user = self.user
        return self.who.kind is Kind.USER and user is not None and user.admin

    def require_room(self, names: Path, needed_bytes: int) -> None:
        """Refuse what would exceed a quota.

        Raises:
            FilesError: 507.
        """
        self._keeper.quotas.require(self.user, names, needed_bytes)

    def require_share_room(self, names: Path, needed_bytes: int) -> None:
        """The same, asking only the share. Raises FilesError: 507."""
        self._keeper.quotas.require(None, names, needed_bytes)

    def charge(self, names: Path, size_bytes: int) -> Callable[[], None]:
        """Count a file that gets its name. Raises FilesError: 507."""
        return self._keeper.quotas.charge(self.user, names, size_bytes)

    def gone(self, names: Path, entry: Entry) -> None:
        """Give back what a file took up; of a folder nobody knows without counting."""
        if entry.is_folder:
            self._keeper.quotas.stale()
        else:
            self._keeper.quotas.gone(names, entry)

    def weighs(self, source: Path, target: Path) -> bool:
        """Whether a folder that moves has to be weighed first."""
        return self._keeper.quotas.weighs(source, target)

    def moved(self, source: Path, target: Path, entry: Entry, inside_bytes: int) -> None:
        """Count something in another share, a folder with what was found inside. Raises FilesError: 507."""
        self._keeper.quotas.moved(source, target, entry.size_bytes + inside_bytes)
        if entry.is_folder:
            self._keeper.quotas.stale()  # it may have grown since it was weighed

    def uncounted(self) -> None:
        """Something changed whose size nobody knows without counting."""
        self._keeper.quotas.stale()

    def quota_sentences(self, names: Path, language: str) -> tuple[list[str], bool]:
        """What a page says about quotas at a path, and whether one is nearly used up."""
        if self.who.kind is not Kind.USER:
            return [], False
        return self._keeper.quotas.sentences(self.user, names, language)

    def may(self, verb: Verb, names: Path) -> bool:
        """Whether they may do something."""
        return decide(self._keeper.policy, self.who, verb, names).allowed

    def require(self, verb: Verb, names: Path) -> None:
        """Refuse what they may not do.

        Raises:
            FilesError: 401, 403 or 409.
        """
        decision = decide(self._keeper.policy, self.who, verb, names)
        if not decision.allowed:
            raise refusal(decision.why)

    def form_token(self) -> str:
        """What the forms of somebody carry about accounts; empty for whoever has not logged in."""
        if self.who.kind is not Kind.USER:
            return ""
        return tokens.form_token(self._keeper.policy, tokens.form_of(self.who.name, self.who.session))
