"""Every change of the accounts: the old ones in, the new ones out, or a sentence why not. Pure.

Whoever may call them is decided in `admin.py`; that they are on stable storage before they count, in `store.py`.
"""

from __future__ import annotations

import hashlib
from typing import Any

from msgspec.structs import replace

from relevo.files.accounts.model import Accounts, Group, LevelName, Path, Share, ShareLink, User, check_name
from relevo.files.errors import FilesError
from relevo.files.urls import check_new

USERS_MAX = 5000
GROUPS_MAX = 1000
SHARES_MAX = 1000
LINKS_MAX = 5000
MEMBERS_MAX = USERS_MAX
REVOKED_MAX = 20_000
"""Sessions logged out before their time that are remembered; the oldest are forgotten first."""
LINK_ID_DIGITS = 12


def _next(accounts: Accounts, **fields: Any) -> Accounts:
    return replace(accounts, generation=accounts.generation + 1, **fields)


def _room(count: int, most: int) -> None:
    if count >= most:
        raise FilesError(409, "account_many", max=most)


def user_of(accounts: Accounts, name: str) -> User:
    """A user. Raises FilesError: 404."""
    if (found := accounts.users.get(name)) is None:
        raise FilesError(404, "no_user", name=name)
    return found


def group_of(accounts: Accounts, name: str) -> Group:
    """A group. Raises FilesError: 404."""
    if (found := accounts.groups.get(name.removeprefix("@"))) is None:
        raise FilesError(404, "no_group", name=name)
    return found


def share_of(accounts: Accounts, name: str) -> Share:
    """A share. Raises FilesError: 404."""
    if (found := accounts.shares.get(name)) is None:
        raise FilesError(404, "no_share", name=name)
    return found


def _with_user(accounts: Accounts, user: User) -> Accounts:
    return _next(accounts, users={**accounts.users, user.name: user})


def _with_share(accounts: Accounts, share: Share) -> Accounts:
    return _next(accounts, shares={**accounts.shares, share.name: share})


def add_user(accounts: Accounts, name: str, *, password: str = "", nt: str = "", admin: bool = False) -> Accounts:
    """A new user; the first one must be an administrator, or nobody could make the next one on the page.

    Raises:
        FilesError: 400 or 409.
    """
    check_name(name)
    if name in accounts.users:
        raise FilesError(409, "user_exists", name=name)
    _room(len(accounts.users), USERS_MAX)
    if not admin and not accounts.users:
        raise FilesError(409, "first_admin")
    user = User(name=name, uid=accounts.next_id, password=password, nt=nt, admin=admin)
    return replace(_with_user(accounts, user), next_id=accounts.next_id + 1)


def set_password(accounts: Accounts, name: str, password: str, nt: str = "") -> Accounts:
    """Another password hash, and its NT hash if there is one; sessions that were begun with the old one end."""
    user = user_of(accounts, name)
    return _with_user(accounts, replace(user, password=password, nt=nt, epoch=user.epoch + 1))


def learn_nt(accounts: Accounts, name: str, hashed: str, nt: str) -> Accounts:
    """The NT hash of a password that somebody has just logged in with, unless it was changed meanwhile."""
    user = user_of(accounts, name)
    return _with_user(accounts, replace(user, nt=nt)) if user.password == hashed else accounts


def end_sessions(accounts: Accounts, name: str) -> Accounts:
    """Every session of a user ends; the password stays. Raises FilesError: 404."""
    user = user_of(accounts, name)
    return _with_user(accounts, replace(user, epoch=user.epoch + 1))


def _keep_an_admin(accounts: Accounts) -> Accounts:
    if not any(user.admin and user.enabled for user in accounts.users.values()):
        raise FilesError(409, "last_admin")
    return accounts


def set_user(
    accounts: Accounts, name: str, *, admin: bool | None = None, enabled: bool | None = None, **quota: int | None
) -> Accounts:
    """Other settings: `admin`, `enabled`, `quota_bytes` (None: no limit).

    Raises:
        FilesError: 404, or 409 when no administrator would be left.
    """
    user = user_of(accounts, name)
    if admin is not None:
        user = replace(user, admin=admin)
    if enabled is not None:
        user = replace(user, enabled=enabled, epoch=user.epoch + (not enabled))
    if "quota_bytes" in quota:
        user = replace(user, quota_bytes=quota["quota_bytes"])
    return _keep_an_admin(_with_user(accounts, user))


def remove_user(accounts: Accounts, name: str) -> Accounts:
    """Without a user, their permissions, memberships and links; their files stay, their number is not used again."""
    user_of(accounts, name)
    changed = _next(
        accounts,
        users={key: user for key, user in accounts.users.items() if key != name},
        groups={
            key: replace(group, members=tuple(member for member in group.members if member != name))
            for key, group in accounts.groups.items()
        },
        shares={key: _without(share, name) for key, share in accounts.shares.items()},
        links={key: link for key, link in accounts.links.items() if link.creator != name},
    )
    return _keep_an_admin(changed)


def _without(share: Share, holder: str) -> Share:
    return replace(share, grants={key: level for key, level in share.grants.items() if key != holder})


def add_group(accounts: Accounts, name: str) -> Accounts:
    """A new group. Raises FilesError: 400 or 409."""
    check_name(name)
    if name in accounts.groups:
        raise FilesError(409, "group_exists", name=name)
    _room(len(accounts.groups), GROUPS_MAX)
    group = Group(name=name, gid=accounts.next_id)
    return _next(accounts, groups={**accounts.groups, name: group}, next_id=accounts.next_id + 1)


def remove_group(accounts: Accounts, name: str) -> Accounts:
    """Without a group; its permissions go too."""
    group_of(accounts, name)
    return _next(
        accounts,
        groups={key: group for key, group in accounts.groups.items() if key != name},
        shares={key: _without(share, f"@{name}") for key, share in accounts.shares.items()},
    )


def set_member(accounts: Accounts, group_name: str, user_name: str, *, member: bool) -> Accounts:
    """Somebody joins or leaves a group."""
    group, user = group_of(accounts, group_name), user_of(accounts, user_name)
    others = tuple(name for name in group.members if name != user.name)
    members = tuple(sorted((*others, user.name))) if member else others
    return _next(accounts, groups={**accounts.groups, group.name: replace(group, members=members)})


def add_share(accounts: Accounts, name: str, path: Path) -> Accounts:
    """A folder becomes a share; nobody but administrators may do anything in it yet.

    Raises:
        FilesError: 400 or 409.
    """
    check_name(name)
    if name in accounts.shares:
        raise FilesError(409, "share_exists", name=name)
    for share in accounts.shares.values():
        if share.path == path:
            raise FilesError(409, "share_taken", name=share.name)
    _room(len(accounts.shares), SHARES_MAX)
    if path:
        check_new(path)
    return _with_share(accounts, Share(name=name, path=path))


def remove_share(accounts: Accounts, name: str) -> Accounts:
    """The folder is no share any more: what is in it belongs to the share above, or to the administrators."""
    share_of(accounts, name)
    return _next(accounts, shares={key: share for key, share in accounts.shares.items() if key != name})


def permit(accounts: Accounts, share_name: str, holder: str, level: LevelName | None) -> Accounts:
    """What a user (`ana`) or a group (`@staff`) may do in a share; None: nothing is said about them."""
    share = share_of(accounts, share_name)
    if holder.startswith("@"):
        group_of(accounts, holder)
    else:
        user_of(accounts, holder)
    share = _without(share, holder)
    if level is not None:
        share = replace(share, grants={**share.grants, holder: level})
    return _with_share(accounts, share)


def set_share(accounts: Accounts, name: str, *, public: bool | None = None, **quota: int | None) -> Accounts:
    """Other settings: `public`, `quota_bytes` (None: no limit)."""
    share = share_of(accounts, name)
    if public is not None:
        share = replace(share, public=public)
    if "quota_bytes" in quota:
        share = replace(share, quota_bytes=quota["quota_bytes"])
    return _with_share(accounts, share)


def digest_of(secret: str) -> str:
    """What is kept of a link's secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def add_link(accounts: Accounts, link: ShareLink, now_s: int) -> Accounts:
    """A new link; those that have expired go. Raises FilesError: 409."""
    kept = {key: other for key, other in accounts.links.items() if not expired(other, now_s)}
    _room(len(kept), LINKS_MAX)
    assert link.id == link.digest[:LINK_ID_DIGITS], "a link's id is the beginning of its digest"
    return _next(accounts, links={**kept, link.id: link})


def expired(link: ShareLink, now_s: float) -> bool:
    """Whether a link's time is over."""
    return link.expires_s is not None and link.expires_s <= now_s


def remove_link(accounts: Accounts, link_id: str) -> Accounts:
    """Without a link. Raises FilesError: 404."""
    if link_id not in accounts.links:
        raise FilesError(404, "no_link", id=link_id)
    return _next(accounts, links={key: link for key, link in accounts.links.items() if key != link_id})


def revoke(accounts: Accounts, session: str, until_s: int, now_s: int) -> Accounts:
    """A session is logged out; those that have ended by themselves are forgotten."""
    kept = {key: end for key, end in accounts.revoked.items() if end > now_s}
    kept[session] = until_s
    newest = sorted(kept.items(), key=lambda item: item[1])[-REVOKED_MAX:]
    return _next(accounts, revoked=dict(newest))
