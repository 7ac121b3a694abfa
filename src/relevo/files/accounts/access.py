"""The one function that says who may do what. Pure; every way in asks it, and `volume.py` asks it once more.

The share nearest above a path decides, by exact names: a name that only looks like another one is another one. A
user's own entry goes before those of their groups, of which the highest counts. What lies in no share is the
administrators'. Refusals never depend on whether something exists.
"""

from __future__ import annotations

import dataclasses
import enum

from relevo.files.accounts.model import Accounts, Path, Share, ShareLink, User
from relevo.files.urls import HIDDEN_AT_ROOT


class Level(enum.IntEnum):
    """What somebody may do in a share; each includes those before it."""

    NONE = 0
    READ = 1
    WRITE = 2
    MANAGE = 3


class Verb(enum.Enum):
    """What somebody wants to do with a path."""

    SEE = "see"  # know that it is there
    LIST = "list"  # the names in a folder, those that may be seen
    READ = "read"  # a file's content
    READ_TREE = "read_tree"  # a folder with everything below
    WRITE = "write"  # make or replace it
    REMOVE = "remove"  # delete it, or move it away, with everything below
    MANAGE = "manage"  # permissions and links


class Kind(enum.Enum):
    """How somebody came in."""

    EVERYONE = "everyone"  # there are no accounts
    ANONYMOUS = "anonymous"
    USER = "user"
    LINK = "link"


LINK_LABEL = "link:"


@dataclasses.dataclass(frozen=True, slots=True)
class Who:
    """Somebody, as far as a request proves it.

    Attributes:
        kind: how they came in.
        name: the user's name, or the link's id.
        link: the link they came by.
        session: id of their session; empty when they did not log in by the page.
    """

    kind: Kind
    name: str = ""
    link: ShareLink | None = None
    session: str = ""

    @property
    def label(self) -> str:
        """What the audit log and unfinished uploads call them; no user's name has a colon."""
        return f"{LINK_LABEL}{self.name}" if self.kind is Kind.LINK else self.name


EVERYONE = Who(Kind.EVERYONE)
ANONYMOUS = Who(Kind.ANONYMOUS)


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """Whether something is allowed; if not, `why` names the sentence in `texts.py`."""

    allowed: bool
    why: str = ""


YES = Decision(True)  # noqa: FBT003


def _no(why: str) -> Decision:
    return Decision(False, why)  # noqa: FBT003


def below(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or lies in it."""
    return path[: len(folder)] == folder


class Policy:
    """The accounts, arranged for quick answers.

    Args:
        accounts: None: there are none, and everyone may do everything.
    """

    def __init__(self, accounts: Accounts | None) -> None:
        self.accounts = accounts
        self._shares: dict[Path, Share] = {}
        self._inside: dict[Path, list[Share]] = {}
        self._groups: dict[str, frozenset[str]] = {}
        if accounts is None:
            return
        for share in accounts.shares.values():
            self._shares[share.path] = share
            for count in range(len(share.path) + 1):
                self._inside.setdefault(share.path[:count], []).append(share)
        for user in accounts.users:
            names = (f"@{group.name}" for group in accounts.groups.values() if user in group.members)
            self._groups[user] = frozenset(names)

    def user(self, name: str) -> User | None:
        """A user who may log in."""
        found = self.accounts.users.get(name) if self.accounts is not None else None
        return found if found is not None and found.enabled else None

    def share_of(self, path: Path) -> Share | None:
        """The share that a path lies in: the nearest one above it, or itself."""
        for count in range(len(path), -1, -1):
            if (share := self._shares.get(path[:count])) is not None:
                return share
        return None

    def inside(self, path: Path) -> list[Share]:
        """The shares at a path and below it."""
        return self._inside.get(path, [])

    def level(self, who: Who, share: Share | None) -> Level:
        """What somebody may do in a share; None: outside of every share. Links are not asked about here."""
        user = self.user(who.name) if who.kind is Kind.USER else None
        if user is not None and user.admin:
            return Level.MANAGE
        if share is None:
            return Level.NONE
        least = Level.READ if share.public else Level.NONE
        if user is None:
            return least
        own = share.grants.get(user.name)
        if own is not None:
            return max(least, Level[own.upper()])
        groups = self._groups.get(user.name, frozenset())
        return max((Level[level.upper()] for name, level in share.grants.items() if name in groups), default=least)


def decide(policy: Policy, who: Who, verb: Verb, path: Path) -> Decision:
    """Whether somebody may do something with a path, and if not, why."""
    if policy.accounts is None:
        return YES
    if path and path[0] in HIDDEN_AT_ROOT:
        return _no("reserved")
    if who.kind is Kind.LINK:
        return _by_link(policy, who, verb, path)
    share = policy.share_of(path)
    level = policy.level(who, share)
    match verb:
        case Verb.SEE | Verb.LIST:
            if level >= Level.READ or any(policy.level(who, item) >= Level.READ for item in policy.inside(path)):
                return YES
            return _refused(who)
        case Verb.READ:
            return YES if level >= Level.READ else _refused(who)
        case Verb.READ_TREE:
            whole = all(policy.level(who, item) >= Level.READ for item in policy.inside(path))
            return YES if level >= Level.READ and whole else _refused(who)
        case Verb.MANAGE:
            return YES if level >= Level.MANAGE else _refused(who)
    if level < Level.WRITE:
        return _refused(who, reading=level >= Level.READ)
    if verb is Verb.REMOVE and policy.inside(path):
        return _no("share_inside")
    if share is not None and share.path == path and not _is_admin(policy, who):
        return _no("share_itself")
    return YES


def _is_admin(policy: Policy, who: Who) -> bool:
    user = policy.user(who.name) if who.kind is Kind.USER else None
    return user is not None and user.admin


def _refused(who: Who, *, reading: bool = False) -> Decision:
    if who.kind is Kind.ANONYMOUS:
        return _no("log_in")
    return _no("only_read" if reading else "no_access")


def _by_link(policy: Policy, who: Who, verb: Verb, path: Path) -> Decision:
    """A link opens what it names and nothing else, where its maker may still give such links, shares inside too."""
    link = who.link
    assert link is not None, "whoever comes by a link has one"
    maker = Who(Kind.USER, link.creator)
    assert policy.accounts is not None, "asked above"
    if policy.accounts.links.get(link.id) != link:
        return _no("link_gone")
    within = policy.inside(path) if verb is Verb.READ_TREE else []
    managed = all(policy.level(maker, share) >= Level.MANAGE for share in [policy.share_of(path), *within])
    if not below(path, link.path) or not managed:
        return _no("no_access")
    usable = {"read": {Verb.SEE, Verb.LIST, Verb.READ, Verb.READ_TREE}, "drop": {Verb.WRITE}}[link.kind]
    if verb not in usable or (link.kind == "drop" and path[:-1] != link.path):
        return _no("no_access")
    return decide(policy, maker, verb, path)
