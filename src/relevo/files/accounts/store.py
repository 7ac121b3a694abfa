"""The accounts on the volume: `.relevo/accounts/accounts.json`, replaced whole and fsynced (docs/adr/0008).

Either the old or the new accounts are there after a power cut, on both servers, since the volume is the same one. A
file that cannot be read closes the service: to take it for "no accounts" would open everything to everyone.
"""

from __future__ import annotations

import secrets
from collections import Counter

import msgspec

from relevo.base.errors import NOT_JSON, RelevoError
from relevo.files.accounts.access import Policy
from relevo.files.accounts.model import FORMAT, Accounts
from relevo.files.accounts.quota import Usage
from relevo.files.accounts.seen import Saved
from relevo.files.volume import Volume
from relevo.files.whole import read_whole, replace_whole

FOLDER = "accounts"
FILE = "accounts.json"
_USAGE = "usage.json"
_CLIENTS = "clients.json"
_SEEN = "seen.json"
MAX_BYTES = 16 << 20
KEY_BYTES = 32


class AccountsDamaged(RelevoError):
    """The file of the accounts is there, but is not what was written."""


class _SavedUsage(msgspec.Struct):
    users: dict[int, int] = {}
    shares: dict[str, int] = {}


def new() -> Accounts:
    """Accounts of nobody, with a new secret."""
    return Accounts(key=secrets.token_hex(KEY_BYTES))


def load(volume: Volume) -> Policy:
    """What the volume says; a volume without the file is open to everyone.

    Raises:
        AccountsDamaged: the file cannot be understood.
        OSError: as the system calls do.
    """
    if (raw := read_whole(volume, FOLDER, FILE, MAX_BYTES + 1)) is None:
        return Policy(None)
    try:
        accounts = msgspec.json.decode(raw, type=Accounts, strict=True)
        if accounts.format != FORMAT or len(bytes.fromhex(accounts.key)) < KEY_BYTES or not accounts.users:
            raise ValueError("unknown format")
    except (ValueError, msgspec.DecodeError) as error:
        raise AccountsDamaged(
            f"The accounts on the volume (.relevo/{FOLDER}/{FILE}) cannot be read ({error}).",
            "Restore the file from a backup; removing it would open the volume to everyone.",
        ) from error
    return Policy(accounts)


def save(volume: Volume, accounts: Accounts) -> Policy:
    """Replace the accounts, durably.

    Raises:
        OSError: as the system calls do; the old ones are then still in place.
    """
    replace_whole(volume, FOLDER, FILE, msgspec.json.format(msgspec.json.encode(accounts), indent=1) + b"\n")
    return Policy(accounts)


def load_usage(volume: Volume) -> Usage | None:
    """The last count that was saved, None when there is none that can be read."""
    try:
        saved = msgspec.json.decode(read_whole(volume, FOLDER, _USAGE, MAX_BYTES + 1) or b"", type=_SavedUsage)
    except NOT_JSON:
        return None
    return Usage(Counter(saved.users), Counter(saved.shares))


def load_seen(volume: Volume) -> Saved:
    """What was seen of links and sessions, as it was saved; nothing when it cannot be read."""
    try:
        return msgspec.json.decode(read_whole(volume, FOLDER, _SEEN, MAX_BYTES + 1) or b"", type=Saved)
    except NOT_JSON:
        return Saved()


def save_seen(volume: Volume, saved: bytes) -> None:
    """Save what was seen; nothing rests on it.

    Raises:
        OSError: as the system calls do.
    """
    replace_whole(volume, FOLDER, _SEEN, saved)


def load_clients(volume: Volume) -> bytes | None:
    """Who was connected (`clients.py`), None when nobody has ever said."""
    return read_whole(volume, FOLDER, _CLIENTS, MAX_BYTES + 1)


def save_clients(volume: Volume, clients: bytes) -> None:
    """Save who is connected; only how soon they notice a failover rests on it.

    Raises:
        OSError: as the system calls do.
    """
    replace_whole(volume, FOLDER, _CLIENTS, clients)


def save_usage(volume: Volume, usage: Usage) -> None:
    """Save a count; nothing rests on it but the time until the next one is done.

    Raises:
        OSError: as the system calls do.
    """
    replace_whole(
        volume, FOLDER, _USAGE, msgspec.json.encode(_SavedUsage(dict(usage.users), dict(usage.shares))) + b"\n"
    )
