"""What was seen of links and sessions: how often a link was used, which sessions there are. Nothing rests on it.

A link or a session holds or does not by `accounts.json` alone; this is what people are shown. It is saved a few seconds
after a change (`.relevo/accounts/seen.json`), so a power cut may take the last of it, and a failover nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import msgspec

from relevo.base.errors import RelevoError
from relevo.files.accounts.model import Accounts
from relevo.files.accounts.notes import Notes
from relevo.files.accounts.tokens import Session

SAVE_S = 5.0
"""So long after a change it is saved."""
REFRESH_S = 60.0
"""A session's last use is noted this often at most."""
SESSIONS_MAX = 20_000
"""Sessions that are shown; those that were used longest ago are forgotten first. They hold all the same."""
AGENT_MAX = 200


class LinkUse(msgspec.Struct):
    """How often a link's page was opened, files were fetched by it and put by it; when it was used last."""

    opened: int = 0
    fetched: int = 0
    stored: int = 0
    last_s: int = 0


class SeenSession(msgspec.Struct):
    """A session: whose, until when it holds, when and from where it was used last, by which program."""

    user: str
    ends_s: int
    last_s: int
    address: str = ""
    agent: str = ""


class Saved(msgspec.Struct):
    """Everything, as it is saved."""

    links: dict[str, LinkUse] = {}
    sessions: dict[str, SeenSession] = {}


class Seen:
    """Takes notes while the volume is open."""

    def __init__(self) -> None:
        self.saved = Saved()
        self._write: Callable[[Saved], Awaitable[object]] | None = None
        self._changed = False
        self._notes = Notes("seen_not_saved", SAVE_S, again=True)

    def start(self, saved: Saved, write: Callable[[Saved], Awaitable[object]]) -> None:
        """The volume is open: go on from what was saved; `write` saves it again."""
        self.saved, self._write = saved, write
        self._changed = False
        self._notes.start(self._save)

    async def stop(self, limit_s: float) -> None:
        """The volume is about to be closed: save what is new, within the limit."""
        if await self._notes.stop(limit_s):
            self._write = None

    def _note(self) -> None:
        self._changed = True
        self._notes.noted()

    def link(self, link_id: str, *, opened: int = 0, fetched: int = 0, stored: int = 0) -> None:
        """A link was used."""
        use = self.saved.links.setdefault(link_id, LinkUse())
        use.opened += opened
        use.fetched += fetched
        use.stored += stored
        use.last_s = int(time.time())
        self._note()

    def session(self, session: Session, address: str, agent: str) -> None:
        """A session was used."""
        now_s, known = int(time.time()), self.saved.sessions
        before = known.get(session.id)
        if before is not None and before.last_s > now_s - REFRESH_S and before.address == address:
            return
        known.pop(session.id, None)
        known[session.id] = SeenSession(session.user, session.ends_s, now_s, address, agent[:AGENT_MAX])
        while len(known) > SESSIONS_MAX:
            del known[next(iter(known))]
        self._note()

    def forget(self, accounts: Accounts, user: str = "") -> None:
        """Drop what is over: links that are gone, sessions that have ended, and those of a user whose epoch changed."""
        now_s, sessions = time.time(), self.saved.sessions
        for link_id in [key for key in self.saved.links if key not in accounts.links]:
            del self.saved.links[link_id]
        for key, one in list(sessions.items()):
            known = accounts.users.get(one.user)
            if one.ends_s <= now_s or key in accounts.revoked or one.user == user or known is None or not known.enabled:
                del sessions[key]
        self._note()

    async def _save(self) -> None:
        if self._changed and self._write is not None:
            self._changed = False
            try:
                await self._write(self.saved)
            except RelevoError:
                self._changed = True
                raise
