"""What is known about users, groups, shares and links: immutable, whole in memory, written as one JSON object."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

import msgspec

from relevo.files.errors import FilesError

FORMAT = 1
FIRST_ID = 200_000
"""Numbers of users and groups begin here, above those that distributions and people give out. None is used twice."""
NAME_MAX = 32
_NAME = re.compile(rf"[a-z_][a-z0-9_.-]{{0,{NAME_MAX - 1}}}")
"""ASCII and lower case only: no two names look alike, and each is a legal name for Samba and the system too."""

LevelName: TypeAlias = Literal["none", "read", "write", "manage"]
Path: TypeAlias = tuple[str, ...]


class User(msgspec.Struct, frozen=True, kw_only=True):
    """Someone who may log in.

    Attributes:
        name: login name.
        uid: number that their files carry, the same on both servers since it is stored here.
        password: argon2id hash in PHC format; empty: cannot log in.
        nt: NT hash of the same password (`nt.py`), where SMB is on; empty: cannot log in over SMB.
        admin: may do everything, and change accounts.
        epoch: counted up with each change of the password: sessions of an earlier one end.
        quota_bytes: how much their files may take up; None: as much as there is.
        enabled: may log in.
    """

    name: str
    uid: int
    password: str = ""
    nt: str = ""
    admin: bool = False
    epoch: int = 0
    quota_bytes: int | None = None
    enabled: bool = True


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Users with the same permissions; `gid` as a user's uid."""

    name: str
    gid: int
    members: tuple[str, ...] = ()


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """A folder with permissions of its own.

    Attributes:
        name: what commands call it.
        path: names of the folder below the root; empty: the root.
        grants: `ana` or `@staff` -> level.
        public: everyone may read it, without logging in.
        quota_bytes: how much may lie in it, shares below it not counted; None: as much as there is.
    """

    name: str
    path: Path
    grants: dict[str, LevelName] = {}
    public: bool = False
    quota_bytes: int | None = None


class ShareLink(msgspec.Struct, frozen=True, kw_only=True):
    """An address that opens one file or folder for whoever has it.

    Attributes:
        id: the first digits of `digest`: what commands call it.
        digest: SHA-256 (hexadecimal) of the secret in the address; the secret itself is not kept.
        path: what it opens.
        kind: `read`, or `drop`: files can be put there, nothing can be seen.
        creator: the user; the link can never do more than they can now.
        created_s, expires_s: seconds since 1970; None: it does not expire.
        password: argon2id hash, or empty.
    """

    id: str
    digest: str
    path: Path
    kind: Literal["read", "drop"]
    creator: str
    created_s: int
    expires_s: int | None = None
    password: str = ""


class Accounts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything, at one moment.

    Attributes:
        format: of this file.
        generation: counted up with each change.
        next_id: the next uid or gid.
        key: secret (hexadecimal) that signs sessions; on the volume, so that they survive a failover.
        revoked: session id -> when it would have ended by itself, seconds since 1970: those that were logged out.
    """

    key: str
    format: int = FORMAT
    generation: int = 0
    next_id: int = FIRST_ID
    users: dict[str, User] = {}
    groups: dict[str, Group] = {}
    shares: dict[str, Share] = {}
    links: dict[str, ShareLink] = {}
    revoked: dict[str, int] = {}


def check_name(name: str) -> str:
    """A name for a user, a group or a share.

    Raises:
        FilesError: 400.
    """
    if _NAME.fullmatch(name) is None:
        raise FilesError(400, "account_name", name=name[:NAME_MAX], max=NAME_MAX)
    return name
