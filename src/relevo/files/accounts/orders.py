"""What can be ordered about accounts, by whatever way: the command line, the other server, the page.

An order never carries a password, only its hash, and an NT hash only sealed (`nt.seal`): it may cross a network to the
other server.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import msgspec

from relevo.files.accounts import audit, changes, nt, passwords, tokens
from relevo.files.accounts.access import LINK_LABEL, Kind, Verb, Who, decide
from relevo.files.accounts.keeper import refusal
from relevo.files.accounts.model import Accounts, LevelName, ShareLink
from relevo.files.accounts.seen import LinkUse, Saved
from relevo.files.errors import FilesError
from relevo.files.http import Call
from relevo.files.urls import relative_path

if TYPE_CHECKING:
    from relevo.files.service import Service

ROOT = "root"
"""Who gives orders by the command line of a server."""
TAIL_MAX = 1000
_SECRET = frozenset({"password", "nt", "digest"})
"""Fields of orders that are neither shown nor noted."""


class _Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="order"):
    changing: ClassVar[bool] = True


class UserAdd(_Order, frozen=True, kw_only=True, tag="user-add"):
    """A new user."""

    name: str
    password: str = ""
    nt: str = ""
    admin: bool = False


class UserSet(_Order, frozen=True, kw_only=True, tag="user-set"):
    """Other settings of a user; what is not mentioned stays. A `quota_bytes` of 0 takes the limit away."""

    name: str
    password: str | None = None
    nt: str = ""
    admin: bool | None = None
    enabled: bool | None = None
    quota_bytes: int | None = None


class UserRemove(_Order, frozen=True, kw_only=True, tag="user-remove"):
    """Without a user."""

    name: str


class GroupAdd(_Order, frozen=True, kw_only=True, tag="group-add"):
    """A new group."""

    name: str


class GroupRemove(_Order, frozen=True, kw_only=True, tag="group-remove"):
    """Without a group."""

    name: str


class GroupMember(_Order, frozen=True, kw_only=True, tag="group-member"):
    """Somebody joins or leaves a group."""

    name: str
    user: str
    member: bool


class ShareAdd(_Order, frozen=True, kw_only=True, tag="share-add"):
    """A folder, made when missing, becomes a share. `path`: names with `/` between them; empty: the root."""

    name: str
    path: str


class ShareSet(_Order, frozen=True, kw_only=True, tag="share-set"):
    """Other settings of a share; as `UserSet`."""

    name: str
    public: bool | None = None
    quota_bytes: int | None = None


class ShareRemove(_Order, frozen=True, kw_only=True, tag="share-remove"):
    """The folder is no share any more."""

    name: str


class SharePermit(_Order, frozen=True, kw_only=True, tag="share-permit"):
    """What a user or `@group` may do in a share; `unset`: nothing is said about them."""

    name: str
    holder: str
    level: LevelName | Literal["unset"]


class LinkAdd(_Order, frozen=True, kw_only=True, tag="link-add"):
    """A new link, of which only the digest of its secret is told (`changes.digest_of`)."""

    digest: str
    path: str
    kind: Literal["read", "drop"] = "read"
    creator: str
    expires_s: int | None = None
    password: str = ""


class LinkRemove(_Order, frozen=True, kw_only=True, tag="link-remove"):
    """Without a link."""

    id: str


class SessionEnd(_Order, frozen=True, kw_only=True, tag="session-end"):
    """A session is logged out, by its id."""

    id: str


class SessionsEnd(_Order, frozen=True, kw_only=True, tag="sessions-end"):
    """Every session of a user is logged out."""

    name: str


class Show(_Order, frozen=True, kw_only=True, tag="show"):
    """Everything, without secrets."""

    changing: ClassVar[bool] = False


class ShowAudit(_Order, frozen=True, kw_only=True, tag="audit"):
    """The last lines of the audit log; those of somebody, of a kind, with a text in them."""

    changing: ClassVar[bool] = False
    count: int = 100
    who: str = ""
    what: str = ""
    text: str = ""


Order: TypeAlias = (
    UserAdd
    | UserSet
    | UserRemove
    | GroupAdd
    | GroupRemove
    | GroupMember
    | ShareAdd
    | ShareSet
    | ShareRemove
    | SharePermit
    | LinkAdd
    | LinkRemove
    | SessionEnd
    | SessionsEnd
    | Show
    | ShowAudit
)


def parse(given: dict[str, Any]) -> Order:
    """An order as it came in.

    Raises:
        FilesError: 400.
    """
    try:
        order: Order = msgspec.convert(given, Order, strict=True)
    except msgspec.ValidationError as error:
        raise FilesError(400, "account_request", what=str(error)) from error
    hashed = getattr(order, "password", None)
    if hashed and not passwords.is_hash(hashed):
        raise FilesError(400, "account_request", what="the password is no argon2id hash")
    if (windows := getattr(order, "nt", "")) and not nt.is_nt_hash(windows):
        raise FilesError(400, "account_request", what="the NT hash is none")
    if (getattr(order, "quota_bytes", None) or 0) < 0:
        raise FilesError(400, "account_request", what="a quota is not negative")
    return order


def path_of(text: str) -> tuple[str, ...]:
    """The names of a share's folder. Raises FilesError: 400."""
    return relative_path(text) if text.strip("/") else ()


def apply(accounts: Accounts, order: Order, now_s: int) -> Accounts:
    """The accounts after an order. Pure.

    Raises:
        FilesError: it cannot be followed.
    """
    match order:
        case UserAdd():
            return changes.add_user(accounts, order.name, password=order.password, nt=order.nt, admin=order.admin)
        case UserSet():
            return _set_user(accounts, order)
        case UserRemove():
            return changes.remove_user(accounts, order.name)
        case GroupAdd():
            return changes.add_group(accounts, order.name)
        case GroupRemove():
            return changes.remove_group(accounts, order.name)
        case GroupMember():
            return changes.set_member(accounts, order.name, order.user, member=order.member)
    return _apply_to_shares(accounts, order, now_s)


def _apply_to_shares(accounts: Accounts, order: Order, now_s: int) -> Accounts:
    match order:
        case ShareAdd():
            return changes.add_share(accounts, order.name, path_of(order.path))
        case ShareSet():
            quota = {} if order.quota_bytes is None else {"quota_bytes": order.quota_bytes or None}
            return changes.set_share(accounts, order.name, public=order.public, **quota)
        case ShareRemove():
            return changes.remove_share(accounts, order.name)
        case SharePermit():
            level = None if order.level == "unset" else order.level
            return changes.permit(accounts, order.name, order.holder, level)
        case LinkAdd():
            return changes.add_link(accounts, _link(accounts, order, now_s), now_s)
        case LinkRemove():
            return changes.remove_link(accounts, order.id)
        case SessionEnd():
            return changes.revoke(accounts, order.id, now_s + tokens.SESSION_S, now_s)
        case SessionsEnd():
            return changes.end_sessions(accounts, order.name)
    raise AssertionError("only orders that change something get here")


def _set_user(accounts: Accounts, order: UserSet) -> Accounts:
    if order.password is not None:
        accounts = changes.set_password(accounts, order.name, order.password, order.nt)
    quota = {} if order.quota_bytes is None else {"quota_bytes": order.quota_bytes or None}
    return changes.set_user(accounts, order.name, admin=order.admin, enabled=order.enabled, **quota)


def _link(accounts: Accounts, order: LinkAdd, now_s: int) -> ShareLink:
    changes.user_of(accounts, order.creator)
    if len(order.digest) != 64 or not set(order.digest) <= set("0123456789abcdef"):
        raise FilesError(400, "account_request", what="the digest is no SHA-256")
    return ShareLink(
        id=order.digest[: changes.LINK_ID_DIGITS],
        digest=order.digest,
        path=path_of(order.path),
        kind=order.kind,
        creator=order.creator,
        created_s=now_s,
        expires_s=order.expires_s,
        password=order.password,
    )


def require_allowed(service: Service, who: Who | None, order: Order) -> None:
    """Administrators may order anything; who manages a share, its permissions and links. None: root on a server.

    Raises:
        FilesError: 401 or 403.
    """
    policy = service.accounts.policy
    user = policy.user(who.name) if who is not None and who.kind is Kind.USER else None
    if who is None or (user is not None and user.admin):
        return
    if user is None or policy.accounts is None:
        raise refusal("log_in")
    path = None
    match order:
        case SessionsEnd() if order.name == user.name:
            return
        case SessionEnd() if (seen := service.seen.saved.sessions.get(order.id)) is not None and seen.user == user.name:
            return
        case SharePermit():
            path = changes.share_of(policy.accounts, order.name).path
        case LinkAdd() if order.creator == user.name:
            path = path_of(order.path)
        case LinkRemove() if (link := policy.accounts.links.get(order.id)) is not None:
            if link.creator == user.name:
                return
            path = link.path
    if path is None or not decide(policy, who, Verb.MANAGE, path).allowed:
        raise FilesError(403, "admins_only")


async def execute(service: Service, order: Order, who: Who | None, call: Call | None = None) -> dict[str, Any]:
    """Follow an order: what it changes is on stable storage when this returns.

    Args:
        service: with the volume open.
        order: from `parse`.
        who: gives it; None: root, on one of the servers.
        call: the request it came by, for the audit log.

    Raises:
        FilesError: nothing was changed.
    """
    require_allowed(service, who, order)
    accounts = service.accounts.policy.accounts
    if isinstance(order, ShowAudit):
        count = min(max(order.count, 1), TAIL_MAX)
        await service.audit.flush()
        wanted = audit.Filter(order.who, order.what, order.text)
        return {"notes": await service.run(audit.tail, service.volume, count, wanted)}
    if isinstance(order, Show):
        return shown(accounts, service.seen.saved) | service.quotas.shown()
    if accounts is None and not isinstance(order, UserAdd):
        raise FilesError(404, "no_accounts")
    now_s = int(time.time())
    if isinstance(order, ShareAdd):
        assert accounts is not None, "asked above"
        apply(accounts, order, now_s)
        await service.run(service.volume.prepare_share, path_of(order.path))
    if isinstance(order, LinkAdd):
        await _require_target(service, order, now_s)
    changed = await service.change_accounts(lambda present: apply(present, order, now_s))
    ended = isinstance(order, SessionsEnd) or (isinstance(order, UserSet) and order.password is not None)
    service.seen.forget(changed, order.name if ended else "")  # type: ignore[union-attr]
    if isinstance(order, LinkRemove):
        service.traffic.end(f"{LINK_LABEL}{order.id}")
    told = {key: value for key, value in msgspec.to_builtins(order).items() if key not in _SECRET}
    if getattr(order, "password", None):
        told["password"] = "set"  # noqa: S105 - says that there is one
    await service.audit.durably(who.name if who is not None else ROOT, str(told.pop("order")), call, **told)
    return {"copies": await service.copies()}


async def _require_target(service: Service, order: LinkAdd, now_s: int) -> None:
    """A link names something that is there, and its maker may give it.

    Raises:
        FilesError: 404 or 409.
    """
    path, policy = path_of(order.path), service.accounts.policy
    if not decide(policy, Who(Kind.USER, order.creator), Verb.MANAGE, path).allowed:
        raise FilesError(409, "link_maker", name=order.creator)
    if order.expires_s is not None and order.expires_s <= now_s:
        raise FilesError(400, "link_time")
    entry = await service.run(service.volume.look, path)
    if entry is None:
        raise FilesError(404, "link_nothing", path=order.path)
    if order.kind == "drop" and not entry.is_folder:
        raise FilesError(409, "link_drop_folder")


def shown(accounts: Accounts | None, seen: Saved) -> dict[str, Any]:
    """The accounts without secrets, and what was seen of them, for programs."""
    if accounts is None:
        return {"accounts": False, "users": [], "groups": [], "shares": [], "links": [], "sessions": []}
    users = [
        {
            "name": user.name,
            "uid": user.uid,
            "admin": user.admin,
            "enabled": user.enabled,
            "password": bool(user.password),
            "smb": bool(user.nt),
            "quota_bytes": user.quota_bytes,
            "groups": sorted(group.name for group in accounts.groups.values() if user.name in group.members),
        }
        for user in accounts.users.values()
    ]
    groups = [{"name": group.name, "gid": group.gid, "members": group.members} for group in accounts.groups.values()]
    shares = [
        {
            "name": share.name,
            "path": "/" + "/".join(share.path),
            "public": share.public,
            "grants": share.grants,
            "quota_bytes": share.quota_bytes,
        }
        for share in accounts.shares.values()
    ]
    links = [
        {
            "id": link.id,
            "path": "/" + "/".join(link.path),
            "kind": link.kind,
            "creator": link.creator,
            "created_s": link.created_s,
            "expires_s": link.expires_s,
            "password": bool(link.password),
            "used": msgspec.to_builtins(seen.links.get(link.id, LinkUse())),
        }
        for link in accounts.links.values()
    ]
    sessions = [{"id": key, **msgspec.to_builtins(one)} for key, one in seen.sessions.items()]
    listed = {"users": users, "groups": groups, "shares": shares, "links": links, "sessions": sessions}
    return {"accounts": True, **listed}
