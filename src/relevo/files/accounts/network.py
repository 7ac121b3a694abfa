"""What the servers of network drives (Samba) have to know of the accounts. Pure.

Only what the account store itself decides is told: for each share who may read and who may write, computed by
`access.Policy`, so that no other program needs to know groups or how permissions combine.
"""

from __future__ import annotations

from typing import Any

from relevo.files.accounts.access import Kind, Level, Policy, Who
from relevo.files.accounts.model import Share
from relevo.files.urls import WORK_FOLDER

HIDDEN_AT_ROOT = frozenset({WORK_FOLDER, "lost+found"})
"""What is no file of anybody's; a word that only addresses of pages reserve is an ordinary name here."""


def told(policy: Policy) -> dict[str, Any]:
    """The accounts as `Drives` of `agents/smb_conf.py` takes them: users with NT hashes, shares with permissions."""
    accounts = policy.accounts
    if accounts is None:
        return {"accounts": False, "generation": 0, "users": [], "shares": []}
    users = [{"name": user.name, "uid": user.uid, "nt": user.nt} for user in accounts.users.values() if user.enabled]
    shares = [_share(policy, share) for share in accounts.shares.values()]
    return {"accounts": True, "generation": accounts.generation, "users": users, "shares": shares}


def _share(policy: Policy, share: Share) -> dict[str, Any]:
    assert policy.accounts is not None, "there are accounts"
    levels = {
        user.name: policy.level(Who(Kind.USER, user.name), share)
        for user in policy.accounts.users.values()
        if user.enabled
    }
    return {
        "name": share.name,
        "path": share.path,
        "public": share.public,
        "readers": sorted(name for name, level in levels.items() if level is Level.READ),
        "writers": sorted(name for name, level in levels.items() if level >= Level.WRITE),
        "hidden": _hidden(policy, share),
    }


def _hidden(policy: Policy, share: Share) -> list[str]:
    """Names in the share's folder with another share in or below them: that one has permissions of its own.

    Not only the share itself but what leads to it: whoever may write above could move it to where it is no share.
    """
    depth = len(share.path)
    inner = {other.path[depth] for other in policy.inside(share.path) if other is not share}
    return sorted(inner | HIDDEN_AT_ROOT if not share.path else inner)
